"""Cohorts without files: what coverage is measured on, hundreds of times."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ray_mae.benchmarking.records import Cell, Fit, FitKey
from ray_mae.benchmarking.statistics.metrics import resample_weights
from ray_mae.benchmarking.statistics.results import Cohort, Count, Place
from ray_mae.benchmarking.statistics.scores import Scored, score_place

PLACE, CELL = Place("task", "home", "all"), Cell("task", "linear", "all")


class Memory:
    """What `score_place` asks of stored results."""

    def __init__(self, logits: dict[FitKey, np.ndarray], resamples: int, seed: int = 0) -> None:
        self.logits, self.resamples, self.seed = logits, resamples, seed

    def weights(self, dataset: str, patient: np.ndarray) -> np.ndarray:
        patients, index = np.unique(patient, return_inverse=True)
        return resample_weights(patients, self.resamples, self.seed)[index]

    def values(self, fit: Fit, cohort: Cohort) -> np.ndarray:
        return self.logits[fit.key]


def cohort_of(target: np.ndarray, patient: np.ndarray) -> Cohort:
    """Of targets [S, L]."""
    names = [f"label{i}" for i in range(target.shape[1])]
    counts = {
        name: Count(*(len(np.unique(patient[target[:, i] == one])) for one in (1, 0)), 0, 0)
        for i, name in enumerate(names)
    }
    return Cohort(
        PLACE, "labels", np.arange(len(patient)), patient, target, names, counts,
        list(range(len(names))), {}, 0,
    )  # fmt: skip


def scored(
    cohort: Cohort, logits: dict[str, Sequence[np.ndarray]], resamples: int, seed: int = 0
) -> list[Scored]:
    """Encoders by name, each with the logits [S, L] of its pretraining seeds."""
    keys = {
        FitKey(CELL, name, pretraining=i): values
        for name, runs in logits.items()
        for i, values in enumerate(runs)
    }
    by: dict[str, list[Fit]] = {}
    for key in keys:
        by.setdefault(key.encoder, []).append(Fit(key, cohort.names))
    results: Any = Memory(keys, resamples, seed)
    return score_place(results, cohort, {CELL: by})
