"""Whether probabilities mean what they say, where the head was fitted and elsewhere.

Temperatures are those of the validation patients of the data set that the head was fitted on, also for tests
elsewhere: whoever takes a head to another hospital has no labels there.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from ray_mae.benchmarking.records import Fit
from ray_mae.benchmarking.statistics.results import Cohort, Results
from ray_mae.benchmarking.statistics.scores import Scored
from ray_mae.evaluate.calibration import measure_calibration, measure_tempered, temperature

Array = NDArray[np.float64]
BINS = 10
"""Of a reliability curve, of as many samples each."""


@dataclass(frozen=True)
class Reliability:
    """Of one label under one encoder and head: bins of as many samples each, mean over fits."""

    scored: Scored
    label: str
    probability: list[float]
    positive: list[float]
    studies: int
    """In a bin, at the least."""


def calibrated(results: Results, scored: Sequence[Scored]) -> Iterator[Scored]:
    """Of label tasks, the same with metrics of calibration, before and after the temperature."""
    for one in scored:
        if one.cohort.kind == "labels" and one.cohort.macro:
            yield _calibrated(results, one)


def _calibrated(results: Results, one: Scored) -> Scored:
    cohort = one.cohort
    weights = results.weights(cohort.place.dataset, cohort.patient)
    shape = len(one.fits), len(cohort.names), weights.shape[1]
    found: dict[str, Array] = {}
    for f, fit in enumerate(one.fits):
        said = results.values(fit, cohort)
        for i in cohort.macro:
            known = cohort.known(i)
            target, logit, w = cohort.truth(i)[known], said[known, i], weights[known]
            told = measure_calibration(target, logit, w)
            heat = temperature_of(results, fit, cohort, i)
            if heat is not None:
                told |= measure_tempered(target, logit / heat, w)
            for metric, values in told.items():
                found.setdefault(metric, np.full(shape, np.nan))[f, i] = values
    return replace(
        one,
        values={metric: v[:, :, 0] for metric, v in found.items()},
        resampled={metric: v[:, :, 1:].mean(0) for metric, v in found.items()},
    )


def temperature_of(results: Results, fit: Fit, cohort: Cohort, column: int) -> float | None:
    """Of one label, from validation patients; None without their predictions."""
    found = results.validation(fit, cohort, column)
    return None if found is None else temperature(*found)


def reliabilities(results: Results, scored: Sequence[Scored]) -> list[Reliability]:
    """Curves of each label of the mean."""
    found = []
    for one in scored:
        if one.cohort.kind != "labels":
            continue
        said = [results.values(fit, one.cohort) for fit in one.fits]
        for i in one.cohort.macro:
            known = one.cohort.known(i)
            target = one.cohort.truth(i)[known]
            count = min(BINS, max(len(target) // 10, 1))
            each = [_bins(target, expit(v[known, i]), count) for v in said]
            x, y = np.mean(each, axis=0)
            found.append(
                Reliability(one, one.cohort.names[i], x.tolist(), y.tolist(), len(target) // count)
            )
    return found


def _bins(target: Array, probability: Array, count: int) -> Array:
    """Mean probability and share positive [2, count], in bins of as many samples each."""
    order = np.array_split(np.argsort(probability, kind="stable"), count)
    return np.array([[values[rows].mean() for rows in order] for values in (probability, target)])
