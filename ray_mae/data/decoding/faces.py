"""Whether a volume of a head shows a skull, so perhaps a face, or the brain alone; and taking the face out.

Below the bright scalp lies dark bone: going inwards from the surface of the upper head, a head's mean grey
value rises, falls and rises again. A brain that was extracted rises alone, and around it every voxel has one
value. What shows neither (part of a head, another part of the body, CT and other pictures in which bone is
not dark) stays unknown. No face is looked for: a head whose face was removed shows its skull all the same.
Measured by benchmarks/faces.py.
"""

import warnings
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ray_mae.data.decoding.foreground import foreground
from ray_mae.data.decoding.geometry import Volume
from ray_mae.data.quarantine import QuarantineError

Head = Literal["head", "brain", "unknown"]
FaceRule = Literal["keep", "mask", "quickshear", "brain"]

COARSE_MM = 2.0
SHELL_MM = 2.0
"""Thickness of the shells whose mean grey values are compared."""
DEPTH_MM = 24.0
"""The skull lies within so much of the surface."""
BONE = 0.9
"""The mean of the bone over that of what is around it, at most."""
NO_BONE = 0.95
"""The same where there is no bone, at least."""
ONE_VALUE = 0.85
"""Share of the voxels around an extracted brain that have one value, at least."""
LEAST_MM = 100.0
"""What is shorter along an axis is no whole head or brain."""
_FEWEST = 20


def find_head(values: NDArray[np.float32], spacing: NDArray[np.float64]) -> Head:
    """Tell a head with its skull from a brain alone.

    Args:
        values: [X, Y, Z] in RAS order, with the background.
        spacing: [3] in mm.
    """
    steps = [max(1, round(COARSE_MM / s)) for s in spacing]
    coarse = values[tuple(slice(None, None, s) for s in steps)]
    size = spacing * steps
    mask, outside = _filled(foreground(coarse))
    if not outside.any():
        return "unknown"
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    extent = [(part.stop - part.start) * s for part, s in zip(box, size, strict=True)]
    if min(extent) < LEAST_MM:
        return "unknown"
    air = float(np.median(coarse[outside]))
    # where the volume ends there is no surface
    depth = ndimage.distance_transform_edt(np.pad(mask, 1, mode="edge"), sampling=size)
    depth = depth[1:-1, 1:-1, 1:-1]
    middle = (box[2].start + box[2].stop) // 2  # the face and the neck are below
    shells = [
        _mean_of_shell(coarse, depth, middle, k) - air for k in range(int(DEPTH_MM / SHELL_MM))
    ]
    valley = _valley(np.array(shells))
    if valley <= BONE:
        return "head"
    one_value = float((coarse[outside] == air).mean())
    return "brain" if valley >= NO_BONE and one_value >= ONE_VALUE else "unknown"


def take_out(
    image: Volume, mask: NDArray[np.bool_], rule: FaceRule
) -> tuple[Volume, NDArray[np.bool_], Literal["defaced", "brain"]]:
    """Set the voxels of a face to the value of air.

    Args:
        image: [X, Y, Z] in RAS order.
        mask: [X, Y, Z] of the face where the rule is mask, else of the brain.
        rule: mask, quickshear or brain.

    Returns:
        The volume without them, where they were, and what it shows now.

    Raises:
        QuarantineError: the mask is empty or holds everything.
    """
    if not mask.any() or mask.all():
        raise QuarantineError("wrong-mask", f"{mask.mean():.0%} of the voxels")
    if rule == "mask":
        taken = mask
    elif rule == "brain":
        taken = ~mask
    else:
        taken = _in_front_of(mask, image.affine)
    outside = ~foreground(image.values)
    air = np.median(image.values[outside]) if outside.any() else image.values.min()
    values = np.where(taken, np.float32(air), image.values)
    return Volume(values, image.affine), taken, "brain" if rule == "brain" else "defaced"


def _in_front_of(brain: NDArray[np.bool_], affine: NDArray[np.float64]) -> NDArray[np.bool_]:
    """What Quickshear cuts off: in front of and below a plane 10 voxels before the brain's convex hull."""
    from nibabel.nifti1 import Nifti1Image
    from quickshear import quickshear

    whole = Nifti1Image(np.ones(brain.shape, np.uint8), affine)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # NumPy's, of its cross product
        kept = quickshear(whole, Nifti1Image(brain.astype(np.uint8), affine))
    return np.asarray(kept.dataobj) == 0


def _filled(mask: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The largest part of a mask without its holes, and what is outside of it."""
    parts, count = ndimage.label(mask)
    if not count:
        return mask, np.zeros_like(mask)
    part = parts == 1 + int(np.bincount(parts.ravel())[1:].argmax())
    part = ndimage.binary_closing(np.pad(part, 3), iterations=2)[3:-3, 3:-3, 3:-3] | part
    for axis in range(3):  # a nose is open to the air, but in few slices of each direction
        for plane in np.moveaxis(part, axis, 0):
            plane[...] = ndimage.binary_fill_holes(plane)
    return part, ~part


def _mean_of_shell(
    values: NDArray[np.float32], depth: NDArray[np.float64], bottom: int, shell: int
) -> float:
    """NaN of too few voxels."""
    inside = (depth > shell * SHELL_MM) & (depth <= (shell + 1) * SHELL_MM)
    inside[:, :, :bottom] = False
    return float(values[inside].mean()) if inside.sum() >= _FEWEST else float("nan")


def _valley(shells: NDArray[np.float64]) -> float:
    """How low the lowest shell is between two brighter ones, over the darker of the two; 1 without any."""
    known = shells[~np.isnan(shells)]
    if len(known) < 3 or known.max() <= 0:
        return 1.0
    before, after = np.maximum.accumulate(known), np.maximum.accumulate(known[::-1])[::-1]
    rim = np.minimum(before, after)
    return float(np.min(known[rim > 0] / rim[rim > 0]))
