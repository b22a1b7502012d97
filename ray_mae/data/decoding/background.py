"""Voxels outside of the anatomy that hold no number, or a number that stands for none."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ray_mae.data.quarantine import QuarantineError

# A lowest value this many times the range of all others below them stands for "nothing measured".
FAR = 10.0


def fill_background(values: NDArray[np.float32]) -> tuple[NDArray[np.float32], bool]:
    """Give the voxels outside that are NaN, minus infinity or a code such as -32768 the value of air.

    Tools that take a skull off write NaN there. Only what hangs together with the volume's faces is
    outside: a hole within the anatomy is damage, as is a slice that is missing between others.

    Args:
        values: [X, Y, Z].

    Returns:
        The values, all finite, and whether some were filled. Air is 0, or the lowest value where there
        are negative ones.

    Raises:
        QuarantineError: values that are no numbers lie within, or there are no others.
    """
    nothing: NDArray[np.bool_] = ~np.isfinite(values)
    if not nothing.any():
        codes = _codes(values)
        if codes is None:
            return values, False
        nothing = codes
    elif nothing.all():
        raise QuarantineError("non-finite", "every voxel")
    elif np.isposinf(values).any():
        raise QuarantineError("non-finite", f"{np.isposinf(values).sum():,} voxels are infinite")
    within = nothing & ~_outside(nothing)
    if within.any():
        raise QuarantineError("non-finite", f"{within.sum():,} voxels within the volume")
    for axis in range(3):
        empty = np.asarray(nothing.all(axis=tuple(a for a in range(3) if a != axis)))
        first, last = np.flatnonzero(~empty)[[0, -1]]
        if gaps := int(empty[first:last].sum()):
            raise QuarantineError("non-finite", f"{gaps} whole slices between others")
    air = min(0.0, float(values[~nothing].min()))
    return np.where(nothing, np.float32(air), values), True


def _outside(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The parts of a mask that touch the faces of the volume."""
    parts, _ = ndimage.label(mask, np.ones((3, 3, 3)))
    faces = [np.take(parts, index, axis).ravel() for axis in range(3) for index in (0, -1)]
    touching = np.unique(np.concatenate(faces))
    return np.isin(parts, touching[touching > 0])


def _codes(values: NDArray[np.float32]) -> NDArray[np.bool_] | None:
    """Where the lowest value is a code for "nothing measured"; None if it is none."""
    low, high = float(values.min()), float(values.max())
    if low >= 0 or not low == values[0, 0, 0] == values[-1, -1, -1]:
        return None
    codes = values == low
    rest = values[~codes]
    if not rest.size or float(rest.min()) - low <= FAR * max(high - float(rest.min()), 1e-6):
        return None
    return codes


def flat_share(values: NDArray[np.float32]) -> float:
    """Of neighbours along an axis that both differ from the most frequent value, how many are equal.

    0 where there are none. Measured: 0.01 to 0.15 in 180 scans of heads, 0.35 in a phantom, 0.8 and
    more in 80 label maps.

    Args:
        values: [X, Y, Z].
    """
    levels, counts = np.unique(values, return_counts=True)
    inside = np.asarray(values != levels[counts.argmax()])
    equal = pairs = 0
    for axis in range(3):
        ahead = (slice(None),) * axis + (slice(1, None),)
        behind = (slice(None),) * axis + (slice(None, -1),)
        both = inside[ahead] & inside[behind]
        pairs += int(both.sum())
        equal += int((both & (values[ahead] == values[behind])).sum())
    return equal / pairs if pairs else 0.0
