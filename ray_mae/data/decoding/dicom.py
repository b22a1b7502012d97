"""One DICOM file: the few header tags we read, and its pixels as an 8-bit image.

Nothing in here decodes before the header, the file and the compressed stream were seen to stay within
max_pixels. What a file can have wrong ends as QuarantineError, never as a crash.
"""

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.encaps import generate_frames
from pydicom.errors import InvalidDicomError
from pydicom.pixels import pixel_array
from pydicom.tag import Tag
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from ray_mae.data.decoding.deep import Grey
from ray_mae.data.decoding.dicom_codecs import coded_size
from ray_mae.data.decoding.dicom_content import (
    CONTENT_TAGS,
    VIEW_TAGS,
    body_part_in,
    burned_in,
    capture_of,
    for_processing,
    values_of,
    view_in,
)
from ray_mae.data.decoding.dicom_elements import MOST_BYTES, CountedFile, read_elements
from ray_mae.data.decoding.greyscale import MOST_ASPECT, to_grey, with_square_pixels
from ray_mae.data.decoding.stored_values import stored_values
from ray_mae.data.file_types import file_kind
from ray_mae.data.paths import open_binary
from ray_mae.data.privacy.years import year_of
from ray_mae.data.quarantine import QuarantineError, error_text, undecodable

# The only tags of a header that are ever read: what is not read cannot leak.
IDENTIFIERS = ["PatientID", "StudyInstanceUID", "SOPInstanceUID", "SOPClassUID", "Modality"]
GEOMETRY = ["Rows", "Columns", "NumberOfFrames", "SamplesPerPixel"]
# Read where the setting `attributes` names them, and never otherwise.
ATTRIBUTE_TAGS = {
    "sex": "PatientSex", "age": "PatientAge", "site": "InstitutionName",
    "manufacturer": "Manufacturer", "model": "ManufacturerModelName",
    "field_strength": "MagneticFieldStrength",
}  # fmt: skip
HEADER_TAGS = [*IDENTIFIERS, *GEOMETRY, *VIEW_TAGS, *CONTENT_TAGS]
_COLOURS = [f"{colour}PaletteColorLookupTable" for colour in ("Red", "Green", "Blue", "Alpha")]
# Rows first. PixelSpacing is that of the patient, the others that of the detector and of the scanned film.
SPACINGS = ["PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"]
# Of group 0028 what decoding and showing needs: pydicom compares each element of a file with the list.
PIXEL_TAGS = [
    *GEOMETRY, "PhotometricInterpretation", "PlanarConfiguration", "BitsAllocated", "BitsStored",
    "HighBit", "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit", "WindowCenter",
    "WindowWidth", "VOILUTFunction", "VOILUTSequence", "ModalityLUTSequence", "RescaleIntercept",
    "RescaleSlope", "LUTDescriptor", "LUTData", "LUTExplanation", "ModalityLUTType",
    *(f"{colour}{part}" for colour in _COLOURS for part in ("Descriptor", "Data")),
    *(f"Segmented{colour}Data" for colour in _COLOURS), "PaletteColorLookupTableUID", "PixelData",
    "PixelAspectRatio", *SPACINGS, "PixelIntensityRelationshipSign",
]  # fmt: skip

# What is no image data in a codec's own format. Anything else, known or not, needs a decoder.
NATIVE = frozenset(
    {
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
    }
)

# Terms of Modality (PS3.3 C.7.3.1.1.1) that a detail may repeat: another word there may be a name.
MODALITIES = frozenset(
    "AR BI BMD CR CT DG DMS DOC DX ECG EEG EPS ES FID GM HC HD IO IVOCT IVUS KO LS MG MR M3D NM OCT OP"
    " OPM OPT OPTBSV OPTENF OPV OT PA PLAN PR PT PX REG RESP RF RG RTDOSE RTIMAGE RTPLAN RTRECORD"
    " RTSTRUCT RWV SC SEG SM SMR SR SRF STAIN TG US VA XA XC".split()
)
# Projections and secondary captures of them. Anything else (CT, MR, reports, …) is no view.
PROJECTIONS = frozenset({"CR", "DX", "RG", "RF", "XA", "OT", "SC"})


@dataclass(frozen=True, slots=True)
class Header:
    """What is read of a header."""

    patient: str
    study: str
    instance: str
    modality: str
    rows: int
    columns: int
    frames: int
    burned_in: bool
    """Whether the header does not deny that text is burned into the pixels."""
    capture: str
    """What says that it is a form, a drawing or a screenshot; "" for a radiograph."""
    for_processing: bool
    """Whether these are the detector's values, of which a picture to look at was made."""
    body_part: str
    """See ray_mae.data.decoding.body_parts."""
    view: str
    position: str | None
    view_understood: bool
    """False where ViewPosition or ViewCodeSequence says something that is no view we know."""
    year: int | None = None
    """Of StudyDate, where it was asked for."""
    attributes: dict[str, str] = field(default_factory=dict)
    """What the header says of those that were asked for."""


