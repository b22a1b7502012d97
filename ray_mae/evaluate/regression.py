"""Numbers against numbers, such as age: errors and agreement, in all resamples of the patients at once."""

import numpy as np
from numpy.typing import NDArray

from ray_mae.evaluate.metrics import FloatArray

NUMBER_METRICS = {
    "mae": "Mean absolute error",
    "rmse": "Root mean squared error",
    "r2": "R²",
    "pearson": "Pearson's r",
    "slope": "Slope of the error on the truth",
}
"""Key and printed name of each. MAE and RMSE are in the number's unit and better low, R² and r better high.
The slope is 0 where errors do not depend on the truth, and −1 where all are given the mean."""


def measure_numbers(
    target: FloatArray, predicted: FloatArray, weights: NDArray | None = None
) -> dict[str, NDArray[np.float64]]:
    """All NUMBER_METRICS, each [R]; NaN where a resample has fewer than two samples that differ.

    Samples whose target or prediction is NaN do not count.

    Args:
        target: [S]
        predicted: [S]
        weights: [S, R] how often each sample occurs; default: once.
    """
    known = ~np.isnan(target) & ~np.isnan(predicted)
    y, p = np.asarray(target, np.float64)[known], np.asarray(predicted, np.float64)[known]
    w = np.ones((len(y), 1)) if weights is None else weights[known].astype(np.float64)
    # moments about fixed points: those of large numbers that vary little would lose their digits
    y0, p0 = (values.mean() if len(values) else 0.0 for values in (y, p))
    dy, dp, error = y - y0, p - p0, p - y
    with np.errstate(divide="ignore", invalid="ignore"):
        total = w.sum(axis=0)
        mean_y, mean_p, mean_error = (values @ w / total for values in (dy, dp, error))
        squared = error**2 @ w / total
        var_y, var_p = dy**2 @ w / total - mean_y**2, dp**2 @ w / total - mean_p**2
        together = (dy * dp) @ w / total - mean_y * mean_p
        found = {
            "mae": np.abs(error) @ w / total,
            "rmse": np.sqrt(squared),
            "r2": 1 - squared / var_y,
            "pearson": together / np.sqrt(var_y * var_p),
            "slope": ((error * dy) @ w / total - mean_error * mean_y) / var_y,
        }
    varies = _above_rounding(var_y, dy)
    same = ~_above_rounding(var_p, dp)
    for name in ("r2", "pearson", "slope"):
        found[name] = np.where(varies & ~((name == "pearson") & same), found[name], np.nan)
    return found


def _above_rounding(variance: FloatArray, values: FloatArray) -> NDArray[np.bool_]:
    """[R] whether a variance of values [S] is more than what rounding leaves."""
    largest = np.abs(values).max(initial=0)
    return np.asarray(variance > (1e-12 * max(largest, 1e-300)) * max(largest, 1e-300))
