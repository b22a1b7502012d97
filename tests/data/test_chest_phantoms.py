"""The phantoms: a cohort that repeats, whose views, labels and reports tell one story."""

import csv
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.errors import InvalidDicomError

from ray_mae.data.labels import CHEXPERT_LABELS, NEGATIVE, NOT_MENTIONED, POSITIVE, UNCERTAIN
from ray_mae.data.phantoms.chest_anatomy import (
    Camera,
    Ellipsoid,
    build,
    draw_patient,
    outside,
    project,
    rotation,
)
from ray_mae.data.phantoms.chest_cohort import chest_of, draw_studies, write_studies
from ray_mae.data.phantoms.chest_diseases import DISEASES
from ray_mae.data.phantoms.chest_projection import AXES, FRONTAL, LATERAL, expose
from ray_mae.data.phantoms.chest_reports import NEGATIVES

SIZE, PATIENTS = 64, 12


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("cohort")
    return folder, write_studies(folder, PATIENTS, seed=3, size=SIZE)


def files(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def whole_files(folder: Path) -> list[pydicom.FileDataset]:
    return [pydicom.dcmread(f) for f in sorted(folder.rglob("IM[1-3].dcm"))]


def camera(view: str, size: int = 96) -> Camera:
    return Camera(AXES[view], size, size, 40 / size)


def test_the_same_seed_gives_the_same_bytes_on_any_number_of_processes(
    cohort: tuple[Path, dict], tmp_path: Path
) -> None:
    folder, counts = cohort
    assert write_studies(tmp_path, PATIENTS, seed=3, size=SIZE, processes=2) == counts
    assert files(tmp_path) == files(folder)


def test_a_patient_does_not_depend_on_how_many_there_are(
    cohort: tuple[Path, dict], tmp_path: Path
) -> None:
    write_studies(tmp_path, 4, seed=3, size=SIZE, broken=0)
    few, many = files(tmp_path / "dicom"), files(cohort[0] / "dicom")
    assert few.items() <= many.items()


def test_another_seed_gives_other_films(cohort: tuple[Path, dict], tmp_path: Path) -> None:
    write_studies(tmp_path, 1, seed=4, size=SIZE, broken=0)
    name = "P00000/S1/IM1.dcm"
    assert files(tmp_path / "dicom")[name] != files(cohort[0] / "dicom")[name]


def test_counts_are_what_lies_on_disk(cohort: tuple[Path, dict]) -> None:
    folder, counts = cohort
    films = whole_files(folder)
    rows = list(csv.DictReader((folder / "reports.csv").open(newline="")))
    assert counts["patients"] == len({d.PatientID for d in films}) == PATIENTS
    assert counts["studies"] == len(rows) == len({d.StudyInstanceUID for d in films})
    assert {row["study"] for row in rows} == {d.StudyInstanceUID for d in films}
    assert counts["images"] == len(films)
    assert counts["broken"] == len(list(folder.rglob("*.dcm"))) - len(films) == 3
    assert counts["reports"] == sum(row["text"] != "" for row in rows)
    for label in CHEXPERT_LABELS:
        assert counts["positives"][label] == sum(row[label] == "1" for row in rows)


def test_films_are_dicom_of_twelve_bits_with_an_identity_to_remove(
    cohort: tuple[Path, dict],
) -> None:
    films = whole_files(cohort[0])
    for d in films:
        assert d.Modality in ("CR", "DX")
        assert min(d.pixel_array.shape) == SIZE
        assert d.pixel_array.max() <= 4095
        assert d.pixel_array.std() > 100
        assert d.PatientName
        assert d.PatientID.startswith("MRN")
        assert re.fullmatch(r"\d{8}", d.PatientBirthDate)
        assert str(d.PatientName).encode() in Path(d.filename).read_bytes()
    assert {d.PhotometricInterpretation for d in films} == {"MONOCHROME1", "MONOCHROME2"}
    assert {"WindowCenter" in d for d in films} == {True, False}
    assert {d.get("ViewPosition") for d in films} >= {"PA", "AP", "LL"}


def test_broken_files_are_of_three_kinds(cohort: tuple[Path, dict]) -> None:
    folder = cohort[0] / "dicom"
    with pytest.raises(InvalidDicomError):
        pydicom.dcmread(folder / "P00001/S1/notes.dcm")
    with pytest.raises(ValueError):
        _ = pydicom.dcmread(folder / "P00000/S1/IM9.dcm").pixel_array
    assert pydicom.dcmread(folder / "P00002/S1/CT1.dcm").Modality == "CT"


def test_states_follow_what_was_drawn_and_all_four_occur() -> None:
    studies = [s for patient in range(60) for s in draw_studies(0, patient)]
    seen = {state for s in studies for state in s.states.values()}
    assert seen == {POSITIVE, NEGATIVE, UNCERTAIN, NOT_MENTIONED}
    for s in studies:
        for label in DISEASES:
            if s.states[label] == POSITIVE:
                assert label in s.findings
            if s.states[label] == NEGATIVE:
                assert label not in s.findings
        if s.states["No Finding"] == POSITIVE:
            assert not s.findings
            assert set(s.states.values()) <= {POSITIVE, NEGATIVE, NOT_MENTIONED}
            assert sum(state == POSITIVE for state in s.states.values()) == 1


def test_reports_say_what_the_states_say() -> None:
    hedges = re.compile(r"may|possibl|cannot|not excluded|question|suspicious|probable|apparent")
    denials = re.compile(r"\bno\b|normal|not widened|within normal")
    checked = 0
    for patient in range(60):
        for s in draw_studies(0, patient):
            if s.report is None:
                continue
            text = s.report.lower()
            assert "findings" in text
            if UNCERTAIN in s.states.values():
                assert hedges.search(text)
            for label, (word, _) in NEGATIVES.items():
                if s.states[label] == NEGATIVE:
                    assert denials.search(text)
                elif word in ("pneumothorax", "pleural effusion", "pulmonary edema"):
                    denied = rf"\b(no|no evidence of)\b[^.]*{word}"
                    assert not re.search(denied, text), (label, text)
            for label in ("Lung Lesion", "Pneumothorax", "Consolidation"):
                if s.states[label] == POSITIVE:
                    assert s.findings[label].side in text
                    checked += 1
    assert checked > 10


def test_a_disease_that_persists_stays_in_its_place() -> None:
    for patient in range(60):
        studies = draw_studies(0, patient)
        for before, after in pairwise(studies):
            for label, episode in after.diseases.items():
                if before.diseases.get(label) == episode:
                    assert before.findings[label].side == after.findings[label].side
                    return
    pytest.fail("no disease persisted")


def test_both_views_are_taken_of_one_chest() -> None:
    """A lesion stands at the same height in the frontal and in the lateral projection."""
    rng = np.random.default_rng(0)
    chest = build(draw_patient(rng), rng, breath=0.0)
    plain = {v: project(chest, camera(v), arms_up=v == LATERAL) for v in (FRONTAL, LATERAL)}
    chest.solids.append((Ellipsoid.at(chest.place(0, rng), [1.5] * 3), 0.2))
    rows = {}
    for view, before in plain.items():
        shadow = project(chest, camera(view), arms_up=view == LATERAL) - before
        assert shadow.max() > 0.3
        rows[view] = (shadow.sum(1) * np.arange(len(shadow))).sum() / shadow.sum()
    assert rows[FRONTAL] == pytest.approx(rows[LATERAL], abs=0.6)


@pytest.mark.parametrize("name", DISEASES)
def test_every_disease_is_seen_by_both_projections(name: str) -> None:
    for view in (FRONTAL, LATERAL):
        shots = [
            project(chest_of(0, 7, 0, diseases)[0], camera(view), arms_up=view == LATERAL)
            for diseases in ({}, {name: 0})
        ]
        assert np.abs(shots[1] - shots[0]).max() > 0.05


def test_edema_is_texture_and_hardly_brightness() -> None:
    healthy, ill = (
        project(chest_of(0, 7, 0, d)[0], camera(FRONTAL), arms_up=False) for d in ({}, {"Edema": 0})
    )
    change = ill - healthy
    assert abs(change.mean()) < 0.05 * np.abs(change).mean()


def test_the_heart_lies_to_the_left_and_in_front() -> None:
    chest, _ = chest_of(0, 1, 0, {})
    chest.heart, small = chest.heart.grown(1.1), chest.heart
    for view, edge in ((FRONTAL, 1), (LATERAL, -1)):
        big = project(chest, camera(view), arms_up=False)
        chest.heart = small
        change = big - project(chest, camera(view), arms_up=False)
        chest.heart = small.grown(1.1)
        column = (change.sum(0) * camera(view).u[0]).sum() / change.sum()
        assert column * edge > 0.5  # right half of a frontal film, left half of a lateral one


def test_air_beside_an_organ_has_its_exact_length() -> None:
    """Inclusion and exclusion against counting along the rays."""
    rng = np.random.default_rng(1)
    chest = build(draw_patient(rng), rng, breath=0.0)
    turn = AXES[FRONTAL] @ rotation(x=5, z=8)
    shot = Camera(turn, 24, 24, 1.5)
    depth = np.arange(-15, 15, 0.02)
    row, column = 12, 17
    ray = np.array([shot.u[0, column], shot.v[row, 0], 0]) + depth[:, None] * np.array([0, 0, 1])
    points = ray @ turn  # back to the patient's axes
    organs = [chest.domes[1], chest.heart, chest.mediastinum, chest.knob]
    inside = chest.lungs[1].level(points) < 1
    for organ in organs:
        inside &= organ.level(points) > 1
    lung = shot.chord(chest.lungs[1])[0]
    air = outside(lung, [shot.chord(organ)[0] for organ in organs])
    assert inside.sum() > 0
    assert air[row, column] == pytest.approx(inside.sum() * 0.02, abs=0.1)


def test_each_exposure_of_one_chest_differs() -> None:
    chest, _ = chest_of(0, 1, 0, {})
    first, again, other = (
        expose(chest, LATERAL, SIZE, np.random.default_rng(k)) for k in (1, 1, 2)
    )
    assert (first == again).all()
    assert first.shape != other.shape or (first != other).any()


def test_a_cohort_of_nobody_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="patients must be at least 1, got 0"):
        write_studies(tmp_path, 0)
