"""Volumes and masks from NIfTI (or MGH) files, and the bounds that every volume is held to.

What a file is, its first bytes say. A header that is wrong in a way that leaves no doubt is mended, and
what was mended is said. A compressed file is read to its end, so that its checksum counts.

Nothing in here takes memory for voxels before the header was seen to stay within the bounds. What a
file can have wrong ends as QuarantineError, never as a crash.
"""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.orientations import axcodes2ornt, inv_ornt_aff
from nibabel.spatialimages import HeaderDataError, SpatialImage
from numpy.typing import NDArray

from ray_mae.data.decoding.compressed import (
    DAMAGE,
    called,
    open_by_content,
    read_exactly,
    read_to_end,
)
from ray_mae.data.decoding.geometry import Spacing, Volume, size_at
from ray_mae.data.quarantine import QuarantineError, error_text, undecodable

LEAST_SPACING_MM = 0.02
# How far axes may be from right angles. Rotations are stored in float32, and some tools round them.
SHEAR_DEGREES = 0.5
HEADER_BYTES = {"nifti1": 348, "nifti2": 540, "mgh": 284}
FIRST_VOXEL = {"nifti1": 352, "nifti2": 544}
MOST_EXTRA_BYTES = 1 << 24
"""Of the extensions before the voxels, and of what lies behind them."""
# Units of NIfTI's xyzt_units other than mm, in mm.
UNITS_MM = {1: 1000.0, 3: 0.001}


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
    four_dimensional: Literal["quarantine", "first"] = "quarantine"
    orientation: str | None = None

    def check(self, shape: tuple[int, ...], affine: NDArray[np.float64]) -> None:
        """Raise QuarantineError for a grid that no volume of a person has, or that is too large."""
        if len(shape) != 3:
            raise QuarantineError(
                "four-dimensional",
                f"shape {shape}; --volumes.four_dimensional first takes the first volume of each (of "
                "diffusion mostly b 0), nibabel.funcs.four_to_three makes a file of each",
            )
        if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
            raise QuarantineError("no-geometry", "the axes of the affine do not span space")
        spacing = _spacing(affine)
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


def read_nifti(path: Path, bounds: Bounds) -> tuple[Volume, list[str]]:
    """Read a NIfTI or MGH file.

    Args:
        path: of the file.
        bounds: of the volume.

    Returns:
        The volume, float32, and what was mended, in words to count.

    Raises:
        QuarantineError: for what can be wrong with it.
    """
    volume, mended = _read(path, bounds)
    _check_shear(volume.affine)
    return volume, mended


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
        volume, _ = _read(path, bounds)
    except QuarantineError as error:
        raise QuarantineError(error.reason, f"{name} mask: {error.detail}") from error
    rounded = np.rint(volume.values)
    if not np.isfinite(rounded).all() or rounded.min() < 0 or rounded.max() > 255:
        raise LabelsOutOfRange("wrong-range", f"{name} mask: labels must lie between 0 and 255")
    return Volume(rounded.astype(np.uint8), volume.affine)


def _spacing(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.linalg.norm(affine[:3, :3], axis=0))


def _read(path: Path, bounds: Bounds) -> tuple[Volume, list[str]]:
    """The values, float32, with their affine; and what was mended."""
    try:
        with open_by_content(path) as (stream, levels):
            mended = [] if levels == _levels_by_suffix(path) else ["compression"]
            start = stream.read(max(HEADER_BYTES.values()))
            header = _Header.of(start)
            mended += header.mend()
            affine, of_affine = header.affine(bounds)
            shape = header.shape
            if len(shape) > 3 and bounds.four_dimensional == "first":
                shape, of_affine = shape[:3], [*of_affine, "four-dimensional"]
            bounds.check(shape, affine)
            if np.prod(header.shape) > bounds.max_voxels:
                raise QuarantineError(
                    "too-large", f"shape {header.shape}, at most {bounds.max_voxels:,} voxels"
                )
            rest = read_exactly(stream, max(0, header.end - len(start)))
            read_to_end(stream, MOST_EXTRA_BYTES)
        return Volume(_values(header.image(start, rest), shape), affine), mended + of_affine
    except QuarantineError:
        raise
    except FileNotFoundError as error:
        raise QuarantineError("missing") from error
    except DAMAGE as error:
        raise undecodable(error, "gzip: ") from error
    except (ImageFileError, HeaderDataError) as error:
        raise QuarantineError("not-a-volume-file", _error_text(error, path)) from error
    except OSError as error:
        raise QuarantineError("unreadable", str(error.strerror)) from error
    except Exception as error:  # damaged headers raise whatever they like
        raise undecodable(error) from error


