"""A seeded cohort of synthetic chest X-ray studies as real DICOM files, with reports and labels.

The films (`chest_projection`) are projections of one simulated 3D chest per patient
(`chest_anatomy`), with diseases drawn as 3D objects (`chest_diseases`) and reports from
templates (`chest_reports`). They are
made so that a place for the software to be tried exists without any patient's data. They look like
chest films from afar, are synthetic throughout, and say nothing about medicine: a figure measured
on them ranks nothing but the code that ran.

Everything is a pure function of the seed, and no patient depends on how many there are.
"""

import csv
import hashlib
import io
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from ray_mae.data.labels import CHEXPERT_LABELS, NOT_MENTIONED, POSITIVE
from ray_mae.data.phantoms.chest_anatomy import Chest, build, draw_patient
from ray_mae.data.phantoms.chest_diseases import CARICATURES, DISEASES, Finding
from ray_mae.data.phantoms.chest_projection import FRONTAL, LATERAL, expose
from ray_mae.data.phantoms.chest_reports import draw_states, write_report

CR, DX, CT = (f"1.2.840.10008.5.1.4.1.1.{k}" for k in ("1", "1.1", "2"))
BASE_RATE = 0.03
CLUSTERS: list[dict[str, float]] = [  # diseases that come together, and how often in each
    {"Cardiomegaly": 0.65, "Edema": 0.6, "Pleural Effusion": 0.45, "Support Devices": 0.15},
    {"Pneumonia": 0.55, "Consolidation": 0.45, "Lung Opacity": 0.35, "Pleural Effusion": 0.2},
    {"Fracture": 0.65, "Pneumothorax": 0.5, "Lung Opacity": 0.2, "Support Devices": 0.15},
    {"Lung Lesion": 0.7, "Enlarged Cardiomediastinum": 0.4, "Pleural Effusion": 0.15},
    {"Atelectasis": 0.6, "Support Devices": 0.6, "Pneumothorax": 0.25, "Consolidation": 0.15},
    {"Pleural Other": 0.65, "Enlarged Cardiomediastinum": 0.4, "Cardiomegaly": 0.2,
     "Fracture": 0.2, "Atelectasis": 0.2, "Lung Lesion": 0.15, "Edema": 0.15},
]  # fmt: skip
FAMILY = ("Almeida", "Baker", "Chen", "Dubois", "Eriksen", "Fischer", "Garcia", "Hassan", "Ivanov",
          "Jansen", "Kowalski", "Lindqvist", "Moreau", "Nakamura", "Okafor", "Popescu", "Quiroga",
          "Rossi", "Singh", "Tanaka", "Ueda", "Varga", "Weber", "Yilmaz", "Zeman")  # fmt: skip
GIVEN = ("Alex", "Bea", "Chris", "Dana", "Elif", "Finn", "Grete", "Hugo", "Ines", "Jonas", "Kim",
         "Lena", "Mika", "Nora", "Omar", "Paula", "Rune", "Sara", "Tomas", "Vera")  # fmt: skip


@dataclass(frozen=True)
class Study:
    """What one study shows and says, before any pixel is made."""

    patient: int
    number: int
    diseases: dict[str, int]
    """Diseases present, and the number of the study in which each was drawn."""
    findings: dict[str, Finding]
    states: dict[str, int]
    report: str | None
    views: tuple[str, ...]
    """FRONTAL or LATERAL, one for each image."""
    chest: Chest
    """The anatomy that all the views see."""


def _rng(seed: int, patient: int, *key: int) -> np.random.Generator:
    return np.random.default_rng([seed, patient, *key])


