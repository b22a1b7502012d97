"""Ridge regression of numbers such as age: all strengths of the penalty from one decomposition."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_mae.config.suite import Heads
from ray_mae.evaluate.heads.axes import principal_axes, scaling
from ray_mae.evaluate.heads.base import Data, FloatArray, HeadFit, Trial
from ray_mae.evaluate.heads.choice import (
    best,
    fused,
    is_at_edge,
    mean_absolute_errors,
    mean_known,
    widened,
)


def ridge_path(x: FloatArray, y: FloatArray, alpha: list[float]) -> tuple[FloatArray, FloatArray]:
    """Minimises Σ (y − w·x − b)² + alpha |w|², as scikit-learn's Ridge does.

    Args:
        x: [n, D]
        y: [n]
        alpha: K strengths.

    Returns:
        w [K, D] and b [K].
    """
    middle, mean = x.mean(axis=0), y.mean()
    x = np.asarray(x - middle, np.float64)
    axes = principal_axes(x)
    z = x @ axes
    squares = (z**2).sum(axis=0)
    w = (z.T @ (y - mean)) / (squares + np.array(alpha)[:, None]) @ axes.T
    return w, mean - w @ middle


def fit(train: Data, val: Data, labels: list[str], settings: Heads, seed: int) -> HeadFit:
    """See `base.Head`. alpha of each number, and one vector, by the mean absolute error in its unit."""
    grid = widened(settings.alpha)
    trials, found = [], []
    for pool in train.pools:
        mean, scale = scaling(train.vectors[pool])
        x, x_val = ((data.vectors[pool] - mean) * scale for data in (train, val))
        weights, biases = [], []
        for y in train.targets.T:
            known = ~np.isnan(y)
            w, b = ridge_path(x[known], y[known], grid)
            weights.append(w)
            biases.append(b)
        w, b = np.stack(weights), np.stack(biases)  # [L, K, D], [L, K]
        said = np.einsum("md,lkd->mlk", x_val, w, optimize=True) + b
        error = mean_absolute_errors(*fused(val, said))
        trials += [
            Trial({"pool": pool, "alpha": alpha}, float(score))
            for alpha, score in zip(grid, -mean_known(error), strict=True)
        ]
        found.append((pool, mean, scale, w, b, error))
    places = [[_chosen(-row, grid) for row in error] for *_, error in found]
    scores = [
        -mean_known(error[np.arange(len(labels)), at][:, None])[0]
        for (*_, error), at in zip(found, places, strict=True)
    ]
    taken = best(np.array(scores)) or 0
    (pool, mean, scale, w, b, error), at = found[taken], places[taken]
    weight = w[np.arange(len(labels)), at] * scale
    return HeadFit(
        chosen={"pool": pool, "alpha": [grid[k] for k in at]},
        arrays={"weight": weight, "bias": b[np.arange(len(labels)), at] - weight @ mean},
        trials=trials,
        at_edge=[
            label for label, k, row in zip(labels, at, error, strict=True) if is_at_edge(k, -row)
        ],
        parameters=weight.size + len(labels),
        samples_seen=len(train) * len(trials),
    )


def predict(
    chosen: dict[str, Any], arrays: dict[str, NDArray[Any]], data: Data, train: Data
) -> NDArray[np.float32]:
    """See `base.Head`: numbers in the target's unit."""
    x = data.vectors[chosen["pool"]].astype(np.float64)
    return (x @ arrays["weight"].T + arrays["bias"]).astype(np.float32)


def _chosen(scores: FloatArray, grid: list[float]) -> int:
    """The best, of equally good ones the strongest penalty; next to 1 where validation knows no number."""
    at = best(scores[::-1])
    return int(np.argmin(np.abs(np.log(grid)))) if at is None else len(grid) - 1 - at
