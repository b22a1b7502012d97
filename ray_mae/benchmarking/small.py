"""Which tasks are small, as the plan says before a test label is read.

Folds hold patients of the test split, so that all of their fits belong to the opening. What `fit` writes down
is which tasks are small, by what it may know, and the order of the patients, by a keyed hash of their names.
With the labels, which make the folds alike, that order says who is in which: nothing is left to choose once
the labels are read.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from ray_mae.benchmarking.exposure import ExposureSearch, on_ray
from ray_mae.benchmarking.folds import place_of
from ray_mae.benchmarking.plan import FIT, Suite
from ray_mae.benchmarking.records import SampleTable
from ray_mae.benchmarking.samples import TEST


def small_tasks(suite: Suite) -> dict[str, dict[str, Any]]:
    """Returns the tasks that are small, with what the plan says of each; no test label is looked at.

    The rarer class is counted among training and validation patients, and expected in the test split in
    proportion to its patients.
    """
    settings, found = suite.config.small, {}
    if not settings.repeats:
        return {}
    for name, task in suite.config.tasks.items():
        if task.kind == "retrieval" or task.leave_out or task.dataset not in task.tested_on:
            continue
        table = suite.samples[task.dataset]
        patients = sorted({*table.patient.tolist()})
        rarer = _expected_rarer(table, name, task.kind)
        if len(patients) < settings.patients:
            why = f"{len(patients):,} patients, fewer than {settings.patients:,}"
        elif rarer is not None and rarer < settings.rarer:
            why = (
                f"about {rarer:.0f} test patients of the rarer class are to be expected, fewer than "
                f"{settings.rarer}"
            )
        else:
            continue
        seed = suite.config.statistics.seed
        order = "\n".join(sorted(patients, key=lambda p: place_of(p, seed, 0)))
        found[name] = {
            "why": why,
            "folds": settings.folds,
            "repeats": settings.repeats,
            "seed": seed,
            "patients": len(patients),
            "order": hashlib.sha256(order.encode()).hexdigest(),
        }
    return found


def _expected_rarer(table: SampleTable, task: str, kind: str) -> float | None:
    """Test patients of the rarer class of the label that has most; None of numbers."""
    if kind not in ("labels", "survival"):
        return None
    fitted = np.isin(table.split, FIT)
    targets = table.targets[task][fitted]
    columns = targets[:, 1:] if kind == "survival" else targets  # of survival the event
    patient = table.patient[fitted]
    counts = [min(len(np.unique(patient[c == one])) for one in (0, 1)) for c in columns.T]
    tested = len(np.unique(table.patient[table.split == TEST]))
    return max(counts) * tested / max(len(np.unique(patient)), 1)


def exposures_of_folds(suite: Suite, small: Iterable[str]) -> dict[str, dict[str, Any]]:
    """What each pretraining saw of all patients of the small data sets, as folds test all of them.

    Of shards that it was pretrained on itself it has seen the images of the training patients.
    """
    config = suite.config
    names = dict.fromkeys(config.tasks[task].dataset for task in small)
    if not names:
        return {}
    entries = {n: replace(config.datasets[n], role="external") for n in names}
    search = ExposureSearch(entries, on_ray if config.trust.leaks else None)
    found: dict[str, dict[str, Any]] = {}
    for encoder, entry in config.encoders.items():
        found[encoder] = {n: asdict(search.exposure(entry, n)) for n in names}
        for told in found[encoder].values():
            told["samples"] = []  # most of the data set: they are not left out anywhere
    return found