def _uid(*key: int | str) -> str:
    """A DICOM UID that is a pure function of `key` (the UUID form, 2.25)."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


# ------------------------------------------------------------------------------ what is the matter


def draw_diseases(rng: np.random.Generator) -> set[str]:
    """Diseases of a new episode: none in three of ten, else one or two clusters."""
    if rng.random() < 0.3:
        return set()
    chosen = rng.choice(len(CLUSTERS), 1 + int(rng.random() < 0.5), replace=False)
    present = set()
    for name in DISEASES:
        absent = 1 - BASE_RATE
        for k in chosen:
            absent *= 1 - CLUSTERS[k].get(name, 0.0)
        if rng.random() > absent:
            present.add(name)
    return present


def draw_views(rng: np.random.Generator) -> tuple[str, ...]:
    """65 % both views, 20 % frontal, 5 % lateral, 10 % both and a third image."""
    a = rng.random()
    if a < 0.65:
        return FRONTAL, LATERAL
    if a < 0.85:
        return (FRONTAL,)
    if a < 0.90:
        return (LATERAL,)
    return FRONTAL, LATERAL, (FRONTAL if rng.random() < 0.6 else LATERAL)


def chest_of(
    seed: int, patient: int, number: int, diseases: dict[str, int], caricature: bool = False
) -> tuple[Chest, dict[str, Finding]]:
    """The 3D chest of a patient in study `number`, with `diseases`, and the words for them.

    A disease that persists is drawn from the same random numbers and is found at the same place.
    caricature: draw those of CARICATURES also as a texture of the whole lungs.
    """
    build_of = draw_patient(_rng(seed, patient, 0))
    breath = float(_rng(seed, patient, 1, number).normal(0, 0.9))
    chest = build(build_of, _rng(seed, patient, 2), breath)
    findings = {}
    for k, (name, draw) in enumerate(DISEASES.items()):
        if name in diseases:
            findings[name] = draw(chest, _rng(seed, patient, 3, k, diseases[name]))
    if caricature:
        for k, (name, texture) in enumerate(CARICATURES.items()):
            if name in diseases:
                texture.draw(chest, _rng(seed, patient, 5, k, diseases[name]))
    return chest, findings


def draw_studies(seed: int, patient: int, caricature: bool = False) -> list[Study]:
    """The one to three studies of a patient; a disease persists with probability 0.6."""
    rng = _rng(seed, patient, 4)
    studies: list[Study] = []
    for number in range(int(rng.choice([1, 2, 3], p=[0.45, 0.35, 0.2]))):
        fresh = draw_diseases(rng)
        if caricature:
            fresh &= CARICATURES.keys()
        diseases = {
            name: episode
            for name, episode in (studies[-1].diseases if studies else {}).items()
            if rng.random() < 0.6
        }
        if not studies or rng.random() < 0.5:
            diseases |= {name: number for name in sorted(fresh) if name not in diseases}
        chest, findings = chest_of(seed, patient, number, diseases, caricature)
        findings = _parents(findings)
        states, views = draw_states(findings, rng), draw_views(rng)
        words = ["PA" if v == FRONTAL else "LAT" for v in views]
        report: str | None = write_report(findings, states, words, rng)
        if rng.random() <= 0.1:
            report = None
        studies.append(Study(patient, number, diseases, findings, states, report, views, chest))
    return studies


def _parents(findings: dict[str, Finding]) -> dict[str, Finding]:
    """A consolidation is an opacity too, as in CheXpert's hierarchy of labels."""
    if "Consolidation" in findings and "Lung Opacity" not in findings:
        return findings | {"Lung Opacity": findings["Consolidation"]}
    return findings


# ------------------------------------------------------------------------------------------- files


def dicom_file(pixels: NDArray[np.uint16], study: Study, image: int, seed: int) -> FileDataset:
    """A CR or DX object of one film, with the header of a careless archive.

    Identity is fictitious and complete, so that whoever reads it has to remove it.
    """
    who, rng = _rng(seed, study.patient, 5), _rng(seed, study.patient, 6, study.number, image)
    scanner = _rng(seed, study.patient, 7, study.number)
    modality = "DX" if scanner.random() < 0.5 else "CR"
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(DX if modality == "DX" else CR)
    meta.MediaStorageSOPInstanceUID = UID(_uid(seed, study.patient, study.number, image))
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = (
        meta.MediaStorageSOPClassUID,
        meta.MediaStorageSOPInstanceUID,
    )
    ds.StudyInstanceUID = study_uid(seed, study)
    ds.SeriesInstanceUID = _uid(seed, study.patient, study.number, "series", image)
    ds.Modality = modality
    _set_identity(ds, study, who, scanner)
    ds.SeriesNumber, ds.InstanceNumber = image + 1, 1
    _set_view(ds, study.views[image], rng)
    _set_pixels(ds, pixels, rng)
    return ds


