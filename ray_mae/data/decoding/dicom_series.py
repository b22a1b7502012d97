"""A DICOM series as a volume: slices ordered by position, geometry checked.

The order is that of the positions along the normal of the slices; numbers and file names say
nothing reliable. What is not one regular volume goes to quarantine with the reason.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ray_mae.data.decoding.dicom import is_dicom
from ray_mae.data.decoding.dicom_frames import (
    Frame,
    SliceFile,
    read_frames,
    read_values,
    voxels_in,
)
from ray_mae.data.decoding.geometry import Volume
from ray_mae.data.decoding.nifti import Bounds
from ray_mae.data.quarantine import QuarantineError

# How far directions may differ (as a cosine), and steps from their median (as a share of it).
SAME_DIRECTION = 1 - 1e-4
UNEVEN = 0.1
# Slices closer than this are at one position.
SAME_POSITION_MM = 1e-3
# The angle between the slices' normal and the way from the first to the last of them.
TILT_DEGREES = 1.0

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def is_series(paths: Sequence[Path]) -> bool:
    """Whether these files are to be read as a DICOM series."""
    if len(paths) > 1:
        return True
    try:
        return is_dicom(paths[0])
    except OSError:
        return False  # the reader of volumes says what is wrong with it


def arrange(files: Sequence[SliceFile]) -> tuple[list[tuple[int, int]], NDArray[np.float64]]:
    """Sort the slices of a series, and check that they are those of one regular volume.

    Args:
        files: in any order.

    Returns:
        (file, frame) of each slice in order, as indices; and the affine [4, 4] that takes [column, row,
        slice] to mm in RAS.

    Raises:
        QuarantineError: they are not.
    """
    if any(file.localizer for file in files):
        raise QuarantineError("localizer")
    slices = [(f, i) for f, file in enumerate(files) for i in range(len(file.frames))]
    frames = [files[f].frames[i] for f, i in slices]
    normals = np.array([_normal(frame) for frame in frames])
    along = np.array([frame.along for frame in frames])
    same = (along[:, :3] @ along[0, :3], along[:, 3:] @ along[0, 3:])
    if min(map(np.min, same)) < SAME_DIRECTION:
        raise QuarantineError("mixed-orientations", f"normals {_few(normals)}")
    sizes = {(file.rows, file.columns) for file in files}
    spacings = np.array([frame.spacing for frame in frames])
    if len(sizes) > 1 or np.ptp(spacings, axis=0).max() > 1e-3 * spacings.min():
        raise QuarantineError("mixed-sizes", f"{len(sizes)} sizes, spacings {_few(spacings)}")
    if len(frames) < 2:
        raise QuarantineError("too-few-slices", "1 slice")

    positions = np.array([frame.position for frame in frames])
    depth = positions @ normals[0]
    order = np.argsort(depth, kind="stable")
    steps = np.diff(depth[order])
    if steps.min() < SAME_POSITION_MM:
        raise QuarantineError(
            "repeated-positions",
            f"{len(frames)} slices at {1 + int((steps >= SAME_POSITION_MM).sum())} positions",
        )
    step = float(np.median(steps))
    if np.abs(steps - step).max() > UNEVEN * step:
        raise QuarantineError(
            "missing-slices", f"steps of {steps.min():.4g} to {steps.max():.4g} mm"
        )
    way = positions[order[-1]] - positions[order[0]]
    tilt = np.degrees(np.arccos(np.clip(way @ normals[0] / np.linalg.norm(way), -1, 1)))
    if tilt > TILT_DEGREES:
        raise QuarantineError("gantry-tilt", f"{tilt:.1f} degrees")

    first = frames[order[0]]
    affine = np.eye(4)
    affine[:3, 0] = np.array(first.along[:3]) * first.spacing[1]
    affine[:3, 1] = np.array(first.along[3:]) * first.spacing[0]
    affine[:3, 2] = way / (len(frames) - 1)
    affine[:3, 3] = first.position
    return [slices[i] for i in order], LPS_TO_RAS @ affine


def check_burned_in(files: Sequence[SliceFile]) -> None:
    """Raise QuarantineError if the header of one does not deny that text is burned in."""
    if count := sum(file.burned_in for file in files):
        raise QuarantineError(
            "burned-in",
            f"BurnedInAnnotation is neither NO nor absent in {count} of {len(files)} files",
        )


def _normal(frame: Frame) -> NDArray[np.float64]:
    return np.cross(frame.along[:3], frame.along[3:])


def _few(rows: NDArray[np.float64]) -> str:
    """The different rows, the first three of them."""
    different = np.unique(rows.round(3), axis=0)
    return ", ".join(str(row.tolist()) for row in different[:3]) + (" …" * (len(different) > 3))


def read_series(paths: Sequence[Path], bounds: Bounds) -> Volume:
    """Read the DICOM series in these files as a volume, float32.

    Args:
        paths: of the files, in any order.
        bounds: of the volume.

    Raises:
        QuarantineError: the files are not one regular volume within the bounds.
    """
    files = [read_frames(path, bounds.max_voxels) for path in paths]
    if voxels_in(files) > bounds.max_voxels:
        raise QuarantineError(
            "too-large", f"{voxels_in(files):,} voxels, at most {bounds.max_voxels:,}"
        )
    if bounds.burned_in == "quarantine":
        check_burned_in(files)
    order, affine = arrange(files)
    shape = (files[0].columns, files[0].rows, len(order))
    bounds.check(shape, affine)
    values = np.empty(shape, np.float32)
    slots: dict[int, list[tuple[int, int]]] = {}
    for k, (file, frame) in enumerate(order):
        slots.setdefault(file, []).append((frame, k))
    for file, where in slots.items():
        read = read_values(paths[file], bounds.max_voxels)
        for frame, k in where:
            if read.shape[1:] != shape[1::-1] or frame >= len(read):
                raise QuarantineError(
                    "undecodable", f"{paths[file].name} holds frames of shape {read.shape}"
                )
            values[:, :, k] = read[frame].T
    return Volume(values, affine)
