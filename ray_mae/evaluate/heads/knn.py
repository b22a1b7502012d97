"""Nearest neighbours by cosine: k and the vector chosen on validation patients (Oquab et al. 2023)."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_mae.config.suite import Heads
from ray_mae.evaluate.heads.base import Data, FloatArray, HeadFit, Trial
from ray_mae.evaluate.heads.choice import (
    aurocs,
    best,
    fused,
    is_at_edge,
    mean_absolute_errors,
    mean_known,
    one_class,
    prevalence_logits,
)

TEMPERATURE = 0.07
"""Weights of neighbours are exp(cosine / TEMPERATURE)."""
FLOOR = 1e-6
"""Share added to both classes, so that neighbours of one class have a logit."""
_BLOCK = 512  # queries at a time, against all neighbours


def fit(train: Data, val: Data, labels: list[str], settings: Heads, seed: int) -> HeadFit:
    """See `base.Head`. One k and one vector for all labels; with fewer samples than k, all of them."""
    trials, curves = [], {}
    numbers = train.kind == "number"
    for pool in train.pools:
        found = _neighbours(val.vectors[pool], train, pool, settings.k)  # [m, L, K]
        targets, found = fused(val, found)
        if numbers:
            scores = -mean_known(mean_absolute_errors(targets, found))
        else:
            scores = mean_known(aurocs(targets, found))
        curves[pool] = scores
        trials += [
            Trial({"pool": pool, "k": k}, float(score))
            for k, score in zip(settings.k, scores, strict=True)
        ]
    taken = trials[best(np.array([trial.score for trial in trials])) or 0].settings
    at = settings.k.index(taken["k"])
    constant = [] if numbers else np.flatnonzero(one_class(train.targets)).tolist()
    return HeadFit(
        chosen=dict(taken),
        arrays={},
        trials=trials,
        at_edge=["k"] if is_at_edge(at, curves[taken["pool"]]) else [],
        constant=[labels[i] for i in constant],
        samples_seen=len(train) * len(trials),
    )


def predict(
    chosen: dict[str, Any], arrays: dict[str, NDArray[Any]], data: Data, train: Data
) -> NDArray[np.float32]:
    """See `base.Head`."""
    pool = chosen["pool"]
    return _neighbours(data.vectors[pool], train, pool, [chosen["k"]])[:, :, 0]


def _neighbours(x: FloatArray, train: Data, pool: str, ks: list[int]) -> NDArray[np.float32]:
    """What the k nearest of train say of x [m, D], for each k: logits or numbers [m, L, K]."""
    known = ~np.isnan(train.targets)
    y = np.where(known, train.targets, 0)
    numbers = train.kind == "number"
    default = _train_mean(y, known) if numbers else prevalence_logits(train.targets)
    places = [min(k, len(train)) - 1 for k in ks]
    found = np.empty((len(x), y.shape[1], len(ks)), np.float32)
    for rows, index, weight in _nearest(x, train.vectors[pool], max(places) + 1):
        # [b, L, k] running sums over neighbours, from the nearest
        weighed = (weight[:, :, None] * known[index]).cumsum(axis=1)[:, places].transpose(0, 2, 1)
        positive = (weight[:, :, None] * y[index]).cumsum(axis=1)[:, places].transpose(0, 2, 1)
        there = weighed > 0
        share = positive / np.where(there, weighed, 1)
        value = share if numbers else np.log((share + FLOOR) / (1 - share + FLOOR))
        found[rows] = np.where(there, value, default[:, None])
    return found


def _nearest(
    x: FloatArray, gallery: FloatArray, k: int
) -> Iterator[tuple[slice, NDArray[np.intp], FloatArray]]:
    """Rows of x, and for each the k rows of the gallery with the largest cosine and their weights, [b, k]."""
    others = unit(gallery)
    for start in range(0, len(x), _BLOCK):
        cosine: FloatArray = unit(x[start : start + _BLOCK]) @ others.T
        index = np.argpartition(-cosine, k - 1, axis=1)[:, :k]
        near = np.take_along_axis(cosine, index, axis=1)
        order = np.argsort(-near, axis=1, kind="stable")
        near = np.take_along_axis(near, order, axis=1)
        weight = np.exp((near - near[:, :1]).astype(np.float64) / TEMPERATURE)
        yield slice(start, start + len(cosine)), np.take_along_axis(index, order, axis=1), weight


def unit(x: FloatArray) -> NDArray[np.float32]:
    """x [n, D] with rows of length 1; a row of zeros stays."""
    x = np.asarray(x, np.float32)
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return (x / np.where(length > 0, length, 1)).astype(np.float32)


def _train_mean(y: FloatArray, known: NDArray[np.bool_]) -> NDArray[np.float64]:
    """[L]"""
    mean: NDArray[np.float64] = y.sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return mean