def study_uid(seed: int, study: Study) -> str:
    """StudyInstanceUID: the key between the files and reports.csv."""
    return _uid(seed, study.patient, study.number, "study")


def _set_identity(
    ds: Dataset, study: Study, who: np.random.Generator, scanner: np.random.Generator
) -> None:
    """Fictitious patient, dates and place."""
    ds.PatientName = f"{FAMILY[who.integers(len(FAMILY))]}^{GIVEN[who.integers(len(GIVEN))]}"
    ds.PatientID = f"MRN{10_000_000 + study.patient * 37 + int(who.integers(37))}"
    born = int(who.integers(1930, 2004))
    ds.PatientBirthDate = f"{born}{who.integers(1, 13):02d}{who.integers(1, 29):02d}"
    ds.PatientSex = "FM"[who.integers(2)]
    year = 2015 + 2 * study.number + int(scanner.integers(2))
    ds.StudyDate = f"{year}{scanner.integers(1, 13):02d}{scanner.integers(1, 29):02d}"
    ds.StudyTime = f"{scanner.integers(24):02d}{scanner.integers(60):02d}00"
    ds.PatientAge = f"{year - born:03d}Y"
    ds.AccessionNumber = f"A{scanner.integers(10**7):07d}"
    ds.StudyID = str(study.number + 1)
    ds.ReferringPhysicianName = f"{FAMILY[scanner.integers(len(FAMILY))]}^Dr"
    ds.InstitutionName = "Phantom General Hospital"
    ds.Manufacturer = ("Acme Imaging", "Example Systems")[scanner.integers(2)]
    ds.BodyPartExamined = "CHEST"
    ds.StudyDescription = "CHEST 2 VIEWS" if len(study.views) > 1 else "CHEST"


def _set_view(ds: Dataset, view: str, rng: np.random.Generator) -> None:
    """The view, as archives give it: mostly ViewPosition, else another tag, rarely nothing."""
    a = rng.random()
    if a < 0.90:
        ds.ViewPosition = "LL" if view == LATERAL else ("PA" if rng.random() < 0.75 else "AP")
    elif a < 0.94:
        ds.PatientOrientation = ["P", "F"] if view == LATERAL else ["L", "F"]
    elif a < 0.97:
        ds.SeriesDescription = "CHEST LATERAL" if view == LATERAL else "CHEST PA"


def _set_pixels(ds: Dataset, pixels: NDArray[np.uint16], rng: np.random.Generator) -> None:
    """Pixels 12 bit in 16; one film in six is MONOCHROME1; a window in half of them."""
    inverted = rng.random() < 1 / 6
    ds.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    ds.SamplesPerPixel, ds.PixelRepresentation = 1, 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
    ds.Rows, ds.Columns = pixels.shape
    if rng.random() < 0.5:
        ds.WindowCenter = str(int(rng.normal(2048, 120)))
        ds.WindowWidth = str(int(rng.normal(3800, 200)))
    if rng.random() < 0.5:
        ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = "0", "1", "US"
    ds.PixelData = (4095 - pixels if inverted else pixels).astype("<u2").tobytes()


@dataclass(frozen=True)
class ReportRow:
    """What reports.csv says of one study."""

    study: str
    text: str | None
    states: dict[str, int]
    images: int