def _levels_by_suffix(path: Path) -> int:
    return int(path.name.lower().endswith((".gz", ".mgz")))


class _Header:
    """A header of NIfTI or MGH as it is in the file, to be mended before nibabel reads it."""

    def __init__(self, kind: str, start: bytes) -> None:
        self.kind = kind
        classes: dict[str, Any] = {
            "nifti1": nib.Nifti1Image,
            "nifti2": nib.Nifti2Image,
            "mgh": nib.MGHImage,
        }
        self.image_class = classes[kind]  # fmt: skip
        self.start = start
        self.fields: Any = self.image_class.header_class(start[: HEADER_BYTES[kind]], check=False)

    @classmethod
    def of(cls, start: bytes) -> "_Header":
        """Of a file that begins with these bytes. Raises QuarantineError if it is none of the two."""
        size = {int.from_bytes(start[:4], order) for order in ("little", "big")}
        if 540 in size and start[4:7] in (b"n+2", b"ni2"):
            kind, pair = "nifti2", start[4:7] == b"ni2"
        elif 348 in size and start[344:347] in (b"n+1", b"ni1"):
            kind, pair = "nifti1", start[344:347] == b"ni1"
        elif start[:4] == b"\0\0\0\1" and len(start) >= HEADER_BYTES["mgh"]:
            kind, pair = "mgh", False
        else:
            what = (
                "a header of Analyze" if 348 in size else called(start) or "no header of a volume"
            )
            raise QuarantineError("not-a-volume-file", f"{what} ({len(start):,} bytes looked at)")
        if pair:
            raise QuarantineError(
                "other-format",
                "the header of a pair: nibabel.save(nibabel.load('x.hdr'), 'x.nii.gz')",
            )
        if len(start) < HEADER_BYTES[kind]:
            raise QuarantineError("undecodable", f"the header ends after {len(start)} bytes")
        return cls(kind, start)

    @property
    def shape(self) -> tuple[int, ...]:
        """Without further axes of length 1."""
        shape = tuple(int(n) for n in self.fields.get_data_shape())
        return shape[:3] if all(n == 1 for n in shape[3:]) else shape

    @property
    def end(self) -> int:
        """Where the voxels end, in bytes. Raises QuarantineError for what no volume has."""
        offset = int(self.fields.get_data_offset())
        if offset > MOST_EXTRA_BYTES:
            raise QuarantineError("too-large", f"{offset:,} bytes before the voxels")
        kind = np.dtype(self.fields.get_data_dtype())
        if kind.fields or kind.kind == "c":
            raise QuarantineError(
                "four-dimensional", f"values of type {kind}: colours or complex numbers"
            )
        count = 1
        for n in self.fields.get_data_shape():
            count *= int(n)
        return offset + count * kind.itemsize

    def mend(self) -> list[str]:
        """Mend what leaves no doubt; in words, what it was."""
        if self.kind == "mgh":
            return []
        fields, mended = self.fields, []
        dims = fields["dim"]
        axes = int(dims[0])
        if 3 < axes <= 7 and (dims[4 : axes + 1] == 0).any() and (dims[1:4] > 0).all():
            dims[4 : axes + 1] = np.maximum(dims[4 : axes + 1], 1)  # an axis that is not there
            mended.append("empty axis")
        slope, inter = float(fields["scl_slope"]), float(fields["scl_inter"])
        if slope != 0 and np.isfinite(slope) and not np.isfinite(inter):
            fields["scl_inter"] = 0.0
            mended.append("scaling")
        elif np.isinf(slope):
            fields["scl_slope"], fields["scl_inter"] = np.nan, np.nan
            mended.append("scaling")
        if not float(fields["vox_offset"]) >= FIRST_VOXEL[self.kind]:  # or NaN
            fields["vox_offset"] = FIRST_VOXEL[self.kind]
            mended.append("offset of the voxels")
        return mended

    def affine(self, bounds: Bounds) -> tuple[NDArray[np.float64], list[str]]:
        """Voxel → RAS mm, and what was mended. Raises QuarantineError where the header does not say."""
        affine, mended = (
            self._affine_of_mgh(bounds) if self.kind == "mgh" else self._affine_of_nifti(bounds)
        )
        if self.kind != "mgh" and np.isfinite(affine).all():
            unit = UNITS_MM.get(int(self.fields["xyzt_units"]) & 7)
            spacing = _spacing(affine)
            if unit and not _plausible(spacing, bounds) and _plausible(spacing * unit, bounds):
                affine[:3] *= unit
                mended = [*mended, "units"]
        return affine, mended

    def _affine_of_nifti(self, bounds: Bounds) -> tuple[NDArray[np.float64], list[str]]:
        """By the sform, else the qform, else bounds.orientation."""
        fields = self.fields
        by_sform = np.asarray(fields.get_sform(), np.float64) if fields["sform_code"] > 0 else None
        if by_sform is not None and _spans(by_sform):
            return by_sform, []
        if fields["qform_code"] > 0:
            try:
                by_qform = np.asarray(fields.get_qform(), np.float64)
            except (HeaderDataError, ValueError):
                by_qform = np.full((4, 4), np.nan)
            if by_sform is None or _spans(by_qform):
                return by_qform, [] if by_sform is None else ["sform"]
        if by_sform is not None:
            return by_sform, []  # refused by its bounds
        return _assumed(bounds, self.shape, np.asarray(fields["pixdim"][1:4], np.float64))

    def _affine_of_mgh(self, bounds: Bounds) -> tuple[NDArray[np.float64], list[str]]:
        # nibabel sets the flag, and a geometry of its own, where it is not set
        if int.from_bytes(self.start[28:30], signed=True) < 1:
            spacing = np.frombuffer(self.start[30:42], ">f4").astype(np.float64)
            return _assumed(bounds, self.shape, spacing)
        return np.asarray(self.fields.get_affine(), np.float64), []

    def image(self, start: bytes, rest: bytes) -> SpatialImage:
        """The image in these bytes, with the header as it was mended."""
        block = self.fields.binaryblock
        content = io.BytesIO(b"".join([block, start[len(block) :], rest]))
        image: SpatialImage = self.image_class.from_stream(content)
        return image