@contextmanager
def quiet() -> Iterator[None]:
    """Keep pydicom from warning and logging: it quotes values of headers, which may be names.

    What matters here ends in the quarantine, and nothing of a header may end in a log.
    """
    log, was = pydicom.config.logger, pydicom.config.logger.disabled
    log.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.disabled = was


def is_dicom(path: Path) -> bool:
    """Whether the file starts as DICOM does: a preamble and DICM, or (old exports) a bare data set."""
    with path.open("rb") as file:
        return _start(file) is not None


def _start(file: BinaryIO) -> str | None:
    start = file.read(132)
    file.seek(0)
    if start[128:] == b"DICM":
        return "preamble"
    return "bare" if start[:2] in (b"\x02\x00", b"\x08\x00") and start[3:4] == b"\x00" else None


def read_dataset(
    path: Path, tags: Sequence[int | str], max_bytes: int, *, pixels: bool, header: int = MOST_BYTES
) -> Dataset:
    """Read some elements of a file. Of one in a store only what is needed is fetched.

    Args:
        path: of the file.
        tags: of the elements.
        max_bytes: size of the file at most.
        pixels: whether pixel data is read, too.
        header: bytes that are parsed at most, pixel data apart.

    Raises:
        QuarantineError: for everything that can be wrong with the file.
    """
    counted: CountedFile | None = None
    try:
        with open_binary(path) as file, quiet():
            counted = CountedFile(file, header, pixels=pixels)
            start, size = _start(file), counted.size
            if start is None:
                raise QuarantineError("not-dicom", f"{file_kind(path.name)}, {size} bytes")
            if size > max_bytes:  # a single element may be as long as its file
                raise QuarantineError("too-large", f"{size} bytes, at most {max_bytes}")
            return read_elements(counted, map(Tag, tags), max_bytes, bare=start == "bare")
    except FileNotFoundError as error:
        raise QuarantineError("missing") from error
    except QuarantineError:
        raise
    except Exception as error:
        if counted:
            counted.check_budget()
        away = (counted and counted.failure) or error
        # pydicom raises OSError for damaged files as well, then without an errno
        if isinstance(away, OSError) and away.errno:
            raise QuarantineError("unreadable", os.strerror(away.errno)) from away
        if isinstance(error, PermissionError):  # of a store
            raise QuarantineError("unreadable", "no permission") from error
        if isinstance(error, InvalidDicomError):
            raise QuarantineError("not-dicom", error_text(error)) from error
        # damaged files raise whatever they like
        raise undecodable(error) from error


def most_bytes(max_pixels: int) -> int:
    """Largest file for an image of max_pixels: three 16-bit channels, and 64 MiB for the rest."""
    return 6 * max_pixels + (64 << 20)


def read_header(
    path: Path, max_pixels: int, *, year: bool = False, attributes: Sequence[str] = ()
) -> Header:
    """Read the identifiers, size and view of one file; pixels are not read.

    Args:
        path: of the file.
        max_pixels: bounds the size of the file.
        year: whether to read the year of StudyDate, too.
        attributes: what to read besides, of ATTRIBUTE_TAGS.

    Raises:
        QuarantineError: for everything that can be wrong with the file.
    """
    more = [ATTRIBUTE_TAGS[name] for name in attributes]
    tags = [*HEADER_TAGS, *(["StudyDate"] if year else []), *more]
    return _header(read_dataset(path, tags, most_bytes(max_pixels), pixels=False))


def _header(ds: Dataset) -> Header:
    """The header of what was read. Raises QuarantineError."""
    try:
        with quiet():
            view, position, understood = view_in(ds)
            return Header(
                patient=str(ds.get("PatientID") or "").strip(" \0"),
                study=str(ds.get("StudyInstanceUID") or "").strip(),
                instance=str(ds.get("SOPInstanceUID") or "").strip(),
                modality=str(ds.get("Modality") or "").strip().upper(),
                rows=int(ds.get("Rows") or 0),
                columns=int(ds.get("Columns") or 0),
                frames=int(ds.get("NumberOfFrames") or 1),
                burned_in=burned_in(ds),
                capture=capture_of(ds),
                for_processing=for_processing(ds),
                body_part=body_part_in(ds),
                view=view,
                position=position,
                view_understood=understood,
                year=year_of(str(ds.get("StudyDate") or "")),
                attributes=attributes_in(ds),
            )
    except Exception as error:  # values are only parsed when they are asked for
        raise undecodable(error, "header: ") from error


