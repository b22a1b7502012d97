"""Fits of one encoder for one task, as a task of Ray: features and training labels in, files out."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ray_mae.benchmarking.baselines import metadata
from ray_mae.benchmarking.draws import labelled_rows
from ray_mae.benchmarking.features import Cache, Features
from ray_mae.benchmarking.fusion import Inputs, components_of_pixels, samples_with
from ray_mae.benchmarking.records import ALL, Fit, FitKey, Predictions, SampleTable
from ray_mae.benchmarking.store import Store
from ray_mae.checkpoint.format import fingerprint
from ray_mae.config.suite import SuiteConfig
from ray_mae.evaluate.heads.base import Data, Head, HeadFit, Kind
from ray_mae.evaluate.heads.registry import HEADS

BOTH = ("train", "val")
IDENTIFIERS = ("session_id",)
"""Attributes that name a visit: no metadata unless they are asked for."""


@dataclass(frozen=True)
class Group:
    """Fits that share features: one encoder, pretraining, task, condition of views, and what is held out."""

    config: SuiteConfig
    keys: list[FitKey]
    inputs: list[str]
    """Of each key."""
    labels: list[str]
    cache: Cache | None
    """None of an encoder that looks at no image."""

    @property
    def head(self) -> str:
        """That of a key, or the one that stands for a baseline without features."""
        entry = self.config.encoders[self.keys[0].encoder]
        return "prevalence" if entry.kind == "prevalence" else self.keys[0].cell.head


class Problem:
    """The data of a group: who is there, what is known of them, what the head sees."""

    def __init__(
        self,
        group: Group,
        table: SampleTable,
        dataset: str,
        splits: Sequence[str],
        beside: "Problem | None" = None,
    ) -> None:
        """Reads what the head sees.

        Args:
            group: of fits.
            table: of the data set, with targets as far as they may be known.
            dataset: its name.
            splits: whose features are read.
            beside: the problem that was fitted, where what is seen depends on its training samples.
        """
        self.group, self.table = group, table
        first = group.keys[0]
        task = group.config.tasks[first.cell.task]
        self.targets = table.targets[first.cell.task]
        known = ~np.isnan(self.targets)
        self.known = known.all(axis=1) if task.kind == "survival" else known.any(axis=1)
        self.kept = np.ones(len(table.sample), bool)
        self.held_out = np.zeros(len(table.sample), bool)
        if task.leave_out and dataset == task.dataset:
            values = table.attributes[task.leave_out].astype(str)
            self.held_out = values == first.cell.held_out
            self.kept = ~self.held_out
        if beside is None:
            self.inputs = _inputs(group, table, splits, self.fitting)
        else:
            self.inputs = _beside(beside, table, group, splits)

    @property
    def fitting(self) -> NDArray[np.bool_]:
        """[S] training samples, but for what is held out."""
        return np.asarray((self.table.split == "train") & self.kept)

    def rows(self, key: FitKey) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Rows that fit, and rows that choose."""
        cell = key.cell
        usable = self.known & self.inputs.usable & self.kept
        studies = ALL if HEADS[cell.head].per_shots else cell.studies
        return labelled_rows(
            self.table.patient, self.table.split, usable, studies, cell.validation, key.draw
        )

    def tested(self, external: bool) -> NDArray[np.intp]:
        """Test rows that the head can see: those held out, where something is."""
        inside = self.held_out if self.held_out.any() and not external else self.inputs.usable
        return np.flatnonzero((self.table.split == "test") & self.inputs.usable & inside)


def _besides(
    config: SuiteConfig, key: FitKey, table: SampleTable
) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """Attributes that metadata are made of, and the names that the entry gives; never what the task asks."""
    asked = set(config.tasks[key.cell.task].labels)
    columns = config.encoders[key.encoder].columns
    names = [n for n in columns if n not in asked]
    known = {
        n: v
        for n, v in table.attributes.items()
        if n not in asked and (columns or n not in IDENTIFIERS)
    }
    return (known if names or not columns else {}), names


def _inputs(
    group: Group, table: SampleTable, splits: Sequence[str], train: NDArray[np.bool_]
) -> Inputs:
    config, key = group.config, group.keys[0]
    entry, samples = config.encoders[key.encoder], len(table.sample)
    cache = group.cache
    if cache is not None:
        features = cache.read(table.sample, splits, HEADS[key.cell.head].needs == "tokens")
        if entry.kind == "pixels":
            features = components_of_pixels(features, train, entry.components, 0)
        elif entry.kind == "histogram":
            features = Features(
                features.sample, features.view, {"mean": features.vectors["histogram"]}
            )
    else:
        vectors = np.zeros((samples, 1), np.float32)
        if entry.kind == "metadata":
            known, names = _besides(config, key, table)
            vectors = metadata(known, names, np.flatnonzero(train))
        features = _without_images(group, table, vectors)
    views = "all" if group.cache is None else key.cell.views
    pools: list[str] | None = list(entry.pools) if entry.pools else None
    return Inputs(features, table.patient, views, pools, _kind(config, key))


