"""What is scored of one label, and which interval the test patients allow.

Percentiles of resamples cover too little where a class has few patients: below FEW the interval of an AUROC
is that of its error on the logit, below TOO_FEW there is none, of no metric.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from ray_mae.evaluate.calibration import (
    CALIBRATION,
    TEMPERED,
    measure_calibration,
    measure_tempered,
)
from ray_mae.evaluate.delong import AurocError, clustered, logit_interval
from ray_mae.evaluate.intervals import holm, over_seeds, p_of_difference, without_interval
from ray_mae.evaluate.metrics import METRICS, Estimate, FloatArray, measure

TOO_FEW, FEW = 10, 50
"""Test patients of a label's rarer class: below the first there is no interval, below the second that of
AUROC is from its error on the logit."""
LEAST_USABLE = 0.95
"""Share of the resamples that must hold both classes."""
RATIO = (0.8, 1.25)
"""Error of an AUROC over resamples, divided by that of DeLong: outside these one of them is doubtful."""

SCORES = METRICS | CALIBRATION | TEMPERED
"""Key and printed name of all that is measured of a label."""
SURPLUS = frozenset({"ece", "ece_mass", "ece_tempered"})
"""Those that resamples make larger by chance: see `estimate`."""
BOUNDS = {
    "brier_skill": (-np.inf, 1.0),
    "log_loss": (0.0, np.inf),
    "log_loss_tempered": (0.0, np.inf),
    "slope": (-np.inf, np.inf),
    "intercept": (-np.inf, np.inf),
}
"""What a value cannot leave; 0 and 1 of all others."""


@dataclass(frozen=True)
class Evidence:
    """What the test patients can tell of a label."""

    positive_patients: int
    """With a positive study."""
    negative_patients: int
    """With a negative study."""
    usable: float
    """Share of the resamples that hold both classes; the label is skipped in the others."""
    interval: Literal["percentile", "logit_delong", "none"]
    """Of its AUROC. none: too few to tell, of any metric."""


def evidence_of(target: FloatArray, patient: NDArray, weights: NDArray) -> Evidence:
    """Returns what test patients can tell of a label.

    Args:
        target: [T] 0, 1, or NaN where unknown.
        patient: [T]
        weights: [T, R] of the resamples.
    """
    positive, negative = (len(np.unique(patient[target == c])) for c in (1, 0))
    there = weights > 0
    usable = float((there[target == 1].any(axis=0) & there[target == 0].any(axis=0)).mean())
    rarer = min(positive, negative)
    if rarer < TOO_FEW or usable < LEAST_USABLE:
        return Evidence(positive, negative, usable, "none")
    return Evidence(positive, negative, usable, "logit_delong" if rarer < FEW else "percentile")


@dataclass(frozen=True)
class LabelValues:
    """A label as one model scores it on test patients."""

    value: dict[str, float]
    """By metric."""
    resampled: dict[str, FloatArray]
    """[R] by metric; NaN where a resample cannot tell."""
    error: float
    """Of AUROC, by DeLong; NaN where there is none, or nobody is told apart."""


def score_label(
    target: FloatArray,
    logits: FloatArray,
    patient: NDArray,
    weights: NDArray,
    temperature: float | None = None,
) -> LabelValues:
    """Returns all of SCORES, those of TEMPERED with a temperature alone.

    Args:
        target: [T] in {0, 1}.
        logits: [T] float64: ranked as they are.
        patient: [T]
        weights: [T, R] of the resamples.
        temperature: that validation patients chose.
    """
    with_one = np.concatenate([np.ones((len(target), 1), weights.dtype), weights], axis=1)
    every = measure(target, expit(logits), with_one, score=logits)
    every |= measure_calibration(target, logits, with_one)
    if temperature is not None:
        every |= measure_tempered(target, logits / temperature, with_one)
    missing = np.isnan(every["auroc"])
    for values in every.values():
        values[missing] = np.nan
    alike = np.ptp(logits) == 0
    return LabelValues(
        {metric: float(values[0]) for metric, values in every.items()},
        {metric: values[1:] for metric, values in every.items()},
        np.nan if alike else clustered(target, logits, patient).error,
    )


def label_estimate(
    metric: str,
    values: Sequence[float],
    resampled: Sequence[FloatArray],
    errors: Sequence[float],
    evidence: Evidence | None,
    patients: int,
) -> Estimate:
    """The mean over runs, such as draws or seeds, with the interval that the evidence allows.

    Args:
        metric: its key.
        values: of each run.
        resampled: [R] of each run, in the same resamples of the patients.
        errors: of each run's AUROC by DeLong; NaN where there is none.
        evidence: of the label; None of what is no label, such as a mean over labels.
        patients: that the resamples are drawn from.
    """
    mean = float(np.mean(values))
    if np.isnan(mean) or (evidence and evidence.interval == "none"):
        return without_interval(mean)
    e = over_seeds(
        values,
        resampled,
        patients,
        error=metric in SURPLUS,
        within=BOUNDS.get(metric, (0.0, 1.0)),
    )
    if evidence is None or metric != "auroc" or not e.known:
        return e
    if not 0 < mean < 1:  # no resample differs from it
        return logit_interval(
            AurocError(mean, 0.0, evidence.positive_patients, evidence.negative_patients)
        )
    if evidence.interval == "percentile" or np.isnan(errors).all():
        return e
    if len(values) == 1:
        return logit_interval(
            AurocError(mean, errors[0], evidence.positive_patients, evidence.negative_patients)
        )
    free = over_seeds(values, resampled, patients)
    half = (free.high - free.low) / 2 / (mean * (1 - mean))
    low, high = expit(logit(mean) + np.array([-half, half]))
    return Estimate(mean, float(low), float(high))


def difference_estimate(
    values: Sequence[float],
    resampled: Sequence[FloatArray],
    evidence: Evidence | None,
    patients: int,
) -> Estimate:
    """The mean over runs of differences taken run by run and resample by resample; see `label_estimate`."""
    if evidence and evidence.interval == "none":
        return without_interval(float(np.mean(values)))
    return over_seeds(values, resampled, patients)


@dataclass(frozen=True)
class LabelDifference(Estimate):
    """AUROC of a label from one model less that from another."""

    p: float
    """Two-sided; NaN where the patients or the runs are too few to tell."""
    told_apart: bool
    """Whether it is, with 95 % for all labels together (Holm)."""


def label_differences(
    values: Mapping[str, Sequence[float]],
    resampled: Mapping[str, Sequence[FloatArray]],
    evidence: Mapping[str, Evidence],
    patients: int,
) -> dict[str, LabelDifference]:
    """Returns the differences of all labels.

    Args:
        values: by label, of each run.
        resampled: by label, [R] of each run.
        evidence: by label.
        patients: that the resamples are drawn from.
    """
    p = {
        label: np.nan
        if evidence[label].interval == "none"
        else p_of_difference(values[label], resampled[label], patients)
        for label in values
    }
    told = holm(p)
    found = {}
    for label in values:
        e = difference_estimate(values[label], resampled[label], evidence[label], patients)
        found[label] = LabelDifference(e.value, e.low, e.high, p[label], told[label])
    return found


def doubtful(values: LabelValues, evidence: Evidence) -> float | None:
    """The error of AUROC over resamples divided by DeLong's, where this is outside RATIO; else None."""
    if evidence.interval == "none" or not values.error > 0:
        return None
    ratio = float(np.nanstd(values.resampled["auroc"], ddof=1)) / values.error
    return None if RATIO[0] <= ratio <= RATIO[1] else ratio
