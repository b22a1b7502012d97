"""The frames of one DICOM file as slices in space: where each lies, and its values.

A classic file holds one frame and describes it at its top; an enhanced one holds many and describes
them in functional groups, shared or per frame (PS3.3 C.7.6.16).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian

from ray_mae.data.decoding.dicom import (
    ATTRIBUTE_TAGS,
    MODALITIES,
    NATIVE,
    attributes_in,
    most_bytes,
    quiet,
    read_dataset,
    stored_pixels,
)
from ray_mae.data.decoding.dicom_content import burned_in
from ray_mae.data.decoding.dicom_elements import MOST_BYTES
from ray_mae.data.quarantine import QuarantineError, undecodable

GROUPS = ["SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"]
GEOMETRY = ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"]
IDENTITY = ["PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "Modality"]
SIZE = ["Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "BitsAllocated"]
WORDS = ["SeriesDescription", "ProtocolName", "SequenceName", "AcquisitionContrast"]
AGENT = ["ContrastBolusAgent", "ContrastBolusAgentSequence"]
PARTS = [
    "EchoTime", "EchoNumbers", "ImageType", "AcquisitionNumber", "InversionTime", "FlipAngle",
    "TemporalPositionIdentifier", "DiffusionBValue",
]  # fmt: skip
"""Tags in which the volumes of one series differ, where it holds several."""
IMAGING = frozenset({"MR", "CT", "PT", "NM", "OT"})
MOST_FRAMES = 1 << 14
"""Of one file: some ten times a large CT. Each takes 0.1 ms and half a kilobyte."""
GROUPS_BYTES = 4 * MOST_BYTES
"""Bytes of a header that describes many frames, some kilobytes for each."""


@dataclass(frozen=True, slots=True)
class Frame:
    """Where one slice lies. Lengths in mm, directions in DICOM's LPS (left, posterior, superior)."""

    position: tuple[float, ...]
    """[3] of the centre of the first pixel."""
    along: tuple[float, ...]
    """[6] directions of growing column and growing row index."""
    spacing: tuple[float, ...]
    """[2] between rows, between columns."""


@dataclass(frozen=True, slots=True)
class SliceFile:
    """What is read of a header."""

    patient: str
    study: str
    series: str
    instance: str
    modality: str
    words: str
    """What the series says of its contrast."""
    localizer: bool
    rows: int
    columns: int
    burned_in: bool
    """Whether the header does not deny that text is burned into the pixels."""
    frames: tuple[Frame, ...]
    agent: str = ""
    """What the header says of a contrast agent."""
    recognizable: str = ""
    """Whether somebody can be recognised in the pictures, YES or NO, where the header says."""
    image_type: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    """The values of PARTS, as text."""
    attributes: dict[str, str] = field(default_factory=dict)
    """Cells of what was asked for."""

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "SliceFile":
        """The inverse of `asdict`, after a way through JSON."""
        frames = tuple(Frame(**{k: tuple(v) for k, v in f.items()}) for f in fields["frames"])
        texts = {name: tuple(fields.get(name, ())) for name in ("image_type", "parts")}
        return cls(**{**fields, **texts, "frames": frames})


def read_frames(path: Path, max_pixels: int, attributes: Sequence[str] = ()) -> SliceFile:
    """Read the identifiers and the geometry of one file; pixels are not read.

    Args:
        path: of the file.
        max_pixels: of all frames together, at most.
        attributes: what to read besides, of ATTRIBUTE_TAGS.

    Raises:
        QuarantineError: for everything that can be wrong with the file.
    """
    tags = [*IDENTITY, *SIZE, *WORDS, *GEOMETRY, *GROUPS, *AGENT, *PARTS]
    tags += ["ComplexImageComponent", "BurnedInAnnotation", "RecognizableVisualFeatures"]
    tags += [ATTRIBUTE_TAGS[name] for name in attributes]
    ds = read_dataset(path, tags, most_bytes(max_pixels), pixels=False, header=GROUPS_BYTES)
    try:
        with quiet():
            modality = str(ds.get("Modality") or "").strip().upper()
            if modality and modality not in IMAGING:
                raise QuarantineError(
                    "modality", modality if modality in MODALITIES else "another word"
                )
            rows, columns = int(ds.get("Rows") or 0), int(ds.get("Columns") or 0)
            if rows < 1 or columns < 1:
                raise QuarantineError("no-pixels", f"{rows} rows, {columns} columns")
            frames = int(ds.get("NumberOfFrames") or 1)
            if frames < 1:
                raise QuarantineError("no-pixels", f"{frames} frames")
            if frames * rows * columns > max_pixels:  # before anything is done for each of them
                raise QuarantineError(
                    "too-large",
                    f"{frames:,} frames of {rows} x {columns} pixels, at most {max_pixels:,}",
                )
            if frames > MOST_FRAMES:
                raise QuarantineError("too-large", f"{frames:,} frames, at most {MOST_FRAMES:,}")
            if int(ds.get("SamplesPerPixel") or 1) != 1:
                raise QuarantineError("four-dimensional", "colours")
            if frames > 1:  # one is left to the decoder: else its series would seem to be shorter
                _check_file_size(ds, frames, path.stat().st_size)
            return SliceFile(
                **{
                    name: str(ds.get(tag) or "").strip()
                    for name, tag in zip(
                        ("patient", "study", "series", "instance"), IDENTITY, strict=False
                    )
                },
                modality=modality,
                words=" ".join(str(ds[tag].value or "") for tag in WORDS if tag in ds),
                localizer="LOCALIZER" in (ds.get("ImageType") or []),
                rows=rows,
                columns=columns,
                burned_in=burned_in(ds),
                frames=tuple(_frame(ds, index) for index in range(frames)),
                agent=_agent(ds),
                recognizable=str(ds.get("RecognizableVisualFeatures") or "").strip().upper(),
                image_type=tuple(map(str, _values_of(ds, "ImageType")))
                + tuple(map(str, _values_of(ds, "ComplexImageComponent"))),
                parts=tuple("\\".join(map(str, _values_of(ds, tag))) for tag in PARTS),
                attributes=attributes_in(ds),
            )
    except QuarantineError:
        raise
    except Exception as error:  # values are only parsed when they are asked for
        raise undecodable(error, "header: ") from error


