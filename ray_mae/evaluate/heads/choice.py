"""What validation chooses: by ranking of logits, of equally good settings the first."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from ray_mae.evaluate.heads.base import Data, FloatArray

WIDENED = 2
"""Steps by which a grid is widened at either end."""
OWN_CHOICE = 30
"""Validation patients of the rarer class from which on a label chooses for itself."""


def widened(values: list[float]) -> list[float]:
    """The rising grid, with two more steps at either end: the same number of trials for whoever is tried.

    A grid of one value is no grid, and stays.
    """
    values = sorted(set(values))
    if len(values) < 2:
        return values
    first, last = values[1] / values[0], values[-1] / values[-2]
    before = [values[0] / first**k for k in range(WIDENED, 0, -1)]
    return [*before, *values, *(values[-1] * last**k for k in range(1, WIDENED + 1))]


def fused(data: Data, said: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Targets and what is said of rows [m, ...]; of views [S, ...], the mean over those of each study."""
    of = data.views_of
    if of is None:
        return data.targets, said
    studies, first, count = np.unique(of, return_index=True, return_counts=True)
    total = np.zeros((len(studies), *said.shape[1:]))
    np.add.at(total, np.searchsorted(studies, of), said)
    return data.targets[first], total / count.reshape(-1, *[1] * (said.ndim - 1))


def aurocs(target: FloatArray, score: FloatArray) -> NDArray[np.float64]:
    """AUROC [L, K] of scores [m, L, K] for targets [m, L]; NaN where a label has one class."""
    found = np.full(score.shape[1:], np.nan)
    for i in range(score.shape[1]):
        known = ~np.isnan(target[:, i])
        y = target[known, i] == 1
        positive, negative = int(y.sum()), int((~y).sum())
        if positive and negative:
            rank = rankdata(score[known, i], axis=0)
            won = rank[y].sum(axis=0) - positive * (positive + 1) / 2
            found[i] = won / (positive * negative)
    return found


def mean_absolute_errors(target: FloatArray, number: FloatArray) -> NDArray[np.float64]:
    """MAE [L, K] of numbers [m, L, K] for targets [m, L]; NaN where none is known."""
    return _mean(np.abs(number - target[:, :, None]), axis=0)


def mean_known(values: FloatArray) -> NDArray[np.float64]:
    """Mean [K] of values [L, K] over the labels that have one; NaN where none has."""
    return _mean(values, axis=0)


def _mean(values: FloatArray, axis: int) -> NDArray[np.float64]:
    known = ~np.isnan(values)
    count = known.sum(axis=axis)
    total = np.where(known, values, 0).sum(axis=axis, dtype=np.float64)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def best(scores: FloatArray) -> int | None:
    """Index of the largest of scores [K], of equal ones the first; None where all are NaN."""
    return None if np.isnan(scores).all() else int(np.nanargmax(scores))


def is_at_edge(chosen: int, scores: FloatArray) -> bool:
    """Whether the best of scores [K] might lie beyond the grid: of a plateau that begins it no one knows."""
    if len(scores) < 2:
        return False
    return chosen == len(scores) - 1 or bool(chosen == 0 and scores[0] > scores[1])


def one_class(targets: FloatArray) -> NDArray[np.bool_]:
    """[L] whether the known of targets [n, L] are all of one class."""
    return ((targets == 1).sum(axis=0) == 0) | ((targets == 0).sum(axis=0) == 0)


def prevalence_logits(targets: FloatArray) -> NDArray[np.float64]:
    """[L] logit of the share of positives among the known, half a sample of each class added."""
    positive, negative = (targets == 1).sum(axis=0), (targets == 0).sum(axis=0)
    return np.log((positive + 0.5) / (negative + 0.5))


def patients_of_rarer_class(data: Data) -> NDArray[np.intp]:
    """[L]"""
    return np.array(
        [
            min(len(np.unique(data.patient[column == state])) for state in (0, 1))
            for column in data.targets.T
        ],
        dtype=np.intp,
    )


def plain(score: Any) -> float:
    """As a Trial has it."""
    return float(score) if score is not None else math.nan
