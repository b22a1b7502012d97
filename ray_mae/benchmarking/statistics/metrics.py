"""Metrics of each kind of task, in all resamples at once.

A resample is a column of weights [S, R]: how often each sample occurs in it. The first column is ones, so
that the value itself is the first of its resampled values.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from ray_mae.evaluate.calibration import CALIBRATION, TEMPERED
from ray_mae.evaluate.metrics import BINS
from ray_mae.evaluate.regression import measure_numbers
from ray_mae.evaluate.survival import SURVIVAL_METRICS, measure_survival

Array = NDArray[np.float64]

NAMES = {
    "auroc": "AUROC",
    "average_precision": "Average precision",
    "brier": "Brier score",
    "ece": "ECE",
    **CALIBRATION,
    **TEMPERED,
    "mae": "Mean absolute error",
    "rmse": "Root mean squared error",
    "r2": "R²",
    "pearson": "Pearson r",
    "error_slope": "Slope of the error on the truth",
    **SURVIVAL_METRICS,
    "mean": "Mean",
    "dice": "Dice",
    "nsd": "NSD",
    "nsd_twice": "NSD at twice the tolerance",
}
OUTLINES = ("dice", "nsd", "nsd_twice")
"""Of a region in a volume that has it, each a mean over patients of the mean over their volumes."""
PRIMARY = {
    "labels": "auroc",
    "number": "mae",
    "survival": "harrell",
    "retrieval": "mean",
    "segmentation": "dice",
}
"""The metric that encoders are compared by, by the task's kind."""
BETTER_LOW = frozenset({"mae", "rmse"})
SHARES = frozenset({"auroc", "average_precision", *SURVIVAL_METRICS})
"""Those between 0 and 1 whose intervals are made on the logit scale where there are few patients."""
SURPLUS = frozenset({"ece", "ece_mass", "ece_tempered"})
"""Those that resamples make larger by chance: see `evaluate.metrics.estimate`."""
BOUNDS = {
    "brier_skill": (-np.inf, 1.0),
    "intercept": (-np.inf, np.inf),
    "log_loss_tempered": (0.0, np.inf),
    "r2": (-np.inf, 1.0),
    "pearson": (-1.0, 1.0),
    "slope": (-np.inf, np.inf),
    "error_slope": (-np.inf, np.inf),
    "mean": (-np.inf, np.inf),
    "log_loss": (0.0, np.inf),
    "mae": (0.0, np.inf),
    "rmse": (0.0, np.inf),
}
"""What a value cannot leave; 0 and 1 of all others."""
CHANCE = {"auroc": 0.5, **dict.fromkeys(SURVIVAL_METRICS, 0.5)}

Measure = Callable[[Array], dict[str, Array]]
"""From values [S] to all metrics, each [1 + R]."""


def resample_weights(patient: NDArray, resamples: int, seed: int) -> NDArray[np.uint16]:
    """Weights [P, 1 + R] of sorted different patients: ones, then how often each resample has drawn them.

    A function of the patients' number, of the resamples and of the seed alone.
    """
    count = len(np.unique(patient))
    draw = np.random.default_rng(seed)
    times = [
        np.bincount(draw.integers(count, size=count), minlength=count) for _ in range(resamples)
    ]
    return np.stack([np.ones(count, int), *times], axis=1).astype(np.uint16)


def measure_of(kind: str, target: Array, weights: NDArray) -> Measure:
    """Returns a function that gives all metrics of one label or number; NaN in resamples that cannot tell.

    What depends on the samples alone is done once, as thousands of fits are measured on them.

    Args:
        kind: of the task. Of segmentation the values are [S, M], a column for each of OUTLINES.
        target: [S], of survival [S, 2] with time and event; of retrieval and segmentation not looked at.
        weights: [S, 1 + R], the first column of ones.
    """
    return _MEASURES[kind](target, weights)


