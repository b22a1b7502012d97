"""How one structure of one volume was outlined: overlap, surfaces, volumes, and lesion by lesion."""

import warnings
from typing import Any

import numpy as np
import torch
from monai.metrics.hausdorff_distance import compute_hausdorff_distance
from numpy.typing import NDArray
from scipy.ndimage import find_objects, generate_binary_structure, label

from ray_mae.evaluate.segment.dice import dice, surface_dice

COLUMNS = (
    "dice", "nsd", "nsd_twice", "hd95_mm", "true_ml", "found_ml",
    "lesions", "lesions_hit", "lesions_false", "tolerance_mm",
)  # fmt: skip
"""What is measured, in the order of the table."""
TOUCHING = generate_binary_structure(3, 3)
"""Voxels of one lesion touch by a face, an edge or a corner."""


def measure_case(
    found: NDArray[np.bool_],
    truth: NDArray[np.bool_],
    *,
    spacing_mm: tuple[float, ...],
    tolerance_mm: float,
) -> dict[str, float]:
    """All columns of one structure in one volume.

    Dice and the surfaces are NaN where the reference is empty: nothing there to be outlined is neither 0
    nor 1. What was found nevertheless stands in found_ml and lesions_false. hd95_mm is NaN, too, where
    nothing was found.

    Args:
        found, truth: [X, Y, Z]
        spacing_mm: between voxels, along each axis.
        tolerance_mm: of nsd; of nsd_twice it is twice as much.
    """
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    lesions = _lesions(found, truth)
    told = {
        "tolerance_mm": tolerance_mm,
        "true_ml": float(truth.sum()) * voxel_ml,
        "found_ml": float(found.sum()) * voxel_ml,
        **lesions,
    }
    if not truth.any():
        return {name: told.get(name, np.nan) for name in COLUMNS}
    a, b = (_inside(one, found | truth).astype(np.uint8) for one in (found, truth))
    told["dice"] = float(dice(a, b, 2)[0])
    for name, times in (("nsd", 1), ("nsd_twice", 2)):
        limits: Any = {"spacing_mm": spacing_mm, "tolerance_mm": times * tolerance_mm}
        told[name] = float(surface_dice(a, b, 2, **limits)[0])
    if found.any():
        one, other = (torch.from_numpy(mask)[None, None] for mask in (a, b))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MONAI calls itself by an argument that it gives up
            distance: Any = compute_hausdorff_distance(
                one, other, include_background=True, percentile=95, spacing=list(spacing_mm)
            )
        told["hd95_mm"] = float(distance[0, 0])
    return {name: told.get(name, np.nan) for name in COLUMNS}


def _inside(mask: NDArray[np.bool_], either: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The part of a mask around where either is, with a voxel of border: surfaces cost by the volume."""
    (box,) = find_objects(either.astype(np.uint8))
    return np.pad(mask[box], 1)


def _lesions(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> dict[str, float]:
    """Connected parts of the truth, those of them that the found touches, and found ones that touch none."""
    of_truth, lesions = label(truth, TOUCHING)
    of_found, there = label(found, TOUCHING)
    both = found & truth
    return {
        "lesions": float(lesions),
        "lesions_hit": float(len(np.unique(of_truth[both]))),
        "lesions_false": float(there - len(np.unique(of_found[both]))),
    }