def _write_patient(
    patient: int, folder: Path, seed: int, size: int, caricature: bool
) -> list[ReportRow]:
    """Write the DICOM files of one patient; returns the rows of its studies."""
    rows, varied = [], 0.7 if caricature else 1.0
    for study in draw_studies(seed, patient, caricature):
        where = folder / f"P{patient:05d}" / f"S{study.number + 1}"
        where.mkdir(parents=True, exist_ok=True)
        for image, view in enumerate(study.views):
            rng = _rng(seed, patient, 8, study.number, image)
            file = dicom_file(expose(study.chest, view, size, rng, varied), study, image, seed)
            file.save_as(where / f"IM{image + 1}.dcm", enforce_file_format=True)
        rows.append(ReportRow(study_uid(seed, study), study.report, study.states, len(study.views)))
    return rows


def _write_broken(folder: Path, k: int, seed: int, size: int) -> None:
    """One file that no ingest can use, beside the k-th patient's: cut short, text, or a CT slice.

    It has its own study, so that the studies that are whole stay whole.
    """
    where = folder / f"P{k:05d}" / "S1"
    study = replace(draw_studies(seed, k)[0], number=90, views=(FRONTAL,))
    if k % 3 == 1:
        (where / "notes.dcm").write_text("Films of this patient are kept in the basement.\n")
        return
    ds = dicom_file(np.full((size, size), 2000, np.uint16), study, 0, seed)
    if k % 3 == 2:
        ds.Modality, ds.SOPClassUID = "CT", UID(CT)
        ds.file_meta.MediaStorageSOPClassUID = UID(CT)
        ds.save_as(where / "CT1.dcm", enforce_file_format=True)
        return
    buffer = io.BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    (where / "IM9.dcm").write_bytes(buffer.getvalue()[: int(0.6 * buffer.tell())])


def write_studies(
    output: Path,
    patients: int,
    seed: int = 0,
    size: int = 256,
    processes: int | None = None,
    broken: int = 3,
    caricature: bool = False,
) -> dict:
    """Write a cohort of synthetic chest X-ray studies: `dicom/PATIENT/STUDY/IMAGE.dcm` and `reports.csv`.

    reports.csv has the columns `study` (StudyInstanceUID), `text` (empty without a report) and the
    14 CheXpert names: 1 positive, 0 negative, -1 uncertain, empty not mentioned.

    Args:
        output: folder to write to.
        patients: how many.
        seed: of everything random.
        size: pixels of a film's short side.
        processes: that write; 1 by default. The files do not depend on it.
        broken: unusable files among the others, at most one a patient.
        caricature: fewer diseases, which are coarse textures of the lungs, for networks that have
            minutes to learn them.

    Returns:
        Counts: patients, studies, images, reports, broken, and positive studies per label.

    Raises:
        ValueError: fewer than one patient, or films of fewer than 32 pixels.
    """
    if patients < 1:
        raise ValueError(f"patients must be at least 1, got {patients}")
    if size < 32:
        raise ValueError(f"size must be at least 32 pixels, got {size}")
    folder = Path(output) / "dicom"
    folder.mkdir(parents=True, exist_ok=True)
    write = partial(_write_patient, folder=folder, seed=seed, size=size, caricature=caricature)
    if processes is None or processes == 1:
        written = [write(patient) for patient in range(patients)]
    else:
        with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
            written = list(pool.map(write, range(patients), chunksize=8))
    rows = [row for some in written for row in some]
    broken = min(broken, patients)
    for k in range(broken):
        _write_broken(folder, k, seed, size)

    positives: Counter[str] = Counter()
    with (Path(output) / "reports.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["study", "text", *CHEXPERT_LABELS])
        for row in rows:
            states = [row.states[label] for label in CHEXPERT_LABELS]
            cells = ["" if s == NOT_MENTIONED else s for s in states]
            table.writerow([row.study, row.text or "", *cells])
            positives.update(k for k in CHEXPERT_LABELS if row.states[k] == POSITIVE)
    return {
        "patients": patients,
        "studies": len(rows),
        "images": sum(row.images for row in rows),
        "reports": sum(row.text is not None for row in rows),
        "broken": broken,
        "positives": {label: positives[label] for label in CHEXPERT_LABELS},
    }
