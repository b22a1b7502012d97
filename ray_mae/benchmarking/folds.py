"""Folds over all labelled patients of a small data set: their keys, and who is in which.

A test split of few patients tells little. Where a data set is small, its patients are dealt out to folds,
several times; each fold is tested once by a head that all others but one fitted and that one chose (nested).
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_mae.benchmarking.records import ALL, FitKey
from ray_mae.benchmarking.store import Store
from ray_mae.evaluate.heads.registry import HEADS

FOLDS = "folds"
"""What the validation of such a cell is called, and the folder of its fits. The draw of a key is the fold."""
QUANTILES = 5
"""Groups of a number that folds have as many patients of."""


def fold_keys(keys: Iterable[FitKey], small: Mapping[str, Any], views: str) -> list[FitKey]:
    """Returns one key for each fold of each fit on vectors with all labelled studies and these views."""
    found = []
    for key in keys:
        cell = key.cell
        if cell.task not in small or cell.head not in HEADS:
            continue
        entry = HEADS[cell.head]
        main = (cell.studies, cell.validation, cell.views) == (ALL, "full", views)
        if main and not entry.per_shots and entry.needs != "tokens":
            told = small[cell.task]
            of_folds = replace(cell, validation=FOLDS)
            found += [
                replace(key, cell=of_folds, draw=fold)
                for fold in range(told["folds"] * told["repeats"])
            ]
    return found


def store_of_folds(output: Path) -> Store:
    """Where fits of folds are kept, apart from those of the fixed split."""
    return Store(output / FOLDS)


# --------------------------------------------------------------------------------------------- dealing


def deal(
    patient: NDArray[np.str_],
    targets: NDArray[np.float64],
    kind: str,
    folds: int,
    seed: int,
    repeat: int,
) -> NDArray[np.intp]:
    """Returns the fold [S] of each sample: all of a patient's in one, each with as many of every kind.

    Patients are dealt out one after the other in the order of a keyed hash of their names, those of one kind
    after those of another. The kind is the rarest label that a patient has; of survival whether the event
    came; of a number its fifth.

    Args:
        patient: [S]
        targets: [S, L]; of survival time and event.
        kind: of the task.
        folds: how many.
        seed: of the order.
        repeat: another one is another order.
    """
    names, of = np.unique(patient, return_inverse=True)
    kinds = _kinds(targets, of, len(names), kind)
    hashes = [place_of(name, seed, repeat) for name in names.tolist()]
    order = sorted(range(len(names)), key=lambda i: (kinds[i], hashes[i]))
    fold = np.empty(len(names), np.intp)
    fold[order] = np.arange(len(names)) % folds
    return fold[of]


def place_of(patient: str, seed: int, repeat: int) -> str:
    """Where a patient stands in the order of a repeat."""
    return hashlib.sha256(f"{seed}/{repeat}/{patient}".encode()).hexdigest()


def _kinds(
    targets: NDArray[np.float64], of: NDArray[np.intp], patients: int, kind: str
) -> NDArray[np.intp]:
    """[P] of patients: 0 where nothing is known."""
    known = ~np.isnan(targets)
    if kind == "number":
        total = np.bincount(of, np.where(known, targets, 0)[:, 0], patients)
        count = np.bincount(of, known[:, 0], patients)
        mean = total / np.maximum(count, 1)
        there = np.flatnonzero(count)
        found = np.zeros(patients, np.intp)
        by_rank = there[np.argsort(mean[there], kind="stable")]
        found[by_rank] = 1 + np.arange(len(there)) * QUANTILES // max(len(there), 1)
        return found
    columns = slice(1, 2) if kind == "survival" else slice(None)
    has = np.stack(
        [np.bincount(of, column == 1, patients) > 0 for column in targets[:, columns].T], axis=1
    )
    known_of = np.bincount(of, known[:, columns].any(axis=1), patients) > 0
    rarest_first = np.argsort(has.sum(axis=0), kind="stable")
    found = np.where(known_of, 1, 0)
    for place, column in enumerate(rarest_first[::-1].tolist()):
        found[has[:, column]] = 2 + place  # the rarest is written last
    return found


def split_of_fold(fold: NDArray[np.intp], tested: int, folds: int) -> NDArray[np.str_]:
    """Returns train, val or test of each sample [S]: the next fold after the tested one chooses."""
    chooses = (tested + 1) % folds
    return np.where(fold == tested, "test", np.where(fold == chooses, "val", "train"))