def _without_images(group: Group, table: SampleTable, vectors: NDArray[np.float32]) -> Features:
    """One row for each sample that has the views which encoders of images are shown, as theirs."""
    condition, most = group.keys[0].cell.views, group.config.max_views
    rows = np.flatnonzero(samples_with(table, condition, most))
    return Features(rows, np.zeros(len(rows), np.int8), {"mean": vectors[rows]})


def _kind(config: SuiteConfig, key: FitKey) -> Kind:
    return cast(Kind, config.tasks[key.cell.task].kind)


# ----------------------------------------------------------------------------------------- in a task


def fit_group(group: Group) -> list[str]:
    """Fits what is not there yet; returns the ids, in order. A fit that fails is a row with the reason."""
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(1)
    store = Store(group.config.output)
    dataset = group.config.tasks[group.keys[0].cell.task].dataset
    waiting = [
        (key, inputs)
        for key, inputs in zip(group.keys, group.inputs, strict=True)
        if not is_done(store, key, inputs)
    ]
    try:
        problem = Problem(group, store.samples(dataset, opened=False), dataset, BOTH)
    except ValueError as error:  # metadata that this data set does not have
        for key, inputs in waiting:
            store.forget(key)
            store.write_fit(
                Fit(key, group.labels, status="failed", reason=f"{error}", inputs=inputs)
            )
        return [key.id for key in group.keys]
    with threadpool_limits(1):
        for key, inputs in waiting:
            fit_one(store, problem, key, inputs, dataset)
    return [key.id for key in group.keys]


def is_done(store: Store, key: FitKey, inputs: str) -> bool:
    """Whether a fit of these very inputs is there."""
    return store.has_fit(key) and store.read_fit(key).inputs == inputs


def fit_one(store: Store, problem: Problem, key: FitKey, inputs: str, dataset: str) -> None:
    """Fits one of a problem and writes its row, its arrays and what it says of validation samples."""
    group, began = problem.group, time.perf_counter()
    store.forget(key)
    train, val = problem.rows(key)
    head = HEADS[group.head].head
    facts: dict[str, Any] = {
        "train_studies": len(train),
        "train_patients": len(np.unique(problem.table.patient[train])),
        "val_studies": len(val),
        "inputs": inputs,
    }
    try:
        for rows, what in ((train, "training"), (val, "validation")):
            if not len(rows):
                raise ValueError(f"no {what} sample has a known label and the views that are shown")
        data = problem.inputs.fitted_to(train, problem.targets)
        choose = problem.inputs.fitted_to(val, problem.targets)
        settings = group.config.heads
        if HEADS[key.cell.head].per_shots:
            settings = _with_shots(group.config, key.cell.studies)
        fitted = head.fit(data, choose, group.labels, settings, key.seed)
    except (ValueError, FloatingPointError, np.linalg.LinAlgError) as error:
        failed = Fit(key, group.labels, status="failed", reason=f"{error}", **facts)
        store.write_fit(failed)
        return
    labels = fitted.columns or group.labels
    store.write_head(key, fitted.arrays)
    if group.config.tasks[key.cell.task].kind != "retrieval" and len(val):
        said = problem.inputs.predict(head, fitted, val, problem.targets, data)
        store.write_predictions(
            key, dataset, "val", labels, Predictions(problem.table.sample[val], said)
        )
    store.write_fit(
        Fit(
            key,
            labels,
            status="constant"
            if fitted.constant and len(fitted.constant) == len(labels)
            else "done",
            chosen=fitted.chosen,
            trials=fitted.trials,
            at_edge=fitted.at_edge,
            constant=fitted.constant,
            converged=fitted.converged,
            dimensions=_dimensions(data, fitted),
            parameters=fitted.parameters,
            samples_seen=fitted.samples_seen,
            seconds=round(time.perf_counter() - began, 4),
            **facts,
        )
    )


def _with_shots(config: SuiteConfig, shots: int) -> Any:
    return replace(config.heads, shots=[shots])


def _dimensions(data: Data, fitted: HeadFit) -> int:
    pool = fitted.chosen.get("pool")
    vectors = data.vectors.get(pool) if pool else next(iter(data.vectors.values()), None)
    return 0 if vectors is None else vectors.shape[1]


