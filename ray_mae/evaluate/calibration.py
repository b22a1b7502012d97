"""Whether probabilities mean what they say, beyond the Brier score and the ECE of `metrics`.

All from logits in float64: a log loss of a probability that has become 1 would be infinite. As in `metrics`
a resample is a column of weights.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit

from ray_mae.evaluate.metrics import BINS, FloatArray, brier_and_ece

CALIBRATION = {
    "brier_skill": "Brier skill",
    "log_loss": "Log loss",
    "ece_mass": "ECE, equal mass",
    "slope": "Slope",
    "intercept": "Intercept",
}
"""Key and printed name. A skill is best high, at most 1; a slope is best at 1, an intercept at 0."""
TEMPERED = {
    "log_loss_tempered": "Log loss, tempered",
    "ece_tempered": "ECE, tempered",
}
"""The same of probabilities after a temperature that validation patients chose."""

HOTTEST = 20.0
"""Temperatures from 1 / HOTTEST to HOTTEST are tried: perfect scores have no best one."""
_STEPS = 50
_BLOCK = 64  # resamples at a time, as in `metrics`


def measure_calibration(
    target: FloatArray, logit: FloatArray, weights: NDArray | None = None
) -> dict[str, FloatArray]:
    """All of CALIBRATION of one label, each [R].

    Slope b and intercept a are those of logit(share positive) = a + b · logit: below 1, predictions are too
    extreme. In resamples they are one step of Newton's from those of the sample itself. NaN where the logits
    part the classes or are all the same: no line fits best.

    Args:
        target: [S] in {0, 1}, of both classes.
        logit: [S]
        weights: [S, R], default one column of ones.
    """
    target, logit = np.asarray(target, np.float64), np.asarray(logit, np.float64)
    if weights is None:
        weights = np.ones((len(target), 1))
    line = _line(target, logit)
    edges = np.unique(np.quantile(logit, np.arange(1, BINS) / BINS))
    member = (np.searchsorted(edges, logit) == np.arange(len(edges) + 1)[:, None]).astype(float)
    blocks = []
    for start in range(0, weights.shape[1], _BLOCK):
        w = weights[:, start : start + _BLOCK].astype(np.float64)
        blocks.append(np.stack(_measured(target, logit, w, member, line)))
    return dict(zip(CALIBRATION, np.concatenate(blocks, axis=1), strict=True))


def _measured(
    y: FloatArray, logit: FloatArray, w: FloatArray, member: FloatArray, line: FloatArray
) -> list[FloatArray]:
    """CALIBRATION [R] of resamples w [S, R]; member: [B, S] which bin a study is in."""
    total = w.sum(axis=0)
    p = expit(logit)
    with np.errstate(divide="ignore", invalid="ignore"):
        prevalence = y @ w / total
        skill = 1 - (p - y) ** 2 @ w / total / (prevalence * (1 - prevalence))
        ece = np.abs((member * (y - p)) @ w).sum(axis=0) / total
        # Newton's step from the line of the sample
        fitted = expit(line[0] + line[1] * logit)
        left, slack = y - fitted, fitted * (1 - fitted)
        g0, g1 = left @ w, (left * logit) @ w
        h00, h01, h11 = (slack * logit**k @ w for k in range(3))
        size = h00 * h11 - h01**2
        intercept = line[0] + (h11 * g0 - h01 * g1) / size
        slope = line[1] + (h00 * g1 - h01 * g0) / size
    return [np.where(np.isfinite(skill), skill, np.nan), _losses(y, logit) @ w / total, ece,
            slope, intercept]  # fmt: skip


def measure_tempered(
    target: FloatArray, logit: FloatArray, weights: NDArray
) -> dict[str, FloatArray]:
    """All of TEMPERED of one label, each [R]: target and tempered logit [S], weights [S, R]."""
    target = np.asarray(target, np.float64)
    losses, p = _losses(target, logit), expit(logit)
    blocks = []
    for start in range(0, weights.shape[1], _BLOCK):
        w = weights[:, start : start + _BLOCK].astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            blocks.append(np.stack([losses @ w / w.sum(0), brier_and_ece(target, p, w)[1]]))
    return dict(zip(TEMPERED, np.concatenate(blocks, axis=1), strict=True))


def _losses(y: FloatArray, logit: FloatArray) -> FloatArray:
    """Log loss of each study, exact however large the logit is."""
    losses: FloatArray = np.logaddexp(0, logit) - y * logit
    return losses


def _line(y: FloatArray, logit: FloatArray) -> FloatArray:
    """Intercept and slope [2] by Newton's method; NaN where there are none."""
    nothing = np.full(2, np.nan)
    positive, negative = logit[y == 1], logit[y == 0]
    if not len(positive) or not len(negative) or np.ptp(logit) == 0:
        return nothing
    if positive.min() >= negative.max() or positive.max() <= negative.min():
        return nothing
    centre, width = logit.mean(), logit.std()
    x = np.stack([np.ones(len(y)), (logit - centre) / width])  # [2, S]
    found = np.array([np.log(y.mean() / (1 - y.mean())), 0.0])
    loss = _losses(y, found @ x).sum()
    for _ in range(_STEPS):
        p = expit(found @ x)
        step = np.linalg.solve((x * (p * (1 - p))) @ x.T, x @ (y - p))
        while (after := _losses(y, (found + step) @ x).sum()) > loss and np.abs(step).max() > 1e-12:
            step = step / 2
        found, loss = found + step, after
        if np.abs(step).max() < 1e-9:
            break
    slope = found[1] / width
    return np.array([found[0] - slope * centre, slope])


def temperature(target: FloatArray, logit: FloatArray) -> float:
    """What logits are to be divided by, so that their log loss is least.

    Args:
        target: [S] in {0, 1}, of validation patients.
        logit: [S]

    Returns:
        1 where they hold one class alone, or where all logits are the same: they cannot tell.
    """
    target, logit = np.asarray(target, np.float64), np.asarray(logit, np.float64)
    if len(np.unique(target)) < 2 or np.ptp(logit) == 0:
        return 1.0
    found = minimize_scalar(
        lambda log_t: _losses(target, logit / np.exp(log_t)).mean(),
        bounds=(-np.log(HOTTEST), np.log(HOTTEST)),
        method="bounded",
    )
    return float(np.exp(found.x))