def _agent(ds: Dataset) -> str:
    """The contrast agent, as free text or by its code's meaning."""
    if text := str(ds.get("ContrastBolusAgent") or "").strip():
        return text
    sequence = ds.get("ContrastBolusAgentSequence") or []
    return " ".join(str(item.get("CodeMeaning") or "agent") for item in sequence).strip()


def _values_of(ds: Dataset, tag: str) -> list[Any]:
    """The values of a tag, of which there may be none, one or several."""
    value = ds.get(tag)
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str) or not isinstance(value, Sequence) else list(value)


def _check_file_size(ds: Dataset, frames: int, size: int) -> None:
    """Raise QuarantineError if a file of so many bytes cannot hold its frames."""
    syntax = ds.file_meta.TransferSyntaxUID
    if syntax == DeflatedExplicitVRLittleEndian:
        return
    bits = ds.Rows * ds.Columns * int(ds.get("BitsAllocated") or 1) if syntax in NATIVE else 64
    if frames * bits > 8 * size:  # a compressed frame has an item of 8 bytes at least
        raise QuarantineError("undecodable", f"{frames:,} frames in {size:,} bytes")


def _frame(ds: Dataset, index: int) -> Frame:
    """Raises QuarantineError where something is missing or impossible."""
    values: list[tuple[float, ...]] = []
    macros = ["PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence"]
    for tag, macro, length in zip(GEOMETRY, macros, (3, 6, 2), strict=True):
        value = _of_frame(ds, index, macro, tag)
        numbers = tuple(float(x) for x in value) if value is not None else ()
        if len(numbers) != length or not np.isfinite(numbers).all():
            raise QuarantineError("no-geometry", f"{tag}: {len(numbers)} of {length} numbers")
        values.append(numbers)
    frame = Frame(*values)
    directions = np.reshape(frame.along, (2, 3))
    if not np.allclose(directions @ directions.T, np.eye(2), atol=1e-2) or min(frame.spacing) <= 0:
        raise QuarantineError("no-geometry", f"directions {frame.along}, spacing {frame.spacing}")
    return frame


def _of_frame(ds: Dataset, index: int, macro: str, tag: str) -> Any:
    """A tag of a frame: from its own group, the shared one, or the top of the file."""
    per_frame, shared = ds.get(GROUPS[1]) or [], ds.get(GROUPS[0]) or []
    for group in [*per_frame[index : index + 1], *shared[:1]]:
        if macro in group and tag in group[macro][0]:
            return group[macro][0][tag].value
    return ds.get(tag)


def read_values(path: Path, max_pixels: int) -> NDArray[np.float32]:
    """Read the rescaled values of every frame [F, H, W], as the scanner meant them.

    Raises:
        QuarantineError: for everything that can be wrong with the file.
    """
    stored, ds = stored_pixels(path, max_pixels, GROUPS, GROUPS_BYTES)
    try:
        with quiet():
            stored = stored.reshape(-1, ds.Rows, ds.Columns)
            values = stored.astype(np.float32)
            for index, frame in enumerate(values):
                slope = _rescale(ds, index, "RescaleSlope", 1.0)
                frame *= slope
                frame += _rescale(ds, index, "RescaleIntercept", 0.0)
    except Exception as error:
        raise undecodable(error) from error
    return values


def _rescale(ds: Dataset, index: int, tag: str, default: float) -> np.float32:
    value = _of_frame(ds, index, "PixelValueTransformationSequence", tag)
    return np.float32(default if value in (None, "") else value)


def voxels_in(files: Sequence[SliceFile]) -> int:
    """Voxels of the files together."""
    return sum(file.rows * file.columns * len(file.frames) for file in files)