def _plausible(spacing: NDArray[np.float64], bounds: Bounds) -> bool:
    return bool(spacing.min() >= LEAST_SPACING_MM and spacing.max() <= bounds.max_spacing_mm)


def _spans(affine: NDArray[np.float64]) -> bool:
    """Whether the axes of an affine span space."""
    return bool(np.isfinite(affine).all() and abs(np.linalg.det(affine[:3, :3])) >= 1e-9)


def _assumed(
    bounds: Bounds, shape: tuple[int, ...], spacing: NDArray[np.float64]
) -> tuple[NDArray[np.float64], list[str]]:
    """The affine of a header without orientation, by the axes that bounds.orientation names."""
    if not np.isfinite(spacing).all() or (spacing <= 0).any():
        raise QuarantineError(
            "no-geometry",
            f"no spacing ({spacing.tolist()}) and no orientation: write both into the header (pixdim, sform)",
        )
    if bounds.orientation is None:
        raise QuarantineError(
            "no-geometry",
            "no orientation (qform_code and sform_code are 0), spacing "
            f"{' x '.join(f'{s:.3g}' for s in spacing)}: if the axes are known, say them with "
            "--volumes.orientation, such as LAS",
        )
    turn = axcodes2ornt(tuple(bounds.orientation.upper()))
    ras = np.diag([*spacing[np.argsort(turn[:, 0])], 1.0])
    return ras @ np.linalg.inv(inv_ornt_aff(turn, shape[:3])), ["orientation"]


def _error_text(error: Exception, path: Path) -> str:
    """The error's text without the file's name, which nibabel does not quote."""
    return error_text(error).replace(str(path), "the file").replace(path.name, "the file")


def _values(image: SpatialImage, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The values, float32: all, or those of the first volume of several."""
    further = image.ndim - 3
    if np.prod(image.shape) > np.prod(shape):
        return np.asarray(image.dataobj[(..., *[0] * further)], np.float32)
    return np.asarray(image.dataobj, dtype=np.float32).reshape(shape)
