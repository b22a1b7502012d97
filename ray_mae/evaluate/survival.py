"""Concordance of risks with the order of events, in all resamples of the patients at once."""

import numpy as np
from numpy.typing import NDArray

from ray_mae.evaluate.metrics import FloatArray

SURVIVAL_METRICS = {"harrell": "Harrell's C", "uno": "Uno's C"}
_BLOCK = 256  # events at a time: their comparisons with all samples are a matrix


def measure_survival(
    time: FloatArray,
    event: FloatArray,
    risk: FloatArray,
    weights: NDArray | None = None,
    train: tuple[FloatArray, FloatArray] | None = None,
) -> dict[str, NDArray[np.float64]]:
    """All SURVIVAL_METRICS, each [R], as `harrell` and `uno` give them."""
    return {
        "harrell": harrell(time, event, risk, weights),
        "uno": uno(time, event, risk, weights, train),
    }


def harrell(
    time: FloatArray, event: FloatArray, risk: FloatArray, weights: NDArray | None = None
) -> NDArray[np.float64]:
    """Harrell's C [R]: of pairs in which it is known who came to the event first, those ranked so by risk.

    Equal risks count half. Samples of which something is NaN do not count; NaN where no pair can be told.

    Args:
        time: [S] of the event, or of the last look.
        event: [S] 1 where the event came at that time, 0 where it had not.
        risk: [S] larger for whoever is to come to it first.
        weights: [S, R] how often each sample occurs; default: once.
    """
    return _concordance(time, event, risk, weights, None)


def uno(
    time: FloatArray,
    event: FloatArray,
    risk: FloatArray,
    weights: NDArray | None = None,
    train: tuple[FloatArray, FloatArray] | None = None,
) -> NDArray[np.float64]:
    """Uno's C [R]: Harrell's, each pair weighed so that it does not depend on who was lost to follow-up.

    A pair counts as one by the square of the probability of not being lost before its event (Uno et al.
    2011). Events at times up to which nobody of `train` was followed do not count.

    Args:
        time, event, risk, weights: as of `harrell`.
        train: times and events that this probability is estimated from; default: these, all of them, so
            that it is the same in all resamples.
    """
    of_time, of_event = train if train is not None else (time, event)
    known = ~np.isnan(of_time) & ~np.isnan(of_event)
    left = followed(of_time[known], of_event[known], np.asarray(time, np.float64))
    with np.errstate(divide="ignore"):
        importance = np.where(left > 0, 1 / left**2, 0)
    return _concordance(time, event, risk, weights, importance)


def followed(time: FloatArray, event: FloatArray, at: FloatArray) -> NDArray[np.float64]:
    """Kaplan and Meier's estimate [T] of the probability to be followed still just before each of `at` [T].

    Args:
        time: [S]
        event: [S] 0 where the follow-up ended.
        at: times.
    """
    moments, of = np.unique(time, return_inverse=True)
    lost = np.bincount(of, event == 0, minlength=len(moments))
    came = np.bincount(of, event == 1, minlength=len(moments))
    there = len(time) - np.concatenate([[0], np.cumsum(lost + came)[:-1]])
    # whoever came to the event at that time was not lost then
    at_risk = np.maximum(there - came, 1)
    left = np.concatenate([[1.0], np.cumprod(1 - lost / at_risk)])
    return np.asarray(left[np.searchsorted(moments, at, side="left")])


def _concordance(
    time: FloatArray,
    event: FloatArray,
    risk: FloatArray,
    weights: NDArray | None,
    importance: FloatArray | None,
) -> NDArray[np.float64]:
    known = ~np.isnan(time) & ~np.isnan(event) & ~np.isnan(risk)
    time, event, risk = (np.asarray(a, np.float64)[known] for a in (time, event, risk))
    w = np.ones((len(time), 1)) if weights is None else weights[known].astype(np.float64)
    first = np.flatnonzero(event == 1)
    of_event = np.ones(len(first)) if importance is None else importance[known][first]
    won, pairs = np.zeros(w.shape[1]), np.zeros(w.shape[1])
    for start in range(0, len(first), _BLOCK):
        rows = first[start : start + _BLOCK]
        # one who was lost at the time of an event outlived it
        later = (time > time[rows, None]) | ((time == time[rows, None]) & (event == 0))
        right = (risk[rows, None] > risk) + 0.5 * (risk[rows, None] == risk)
        times = w[rows] * of_event[start : start + _BLOCK, None]
        pairs += (times * (later.astype(np.float64) @ w)).sum(axis=0)
        won += (times * ((later * right) @ w)).sum(axis=0)
    return np.where(pairs > 0, won / np.where(pairs > 0, pairs, 1), np.nan)
