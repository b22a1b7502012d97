"""How well a segmentation agrees with the truth: Dice, and Dice of the surfaces within a tolerance."""

import warnings

import numpy as np
import torch
from monai.metrics.surface_dice import compute_surface_dice
from numpy.typing import NDArray

from ray_mae.evaluate.metrics import FloatArray
from ray_mae.evaluate.supervised.comparison import MetricValues

METRICS = {"dice": "Dice", "nsd": "NSD"}
"""Key and printed name; both are better high."""


def dice(prediction: NDArray, truth: NDArray, classes: int) -> FloatArray:
    """[K − 1] for each class but the background; prediction, truth: [X, Y, Z] classes.

    2 |A ∩ B| / (|A| + |B|): 0 where only one of them holds the class, NaN where neither does.
    """
    scores = np.full(classes - 1, np.nan)
    for k in range(1, classes):
        a, b = prediction == k, truth == k
        if total := int(a.sum()) + int(b.sum()):
            scores[k - 1] = 2 * int((a & b).sum()) / total
    return scores


def surface_dice(
    prediction: NDArray,
    truth: NDArray,
    classes: int,
    *,
    spacing_mm: tuple[float, ...],
    tolerance_mm: float,
) -> FloatArray:
    """NSD [K − 1] (Nikolov et al. 2021), by area of the surfaces; 0 and NaN as in `dice`."""
    both = [torch.from_numpy(one.astype(np.int64)) for one in (prediction, truth)]
    hot = [torch.nn.functional.one_hot(x, classes).permute(3, 0, 1, 2)[None] for x in both]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes that are not there: those are NaN
        scores = compute_surface_dice(
            hot[0],
            hot[1],
            class_thresholds=[tolerance_mm] * (classes - 1),
            spacing=spacing_mm,
            use_subvoxels=True,
        )
    return scores[0].double().numpy()


def over_volumes(scores: FloatArray, weights: NDArray) -> MetricValues:
    """Means over test volumes by class; scores [T, K − 1] with NaN, weights [T, R] of resamples."""
    known = ~np.isnan(scores)
    filled = np.where(known, scores, 0.0)

    def mean(w: NDArray) -> FloatArray:  # [T, R] → [K − 1, R]
        n = known.T.astype(float) @ w
        return np.where(n > 0, filled.T @ w / np.maximum(n, 1), np.nan)

    return MetricValues(mean(np.ones((len(scores), 1)))[:, 0], mean(weights.astype(float)))
