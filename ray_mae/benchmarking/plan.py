"""What a suite fits: its tasks with their labels fixed, its cells, and the keys of all fits."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_mae.benchmarking.agreement import repeated, scanner_attribute
from ray_mae.benchmarking.fixed import fixed_settings
from ray_mae.benchmarking.fusion import BY_LOGITS, samples_with
from ray_mae.benchmarking.records import ALL, Cell, FitKey, SampleTable
from ray_mae.benchmarking.samples import (
    LabelSet,
    fix_labels,
    read_samples,
    read_targets,
    with_targets,
)
from ray_mae.benchmarking.sources import IMAGELESS, Source, sources_of
from ray_mae.checkpoint.format import fingerprint
from ray_mae.config.base import to_dict
from ray_mae.config.suite import HEADS as HEAD_NAMES
from ray_mae.config.suite import SuiteConfig, TaskEntry
from ray_mae.data.schema import NOUNS, Manifest
from ray_mae.evaluate.heads.registry import HEADS, suiting

FINETUNE, SEGMENT = "finetune", "segment"
FIT = ("train", "val")
"""Splits whose labels `fit` may read."""
MANY = 10_000
"""Labelled studies above which three draws are taken, as all hardly differ."""
FEW_DRAWS = 3
BASELINES = 2
"""Version of what those of metadata and pixels are given: raised where they would be given other samples."""
FUSION = 2
"""Version of how heads whose logits are averaged over views are chosen."""
SETTINGS_OF = {
    "linear": ("C",),
    "knn": ("k",),
    "ridge": ("alpha",),
    "cox": ("alpha",),
    "attentive": ("lr", "weight_decay", "attentive_steps", "grid"),
    FINETUNE: ("finetune",),
    SEGMENT: ("segment",),
}
"""Settings of `heads` that a head depends on; of others none."""


@dataclass(frozen=True)
class Suite:
    """A suite whose data sets were looked at, but for the labels of test patients."""

    config: SuiteConfig
    samples: dict[str, SampleTable]
    """By data set, with targets of training and validation patients."""
    label_sets: dict[str, LabelSet]
    """By task."""
    sources: dict[tuple[str, str], list[Source]]
    """By encoder and kind of sample; empty where it sees no image."""
    kinds: dict[str, str]
    """study or volume, by data set."""
    unreadable: dict[tuple[str, str], str] = field(default_factory=dict)
    """By encoder and kind of sample: why it reads none of that kind."""

    def kind_of(self, task: str) -> str:
        return self.kinds[self.config.tasks[task].dataset]

    def runs_of(self, encoder: str, task: str) -> int:
        """How many seeds of the pretraining an encoder has; 0 where it does not read such samples."""
        if self.config.encoders[encoder].kind in IMAGELESS:
            return 1
        return len(self.sources.get((encoder, self.kind_of(task)), ()))


def look(config: SuiteConfig) -> Suite:
    """Reads who is in the data sets, fixes the labels of every task, and finds the encoders.

    Raises:
        FileNotFoundError, ValueError: something of the suite is not there, or does not go together.
    """
    kinds = {name: Manifest.read(entry.shards).kind for name, entry in config.datasets.items()}
    samples = {name: read_samples(entry) for name, entry in config.datasets.items()}
    label_sets: dict[str, LabelSet] = {}
    for name, task in config.tasks.items():
        entry, table = config.datasets[task.dataset], samples[task.dataset]
        _check_task(config, name, kinds, samples)
        targets, names, none = read_targets(entry, table, task, FIT, None)
        label_sets[name] = fixed = fix_labels(table, task, targets, names, none)
        if not fixed.names:
            reasons = "; ".join(
                f"{label}: {why}" for label, why in list(fixed.left_out.items())[:3]
            )
            raise ValueError(f"tasks.{name} has no label with patients enough ({reasons})")
        for label in task.macro:
            if label not in (*names, *none):
                raise ValueError(
                    f"tasks.{name}.macro: {label!r} is none of its labels ({', '.join(names)})"
                )
        columns = [names.index(label) for label in fixed.names]
        samples[task.dataset] = with_targets(table, name, targets[:, columns], fixed.names)
    if (repeats := config.trust.repeats) is not None:
        _check_repeats(samples[repeats], repeats)
    sources: dict[tuple[str, str], list[Source]] = {}
    unreadable: dict[tuple[str, str], str] = {}
    wanted = {kinds[task.dataset] for task in config.tasks.values()}
    wanted |= {kinds[repeats]} if repeats is not None else set()
    for name in config.encoders:
        errors = []
        for kind in sorted(wanted):
            try:
                sources[name, kind] = sources_of(config, name, kind)
            except ValueError as error:  # it may read the other kind
                errors.append(error)
                unreadable[name, kind] = f"{error}"
        if len(errors) == len(wanted):
            raise errors[0]
    return Suite(config, samples, label_sets, sources, kinds, unreadable)


def _check_task(
    config: SuiteConfig, name: str, kinds: dict[str, str], samples: dict[str, SampleTable]
) -> None:
    """Raises ValueError where a task could not be fitted or tested, whatever its labels are."""
    task = config.tasks[name]
    heads = task.heads or config.heads.use
    if task.kind == "segmentation":
        if kinds[task.dataset] != "volume":
            raise ValueError(
                f"tasks.{name}: segmentation is of volumes, and {task.dataset} holds "
                f"{NOUNS[kinds[task.dataset]]}"
            )
    elif not suiting(heads, task.kind) and not (task.kind == "labels" and FINETUNE in heads):
        there = ", ".join(suiting(list(HEAD_NAMES), task.kind))
        raise ValueError(
            f"tasks.{name}: none of its heads ({', '.join(heads)}) is for tasks of kind {task.kind}; there "
            f"are {there}"
        )
    needed = [(task.dataset, "train"), (task.dataset, "val")]
    for dataset, split in [*needed, *((test, "test") for test in task.tested_on)]:
        if not (samples[dataset].split == split).any():
            raise ValueError(f"tasks.{name}: {dataset} has no patient in the split {split}")
    for dataset in task.tested_on:
        if kinds[dataset] != kinds[task.dataset]:
            raise ValueError(
                f"tasks.{name}.test: {dataset} holds {NOUNS[kinds[dataset]]}, and {task.dataset} "
                f"{NOUNS[kinds[task.dataset]]}"
            )


def _check_repeats(table: SampleTable, name: str) -> None:
    """Raises ValueError where no agreement over scanners could be measured once the test is opened."""
    scanner = table.attributes.get(scanner_attribute(table.attributes, name), np.empty(0))
    known = np.array([value is not None for value in scanner])
    repeated(table.patient[known], scanner[known].astype(str))


def unknown_attributes(suite: Suite) -> list[str]:
    """Sentences for attributes of `trust` that no data set has: nothing will be told of them."""
    trust = suite.config.trust
    there = {name for table in suite.samples.values() for name in table.attributes}
    return [
        f"trust: no data set has the attribute {name!r}; there are {', '.join(sorted(there)) or 'none'}"
        for name in dict.fromkeys([*trust.subgroups, *trust.knows])
        if name not in there
    ]


# -------------------------------------------------------------------------------------------- cells


def keys_of(suite: Suite) -> list[FitKey]:
    """Returns the keys of all fits, in the order of the suite."""
    return [
        key
        for name, task in suite.config.tasks.items()
        if task.kind != "segmentation"
        for key in _of_task(suite, name)
    ]


def _of_task(suite: Suite, name: str) -> Iterator[FitKey]:
    config, task = suite.config, suite.config.tasks[name]
    heads = suiting(config.heads.use if task.heads is None else task.heads, task.kind)
    for held_out in held_out_values(suite, name):
        for views in views_of(suite, name):
            for head in heads:
                entry = HEADS[head]
                if not suits_views(entry.needs, views):
                    continue
                for encoder in config.encoders:
                    if not _has(suite, encoder, name, head):
                        continue
                    for pretraining in range(suite.runs_of(encoder, name)):
                        if entry.per_shots:
                            for shots in config.heads.shots:
                                cell = Cell(name, head, views, shots, "full", held_out)
                                for seed in range(config.heads.tries):
                                    yield FitKey(cell, encoder, pretraining, seed, seed)
                            continue
                        for studies, validation, draws in _points(suite, name, views, held_out):
                            cell = Cell(name, head, views, studies, validation, held_out)
                            for draw in range(draws):
                                yield FitKey(cell, encoder, pretraining, draw, 0)


def _has(suite: Suite, encoder: str, task: str, head: str) -> bool:
    """Whether an encoder has a row for a head."""
    kind = suite.config.encoders[encoder].kind
    if kind == "scratch":
        return False  # it has that of fine-tuning alone
    if kind in (*IMAGELESS, "pixels", "histogram") and HEADS[head].needs == "tokens":
        return False
    if kind == "prevalence" and suite.config.tasks[task].kind == "retrieval":
        return False
    return bool(suite.runs_of(encoder, task))


def suits_views(needs: str, views: str) -> bool:
    """Whether a head can fuse views as a condition asks for."""
    if needs == "tokens":
        return views in ("all", "frontal", "lateral", "both_attention")
    return views != "both_attention"


def views_of(suite: Suite, task: str) -> list[str]:
    """Conditions of a task; volumes have one view."""
    if suite.kind_of(task) == "volume":
        return ["all"]
    entry = suite.config.tasks[task]
    return list(entry.views or suite.config.views)


def held_out_values(suite: Suite, name: str) -> list[str]:
    """Values of `leave_out` with training and test patients enough; [""] where nothing is left out.

    Raises:
        ValueError: the data set has no such attribute, or it has one value.
    """
    task = suite.config.tasks[name]
    if task.leave_out is None:
        return [""]
    table = suite.samples[task.dataset]
    if task.leave_out not in table.attributes:
        there = ", ".join(table.attributes) or "none"
        raise ValueError(
            f"tasks.{name}.leave_out: {task.dataset} has no attribute {task.leave_out!r}; there are {there} "
            "(ingest with --attributes)"
        )
    values = table.attributes[task.leave_out]
    found = []
    for value in sorted({str(v) for v in values if v is not None}):
        rows = (values.astype(str) == value) & (table.split == "test")
        if len(np.unique(table.patient[rows])) >= task.least_patients:
            found.append(value)
    if len({str(v) for v in values if v is not None}) < 2 or not found:
        raise ValueError(
            f"tasks.{name}.leave_out: {task.leave_out} has one value alone in {task.dataset}"
        )
    return found


def _points(suite: Suite, name: str, views: str, held_out: str) -> Iterator[tuple[int, str, int]]:
    """Labelled studies, mode of validation and number of draws of the points of a curve."""
    counts, task = suite.config.label_counts, suite.config.tasks[name]
    if task.kind != "retrieval":
        table = suite.samples[task.dataset]
        rows = labelled(suite, name) & (table.split == "train")
        rows &= samples_with(table, views, suite.config.max_views)
        if task.leave_out:
            rows &= table.attributes[task.leave_out].astype(str) != held_out
        there = int(rows.sum())
        for studies in sorted({n for n in counts.studies if n < there}):
            draws = counts.draws if studies <= MANY else min(FEW_DRAWS, counts.draws)
            for validation in counts.validation:
                yield studies, validation, draws
    yield ALL, "full", 1


def labelled(suite: Suite, name: str) -> NDArray[np.bool_]:
    """[S] whether a target of a task is known; of survival both."""
    task = suite.config.tasks[name]
    known = ~np.isnan(suite.samples[task.dataset].targets[name])
    return np.asarray(known.all(axis=1) if task.kind == "survival" else known.any(axis=1))


# ------------------------------------------------------------------------------------------- hashes


def inputs_of(suite: Suite, key: FitKey) -> str:
    """Returns a hash of all that a fit depends on, beside its key."""
    config, task = suite.config, suite.config.tasks[key.cell.task]
    sources = suite.sources.get((key.encoder, suite.kind_of(key.cell.task)), [])
    entry = config.encoders[key.encoder]
    heads = to_dict(config.heads)
    shards = fingerprint(config.datasets[task.dataset].shards)
    values: dict[str, Any] = {
        "source": sources[key.pretraining].key(shards, config.max_views) if sources else entry.kind,
        "shards": shards,
        "entry": [entry.pools, entry.components, entry.columns],
        "task": _of_fit(task),
        "labels": suite.label_sets[key.cell.task].names,
        "head": {name: _of_head(heads[name]) for name in SETTINGS_OF.get(key.cell.head, ())},
        "version": version("ray-mae"),
    }
    if entry.kind in (*IMAGELESS, "pixels"):
        values["baselines"] = BASELINES
    if key.cell.views == BY_LOGITS:
        values["fusion"] = FUSION
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()


def _of_head(values: Any) -> Any:
    """A setting of a head; of fine-tuning without who else is tuned, and how often, of segmentation without
    what its cases are measured by."""
    if not isinstance(values, dict):
        return values
    beside = ("encoders", "studies", "seeds", "tolerance_mm")
    kept = {k: v for k, v in values.items() if k not in beside}
    return {**kept, "seed_of_trials": values["seeds"][0]}


def _of_fit(task: TaskEntry) -> dict[str, Any]:
    """Settings of a task that a fit depends on: not where it is tested, nor what is averaged."""
    values = to_dict(task)
    beside = ["test", "macro", "cohort", "heads", "views", *([] if task.regions else ["regions"])]
    return {k: v for k, v in values.items() if k not in beside}


def hash_of(plan: dict[str, Any]) -> str:
    """Returns the hash of a plan without its own, and without the settings that it does not fix."""
    values = {k: v for k, v in plan.items() if k != "sha256"}
    settings = fixed_settings(plan["suite"])
    seconds = ("embedding_seconds", "pretraining_hours")
    values |= {
        "suite": settings,
        "encoders": {
            name: {k: v for k, v in facts.items() if k not in seconds}
            for name, facts in plan["encoders"].items()
        },
    }
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def counts_of(table: SampleTable) -> dict[str, dict[str, int]]:
    """Samples and patients by split."""
    return {
        split: {
            "samples": int((table.split == split).sum()),
            "patients": len(np.unique(table.patient[table.split == split])),
        }
        for split in ("train", "val", "test")
        if (table.split == split).any()
    }
