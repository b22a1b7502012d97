"""Cox's proportional hazards with a ridge penalty: who comes to the event first (Breslow's rule for ties)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from ray_mae.config.suite import Heads
from ray_mae.evaluate.heads.axes import principal_axes, scaling
from ray_mae.evaluate.heads.base import Data, FloatArray, HeadFit, Trial
from ray_mae.evaluate.heads.choice import best, fused, is_at_edge, widened
from ray_mae.evaluate.survival import harrell

RISK = "log hazard ratio"
"""Name of the one column of predictions."""
MAX_STEPS = 500
GRADIENT = 1e-6
"""Largest entry of the gradient, per event, at which a fit has converged."""


def fit(train: Data, val: Data, labels: list[str], settings: Heads, seed: int) -> HeadFit:
    """See `base.Head`. targets: [n, 2] time, and 1 where the event came then, 0 where it had not by then.

    Samples without a time or state are left out. alpha and vector by Harrell's C. Predictions have one
    column, the logarithm of the hazard ratio.

    Raises:
        ValueError: where no training sample has had the event.
    """
    known = ~np.isnan(train.targets).any(axis=1)
    time, event = train.targets[known].T
    if not (event == 1).any():
        raise ValueError(
            f"no training sample has had the event ({labels[1]} is never 1): no hazard can be fitted"
        )
    grid = widened(settings.alpha)[
        ::-1
    ]  # from the strongest penalty, each from where the last one ended
    trials, found, curves = [], [], []
    for pool in train.pools:
        mean, scale = scaling(train.vectors[pool])
        path = cox_path((train.vectors[pool][known] - mean) * scale, time, event == 1, grid)
        x_val = (val.vectors[pool] - mean) * scale
        told = [fused(val, x_val @ w) for w, _ in path]
        scores = [float(harrell(targets[:, 0], targets[:, 1], risk)[0]) for targets, risk in told]
        trials += [
            Trial({"pool": pool, "alpha": alpha}, score)
            for alpha, score in zip(grid, scores, strict=True)
        ]
        found += [(mean, w * scale, done) for w, done in path]
        curves.append(np.array(scores))
    taken = best(np.concatenate(curves))
    if taken is None:
        taken = int(np.argmin(np.abs(np.log(grid))))
    mean, weight, converged = found[taken]
    which, place = divmod(taken, len(grid))
    return HeadFit(
        chosen=dict(trials[taken].settings),
        arrays={"weight": weight, "mean": mean},
        trials=trials,
        at_edge=["alpha"] if is_at_edge(place, curves[which]) else [],
        converged=converged,
        parameters=weight.size,
        samples_seen=int(known.sum()) * len(trials),
        columns=[RISK],
    )


def predict(
    chosen: dict[str, Any], arrays: dict[str, NDArray[Any]], data: Data, train: Data
) -> NDArray[np.float32]:
    """See `base.Head`: [m, 1] logarithms of hazard ratios against the mean training sample."""
    x = data.vectors[chosen["pool"]].astype(np.float64) - arrays["mean"]
    return (x @ arrays["weight"])[:, None].astype(np.float32)


def cox_path(
    x: FloatArray, time: FloatArray, event: NDArray[np.bool_], alpha: list[float]
) -> list[tuple[FloatArray, bool]]:
    """Minimises the negative logarithm of the partial likelihood + alpha / 2 |w|².

    Args:
        x: [n, D]
        time: [n]
        event: [n]
        alpha: strengths of the penalty, falling.

    Returns:
        w [D], and whether it converged, for each alpha.
    """
    order = np.argsort(-time, kind="stable")  # who is at risk stands before
    x, time, event = np.asarray(x, np.float64)[order], time[order], event[order]
    axes = principal_axes(x)
    z = x @ axes
    # last one with the same time: all of them are at risk (Breslow)
    last = np.searchsorted(-time, -time, side="right") - 1
    events = int(event.sum())
    extent = (z**2).mean(axis=0) * events

    def loss(u: FloatArray, unit: FloatArray, ridge: float) -> tuple[float, FloatArray]:
        w = u * unit
        risk = z @ w
        highest = risk.max()
        hazard = np.exp(risk - highest)
        at_risk = np.cumsum(hazard)[last]  # [n]
        value = np.where(event, np.log(at_risk) + highest - risk, 0).sum() + ridge / 2 * w @ w
        # each event takes from everybody at risk their share of the hazard
        share = np.bincount(last, event / at_risk, minlength=len(time))
        slope = hazard * np.cumsum(share[::-1])[::-1] - event
        return float(value), (z.T @ slope + ridge * w) * unit

    path, w = [], np.zeros(z.shape[1])
    for ridge in alpha:
        unit = 1 / np.sqrt(extent + ridge)  # brings all axes to one curvature
        found = minimize(
            *(loss, w / unit),
            args=(unit, ridge),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": MAX_STEPS, "gtol": GRADIENT * events**0.5, "ftol": 1e-12},
        )
        w = found.x * unit
        path.append((axes @ w, bool(found.success)))
    return path
