"""A seeded cohort of synthetic brain volumes: NIfTI in a BIDS folder with a table, or DICOM series.

Every patient has one head (`brain_anatomy`) in several contrasts, lesions with a label map, and
labels: `high_grade` is carried by the lesions' texture, `wide_ventricles` by the anatomy. Two sites
differ in noise and orientation, and not in their patients. Some files are broken, so that there is
something for the quarantine. Everything is a pure function of the seed, and no patient depends on how many
there are.
"""

import csv
import hashlib
import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform
from numpy.typing import NDArray
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from ray_mae.data.phantoms.brain_anatomy import CONTRASTS, draw_head, show

SIDE_MM = 192.0
TABLE = "volumes.csv"
SITES = {"north": ("RAS", 0.03), "south": ("LPS", 0.05)}
"""Orientation of the stored axes, and noise."""
MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
COLUMNS = ("volume", "patient", "session", "path", "modality", "site", "segmentation",
           "label_high_grade", "label_wide_ventricles")  # fmt: skip


@dataclass(frozen=True)
class PatientFiles:
    """The files that were written of one patient."""

    patient: str
    site: str
    labels: dict[str, int]
    files: dict[str, str]
    """Path below the output by contrast; of a DICOM series its folder."""
    segmentation: str | None


def write_volumes(
    output: Path,
    patients: int,
    seed: int,
    size: int = 48,
    processes: int = 1,
    as_dicom: bool = False,
    broken: bool = True,
) -> Path:
    """Write a cohort of synthetic brain volumes, with labels and label maps.

    Args:
        output: folder to write to. It is a BIDS data set as well, unless `as_dicom`.
        patients: how many.
        seed: of everything random.
        size: voxels along each side of the 192 mm cube.
        processes: that write. The files do not depend on it.
        as_dicom: write one DICOM series per contrast, and no label maps.
        broken: add five volumes that an ingest must put into quarantine; of DICOM series, two.

    Returns:
        The path of the table, volumes.csv.
    """
    output.mkdir(parents=True, exist_ok=True)
    write = partial(_patient, output, seed, size, as_dicom)
    if processes > 1:
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            written = list(pool.map(write, range(patients), chunksize=4))
    else:
        written = [write(number) for number in range(patients)]
    rows = [_row(person, contrast) for person in written for contrast in person.files]
    if broken:
        rows += _broken_series(output, written) if as_dicom else _broken(output, seed, size)
    if not as_dicom:
        _describe(output, written)
    table = output / TABLE
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return table


def _patient(output: Path, seed: int, size: int, as_dicom: bool, number: int) -> PatientFiles:
    rng = np.random.default_rng([seed, number])
    head = draw_head(rng, size)
    patient = f"sub-{number:05d}"
    site = sorted(SITES)[int(rng.integers(2))]
    _, noise = SITES[site]
    files = {}
    for contrast in CONTRASTS:
        image = show(head, contrast, rng, noise).round().clip(0, 32767).astype(np.int16)
        if as_dicom:
            files[contrast] = _series(output, patient, contrast, image, seed)
        else:
            files[contrast] = _nifti(output / _anat(patient), patient, contrast, image, site)
    segmentation = None
    if not as_dicom:
        folder = output / "derivatives" / "lesions" / _anat(patient)
        segmentation = _nifti(folder, patient, "dseg", head.lesions, site)
    labels = {"high_grade": int(head.rings), "wide_ventricles": int(head.wide)}
    below = {k: str(Path(v).relative_to(output)) for k, v in files.items()}
    return PatientFiles(
        patient, site, labels, below, segmentation and str(Path(segmentation).relative_to(output))
    )


def _anat(patient: str) -> Path:
    return Path(patient, "ses-1", "anat")


def _affine(size: int) -> NDArray[np.float64]:
    step = SIDE_MM / size
    affine = np.diag([step, step, step, 1.0])
    affine[:3, 3] = -step * (size - 1) / 2
    return affine


def _nifti(
    folder: Path, patient: str, suffix: str, values: NDArray[Any], site: str, name: str = ""
) -> str:
    """Write values in RAS order as the site stores them."""
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(SITES[site][0]))
    affine = _affine(len(values)) @ inv_ornt_aff(turn, values.shape)
    image = nib.Nifti1Image(nib.apply_orientation(values, turn), affine)
    image.header.set_xyzt_units("mm")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (name or f"{patient}_ses-1_{suffix}.nii.gz")
    nib.save(image, path)
    return str(path)


