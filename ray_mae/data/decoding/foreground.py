"""Where the anatomy is in a volume, and whether there is any."""

import numpy as np
from numpy.typing import NDArray

# Air is below this share of the range between the 2nd and 98th percentile (as in FSL's BET).
AIR = 0.1
# Depth below its surface from which anatomy counts as solid, and the grid it is looked at on.
DEPTH_MM = 4.0
COARSE_MM = 2.0
LEAST_COARSE = 16


def foreground(values: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Mask [X, Y, Z] of what is brighter than air, or other than a constant background.

    A background that was set to one value within the range (0 around a z-scored brain) is found
    by its being the most frequent value of the volume's faces.
    """
    faces = np.concatenate([np.take(values, i, a).ravel() for a in range(3) for i in (0, -1)])
    levels, counts = np.unique(faces, return_counts=True)
    background = levels[counts.argmax()]
    if 2 * counts.max() > faces.size and (values < background).mean() > 0.01:
        return np.asarray(values != background)
    low, high = np.percentile(values[_every(values.shape, 1 << 20)], [2, 98])
    return np.asarray(values > low + AIR * (high - low))


def _every(shape: tuple[int, ...], most: int) -> tuple[slice, ...]:
    """Slices that keep about `most` voxels, evenly."""
    step = max(1, round((np.prod(shape) / most) ** (1 / 3)))
    return (slice(None, None, step),) * 3


def extent(
    mask: NDArray[np.bool_], spacing: NDArray[np.float64], margin_mm: float
) -> tuple[tuple[slice, ...], float]:
    """Find the box of the largest connected part, and how much of that part is solid.

    Solid is the share of its voxels that lie at least DEPTH_MM below its surface, single holes
    filled: half and more in heads and brains, little in an empty skull or a grid. Where the volume
    ends there is no surface.

    Args:
        mask: [X, Y, Z] of the anatomy.
        spacing: [3] in mm.
        margin_mm: around the part.

    Returns:
        The box as slices of voxel indices, and the share; an empty box and 0 for an empty mask.
    """
    from scipy import ndimage  # here: every process of a run reads this file, and few call this

    steps = [
        max(1, min(round(COARSE_MM / s), n // LEAST_COARSE))
        for s, n in zip(spacing, mask.shape, strict=True)
    ]
    coarse = mask[tuple(slice(None, None, s) for s in steps)]
    parts, count = ndimage.label(coarse)
    if not count:
        return (slice(0, 0),) * 3, 0.0
    largest = 1 + int(np.bincount(parts.ravel())[1:].argmax())
    part = parts == largest
    coarse_boxes = ndimage.find_objects(part.astype(np.uint8))[0]
    box = []
    for length, step, size, coarse_box in zip(
        mask.shape, steps, spacing, coarse_boxes, strict=True
    ):
        margin = round(margin_mm / size)
        first = max(0, coarse_box.start * step - (step - 1) - margin)
        box.append(slice(first, min(length, coarse_box.stop * step + margin)))
    reach = [
        max(1, round(DEPTH_MM / (s * t))) if n * s > 4 * DEPTH_MM else 0  # a thin slab has no depth
        for n, s, t in zip(mask.shape, spacing, steps, strict=True)
    ]
    filled = ndimage.uniform_filter(part.astype(np.float32), 3, mode="nearest") > 0.5
    deep = ndimage.minimum_filter(filled, size=[2 * r + 1 for r in reach], mode="nearest")
    return tuple(box), float(deep.sum() / part.sum())
