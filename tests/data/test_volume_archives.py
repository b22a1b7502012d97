"""Archives of volumes, listed before a voxel is read."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from dicom_files import write_dicom
from volume_files import listed, settings

from ray_mae.config import VolumeColumns
from ray_mae.data.archives import VOLUME_READERS
from ray_mae.data.archives.studies import dicom
from ray_mae.data.archives.volumes import dicom_series
from ray_mae.data.archives.volumes.contrasts import contrast_in, contrast_of


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@pytest.mark.parametrize(
    ("words", "name"),
    [("T1", "T1w"), ("t1n", "T1w"), ("T1w", "T1w"), ("t1ce", "T1c"), ("T1post", "T1c"),
     ("t1c", "T1c"), ("T2", "T2w"), ("t2f", "FLAIR"), ("FLAIR_reg B Ax Flair", "FLAIR"),
     ("B Ax T1 +C", "T1c"), ("*tfl3d1_16ns", "T1w"), ("SWI", "SWI"), ("", "unknown"),
     ("asl", "ASL"), ("MR", "MR"), ("PT", "PT")],
)  # fmt: skip
def test_contrasts_have_one_name(words: str, name: str) -> None:
    assert contrast_of(words) == name


@pytest.mark.parametrize(
    ("words", "name"),
    [("T1 non-contrast", "T1w"), ("T1 without contrast", "T1w"), ("T1 w/o contrast", "T1w"),
     ("T1 PRE GAD", "T1w"), ("T1 noncontrast", "T1w"), ("T1 pre", "T1w"), ("T1 POST GAD", "T1c"),
     ("T1 postcontrast", "T1c"), ("T1 with gadolinium", "T1c")],
)  # fmt: skip
def test_a_t1_that_is_said_to_be_without_contrast_agent_is_plain(words: str, name: str) -> None:
    assert contrast_of(words) == contrast_in(words) == name


@pytest.mark.parametrize(
    ("words", "name"),
    [("Ax T1 FLAIR", "T1w"), ("t1_tirm_tra_dark-fluid", "T1w"), ("T1 FLAIR +C", "T1c"),
     ("FLAIR", "FLAIR"), ("T2 FLAIR", "FLAIR"), ("t2_tirm_tra_dark-fluid", "FLAIR"),
     ("p7_space-T1w_FLAIR", "FLAIR"), ("FLAIR_reg_T1", "FLAIR")],
)  # fmt: skip
def test_a_t1_flair_is_t1_weighted_and_other_flairs_are_flair(words: str, name: str) -> None:
    assert contrast_of(words) == name


@pytest.mark.parametrize("words", ["DOE^JOHN ASL", "Doe John MR", "1957-03-02", "some words"])
def test_free_text_never_becomes_a_contrast(words: str) -> None:
    assert contrast_of(words) == "unknown"


def test_a_description_without_a_contrast_is_unknown() -> None:
    assert contrast_in("localizer 3 planes") == "unknown"
    assert contrast_in("product test") == "unknown"


def test_openmind_keeps_equal_subject_names_of_two_data_sets_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def data_set(masks: dict[str, str | None] | None) -> dict:
        image = {"name": "a_T1w.nii.gz", "modality": "T1w", "image_path": "$nnssl_raw/D/a.nii.gz",
                 "image_info": {}, "associated_masks": masks}  # fmt: skip
        session = {"session_id": "ses-DEFAULT", "images": [image]}
        info = {"age": 31, "sex": "F", "record": 4711}
        subject = {
            "subject_id": "sub-01",
            "subject_info": info,
            "sessions": {"ses-DEFAULT": session},
        }
        return {"dataset_index": "x", "subjects": {"sub-01": subject}}

    masks = {"anonymization_mask": "$nnssl_raw/D/m.nii.gz", "anatomy_mask": None}
    manifest = tmp_path / "raw" / "Dataset745" / "pretrain_data.json"
    manifest.parent.mkdir(parents=True)
    collection = {"collection_index": 745, "collection_name": "OpenMind",
                  "datasets": {"ds1": data_set(masks), "ds2": data_set(None)}}  # fmt: skip
    manifest.write_text(json.dumps(collection))

    first, second = listed("openmind", manifest, labels=["age"])
    assert first.patient != second.patient
    assert (first.site, first.modality, first.labels) == ("ds1", "T1w", {"age": 31.0})
    assert first.paths == (str(tmp_path / "raw" / "D" / "a.nii.gz"),)
    assert first.anonymised == str(tmp_path / "raw" / "D" / "m.nii.gz")
    assert (first.anatomy, second.anonymised) == (None, None)
    monkeypatch.setenv("nnssl_raw", "/elsewhere")
    assert listed("openmind", manifest)[0].paths == ("/elsewhere/D/a.nii.gz",)


def test_openmind_labels_are_those_that_were_asked_for_and_the_others_are_named(
    tmp_path: Path,
) -> None:
    image = {"name": "a", "modality": "DOE^JOHN ASL", "image_path": "a.nii.gz"}
    subject = {"subject_info": {"age": 31, "sex": "F", "record": 4711},
               "sessions": {"1": {"images": [image]}}}  # fmt: skip
    manifest = tmp_path / "m.json"
    manifest.write_text(json.dumps({"datasets": {"d": {"subjects": {"s": subject}}}}))
    archive = VOLUME_READERS["openmind"](
        settings("openmind", manifest, tmp_path / "o"), lambda *_: None
    )
    assert (archive.records[0].labels, archive.records[0].modality) == ({}, "unknown")
    assert archive.notes["columns_of_numbers"] == ["age", "record"]
    with pytest.raises(ValueError, match=r"says no 'height' of any subject \(volumes\.labels\)"):
        listed("openmind", manifest, labels=["height"])


def test_a_file_that_is_no_manifest_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text(json.dumps({"datasets": {"a": {}}}))
    with pytest.raises(ValueError, match=r"m\.json is no manifest of nnssl \(KeyError: 'subjects'"):
        listed("openmind", tmp_path / "m.json")


def test_bids_images_have_their_participants_numbers_and_their_sessions_label_map(
    tmp_path: Path,
) -> None:
    folder = touch(
        tmp_path / "bids",
        "sub-1/anat/sub-1_T1w.nii.gz", "sub-1/anat/sub-1_FLAIR.nii.gz",
        "sub-1/func/sub-1_bold.nii.gz", "sub-1/anat/sub-1_mod-T1w_defacemask.nii.gz",
        "sub-2/ses-a/anat/sub-2_ses-a_T2w.nii", "sub-2/ses-b/anat/sub-2_ses-b_T2w.nii",
        "derivatives/x/sub-2/ses-b/anat/sub-2_ses-b_dseg.nii.gz",
    )  # fmt: skip
    (folder / "participants.tsv").write_text(
        "participant_id\tage\tsex\tsite\tsplit\nsub-1\t30\tF\tnorth\ttest\nsub-2\tn/a\tM\tsouth\t\n"
    )
    config = settings("bids", folder, tmp_path / "o", labels=["age", "sex"])
    archive = VOLUME_READERS["bids"](config, lambda *_: None)
    records = {record.paths[0]: record for record in archive.records}
    assert len(records) == 4
    one = records["sub-1/anat/sub-1_T1w.nii.gz"]
    assert (one.patient, one.modality, one.site, one.split) == ("sub-1", "T1w", "north", "test")
    assert one.labels == {"age": 30.0}
    b = records["sub-2/ses-b/anat/sub-2_ses-b_T2w.nii"]
    assert b.segmentation == "derivatives/x/sub-2/ses-b/anat/sub-2_ses-b_dseg.nii.gz"
    assert records["sub-2/ses-a/anat/sub-2_ses-a_T2w.nii"].segmentation is None
    assert b.labels == {}
    assert archive.notes["volumes_passed_over"] == {"bold": 1, "defacemask": 1}
    assert archive.notes["labels_not_numbers"] == {"sex": 4}  # one per image


def test_bids_columns_become_labels_only_where_they_were_asked_for(tmp_path: Path) -> None:
    folder = touch(tmp_path / "bids", "sub-1/anat/sub-1_T1w.nii.gz")
    (folder / "participants.tsv").write_text(
        "participant_id\tage\tmrn\tcode\nsub-1\t30\t4711\tA7\nsub-2\tn/a\t4712\t12\n"
    )
    archive = VOLUME_READERS["bids"](settings("bids", folder, tmp_path / "o"), lambda *_: None)
    assert archive.records[0].labels == {}
    assert archive.notes["columns_of_numbers"] == ["age", "mrn"]
    with pytest.raises(ValueError, match=r"no column 'height' \(volumes\.labels\)"):
        listed("bids", folder, labels=["height"])


def test_a_bids_label_map_in_another_space_is_not_attached_to_a_native_image(
    tmp_path: Path,
) -> None:
    folder = touch(
        tmp_path / "bids",
        "sub-1/anat/sub-1_T1w.nii.gz", "sub-2/anat/sub-2_T1w.nii.gz",
        *(f"derivatives/x/sub-{n}/anat/sub-{n}_space-MNI152_dseg.nii.gz" for n in (1, 2)),
        "derivatives/x/sub-2/anat/sub-2_dseg.nii.gz",
    )  # fmt: skip
    archive = VOLUME_READERS["bids"](settings("bids", folder, tmp_path / "o"), lambda *_: None)
    one, two = archive.records
    assert one.segmentation is None
    assert two.segmentation == "derivatives/x/sub-2/anat/sub-2_dseg.nii.gz"
    assert archive.notes["segmentations_in_another_space"] == 2
    assert archive.notes["sessions_with_several_segmentations"] == 0


@pytest.mark.parametrize("archive", ["bids", "brats", "nifti", "dicom-series"])
def test_notes_hold_no_part_of_a_files_name(
    tmp_path: Path, archive: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = touch(
        tmp_path / "in",
        "sub-1/anat/sub-1_T1w.nii.gz", "sub-1/anat/sub-1_doe.nii.gz", "doe/x_T1w.nii.gz",
        "x/doe", "x/scan.doe", "x/1.2.840.4711", "x/.doe", "x/doe.json",
    )  # fmt: skip
    monkeypatch.setattr(dicom_series, "parallel_map", map)
    config = settings(archive, folder, tmp_path / "o")
    notes = VOLUME_READERS[archive](config, lambda *_: None).notes
    assert not {"doe", "4711"} & set(re.findall(r"[a-z]+|\d+", json.dumps(notes).lower()))
    assert notes["files_passed_over"][".json"] == 1
    if archive != "dicom-series":  # which tries to read them
        assert notes["files_passed_over"]["without suffix"] == 1
        assert notes["files_passed_over"]["other suffix"] == 2


def test_brats_cases_of_both_namings_keep_a_patients_visits_together(tmp_path: Path) -> None:
    folder = touch(
        tmp_path / "brats",
        *(f"HGG/Brats18_A_1/Brats18_A_1_{k}.nii.gz" for k in ("t1", "t1ce", "t2", "flair", "seg")),
        *(f"BraTS-GLI-00005-10{v}/BraTS-GLI-00005-10{v}-{k}.nii.gz"
          for v in (0, 1) for k in ("t1n", "t1c", "t2w", "t2f")),
    )  # fmt: skip
    records = listed("brats", folder)
    old = [r for r in records if r.patient == "Brats18_A_1"]
    assert sorted(r.modality for r in old) == ["FLAIR", "T1c", "T1w", "T2w"]
    assert {r.segmentation for r in old} == {"HGG/Brats18_A_1/Brats18_A_1_seg.nii.gz"}
    assert {r.labels["high_grade"] for r in old} == {1.0}
    new = [r for r in records if r.patient == "BraTS-GLI-00005"]
    assert sorted(r.modality for r in new) == sorted(["FLAIR", "T1c", "T1w", "T2w"] * 2)
    assert {r.session for r in new} == {"100", "101"}
    assert {r.segmentation for r in new} == {None}


@pytest.mark.parametrize(
    ("path", "patient", "session"),
    [("p7/visit1/T1.nii.gz", "p7", "visit1"), ("p7_ses-2_FLAIR.nii", "p7", "ses-2"),
     ("anna_b_T1w.nii.gz", "anna_b", None), ("scan.nii.gz", "scan", None),
     ("p7-ses-2-T1.nii", "p7", "ses-2"), ("sub-1_visit1/T1.nii", "sub-1", "visit1"),
     ("OAS1_0001_MR2/mpr.nii", "OAS1_0001", "MR2"), ("p7/anat/T1.nii", "p7", None),
     ("IXI/train/p7/T1.nii", "p7", None), ("PD012/T1.nii", "PD012", None),
     ("site_CT001_T1.nii", "site_CT001", None)],
)  # fmt: skip
def test_nifti_files_tell_their_patient_by_folder_or_name(
    tmp_path: Path, path: str, patient: str, session: str | None
) -> None:
    (record,) = listed("nifti", touch(tmp_path / "in", path))
    assert (record.patient, record.session) == (patient, session)


@pytest.mark.parametrize(
    ("patient", "paths"),
    [
        ("IXI002-Guys-0828", ["IXI002-Guys-0828-T1.nii.gz", "IXI002-Guys-0828-T2.nii.gz",
                              "IXI002-Guys-0828-DTI-00.nii.gz"]),
        ("IXI002-Guys-0828", ["IXI-T1/IXI002-Guys-0828-T1.nii", "IXI-T2/IXI002-Guys-0828-T2.nii"]),
        ("BRATS_001", ["BRATS_001_0000.nii.gz", "BRATS_001_0001.nii.gz"]),
        ("BRATS_001", ["Task01_X/imagesTr/BRATS_001_0000.nii", "Task01_X/labelsTr/BRATS_001.nii"]),
        ("la", ["imagesTr/la_0000.nii", "imagesTr/la_0001.nii"]),
        ("001", ["train/T1/001.nii.gz", "train/T2/001.nii.gz", "val/FLAIR/001.nii.gz"]),
        ("p7", ["p7_T1/image.nii", "p7_T2/image.nii", "p7_post/T1.nii", "p7_baseline/T1.nii"]),
        ("p7", ["T1_p7.nii", "T2_p7.nii", "p7_pre_T1.nii", "p7_post_T1.nii", "p7_FLAIR2.nii"]),
    ],
)  # fmt: skip
def test_nifti_files_of_one_person_are_one_patient(
    tmp_path: Path, patient: str, paths: list[str]
) -> None:
    records = listed("nifti", touch(tmp_path / "in", *paths))
    assert {record.patient for record in records} == {patient}
    assert len(records) == len(paths)


@pytest.mark.parametrize(
    "folder",
    ["imagesTr", "imagesTs", "labelsTr", "train", "val", "test", "images", "volumes", "labels",
     "data", "nifti", "anat", "T1", "IXI-T1", "train_images", "fold0"],
)  # fmt: skip
def test_a_folder_that_only_sorts_files_is_no_patient(tmp_path: Path, folder: str) -> None:
    names = [f"{folder}/p1.nii.gz", f"{folder}/p2-T1.nii.gz", f"{folder}/p3/T1.nii.gz"]
    records = listed("nifti", touch(tmp_path / "in", *names))
    assert [record.patient for record in records] == ["p1", "p2", "p3"]


def test_a_nifti_folder_notes_its_patients_and_is_an_error_where_they_are_implausible(
    tmp_path: Path,
) -> None:
    folder = touch(tmp_path / "in", "p1_T1.nii.gz", "p1_T2.nii.gz", "p2_T1.nii.gz")
    archive = VOLUME_READERS["nifti"](settings("nifti", folder, tmp_path / "o"), lambda *_: None)
    assert archive.notes["patients"] == 2
    assert archive.notes["volumes_per_patient"] == {"mean": 1.5, "most": 2}
    many = touch(tmp_path / "many", *(f"IXI/x{n}.nii.gz" for n in range(51)))
    with pytest.raises(ValueError, match=r"51 volumes of 1 patients.*volumes\.patient_pattern"):
        listed("nifti", many)
    assert len(listed("nifti", many, patient_pattern="(?P<patient>IXI)")) == 51
    with pytest.raises(ValueError, match=r"1 volumes of 0 patients.*volumes\.patient_pattern"):
        listed("nifti", touch(tmp_path / "none", "T1.nii.gz"))


def test_nifti_patients_may_be_told_by_a_pattern(tmp_path: Path) -> None:
    folder = touch(tmp_path / "in", "x/A12-2_T1.nii.gz", "x/other.nii.gz")
    one, other = listed("nifti", folder, patient_pattern=r"(?P<patient>A\d+)-(?P<session>\d)")
    assert (one.patient, one.session, other.patient) == ("A12", "2", "")
    with pytest.raises(ValueError, match=r"no group \(\?P<patient>.*volumes\.patient_pattern"):
        listed("nifti", folder, patient_pattern="A")


def test_a_table_gives_labels_by_prefix_and_by_name(tmp_path: Path) -> None:
    rows = [
        {"p": "1", "path": "a.nii", "modality": "T1", "mask": "m.nii", "label_x": "1", "age": "40"},
        {"p": "1", "path": "", "modality": "", "mask": "", "label_x": "high", "age": ""},
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "t.csv")
    columns = VolumeColumns(patient="p")
    one, two = listed("volume-table", tmp_path / "t.csv", columns=columns, labels=["age"])
    assert (one.volume, one.modality, one.valid) == ("a.nii", "T1w", "m.nii")
    assert one.labels == {"x": 1.0, "age": 40.0}
    assert two.labels == {}
    assert two.problem
    assert two.problem.reason == "missing"
    with pytest.raises(ValueError, match=r"no column 'patient'.*volumes\.columns\.patient"):
        listed("volume-table", tmp_path / "t.csv")
    with pytest.raises(ValueError, match=r"no column 'height' \(volumes\.labels\)"):
        listed("volume-table", tmp_path / "t.csv", columns=columns, labels=["height"])


@pytest.mark.parametrize("archive", sorted(VOLUME_READERS))
def test_a_source_that_is_not_there_is_named(tmp_path: Path, archive: str) -> None:
    with pytest.raises(FileNotFoundError, match=r"none.* is no .*\(source\)"):
        listed(archive, tmp_path / "none")


def write_series(
    folder: Path, uid: str, count: int = 5, patient: str = "p", **tags: Any
) -> list[Path]:
    """A regular DICOM series; its instances are named by series and slice."""
    return [
        write_dicom(
            folder / f"{uid}.{k}.dcm", np.zeros((4, 5), np.uint16), Modality="MR", PatientID=patient,
            SeriesInstanceUID=uid, SOPInstanceUID=f"{uid}.{k}", ImagePositionPatient=[0, 0, 2 * k],
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0], PixelSpacing=[3, 1.5], **tags,
        )
        for k in range(count)
    ]  # fmt: skip


@pytest.mark.parametrize("order", [1, -1])
def test_the_first_of_two_equal_dicom_files_stays_whichever_is_read_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: int
) -> None:
    folder = tmp_path / "in"
    write_series(folder / "b", "1.1")
    write_series(folder / "a", "1.1")
    write_series(folder / "c", "1.2")
    write_series(folder / "d", "1.2")
    monkeypatch.setattr(dicom, "FILES_PER_TASK", 3)
    monkeypatch.setattr(
        dicom_series, "parallel_map", lambda work, chunks: map(work, list(chunks)[::order])
    )
    config = settings("dicom-series", folder, tmp_path / "o")
    archive = VOLUME_READERS["dicom-series"](config, lambda *_: None)
    assert archive.notes["duplicate_files"] == 10
    entries = [(r.paths[0], len(r.paths), r.problem and r.problem.reason) for r in archive.records]
    assert entries == [("a/1.1.0.dcm", 5, None), ("b/1.1.0.dcm", 1, "duplicate"),
                     ("c/1.2.0.dcm", 5, None), ("d/1.2.0.dcm", 1, "duplicate")]  # fmt: skip
    problem = archive.records[1].problem
    assert problem
    assert problem.detail == "5 files, as a/1.1.0.dcm"


def test_a_table_beside_dicom_series_says_what_their_headers_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, table = tmp_path / "in", tmp_path / "t.csv"
    for number, (place, patient) in enumerate(
        {"a": "p", "b/x": "p", "b/y": "p", "c": "q", "d": "r"}.items()
    ):
        write_series(folder / place, f"1.{number}", patient=patient, SeriesDescription="T2")
    write_series(folder / "d", "1.9", patient="r", SeriesDescription="T2")
    rows = [
        {"volume": "1.0", "patient": "new", "modality": "t1ce", "session": "s", "label_x": "1"},
        {"path": "b/x/", "split": "test", "site": "north", "age": "40", "label_x": "high"},
        {"patient": "q", "modality": "T1", "label_x": "3", "split": "val"},
        {"path": "d", "label_x": "4"},  # two series lie there
        {"volume": "1.77", "label_x": "5"},
    ]
    pd.DataFrame(rows).to_csv(table)
    monkeypatch.setattr(dicom_series, "parallel_map", map)
    config = settings("dicom-series", folder, tmp_path / "o", table=table, labels=["age"])
    archive = VOLUME_READERS["dicom-series"](config, lambda *_: None)
    records = {record.volume: record for record in archive.records}
    a, x, y, c = (records[f"1.{number}"] for number in range(4))
    assert (a.patient, a.modality, a.session, a.labels) == ("new", "T1c", "s", {"x": 1.0})
    assert (x.modality, x.session, x.labels) == ("T2w", "1.2.3", {"age": 40.0})
    assert (x.site, x.split) == ("north", "test")
    assert (y.labels, y.split) == ({}, None)
    assert x.patient == y.patient == "new"  # one person stays one patient
    assert (c.patient, c.modality, c.split, c.labels) == ("q", "T2w", "val", {"x": 3.0})
    assert records["1.4"].labels == records["1.9"].labels == {}
    assert archive.notes["table_rows_without_series"] == 2
    assert archive.notes["series_without_table_row"] == 3
    assert archive.notes["labels_not_numbers"] == {"label_x": 1}


def test_a_table_beside_dicom_series_that_cannot_be_used_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_series(tmp_path / "in", "1.1")
    monkeypatch.setattr(dicom_series, "parallel_map", map)
    table = tmp_path / "t.csv"
    with pytest.raises(FileNotFoundError, match=r"t\.csv does not exist \(volumes\.table\)"):
        listed("dicom-series", tmp_path / "in", table=table)
    table.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"none of the columns 'volume'.*volumes\.columns"):
        listed("dicom-series", tmp_path / "in", table=table)
    table.write_text("volume\n1.1\n")
    with pytest.raises(ValueError, match=r"no column 'age' \(volumes\.labels\)"):
        listed("dicom-series", tmp_path / "in", table=table, labels=["age"])


def test_openmind_reads_no_variable_that_may_hold_a_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_MAE_PSEUDONYM_KEY", "a secret that nobody ever guesses")
    image = {"name": "a", "modality": "T1w", "image_path": "$RAY_MAE_PSEUDONYM_KEY/a.nii.gz"}
    subjects = {"s": {"sessions": {"1": {"images": [image]}}}}
    manifest = tmp_path / "pretrain_data.json"
    manifest.write_text(json.dumps({"datasets": {"d": {"subjects": subjects}}}))
    with pytest.raises(
        ValueError, match="only nnssl_preprocessed, nnssl_raw, nnssl_results"
    ) as error:
        listed("openmind", manifest)
    assert "secret that" not in str(error.value)