def _row(person: PatientFiles, contrast: str) -> dict[str, Any]:
    return {
        "volume": f"{person.patient}_{contrast}",
        "patient": person.patient,
        "session": "ses-1",
        "path": person.files[contrast],
        "modality": contrast,
        "site": person.site,
        "segmentation": person.segmentation or "",
        **{f"label_{name}": value for name, value in person.labels.items()},
    }


def _describe(output: Path, written: list[PatientFiles]) -> None:
    """What BIDS wants beside the images."""
    about = {"Name": "ray_mae phantoms", "BIDSVersion": "1.10.0", "DatasetType": "raw"}
    (output / "dataset_description.json").write_text(json.dumps(about, indent=1) + "\n")
    with (output / "participants.tsv").open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(["participant_id", "site", "high_grade", "wide_ventricles"])
        writer.writerows([w.patient, w.site, *w.labels.values()] for w in written)


def _broken(output: Path, seed: int, size: int) -> list[dict[str, Any]]:
    """Five volumes that are none, each of a patient of its own."""
    rng = np.random.default_rng([seed, 2**31])
    cube = (size,) * 3
    grid = np.zeros(cube, np.int16)
    grid[:: size // 6] = 500
    rows = []
    for number, (kind, values) in enumerate(
        {
            "constant": np.full(cube, 7, np.int16),
            "labels": rng.integers(0, 3, cube).astype(np.int16),
            "grid": (grid + rng.integers(0, 20, cube)).astype(np.int16),
            "truncated": rng.integers(0, 1000, cube).astype(np.int16),
            "series": rng.integers(0, 1000, (*cube, 3)).astype(np.int16),
        }.items()
    ):
        patient = f"sub-{90000 + number}"
        folder = output / _anat(patient)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{patient}_ses-1_T1w.nii.gz"
        nib.save(nib.Nifti1Image(values, _affine(size)), path)
        if kind == "truncated":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        rows.append(
            {"volume": f"broken-{kind}", "patient": patient, "session": "ses-1",
             "path": str(path.relative_to(output)), "modality": "T1w", "site": "north"}
        )  # fmt: skip
    return rows


# ------------------------------------------------------------------------------------------ DICOM


def _series(output: Path, patient: str, contrast: str, values: NDArray[np.int16], seed: int) -> str:
    """Write axial slices of values in RAS order, under file names that say nothing of their order."""
    folder = output / patient / contrast
    folder.mkdir(parents=True, exist_ok=True)
    size, step = len(values), SIDE_MM / len(values)
    first = -step * (size - 1) / 2
    for k in range(size):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = MR_IMAGE
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        instance = _uid(seed, patient, contrast, k)
        meta.MediaStorageSOPInstanceUID = instance
        # DICOM's columns grow to the left and its rows to the back: both against RAS.
        pixels = np.ascontiguousarray(values[::-1, ::-1, k].T)
        path = folder / f"{hashlib.sha256(instance.encode()).hexdigest()[:8]}.dcm"
        ds = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
        tags: dict[str, Any] = {
            "SOPClassUID": MR_IMAGE, "SOPInstanceUID": instance, "Modality": "MR",
            "PatientID": patient, "StudyInstanceUID": _uid(seed, patient),
            "SeriesInstanceUID": _uid(seed, patient, contrast), "SeriesDescription": contrast,
            "InstanceNumber": size - k, "ImagePositionPatient": [first, first, first + step * k],
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": [step, step],
            "SliceThickness": step, "Rows": size, "Columns": size, "SamplesPerPixel": 1,
            "PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": 16, "BitsStored": 16,
            "HighBit": 15, "PixelRepresentation": 1, "PixelData": pixels.tobytes(),
        }  # fmt: skip
        for name, value in tags.items():
            setattr(ds, name, value)
        ds.save_as(path, enforce_file_format=True)
    return str(folder)


def _broken_series(output: Path, written: list[PatientFiles]) -> list[dict[str, Any]]:
    """Take slices out of the last patient's first two series: one has a gap, one is too short."""
    if written:
        gap, short = (output / path for path in list(written[-1].files.values())[:2])
        files = sorted(gap.iterdir(), key=_depth)
        files[len(files) // 2].unlink()
        for path in sorted(short.iterdir(), key=_depth)[3:]:
            path.unlink()
    return []


def _depth(path: Path) -> float:
    import pydicom

    header = pydicom.dcmread(path, specific_tags=["ImagePositionPatient"], stop_before_pixels=True)
    return float(header.ImagePositionPatient[2])


def _uid(*key: int | str) -> str:
    """A DICOM UID that is a pure function of `key` (the UUID form, 2.25)."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"