def ranking_of(target: Array, weights: NDArray) -> Callable[[Array], tuple[Array, Array]]:
    """Returns a function from scores [S] to AUROC and average precision, each [R], to six digits.

    Args:
        target: [S] in {0, 1}.
        weights: [S, R]
    """
    ill = target == 1
    positive, negative = weights[ill].astype(np.float32), weights[~ill].astype(np.float32)
    n_positive = positive.sum(0, dtype=np.float64)
    n_negative = negative.sum(0, dtype=np.float64)

    def found(score: Array) -> tuple[Array, Array]:
        of_negative, of_positive = -score[~ill], -score[ill]
        order, below = np.argsort(of_negative, kind="stable"), np.sort(of_negative)
        # [N + 1, R] weight of the k highest negatives
        highest = np.concatenate([np.zeros_like(negative[:1]), np.cumsum(negative[order], axis=0)])
        above = highest[np.searchsorted(below, of_positive, "left")]  # [P, R] false ones, higher
        upto = highest[np.searchsorted(below, of_positive, "right")]  # or tied with it
        by = np.argsort(of_positive, kind="stable")
        last = np.searchsorted(of_positive[by], of_positive, "right") - 1
        true = np.cumsum(positive[by], axis=0)[last]  # [P, R] true ones, as high or higher
        precision = true / np.maximum(true + upto, 1)
        # Sums in double precision: in single they would depend on the order of the additions, which is the
        # machine's.
        lost = np.einsum("pr,pr->r", positive, above + upto, dtype=np.float64)
        precise = np.einsum("pr,pr->r", positive, precision, dtype=np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            auroc = 1 - lost / (2 * n_positive * n_negative)
            return auroc, np.where(np.isnan(auroc), np.nan, precise / n_positive)

    return found


def _labels(target: Array, weights: NDArray) -> Measure:
    """Of logits: far from 0 probabilities tie where logits do not."""
    ill = target == 1
    ranking, every = ranking_of(target, weights), weights.astype(np.float64)

    def found(logit: Array) -> dict[str, Array]:
        p = expit(logit)
        auroc, precision = ranking(logit)
        bins = np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], p)
        rows = np.concatenate(
            [
                (bins == np.arange(BINS)[:, None]) * (target - p),
                [(p - target) ** 2, np.logaddexp(0, np.where(ill, -logit, logit))],
            ]
        )
        sums = (rows @ every) / every.sum(0)  # [17, 1 + R]
        values = {
            "auroc": auroc,
            "average_precision": precision,
            "brier": sums[-2],
            "ece": np.abs(sums[:BINS]).sum(0),
            "log_loss": sums[-1],
        }
        return {name: np.where(np.isnan(auroc), np.nan, v) for name, v in values.items()}

    return found


def _numbers(target: Array, weights: NDArray) -> Measure:
    """See `evaluate.regression`."""

    def found(value: Array) -> dict[str, Array]:
        told = measure_numbers(target, value, weights)
        # The slope of calibration has its name already.
        return {"error_slope" if k == "slope" else k: v for k, v in told.items()}

    return found


def _survival(target: Array, weights: NDArray) -> Measure:
    """See `evaluate.survival`; who is lost is estimated from all of the samples, once for all resamples."""

    def found(risk: Array) -> dict[str, Array]:
        return measure_survival(target[:, 0], target[:, 1], risk, weights)

    return found


def per_patient(weights: NDArray, patient: NDArray) -> NDArray:
    """Weights [S, 1 + R] under which a mean over samples is one over patients, whose samples share theirs."""
    _, of_row, counts = np.unique(patient, return_inverse=True, return_counts=True)
    return np.asarray(weights / counts[of_row][:, None])


def _outlines(_: Array, weights: NDArray) -> Measure:
    """See `per_patient` for the weights."""
    means = _means(_, weights)

    def found(value: Array) -> dict[str, Array]:
        return {name: means(value[:, m])["mean"] for m, name in enumerate(OUTLINES)}

    return found


def _means(_: Array, weights: NDArray) -> Measure:
    """Of samples that have a score each."""
    n = weights.sum(0).astype(np.float64)

    def found(value: Array) -> dict[str, Array]:
        with np.errstate(divide="ignore", invalid="ignore"):
            return {"mean": value @ weights / n}

    return found


_MEASURES: dict[str, Callable[[Array, NDArray], Measure]] = {
    "labels": _labels,
    "number": _numbers,
    "survival": _survival,
    "retrieval": _means,
    "segmentation": _outlines,
}
