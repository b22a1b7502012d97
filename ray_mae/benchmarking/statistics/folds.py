"""Scores over the folds of small data sets, and differences by the corrected resampled t-test.

A score is the mean over held-out folds, each measured by itself: logits of different fits have different
scales and are not put together. Folds of one data set share most of what they are fitted to, so that the
variance between them says too little of that of their mean: Nadeau and Bengio (2003) add the ratio of those
who are tested to those who fit, Var = s²(1/J + tested/fitted), with J − 1 degrees of freedom.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from ray_mae.benchmarking.folds import fold_keys, store_of_folds
from ray_mae.benchmarking.records import Cell, Fit, FitKey, SampleTable
from ray_mae.benchmarking.statistics import metrics
from ray_mae.benchmarking.statistics.contrasts import Contrast
from ray_mae.benchmarking.statistics.results import SCORED, Place, Results
from ray_mae.benchmarking.statistics.scores import MACRO, cell_columns
from ray_mae.benchmarking.statistics.uncertainty import (
    FEW,
    TOO_FEW,
    TWO_RUNS,
    Component,
    Score,
    as_row,
    components_of_runs,
    equivalent,
    p_value,
    two_runs,
)
from ray_mae.benchmarking.store import Store
from ray_mae.evaluate.intervals import over_components

Array = NDArray[np.float64]
SOURCE = "folds"
"""What the component of variance is called: patients, and the draw of those who fit, in one."""
MISSING = "a fold has no result"


@dataclass(frozen=True)
class FoldScores:
    """What one encoder is worth in one cell, fold by fold."""

    place: Place
    cell: Cell
    encoder: str
    metric: str
    values: Array
    """[P, J] of each pretraining and fold, mean over the labels of which the fold has both classes; NaN where
    a fit has no result."""
    ratio: float
    """Patients who are tested in a fold over those who fit."""
    labels: list[str]
    patients: int
    rarer: int
    """Patients of the rarer class of the label that has most; of numbers all patients."""

    @property
    def complete(self) -> bool:
        return self.values.shape[1] > 1 and not np.isnan(self.values).any()

    def score(self) -> Score:
        """Mean over pretrainings and folds, with its interval."""
        if not self.complete:
            return Score(np.nan, np.nan, np.nan, MISSING, [], 0.0)
        value, components = float(self.values.mean()), components_of(self.values, self.ratio)
        why = TOO_FEW if self.rarer < FEW else TWO_RUNS if two_runs(components) else ""
        if why:
            return Score(value, np.nan, np.nan, why, components)
        if self.metric in metrics.SHARES and 0 < value < 1:
            slope = value * (1 - value)
            on_logit = [(c.variance / slope**2, c.freedom) for c in components]
            e = over_components(float(logit(value)), on_logit)
            return Score(value, float(expit(e.low)), float(expit(e.high)), SOURCE, components)
        within = metrics.BOUNDS.get(self.metric, (0.0, 1.0))
        parts = [(c.variance, c.freedom) for c in components]
        e = over_components(value, parts, within=within)
        return Score(value, e.low, e.high, SOURCE, components)

    def row(self, exposure: str) -> dict[str, Any]:
        """As scores.csv has it."""
        return {
            **cell_columns(self.place, self.cell),
            "encoder": self.encoder,
            "exposure": exposure,
            "label": MACRO,
            "metric": self.metric,
            **as_row(self.score()),
            "fits": self.values.size,
            "n_patients": self.patients,
            "n_labels": len(self.labels),
        }


@dataclass(frozen=True)
class SmallTask:
    """A small task over its folds."""

    name: str
    why: str
    folds: int
    repeats: int
    scores: list[FoldScores] = field(default_factory=list)
    fits: int = 0
    """That the plan names."""
    without: int = 0
    """Of these, that have no result."""


def components_of(values: Array, ratio: float) -> list[Component]:
    """Of the mean of values [P, J] over pretrainings and folds, or of differences of such values."""
    J = values.shape[1]
    spread = float(values.mean(0).var(ddof=1))
    of_folds = Component(SOURCE, spread * (1 / J + ratio), J - 1)
    return [
        of_folds,
        *components_of_runs(np.arange(len(values))[:, None], values.mean(1), ["pretraining"]),
    ]


def compare_folds(a: FoldScores, b: FoldScores, margin: float) -> Contrast | None:
    """The first encoder less the second, fold by fold; None where one has no result."""
    if not (a.complete and b.complete):
        return None
    means = a.values.mean(0), b.values.mean(0)
    components = components_of((means[0] - means[1])[None], a.ratio)
    if len(a.values) == len(b.values):
        paired = (a.values - b.values).mean(1)
        runs = components_of_runs(np.arange(len(paired))[:, None], paired, ["pretraining"])
    else:
        runs = [c for s in (a, b) for c in components_of(s.values, s.ratio)[1:]]
    components += runs
    difference = float(a.values.mean() - b.values.mean())
    few = a.rarer < FEW or two_runs(components)
    e = over_components(difference, [(c.variance, c.freedom) for c in components])
    return Contrast(
        a.place, a.cell, a.encoder, b.encoder, MACRO, a.metric, True, difference,
        np.nan if few else e.low, np.nan if few else e.high, components,
        np.nan if few else p_value(difference, components), np.nan,
        not few and equivalent(difference, components, margin), few,
    )  # fmt: skip


def fold_contrasts(results: Results, tasks: Sequence[SmallTask]) -> Iterator[Contrast]:
    """Those that the plan names, in its order."""
    for a, b in results.suite.contrasts:
        for task in tasks:
            by: dict[Cell, dict[str, FoldScores]] = {}
            for one in task.scores:
                by.setdefault(one.cell, {})[one.encoder] = one
            for here in by.values():
                if a in here and b in here:
                    found = compare_folds(here[a], here[b], results.statistics.margin)
                    if found is not None:
                        yield found


def small_tasks(results: Results) -> list[SmallTask]:
    """Of every task that the plan calls small."""
    small: dict[str, dict[str, Any]] = results.plan.get("small", {})
    store = store_of_folds(results.store.folder)
    keys = fold_keys(results.store.keys(), small, results.suite.views[0]) if small else []
    found = []
    for task, told in small.items():
        mine = [key for key in keys if key.cell.task == task]
        fits = {key: fit for key in mine if (fit := _fit(store, key)) is not None}
        scores = list(_scores(results, store, task, told, fits)) if fits else []
        found.append(
            SmallTask(
                task, told["why"], told["folds"], told["repeats"], scores,
                len(mine), len(mine) - len(fits),
            )
        )  # fmt: skip
    return found


def _fit(store: Store, key: FitKey) -> Fit | None:
    fit = store.read_fit(key) if store.has_fit(key) else None
    return fit if fit is not None and fit.status in SCORED else None


def _scores(
    results: Results, store: Store, task: str, told: Mapping[str, Any], fits: Mapping[FitKey, Fit]
) -> Iterator[FoldScores]:
    entry = results.task(task)
    table = results.tables[entry.dataset]
    labels = results.labels_of_mean(task) if entry.kind == "labels" else table.names[task][:1]
    J = told["folds"] * told["repeats"]
    by_fold: dict[int, dict[FitKey, float]] = {
        fold: _of_fold(store, table, entry.kind, entry.dataset, task, labels, fits, fold)
        for fold in range(J)
    }
    patients, rarer = _counts(table, task, entry.kind, labels)
    cells: dict[tuple[Cell, str], list[FitKey]] = {}
    for key in fits:
        cells.setdefault((key.cell, key.encoder), []).append(key)
    order = list(results.suite.encoders)
    for (cell, encoder), mine in sorted(
        cells.items(), key=lambda at: (at[0][0], order.index(at[0][1]))
    ):
        seeds = sorted({key.pretraining for key in mine})
        values = np.full((len(seeds), J), np.nan)
        for key in mine:
            if key in by_fold[key.draw]:
                values[seeds.index(key.pretraining), key.draw] = by_fold[key.draw][key]
        tellable = [fold for fold in range(J) if by_fold[fold]]
        yield FoldScores(
            Place(task, entry.dataset, cell.views), cell, encoder, metrics.PRIMARY[entry.kind],
            values[:, tellable], 1 / (told["folds"] - 2), labels, patients, rarer,
        )  # fmt: skip


def _of_fold(
    store: Store, table: SampleTable, kind: str, dataset: str, task: str, labels: Sequence[str],
    fits: Mapping[FitKey, Fit], fold: int,
) -> dict[FitKey, float]:  # fmt: skip
    """The primary metric of each fit of a fold, on the samples that all have said something of.

    Empty where no label has both classes among them.
    """
    said = {key: store.predictions(key, dataset, "test") for key in fits if key.draw == fold}
    if not said:
        return {}
    common = set.intersection(*({*p.sample.tolist()} for p in said.values()))
    rows = np.flatnonzero(np.isin(table.sample, sorted(common)))
    targets, names = table.targets[task][rows], table.names[task]
    found: dict[FitKey, list[float]] = {key: [] for key in said}
    for label in labels:
        truth = targets if kind == "survival" else targets[:, names.index(label)]
        known = ~np.isnan(truth.reshape(len(rows), -1)).any(1)
        if kind == "labels" and len(np.unique(truth[known])) < 2:
            continue  # for all encoders alike
        measure = metrics.measure_of(kind, truth[known], np.ones((int(known.sum()), 1)))
        for key, p in said.items():
            index = {sample: i for i, sample in enumerate(p.sample.tolist())}
            at = [index[s] for s in table.sample[rows][known].tolist()]
            column = 0 if kind == "survival" else fits[key].labels.index(label)
            values = p.values[at, column].astype(np.float64)
            found[key].append(float(measure(values)[metrics.PRIMARY[kind]][0]))
    return {key: float(np.mean(values)) for key, values in found.items() if values}


def _counts(table: SampleTable, task: str, kind: str, labels: Sequence[str]) -> tuple[int, int]:
    """Patients with a known target, and those of the rarer class of the label that has most."""
    targets = table.targets[task]
    patients = len(np.unique(table.patient[~np.isnan(targets).all(1)]))
    if kind == "number":
        return patients, patients
    names = table.names[task]
    columns = [1] if kind == "survival" else [names.index(label) for label in labels]
    counts = [
        min(len(np.unique(table.patient[targets[:, i] == one])) for one in (0, 1)) for i in columns
    ]
    return patients, max(counts)