@dataclass(frozen=True)
class Opening:
    """What predicts test samples once."""

    group: Group
    dataset: str
    """Tested on."""
    cache: Cache | None
    """Of the encoder and that data set."""
    suffix: str = ""
    """Of the data set's name, where its images were changed."""


def predict_group(opening: Opening) -> int:
    """Predicts the test samples of a data set with every fit of a group; returns how many fits did."""
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(1)
    group, config = opening.group, opening.group.config
    store = Store(config.output)
    task = config.tasks[group.keys[0].cell.task]
    name = f"{opening.dataset}{opening.suffix}"
    shards = fingerprint(config.datasets[opening.dataset].shards)
    missing = [
        key
        for key in group.keys
        if store.has_fit(key)
        and store.read_fit(key).status != "failed"
        and not store.has_predictions(key, name, "test", shards)
    ]
    if not missing:
        return 0
    fitted_on = Problem(group, store.samples(task.dataset, opened=False), task.dataset, BOTH)
    external = opening.dataset != task.dataset
    there = replace(group, cache=opening.cache)
    splits = _splits(config, opening.dataset)
    table = store.samples(opening.dataset)
    beside = fitted_on if _needs_training(config, group) else None
    tested = Problem(there, _columns(table, group), opening.dataset, splits, beside)
    rows = tested.tested(external)
    head = HEADS[group.head].head
    with threadpool_limits(1):
        for key in missing:
            fit = store.read_fit(key)
            train, _ = fitted_on.rows(key)
            data = fitted_on.inputs.fitted_to(train, fitted_on.targets)
            found = HeadFit(fit.chosen, store.read_head(key))
            said = _said(head, found, rows, tested, data)
            predictions = Predictions(table.sample[rows], said)
            store.write_predictions(key, name, "test", fit.labels, predictions, shards)
    return len(missing)


def _said(
    head: Head, found: HeadFit, rows: NDArray[np.intp], tested: Problem, train: Data
) -> NDArray[np.float32]:
    return tested.inputs.predict(head, found, rows, tested.targets, train)


def _splits(config: SuiteConfig, dataset: str) -> list[str]:
    external = config.datasets[dataset].role == "external"
    return ["train", "val", "test"] if external else ["test"]


def _columns(table: SampleTable, group: Group) -> SampleTable:
    """The table; without targets of the task (a data set of other labels) with unknown ones."""
    task = group.keys[0].cell.task
    if task in table.targets:
        return table
    unknown = np.full((len(table.sample), len(group.labels)), np.nan)
    return replace(table, targets={**table.targets, task: unknown})


def _needs_training(config: SuiteConfig, group: Group) -> bool:
    """Whether what a head sees of a sample depends on the training samples."""
    return config.encoders[group.keys[0].encoder].kind in ("pixels", "metadata")


def _beside(fitted: Problem, table: SampleTable, group: Group, splits: Sequence[str]) -> Inputs:
    """What a head sees of tested samples, by components or categories of the training samples."""
    config, key = group.config, group.keys[0]
    entry = config.encoders[key.encoder]
    a, b = fitted.table, table
    first = len(a.sample)
    if entry.kind == "metadata":
        known, names = _besides(config, key, a)
        empty = np.full(len(b.sample), None, dtype=object)
        joined = {n: np.concatenate([v, b.attributes.get(n, empty)]) for n, v in known.items()}
        vectors = metadata(joined, names, np.flatnonzero(fitted.fitting))[first:]
        seen = _without_images(group, b, vectors)
        return Inputs(seen, b.patient, "all", kind=_kind(config, key))
    assert fitted.group.cache is not None
    assert group.cache is not None
    of_fit = fitted.group.cache.read(a.sample, ["train"])
    of_test = group.cache.read(b.sample, splits)
    both = Features(
        np.concatenate([of_fit.sample, of_test.sample + first]),
        np.concatenate([of_fit.view, of_test.view]),
        {n: np.concatenate([of_fit.vectors[n], of_test.vectors[n]]) for n in of_fit.vectors},
    )
    train_rows = np.concatenate([fitted.fitting, np.zeros(len(b.sample), bool)])
    reduced = components_of_pixels(both, train_rows, entry.components, 0)
    inside = reduced.sample >= first
    seen = Features(
        reduced.sample[inside] - first,
        reduced.view[inside],
        {"mean": reduced.vectors["mean"][inside]},
    )
    return Inputs(seen, b.patient, key.cell.views, kind=_kind(config, key))
