"""Draws the archives of `archives/`: small films with reports, small heads. Nothing is copied.

The files are committed and read by the test; this was run once. Another machine may draw other bytes.
"""

import csv
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    ExplicitVRLittleEndian,
    RLELossless,
    generate_uid,
)

LABELS = (
    *("No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion"),
    *("Edema", "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion"),
    *("Pleural Other", "Fracture", "Support Devices"),
)
FINDINGS = (
    "The heart is normal in size. The lungs are clear.",
    "The heart is enlarged. There is a small pleural effusion on the left.",
    "There is an opacity in the right lower lobe. The heart is normal in size.",
)
IMPRESSIONS = (
    "No acute process in the chest.",
    "Enlarged heart with a small effusion, no acute process in the lungs.",
    "Opacity in the right lower lobe, which may be pneumonia.",
)


def draw_archives(folder: Path) -> None:
    """All archives, into an empty folder."""
    _table(folder / "table")
    _dicom(folder / "dicom")
    _volumes(folder / "volumes")


def _film(seed: int, height: int, width: int, *, lateral: bool, kind: int) -> np.ndarray:
    """A chest as a caricature, [height, width] from 0 to 1."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    body = 0.75 * np.exp(-((x / 0.9) ** 4) - (y / 1.1) ** 4)
    lungs = (0.1,) if lateral else (-0.42, 0.42)
    for middle in lungs:
        wide = 0.5 if lateral else 0.28
        body -= 0.45 * np.exp(-(((x - middle) / wide) ** 4) - ((y + 0.1) / 0.6) ** 4)
    size = 0.34 if kind == 1 else 0.24
    body += 0.35 * np.exp(-(((x - 0.1) / size) ** 2) - ((y - 0.25) / size) ** 2)
    body += 0.08 * np.cos(14 * (y + 0.3 * x**2) + rng.uniform(0, 6)) * (np.abs(x) < 0.8)
    if kind == 2:
        body += 0.3 * np.exp(-(((x + 0.45) / 0.15) ** 2) - ((y - 0.2) / 0.12) ** 2)
    return np.clip(body + rng.normal(0, 0.01, body.shape), 0, 1)


def _report(study: int, kind: int) -> str:
    parts = [f"Name: Ypsilanti\nMRN: 47{study:02d}"]
    if study % 4 != 3:
        parts.append(f"FINDINGS: {FINDINGS[kind]}")
    if study % 5 != 4:
        parts.append(f"IMPRESSION: {IMPRESSIONS[kind]} Compared to 03/04/2011.")
    return "\n".join(parts)


def _states(study: int, kind: int) -> dict[str, Any]:
    states: dict[str, Any] = dict.fromkeys(LABELS, "")
    states["No Finding"] = int(kind == 0)
    states["Cardiomegaly"] = int(kind == 1)
    states["Lung Opacity"] = int(kind == 2)
    states["Pneumonia"] = -1 if kind == 2 else ""
    states["Edema"] = (study % 4) - 1 if study % 4 < 3 else ""
    return states


def _table(folder: Path) -> None:
    """Twelve studies of ten patients as PNG, JPEG and DICOM files that a table lists."""
    folder.mkdir(parents=True)
    rows = []
    for study in range(12):
        kind = study % 3
        patient = study if study < 10 else study - 10  # two patients come twice
        views = ("PA", "LATERAL")[: 1 + (study % 2)] if study != 6 else ("LL",)
        for number, view in enumerate(views):
            size = ((40, 40), (64, 56), (48, 60))[study % 3]
            film = _film(100 * study + number, *size, lateral=number == 1, kind=kind)
            suffix = ("png", "png", "jpg", "dcm")[study % 4]
            file = folder / f"film-{study:02d}-{number}.{suffix}"
            if suffix == "dcm":
                _write_dicom(file, film, study=f"1.2.3.{study}", patient=f"P{patient}")
            else:
                Image.fromarray((255 * film).round().astype(np.uint8)).save(file)
            rows.append(
                {
                    "study": f"study-{study}",
                    "patient": f"patient-{patient}",
                    "path": file.name,
                    "view": view,
                    "text": _report(study, kind),
                    "split": _split(patient),
                    "date": f"20{10 + patient}-05-17",
                    **_states(study, kind),
                }
            )
    rows.append({**rows[0], "study": "study-99", "path": "not-there.png"})
    _write_csv(folder / "table.csv", rows)


def _split(patient: int) -> str:
    return "test" if patient in (8, 9) else "val" if patient in (6, 7) else "train"


def _dicom(folder: Path) -> None:
    """A folder of DICOM files: four studies, one file that is no film, one that says text is in it."""
    folder.mkdir(parents=True)
    rows = []
    for study in range(4):
        for number in range(1 + (study % 2)):
            film = _film(7000 + 10 * study + number, 44, 52, lateral=number == 1, kind=study % 3)
            _write_dicom(
                folder / f"{study}" / f"{number}",
                film,
                study=f"1.2.4.{study}",
                patient=f"D{study // 2}",
                inverted=study == 1,
                compressed=study == 2,
                ViewPosition="LL" if number else "PA",
                StudyDate="20130405",
            )
        rows.append(
            {"study": f"1.2.4.{study}", "text": _report(study, study % 3)}
            | _states(study, study % 3)
        )
    film = _film(7100, 40, 40, lateral=False, kind=0)
    _write_dicom(folder / "ct", film, study="1.2.4.8", patient="D8", Modality="CT")
    _write_dicom(folder / "text", film, study="1.2.4.9", patient="D9", BurnedInAnnotation="YES")
    _write_csv(folder / "reports.csv", rows)


def _write_dicom(
    path: Path,
    film: np.ndarray,
    *,
    study: str,
    patient: str,
    inverted: bool = False,
    compressed: bool = False,
    **tags: Any,
) -> None:
    """A radiograph of 12 bits."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(path.name), study])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID = ComputedRadiographyImageStorage
    ds.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    ds.StudyInstanceUID, ds.PatientID, ds.Modality = study, patient, "DX"
    shown = (1 - film if inverted else film) * 4095
    pixels = (shown.round().astype(np.uint16) // 16) * 16  # eight bits of detail: it packs smaller
    ds.Rows, ds.Columns = pixels.shape
    ds.SamplesPerPixel, ds.PixelRepresentation = 1, 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
    ds.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    ds.WindowCenter, ds.WindowWidth = 2000, 3600
    ds.PixelData = pixels.tobytes()
    for name, value in tags.items():
        setattr(ds, name, value)
    if compressed:
        ds.compress(RLELossless)
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)


