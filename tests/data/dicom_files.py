"""Small DICOM files for the tests, and where the real data lies."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid

SHARED = Path(__file__).parents[3] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared real data is not here")

# A ramp with every value once: no two ways of showing it look the same.
RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)


def write_dicom(path: Path, pixels: np.ndarray | None = RAMP, syntax: str = ExplicitVRLittleEndian,
                **tags: Any) -> Path:  # fmt: skip
    """A radiograph with these pixels; any tag can be given another value, or None to leave it out."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
    meta.TransferSyntaxUID = UID(syntax)
    ds = FileDataset(
        str(path), {}, file_meta=meta, preamble=b"\0" * 128,
        is_implicit_VR=meta.TransferSyntaxUID.is_implicit_VR,
        is_little_endian=meta.TransferSyntaxUID.is_little_endian,
    )  # fmt: skip
    wanted: dict[str, Any] = {
        "SOPClassUID": ComputedRadiographyImageStorage,
        "SOPInstanceUID": generate_uid(entropy_srcs=[str(path)]),
        "StudyInstanceUID": "1.2.3",
        "PatientID": "patient-1",
        "Modality": "DX",
        "PhotometricInterpretation": "MONOCHROME2",
    }
    if pixels is not None:
        bits = 8 * pixels.dtype.itemsize
        wanted |= {
            "Rows": pixels.shape[0],
            "Columns": pixels.shape[1],
            "SamplesPerPixel": 1 if pixels.ndim == 2 else 3,
            "BitsAllocated": bits,
            "BitsStored": 12 if bits == 16 else 8,
            "HighBit": 11 if bits == 16 else 7,
            "PixelRepresentation": int(pixels.dtype.kind == "i"),
            "PixelData": pixels.tobytes(),
        }
        if pixels.ndim == 3:
            wanted |= {"PlanarConfiguration": 0, "PhotometricInterpretation": "RGB"}
    for name, value in {**wanted, **tags}.items():
        if value is not None:
            setattr(ds, name, value)
    meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)
    return path
