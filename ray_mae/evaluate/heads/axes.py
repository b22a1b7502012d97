"""Features of one scale, in the axes in which they do not go together."""

import numpy as np

from ray_mae.evaluate.heads.base import FloatArray
from ray_mae.evaluate.probe.scaling import FeatureScaler


def scaling(x: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean and scale [D] of x [n, D]: (x − mean) · scale has deviation 1, or is 0 where nothing varies."""
    scaler = FeatureScaler().fit(x)
    return np.asarray(scaler.mean_, np.float64), 1 / np.asarray(scaler.scale_, np.float64)


def principal_axes(x: FloatArray) -> FloatArray:
    """Axes [D, A] of unit length along which x [n, D] has extent, in the precision of x."""
    n, width = x.shape
    if n >= width:
        squares, axes = np.linalg.eigh((x.T @ x).astype(np.float64))
    else:
        squares, left = np.linalg.eigh((x @ x.T).astype(np.float64))
        axes = x.T @ (left / np.sqrt(np.maximum(squares, np.finfo(np.float32).tiny)))
    # without those that are what rounding of the products leaves
    there = squares > squares.max(initial=0) * np.finfo(x.dtype).eps * max(n, width) ** 0.5
    return axes[:, there].astype(x.dtype)