def _head(seed: int, shape: tuple[int, int, int], contrast: str, lesion: bool) -> dict[str, Any]:
    """A head in air, [X, Y, Z] int16, and the label map of its lesion."""
    rng = np.random.default_rng(seed)
    at = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij"))
    place = rng.uniform(-0.3, 0.3, 3)
    radius = np.sqrt((at**2 / np.array([0.75, 0.9, 0.8])[:, None, None, None] ** 2).sum(0))
    grey, white, water = {"T1w": (90, 130, 40), "FLAIR": (110, 90, 25)}[contrast]
    values = np.where(radius < 1, grey, 0)
    values = np.where(radius < 0.75, white, values)
    values = np.where(((at / 0.3) ** 2).sum(0) < 1, water, values)
    spot = (((at - place[:, None, None, None]) / 0.22) ** 2).sum(0) < 1
    if lesion:
        values = np.where(spot, 160 if contrast == "FLAIR" else 70, values)
    shaded = values * (1 + 0.15 * at[0] - 0.1 * at[1] + 0.05 * at[2])
    noise = rng.integers(-2, 3, shape) * 2
    shown = np.where(radius < 1, 4 * np.rint((shaded + noise) / 4), 0)
    return {"values": shown.astype(np.int16), "lesion": (spot & lesion).astype(np.uint8)}


def _volumes(folder: Path) -> None:
    """Twelve volumes of eight patients in one or two contrasts, and a table that lists them."""
    rows = []
    for patient in range(8):
        shape = ((24, 28, 24), (28, 30, 26), (26, 24, 28))[patient % 3]
        spacing = 3.2 if patient == 1 else 4.0
        turned = -1 if patient == 4 else 1  # the first axis to the left
        affine = np.diag([turned * spacing, spacing, spacing, 1.0])
        for contrast in ("T1w", "FLAIR")[: 2 if patient < 4 else 1]:
            drawn = _head(patient, shape, contrast, lesion=patient % 2 == 1)
            values, lesion = drawn["values"], drawn["lesion"]
            if turned < 0:
                values, lesion = values[::-1], lesion[::-1]
            scan = Path("scans") / f"person{patient}" / f"{contrast}.nii.gz"
            _write_nifti(folder / scan, values, affine)
            row = {
                "path": str(scan),
                "patient": f"person{patient}",
                "session": "first",
                "modality": contrast,
                "split": "val" if patient == 3 else "test" if patient > 5 else "train",
                "site": f"site-{patient % 2}",
                "label_lesion": patient % 2,
                "label_age": 40 + 3 * patient,
            }
            if patient in (1, 4):
                row["segmentation"] = f"masks/lesion-{patient}-{contrast}.nii.gz"
                _write_nifti(folder / row["segmentation"], lesion, affine)
            if patient == 2:
                row["anonymised"] = f"masks/face-{patient}-{contrast}.nii.gz"
                face = np.zeros(shape, np.uint8)
                face[:, -6:, :10] = 1
                _write_nifti(folder / row["anonymised"], face, affine)
            rows.append(row)
    _write_csv(folder / "volumes.csv", rows)


def _write_nifti(path: Path, values: np.ndarray, affine: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.ascontiguousarray(values), affine), path)


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