def attributes_in(ds: Dataset) -> dict[str, str]:
    """The cells of ATTRIBUTE_TAGS, as far as they were read."""
    tags = ATTRIBUTE_TAGS.items()
    return {name: " ".join(values_of(ds.get(tag))) for name, tag in tags if tag in ds}


def check_header(header: Header, max_pixels: int) -> None:
    """Raise QuarantineError if the header already says that the file holds no usable image."""
    if header.modality and header.modality not in PROJECTIONS:
        raise QuarantineError(
            "modality", header.modality if header.modality in MODALITIES else "another word"
        )
    if header.rows < 1 or header.columns < 1:
        raise QuarantineError("no-pixels", f"{header.rows} rows, {header.columns} columns")
    if header.frames > 1:
        raise QuarantineError("multi-frame", f"{header.frames} frames")
    if header.rows * header.columns > max_pixels:
        raise QuarantineError("too-large", f"{header.rows} x {header.columns} pixels")


def stored_pixels(
    path: Path, max_pixels: int, more_tags: Sequence[int | str] = (), header: int = MOST_BYTES
) -> tuple[NDArray[np.generic], Dataset]:
    """Decode the stored values of a file.

    Args:
        path: of the file.
        max_pixels: bounds the size of the file.
        more_tags: to be read besides PIXEL_TAGS.
        header: bytes that are parsed at most, pixel data apart.

    Returns:
        The values [H, W], or [H, W, 3] in RGB, with a leading axis where there are several frames; and
        the tags that explain them.

    Raises:
        QuarantineError: for everything that can be wrong with the file.
    """
    tags, most = [*PIXEL_TAGS, *more_tags], most_bytes(max_pixels)
    ds = read_dataset(path, tags, most, pixels=True, header=header)
    return _stored_pixels(ds, radiograph=False), ds


def _stored_pixels(ds: Dataset, *, radiograph: bool) -> NDArray[np.generic]:
    """The stored values of what was read. Raises QuarantineError."""
    if "PixelData" not in ds:
        raise QuarantineError("no-pixels")
    try:
        with quiet():
            if ds.file_meta.TransferSyntaxUID not in NATIVE:
                frames = int(ds.get("NumberOfFrames") or 1)
                frame = next(generate_frames(ds.PixelData, number_of_frames=frames))
                size = coded_size(frame)
                if size not in (None, (ds.Rows, ds.Columns)):
                    raise QuarantineError(
                        "undecodable",
                        f"header {ds.Rows} x {ds.Columns}, stream {size[0]} x {size[1]}",
                    )
            if ds.get("PhotometricInterpretation") in ("MONOCHROME1", "MONOCHROME2"):
                cells = pixel_array(ds, correct_unused_bits=False)
                return stored_values(cells, ds, radiograph=radiograph)
            pixels = pixel_array(ds)
    except QuarantineError:
        raise
    except Exception as error:  # decoders of many makers, and files of many more
        raise undecodable(error) from error
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)


def read_dicom(
    path: Path,
    max_pixels: int,
    check: Callable[[Header], None] | None = None,
    *,
    deep: bool = False,
) -> tuple[Grey, Header]:
    """Read a radiograph as a viewer would show it.

    Args:
        path: of the file, on this machine.
        max_pixels: rows times columns at most.
        check: raises QuarantineError for a header whose pixels need not be decoded.
        deep: 16 bits where the file has more than 8 of grey.

    Returns:
        The image [H, W] in grey values of 8 or 16 bits, bright is dense, its pixels square; and the header.

    Raises:
        QuarantineError: for everything that can be wrong with the file.
    """
    ds = read_dataset(path, [*HEADER_TAGS, *PIXEL_TAGS], most_bytes(max_pixels), pixels=True)
    header = _header(ds)
    check_header(header, max_pixels)
    if check:
        check(header)
    pixels = _stored_pixels(ds, radiograph=True)
    try:
        with quiet():
            grey = to_grey(pixels, ds, raw=header.for_processing, deep=deep)
            return with_square_pixels(grey, _aspect(ds), max_pixels), header
    except QuarantineError:
        raise
    except Exception as error:
        raise undecodable(error) from error


def _aspect(ds: Dataset) -> float:
    """Height of a pixel over its width; 1 where nothing that can be believed says something else."""
    for tag in [*SPACINGS, "PixelAspectRatio"]:
        try:
            height, width = (float(value) for value in values_of(ds.get(tag)))
        except ValueError:  # no two numbers
            continue
        if min(height, width) > 0 and 1 / MOST_ASPECT <= height / width <= MOST_ASPECT:
            return height / width
    return 1.0
