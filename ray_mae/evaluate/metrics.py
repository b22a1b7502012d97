"""Ranking and calibration of probabilities, with intervals by bootstrap over patients.

A resample is a column of weights: how often each study occurs in it. Every metric takes weights
[S, R] and gives its value in all R resamples at once; the value itself is the column of ones.
AUROC and average precision are scikit-learn's definitions, checked against it in the tests; its
functions score one resample at a time, which takes minutes where this takes a second.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ray_mae.number_text import with_interval

FloatArray = NDArray[np.floating]

METRICS = {
    "auroc": "AUROC",
    "average_precision": "Average precision",
    "brier": "Brier score",
    "ece": "ECE",
}
"""Key and printed name of each metric; the first two are better high, the last two low."""

BINS = 15
_BLOCK = 64  # resamples at a time: at 1000 studies such a block stays in the cache


@dataclass(frozen=True)
class Estimate:
    """A value and its 95 % interval; NaN where there is none."""

    value: float
    low: float
    high: float

    @property
    def known(self) -> bool:
        """Whether there is an interval: none of too few runs, nor where no resample can tell."""
        return not np.isnan(self.low)

    def describe(self) -> str:
        """value [low, high], or the value and that there is no interval"""
        return with_interval(self.value, self.low, self.high)


@dataclass(frozen=True)
class ReliabilityBin:
    """The studies whose probability lies in (low, high]."""

    low: float
    high: float
    studies: int
    probability: float
    """Their mean probability; NaN in an empty bin."""
    positive: float
    """The share of them that is positive; NaN in an empty bin."""


def patient_resamples(patient: ArrayLike, count: int, seed: int) -> NDArray[np.uint16]:
    """Weights [S, R] of `count` resamples of the patients [S], drawn with replacement.

    Studies of a patient are not independent of each other, so a patient comes with all studies
    or with none: as often as it was drawn.
    """
    patients, of_study = np.unique(np.asarray(patient), return_inverse=True)
    n = len(patients)
    draw = np.random.default_rng(seed)
    times = np.stack(
        [np.bincount(draw.integers(n, size=n), minlength=n) for _ in range(count)], axis=1
    ).astype(np.uint16)  # [P, R]
    return times[of_study]


def measure(
    target: FloatArray,
    probability: FloatArray,
    weights: NDArray | None = None,
    *,
    score: FloatArray | None = None,
) -> dict[str, FloatArray]:
    """All METRICS of one label, each [R]; NaN in a resample that holds one class only.

    target: [S] in {0, 1}; probability: [S] in [0, 1]; weights: [S, R], default one column of ones;
    score: [S] what AUROC and average precision rank by, such as the logit: probabilities near 0 and 1 are
    the same number where logits still differ. Default: the probability.
    """
    target = np.asarray(target, np.float64)
    probability = np.asarray(probability, np.float64)
    ranked = probability if score is None else np.asarray(score, np.float64)
    if weights is None:
        weights = np.ones((len(target), 1))
    blocks = []
    for start in range(0, weights.shape[1], _BLOCK):
        w = weights[:, start : start + _BLOCK].astype(np.float64)
        blocks.append(
            np.stack([*_ranking(target, ranked, w), *brier_and_ece(target, probability, w)])
        )
    values = np.concatenate(blocks, axis=1)  # [4, R]
    values[:, np.isnan(values[0])] = np.nan
    return dict(zip(METRICS, values, strict=True))


def _ranking(y: FloatArray, p: FloatArray, w: FloatArray) -> tuple[FloatArray, FloatArray]:
    """AUROC [R] and average precision [R]: one sort of p, then running sums over w [S, R]."""
    order = np.argsort(-p, kind="stable")
    last = np.append(np.flatnonzero(np.diff(p[order])), len(p) - 1)  # [T] end of each tied group
    above = np.cumsum(w[order], axis=0)[last]  # [T, R] studies with at least this probability
    true = np.cumsum((w * y[:, None])[order], axis=0)[last]  # [T, R] positive ones among them
    positives, negatives = true[-1], (above - true)[-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        d_true = np.diff(true, axis=0, prepend=0)
        d_false = np.diff(above, axis=0, prepend=0) - d_true
        # A negative loses to every positive above it, and half to those it is tied with.
        won = np.einsum("tr,tr->r", d_false, true - d_true / 2)
        auroc = won / (positives * negatives)
        # Above some thresholds a resample has no study; d_true is 0 there.
        precision = true / np.maximum(above, 1)
        average_precision = np.einsum("tr,tr->r", d_true, precision) / positives
    return auroc, average_precision


def brier_and_ece(y: FloatArray, p: FloatArray, w: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Brier score [R] and expected calibration error [R] over 15 equal-width bins, of weights w [S, R].

    ECE = sum over bins of n_b / n · |share positive - mean probability| (Guo et al. 2017).
    """
    total = w.sum(axis=0)
    member = (_bin(p) == np.arange(BINS)[:, None]).astype(np.float64)  # [15, S]
    with np.errstate(divide="ignore", invalid="ignore"):
        brier = (p - y) ** 2 @ w / total
        ece = np.abs((member * (y - p)) @ w).sum(axis=0) / total
    return brier, ece


def _bin(p: FloatArray) -> NDArray[np.intp]:
    """Index [S] of the bin (low, high] of each probability; 0 belongs to the first."""
    return np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], p)


def reliability(target: FloatArray, probability: FloatArray) -> list[ReliabilityBin]:
    """The 15 bins of the ECE of one label: target [S] in {0, 1}, probability [S]."""
    edges, index = np.linspace(0, 1, BINS + 1), _bin(probability)
    bins = []
    for b in range(BINS):
        inside = index == b
        n = int(inside.sum())
        bins.append(
            ReliabilityBin(
                low=float(edges[b]),
                high=float(edges[b + 1]),
                studies=n,
                probability=float(probability[inside].mean()) if n else np.nan,
                positive=float(target[inside].mean()) if n else np.nan,
            )
        )
    return bins


def macro(values: FloatArray) -> FloatArray:
    """Mean [R] over the labels of values [L, R], without those that are NaN in a resample."""
    known = ~np.isnan(values)
    n = known.sum(axis=0)
    mean = np.where(known, values, 0).sum(axis=0) / np.maximum(n, 1)
    return np.where(n > 0, mean, np.nan)


def estimate(value: float, resampled: FloatArray, *, error: bool = False) -> Estimate:
    """The value with the 2.5 and 97.5 percentiles of its resampled values [R], NaN left out.

    error: for the ECE. A sum of absolute deviations grows by chance alone, in a resample more
    than in the sample, so that its percentiles can lie above the value. They are moved by the
    mean surplus of the resamples and cut at 0: the interval then shows the spread of an ECE
    measured on this many studies.
    """
    known = resampled[~np.isnan(resampled)]
    if not len(known):
        return Estimate(float(value), np.nan, np.nan)
    low, high = np.quantile(known, [0.025, 0.975])
    if error:
        surplus = known.mean() - value
        low, high = max(low - surplus, 0.0), high - surplus
    return Estimate(float(value), float(low), float(high))
