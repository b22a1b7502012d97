"""Volumes and masks from NIfTI (or MGH) files, and the bounds that every volume is held to.

Nothing in here takes memory for voxels before the header was seen to stay within the bounds. What a
file can have wrong ends as QuarantineError, never as a crash.
"""

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError, SpatialImage
from numpy.typing import NDArray

from ray_mae.data.decoding.geometry import Spacing, Volume, size_at
from ray_mae.data.quarantine import QuarantineError, error_text, undecodable

LEAST_SPACING_MM = 0.02
# How far axes may be from right angles. Rotations are stored in float32, and some tools round them.
SHEAR_DEGREES = 0.5


@dataclass(frozen=True)
class Bounds:
    """What a volume's header may say; see VolumeSettings."""

    spacing_mm: Spacing
    max_voxels: int
    min_slices: int
    max_spacing_mm: float
    max_extent_mm: float
    burned_in: Literal["quarantine", "keep"] = "quarantine"
    """See IngestConfig."""

    def check(self, shape: tuple[int, ...], affine: NDArray[np.float64]) -> None:
        """Raise QuarantineError for a grid that no volume of a person has, or that is too large."""
        if len(shape) != 3:
            raise QuarantineError("four-dimensional", f"shape {shape}")
        if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
            raise QuarantineError("no-geometry", "the axes of the affine do not span space")
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        grid = " x ".join(f"{n} at {s:.3g} mm" for n, s in zip(shape, spacing, strict=True))
        if min(shape) < self.min_slices:
            raise QuarantineError("too-few-slices", f"{grid}; at least {self.min_slices}")
        if spacing.min() < LEAST_SPACING_MM or spacing.max() > self.max_spacing_mm:
            raise QuarantineError("implausible-size", grid)
        if (spacing * shape).max() > self.max_extent_mm:
            raise QuarantineError("implausible-size", grid)
        most = max(np.prod(shape), np.prod(size_at(shape, spacing, self.spacing_mm)))
        if most > self.max_voxels:
            raise QuarantineError(
                "too-large", f"{grid}: {most:,} voxels, at most {self.max_voxels:,}"
            )


class LabelsOutOfRange(QuarantineError):
    """A label map with values that are no uint8, such as FreeSurfer's aparc with 1000 and more."""


def read_nifti(path: Path, bounds: Bounds) -> Volume:
    """Read a NIfTI or MGH file, float32. Raises QuarantineError for what can be wrong with it."""
    image = _open(path)
    shape = _spatial_shape(image.shape)
    affine = np.asarray(image.affine, np.float64)
    bounds.check(shape, affine)
    _check_shear(affine)
    return Volume(_values(image, shape, np.dtype(np.float32)), affine)


def _check_shear(affine: NDArray[np.float64]) -> None:
    """Raise QuarantineError where axes are not at right angles: resampling goes along one at a time."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    off = np.degrees(np.arcsin(np.abs(axes.T @ axes - np.eye(3)).clip(0, 1).max()))
    if off > SHEAR_DEGREES:
        raise QuarantineError("sheared", f"axes {off:.1f} degrees off the right angle")


def read_mask(path: Path, bounds: Bounds, name: str) -> Volume:
    """Read a mask or label map, uint8.

    Args:
        path: of the file.
        bounds: of the volume.
        name: for errors, what the mask is for; its path may name a person.

    Raises:
        LabelsOutOfRange: values are no uint8.
        QuarantineError: for everything else that can be wrong with the file.
    """
    try:
        image = _open(path)
        shape = _spatial_shape(image.shape)
        affine = np.asarray(image.affine, np.float64)
        bounds.check(shape, affine)
        values = _values(image, shape, np.dtype(np.float32))
    except QuarantineError as error:
        raise QuarantineError(error.reason, f"{name} mask: {error.detail}") from error
    rounded = np.rint(values)
    if not np.isfinite(values).all() or rounded.min() < 0 or rounded.max() > 255:
        raise LabelsOutOfRange("wrong-range", f"{name} mask: labels must lie between 0 and 255")
    return Volume(rounded.astype(np.uint8), affine)


def _open(path: Path) -> SpatialImage:
    try:
        image = nib.load(path)
    except FileNotFoundError as error:
        raise QuarantineError("missing") from error
    except (ImageFileError, HeaderDataError, EOFError, zlib.error) as error:
        raise QuarantineError("not-a-volume-file", _error_text(error, path)) from error
    except OSError as error:
        if error.errno:
            raise QuarantineError("unreadable", str(error.strerror)) from error
        raise QuarantineError(
            "not-a-volume-file", _error_text(error, path)
        ) from error  # such as a bad gzip file
    except Exception as error:  # damaged headers raise whatever they like
        raise undecodable(error) from error
    if not isinstance(image, SpatialImage):
        raise QuarantineError("not-a-volume-file", type(image).__name__)
    return image


def _error_text(error: Exception, path: Path) -> str:
    """The error's text without the file's name, which nibabel does not quote."""
    return error_text(error).replace(str(path), "the file").replace(path.name, "the file")


def _spatial_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape without further axes of length 1."""
    return shape[:3] if all(n == 1 for n in shape[3:]) else shape


def _values(
    image: SpatialImage, shape: tuple[int, ...], dtype: np.dtype[np.float32]
) -> NDArray[np.float32]:
    try:
        kind = np.dtype(image.get_data_dtype())
        if kind.fields or kind.kind == "c":
            raise QuarantineError(
                "four-dimensional", f"values of type {kind}: colours or complex numbers"
            )
        return np.asarray(image.dataobj, dtype=dtype).reshape(shape)
    except QuarantineError:
        raise
    except Exception as error:  # truncated files, broken compression
        raise undecodable(error) from error
