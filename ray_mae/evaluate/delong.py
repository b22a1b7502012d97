"""The standard error of an AUROC without resamples, where patients have one study or several.

DeLong et al. 1988, with the sums over each patient's studies of Obuchowski 1997: studies of one patient are
not independent of each other. With one study per patient it is the usual one. Its interval on the logit
holds the truth more often than percentiles of resamples where one class has few patients.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import expit, logit
from scipy.stats import norm

from ray_mae.evaluate.metrics import Estimate, FloatArray

_Z = float(norm.ppf(0.975))
_HAIR = 1e-9


@dataclass(frozen=True)
class AurocError:
    """An AUROC, or a difference of two, and its standard error."""

    value: float
    """NaN where a class is missing."""
    error: float
    """NaN where a class has fewer than two patients: nothing tells how far they differ."""
    positive: int = 0
    """Patients with a positive study."""
    negative: int = 0
    """Patients with a negative study."""


def clustered(target: ArrayLike, score: ArrayLike, patient: ArrayLike) -> AurocError:
    """The AUROC of a score.

    Args:
        target: [S] in {0, 1}.
        score: [S] the larger, the more likely positive.
        patient: [S] whose study it is.
    """
    positive: NDArray[np.bool_] = np.asarray(target) == 1
    return _error(positive, *_placements(positive, np.asarray(score, np.float64)), patient)


def paired(target: ArrayLike, a: ArrayLike, b: ArrayLike, patient: ArrayLike) -> AurocError:
    """The AUROC of score `a` less that of score `b` of the same studies; arrays as of `clustered`."""
    positive: NDArray[np.bool_] = np.asarray(target) == 1
    of_a, of_b = (_placements(positive, np.asarray(score, np.float64)) for score in (a, b))
    return _error(positive, of_a[0] - of_b[0], of_a[1] - of_b[1], patient)


def logit_interval(auroc: AurocError) -> Estimate:
    """The 95 % interval of an AUROC, from its error on the logit; within (0, 1).

    Where all positives lie above all negatives, or below, and where all scores are the same, the error is 0
    for want of patients, not of doubt. The interval is then Newcombe's (2006, method 5): all values whose
    own standard error, that of Hanley and McNeil for so many patients, does not make this one unlikely.
    """
    value, error = auroc.value, auroc.error
    if np.isnan(error):
        return Estimate(value, np.nan, np.nan)
    if error == 0 or not 0 < value < 1:
        return _score_interval(auroc)
    half = _Z * error / (value * (1 - value))
    low, high = expit(logit(value) + np.array([-half, half]))
    return Estimate(value, float(low), float(high))


def _placements(target: NDArray[np.bool_], score: FloatArray) -> tuple[FloatArray, FloatArray]:
    """V10 [m], the share of negatives below each positive, ties half, and V01 [n], of positives above."""
    positive, negative = score[target], score[~target]
    above, below = np.sort(positive), np.sort(negative)
    v10 = sum(np.searchsorted(below, positive, side) for side in ("left", "right"))
    v01 = sum(np.searchsorted(above, negative, side) for side in ("left", "right"))
    with np.errstate(invalid="ignore"):
        return v10 / 2 / np.array(len(below)), 1 - v01 / 2 / np.array(len(above))


def _error(
    target: NDArray[np.bool_], v10: FloatArray, v01: FloatArray, patient: ArrayLike
) -> AurocError:
    """From placements of the positives [m] and the negatives [n], in the order of the target [S]."""
    patients, index = np.unique(np.asarray(patient), return_inverse=True)
    count = len(patients)
    m, n = len(v10), len(v01)
    if not m or not n:
        return AurocError(np.nan, np.nan)
    of_positive, of_negative = index[target], index[~target]
    value = float(v10.mean())
    # [I] of each patient, what its studies have more than they would have on average
    d10 = np.bincount(of_positive, v10 - value, count)
    d01 = np.bincount(of_negative, v01 - value, count)
    i10, i01 = len(np.unique(of_positive)), len(np.unique(of_negative))
    if min(i10, i01) < 2:
        return AurocError(value, np.nan, i10, i01)
    s10 = i10 / ((i10 - 1) * m) * (d10**2).sum()
    s01 = i01 / ((i01 - 1) * n) * (d01**2).sum()
    s11 = count / (count - 1) * (d10 * d01).sum()
    variance = s10 / m + s01 / n + 2 * s11 / (m * n)
    # below rounding it is 0: placements are quotients, whose mean need not be hit exactly
    error = float(np.sqrt(variance)) if variance > 1e-24 else 0.0
    return AurocError(value, error, i10, i01)


def _score_interval(auroc: AurocError) -> Estimate:
    """Newcombe's of so many patients of each class; see `logit_interval`."""
    value, m, n = auroc.value, auroc.positive, auroc.negative
    if not m or not n:
        return Estimate(value, np.nan, np.nan)
    more = (m + n) / 2 - 1

    def beyond(truth: float) -> float:
        spread = 1 + more * (1 - truth) / (2 - truth) + more * truth / (1 + truth)
        return (value - truth) ** 2 - _Z**2 * truth * (1 - truth) * spread / (m * n)

    # at 0 and 1 themselves nothing is beyond: a hair within them the search finds the other end
    low = brentq(beyond, 0, min(value, 1 - _HAIR)) if value > 0 else 0.0
    high = brentq(beyond, max(value, _HAIR), 1) if value < 1 else 1.0
    return Estimate(value, float(low), float(high))
