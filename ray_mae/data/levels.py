"""Grey levels of 8 bits from integers of up to 16, by a function of their values alone."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ray_mae.data.quarantine import Unusable

# Where no window is given, grey values between these percentiles of the pixels fill the range.
LOW, HIGH = 0.5, 99.5


def per_value(
    pixels: NDArray[np.generic],
    display: Callable[[NDArray[np.int_], NDArray[np.int_]], NDArray[np.float64]],
) -> NDArray[np.uint8]:
    """8-bit image [H, W] of integers of up to 16 bits, by a function of their values alone.

    `display` gets each value from the least to the greatest [K] and how often it occurs [K], and
    gives levels in [0, 1]: 65,536 evaluations at most instead of millions.
    """
    low, high = int(pixels.min()), int(pixels.max())
    if low == high:
        raise Unusable("constant", f"every stored value is {low}")
    index = pixels.astype(np.int32) - low
    counts = np.bincount(index.ravel(), minlength=high - low + 1)
    with np.errstate(all="ignore"):
        levels = display(np.arange(low, high + 1), counts)
    return np.asarray(np.rint(255 * levels).astype(np.uint8)[index])


def robust_range(
    real: NDArray[np.float64] | NDArray[np.int_], counts: NDArray[np.int_]
) -> NDArray[np.float64]:
    """Levels in [0, 1]: from the LOW to the HIGH percentile of the pixels, or their whole range."""
    below = np.cumsum(counts) / max(counts.sum(), 1)
    ends = real[np.searchsorted(below, [LOW / 100, HIGH / 100]).clip(max=len(real) - 1)]
    low, high = float(ends.min()), float(ends.max())
    if low == high:
        low, high = float(real.min()), float(real.max())
    return ((real - low) / (high - low)).clip(0, 1)
