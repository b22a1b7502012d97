"""Archives of volumes, listed before a voxel is read."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from dicom_files import write_dicom
from pydicom import dcmread
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
     ("asl", "ASL"), ("MR", "MR"), ("PT", "PT"), ("T2c", "T2c"), ("FLAIRc", "FLAIRc")],
)  # fmt: skip
def test_contrasts_have_one_name(words: str, name: str) -> None:
    assert contrast_of(words) == name


@pytest.mark.parametrize(
    ("words", "name"),
    [("T1 non-contrast", "T1w"), ("T1 without contrast", "T1w"), ("T1 w/o contrast", "T1w"),
     ("T1 PRE GAD", "T1w"), ("T1 noncontrast", "T1w"), ("T1 pre", "T1w"), ("T1 POST GAD", "T1c"),
     ("T1 postcontrast", "T1c"), ("T1 with gadolinium", "T1c"), ("MPRAGE post", "T1c"),
     ("3D BRAVO +C", "T1c"), ("SPGR GAD", "T1c"), ("AX T1 C+", "T1c"), ("AX T1 C-", "T1w"),
     ("T1 GAD-", "T1w"), ("T1W_CE", "T1c"), ("T1 Dotarem", "T1c"), ("T1 enhanced", "T1c"),
     ("T1 unenhanced", "T1w"), ("t1_mprage_sag_KM", "T1c"), ("T1 mit KM", "T1c"),
     ("T1 ohne KM", "T1w"), ("T1 nativ", "T1w"), ("T1 nach Kontrastmittel", "T1c"),
     ("T1 avec injection", "T1c"), ("T1 sans injection", "T1w"), ("T1 con contraste", "T1c"),
     ("T1 sin contraste", "T1w"), ("T1 c/ contraste", "T1c"), ("T1 s/ contraste", "T1w"),
     ("T1 dopo mdc", "T1c"), ("T1 senza mdc", "T1w"), ("FLAIR +C", "FLAIRc"),
     ("T2 post contrast", "T2c"), ("FLAIR post", "FLAIR"), ("DWI post contrast", "DWI"),
     ("CT +C", "CTc"), ("sT1W_3D_TFE_GD", "T1c"), ("eT1W", "T1w"), ("3DT1 post inj", "T1c"),
     ("T1w GBCA", "T1c"), ("T1 post op", "T1w"), ("T1 postop +C", "T1c"), ("T1 POST", "T1c")],
)  # fmt: skip
def test_a_contrast_says_whether_contrast_agent_was_given(words: str, name: str) -> None:
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
    assert archive.notes["columns_of_numbers"] == ["age", "record", "sex"]
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
    assert one.labels == {"age": 30.0, "sex": 0.0}
    b = records["sub-2/ses-b/anat/sub-2_ses-b_T2w.nii"]
    assert b.segmentation == "derivatives/x/sub-2/ses-b/anat/sub-2_ses-b_dseg.nii.gz"
    assert records["sub-2/ses-a/anat/sub-2_ses-a_T2w.nii"].segmentation is None
    assert b.labels == {"sex": 1.0}
    assert archive.notes["volumes_passed_over"] == {"bold": 1, "defacemask": 1}
    assert archive.notes["labels_not_numbers"] == {}


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
        ("BRATS_001", ["Task01_X/imagesTr/BRATS_001_0000.nii", "Task01_X/imagesTr/BRATS_001_0001.nii"]),
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
    many = touch(tmp_path / "many", *(f"p1/x_{n}_T1.nii.gz" for n in range(51)), "p2/x_1_T1.nii.gz")
    with pytest.raises(ValueError, match=r"52 volumes of 2 patients.*volumes\.patient_pattern"):
        listed("nifti", many)
    assert len(listed("nifti", many, patient_pattern="(?P<patient>p1|p2)")) == 52
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


def series_records(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(dicom_series, "parallel_map", map)
    return {record.volume: record for record in listed("dicom-series", folder)}


@pytest.mark.parametrize(
    ("tags", "contrast"),
    [({"SeriesDescription": "t1_se_tra", "ContrastBolusAgent": "10ml multihance"}, "T1c"),
     ({"SeriesDescription": "t1_se_tra", "ContrastBolusAgent": "Gadovist"}, "T1c"),
     ({"SeriesDescription": "MPRAGE", "ContrastBolusAgent": "NONE"}, "T1w"),
     ({"SeriesDescription": "MPRAGE", "ContrastBolusAgent": "0"}, "T1w"),
     ({"SeriesDescription": "MPRAGE", "ContrastBolusAgent": "no contrast"}, "T1w"),
     ({"SeriesDescription": "T1 PRE", "ContrastBolusAgent": "Gadovist"}, "T1w"),
     ({"SeriesDescription": "FLAIR", "ContrastBolusAgent": "Gadovist"}, "FLAIRc"),
     ({"SeriesDescription": "T1 +C"}, "T1c"), ({"SeriesDescription": "T1"}, "T1w")],
)  # fmt: skip
def test_the_contrast_agent_of_a_series_is_seen_in_its_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tags: dict[str, str], contrast: str
) -> None:
    write_series(tmp_path / "in", "1.1", **tags)
    assert series_records(tmp_path / "in", monkeypatch)["1.1"].modality == contrast


@pytest.mark.parametrize(
    ("tags", "reason"),
    [({"SeriesDescription": "SUB: T1 post - pre"}, "subtraction"),
     ({"SeriesDescription": "t1_vibe_SUB"}, "subtraction"),
     ({"SeriesDescription": "Subtraktion"}, "subtraction"),
     ({"ImageType": ["DERIVED", "SECONDARY", "SUBTRACT"]}, "subtraction"),
     ({"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]}, "no-magnitude"),
     ({"ImageType": ["ORIGINAL", "PRIMARY", "PHASE MAP", "P", "FFE"]}, "no-magnitude"),
     ({"ImageType": ["ORIGINAL", "PRIMARY", "R_IR", "R", "IR"]}, "no-magnitude"),
     ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"]}, None),
     ({"SeriesDescription": "anat sub-01 T1w"}, None)],
)  # fmt: skip
def test_a_series_that_is_no_picture_of_anatomy_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tags: dict[str, Any], reason: str | None
) -> None:
    write_series(tmp_path / "in", "1.1", **tags)
    problem = series_records(tmp_path / "in", monkeypatch)["1.1"].problem
    assert (problem and problem.reason) == reason


def write_echoes(folder: Path, tag: str, values: list[Any], **tags: Any) -> None:
    """One series with a volume of 5 slices for each value of a tag."""
    for index, value in enumerate(values):
        for path in write_series(folder / str(index), "1.1", **{tag: value}, **tags):
            ds = dcmread(path)
            ds.SOPInstanceUID = f"{ds.SOPInstanceUID}.{index}"
            ds.save_as(path)


@pytest.mark.parametrize(
    ("tag", "values"),
    [("EchoTime", [20, 90]), ("EchoTime", [5, 10, 15, 20]), ("AcquisitionNumber", [1, 2]),
     ("TemporalPositionIdentifier", [1, 2, 3]), ("InversionTime", [700, 2500])],
)  # fmt: skip
def test_volumes_of_one_series_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tag: str, values: list[int]
) -> None:
    write_echoes(tmp_path / "in", tag, values, SeriesDescription="T2")
    records = series_records(tmp_path / "in", monkeypatch)
    assert len(records) == len(values)
    assert all(record.problem is None and len(record.paths) == 5 for record in records.values())
    assert len({(record.patient, record.session) for record in records.values()}) == 1


def test_a_double_echo_is_proton_density_and_t2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_echoes(tmp_path / "in", "EchoTime", [20, 90], SeriesDescription="Ax PD/T2 FSE")
    records = series_records(tmp_path / "in", monkeypatch)
    assert {name: record.modality for name, record in records.items()} == {
        "1.1/EchoTime 20.0": "PD", "1.1/EchoTime 90.0": "T2w"}  # fmt: skip


def test_the_phase_of_a_series_with_both_parts_is_refused_and_its_magnitude_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    types = [["ORIGINAL", "PRIMARY", kind, "ND"] for kind in "MP"]
    write_echoes(tmp_path / "in", "ImageType", types, SeriesDescription="SWI")
    records = series_records(tmp_path / "in", monkeypatch).values()
    assert sorted(r.problem.reason if r.problem else "" for r in records) == ["", "no-magnitude"]


def test_what_cannot_be_told_apart_in_a_series_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_echoes(tmp_path / "in", "AcquisitionNumber", list(range(9)))
    problem = series_records(tmp_path / "in", monkeypatch)["1.1"].problem
    assert problem
    assert problem.reason == "repeated-positions"
    assert "dcm2niix" in problem.detail


def test_a_table_speaks_of_all_volumes_of_a_series(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_echoes(tmp_path / "in", "EchoTime", [20, 90])
    monkeypatch.setattr(dicom_series, "parallel_map", map)
    (tmp_path / "t.csv").write_text("volume,label_x\n1.1,3\n")
    records = listed("dicom-series", tmp_path / "in", table=tmp_path / "t.csv")
    assert [record.labels for record in records] == [{"x": 3.0}] * 2


def bids(folder: Path, *names: str) -> dict[str, Any]:
    touch(folder, *(f"sub-01/anat/{name}.nii.gz" for name in names))
    archive = VOLUME_READERS["bids"](settings("bids", folder, folder / "o"), lambda *_: None)
    return {
        record.volume.rpartition("/")[2].partition(".")[0]: record for record in archive.records
    } | {"notes": archive.notes["volumes_passed_over"]}


def test_the_entity_of_a_contrast_agent_counts_wherever_it_stands(tmp_path: Path) -> None:
    found = bids(
        tmp_path / "in", "sub-01_T1w", "sub-01_ce-gadolinium_T1w", "sub-01_acq-mprage_ce-Gd_run-1_T1w",
        "sub-01_ce-none_T1w", "sub-01_ce-gadobutrol_FLAIR", "sub-01_ce-Gd_T2w", "sub-01_acq-ce_T1w",
    )  # fmt: skip
    assert {name: record.modality for name, record in found.items() if name != "notes"} == {
        "sub-01_T1w": "T1w", "sub-01_ce-gadolinium_T1w": "T1c",
        "sub-01_acq-mprage_ce-Gd_run-1_T1w": "T1c", "sub-01_ce-none_T1w": "T1w",
        "sub-01_ce-gadobutrol_FLAIR": "FLAIRc", "sub-01_ce-Gd_T2w": "T2c", "sub-01_acq-ce_T1w": "T1w",
    }  # fmt: skip


def test_parts_of_a_complex_signal_and_label_maps_are_no_volumes_of_bids(tmp_path: Path) -> None:
    found = bids(
        tmp_path / "in", "sub-01_part-mag_T2starw", "sub-01_part-phase_T2starw",
        "sub-01_inv-1_part-phase_MP2RAGE", "sub-01_echo-1_part-phase_MEGRE", "sub-01_part-imag_T1w",
        "sub-01_part-real_T1w", "sub-01_label-L_roi", "sub-01_desc-aseg_seg",
    )  # fmt: skip
    assert set(found) == {"sub-01_part-mag_T2starw", "notes"}
    assert found["notes"] == {"phase, real or imaginary part": 5, "label map": 2}


@pytest.mark.parametrize(
    ("table", "error"),
    [("participant_id\tparticipant_id\tage\n01\tx\t30\n", "2 columns 'participant_id'"),
     ("participant_id\tage\tage\n01\t30\t31\n", "2 columns 'age'"),
     ("participant_id\tage\nsub-901\t30\n", "knows none of the 1 subjects, such as sub-01"),
     ("participant_id\tage\n01\t30\n01\t31\n", "sub-01 has several rows with different 'age'")],
)  # fmt: skip
def test_participants_whose_labels_would_be_lost_are_an_error(
    tmp_path: Path, table: str, error: str
) -> None:
    folder = touch(tmp_path / "in", "sub-01/anat/sub-01_T1w.nii.gz")
    (folder / "participants.tsv").write_text(table)
    with pytest.raises(ValueError, match=error):
        listed("bids", folder, labels=["age"])


def test_participants_as_they_are_found_give_their_labels_and_counts(tmp_path: Path) -> None:
    folder = touch(tmp_path / "in", *(f"sub-0{n}/anat/sub-0{n}_T1w.nii.gz" for n in (1, 2, 3)))
    (folder / "participants.tsv").write_bytes(
        b"\xef\xbb\xbfparticipant_id\tage\tx\tx\r\n01\t30\t1\t2\r\n02\t-\t1\t2\r\n09\t50\t1\t2\r\n"
        b"01\t30\t1\t2\r\n"
    )
    config = settings("bids", folder, tmp_path / "o", labels=["age"])
    archive = VOLUME_READERS["bids"](config, lambda *_: None)
    assert [record.labels for record in archive.records] == [{"age": 30.0}, {}, {}]
    assert archive.notes["labels_not_numbers"] == {"age": 1}
    assert archive.notes["subjects_without_participants_row"] == 1
    assert archive.notes["participants_without_images"] == 1
    assert archive.notes["participants_repeated"] == 1


@pytest.mark.parametrize(
    ("column", "cells", "labels"),
    [("sex", ["M", "F"], [1.0, 0.0]), ("Gender", ["male", "female"], [1.0, 0.0]),
     ("sick", ["yes", "no"], [1.0, 0.0]), ("sick", ["TRUE", "False"], [1.0, 0.0]),
     ("group", ["M", "F"], [None, None])],
)  # fmt: skip
def test_words_of_two_states_are_labels(
    tmp_path: Path, column: str, cells: list[str], labels: list[float | None]
) -> None:
    rows = [{"patient": n, "path": f"{n}.nii", column: cell} for n, cell in enumerate(cells)]
    pd.DataFrame(rows).to_csv(tmp_path / "t.csv")
    records = listed("volume-table", tmp_path / "t.csv", labels=[column])
    assert [record.labels.get(column) for record in records] == labels


def brats(folder: Path, *names: str, **volumes: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    touch(folder, *names)
    config = settings("brats", folder, folder.parent / "o", **volumes)
    archive = VOLUME_READERS["brats"](config, lambda *_: None)
    return {record.volume.rpartition("/")[2]: record for record in archive.records}, archive.notes


CASES = [f"BraTS-GLI-0000{n}-100-{kind}.nii.gz" for n in (5, 6) for kind in ("t1n", "t1c", "seg")]


@pytest.mark.parametrize(
    "names",
    [[f"train/{name}" for name in CASES], CASES,
     [f"{name.rsplit('-', 1)[1].partition('.')[0]}/{name}" for name in CASES],
     [f"{name.rsplit('-', 1)[0]}/{name}" for name in CASES],
     [f"train/{name}" for name in CASES[:3]] + [f"val/{name}" for name in CASES[3:]]],
)  # fmt: skip
def test_brats_cases_have_their_own_label_maps_however_they_lie(
    tmp_path: Path, names: list[str]
) -> None:
    found, notes = brats(tmp_path / "in", *names)
    assert {name: record.patient for name, record in found.items()} == {
        name: name[:15] for name in CASES if "seg" not in name
    }
    for name, record in found.items():
        assert record.segmentation.endswith(name.rsplit("-", 1)[0] + "-seg.nii.gz")
    assert (notes["cases"], notes["cases_without_segmentation"]) == (2, 0)


def test_brats_folders_of_sites_with_equal_numbers_keep_their_label_maps(tmp_path: Path) -> None:
    found, _ = brats(tmp_path / "in", *(f"{s}/001/{k}.nii" for s in "ab" for k in ("t1", "seg")))
    assert {record.patient for record in found.values()} == {"001"}
    records = listed("brats", tmp_path / "in")
    assert [r.segmentation for r in records] == ["a/001/seg.nii", "b/001/seg.nii"]


def test_a_misnamed_label_map_is_found_and_one_that_is_not_there_counted(tmp_path: Path) -> None:
    found, notes = brats(
        tmp_path / "in", *(f"BraTS20_355/BraTS20_355_{k}.nii" for k in ("t1", "flair")),
        "BraTS20_355/W39_1998.09.19_Segm.nii", "BraTS20_001/BraTS20_001_t1.nii",
        "BraTS20_001/BraTS20_001_new.nii",
    )  # fmt: skip
    assert found["BraTS20_355_t1.nii"].segmentation == "BraTS20_355/W39_1998.09.19_Segm.nii"
    assert notes["segmentations_under_another_name"] == 1
    assert notes["cases_without_segmentation"] == 1
    assert found["BraTS20_001_new.nii"].problem.reason == "other-modality"


@pytest.mark.parametrize(
    ("one", "two"),
    [("UPENN-GBM-00001_11", "UPENN-GBM-00001_21"), ("UCSF-PDGM-0429", "UCSF-PDGM-0429_FU003d"),
     ("BraTS-MET-00001-000", "BraTS-MET-00001-001")],
)  # fmt: skip
def test_later_visits_of_other_collections_are_of_the_same_patient(
    tmp_path: Path, one: str, two: str
) -> None:
    found, _ = brats(tmp_path / "in", *(f"{case}/{case}_t1.nii.gz" for case in (one, two)))
    assert len({record.patient for record in found.values()}) == 1
    assert len({record.session for record in found.values()}) == 2


def test_a_pattern_says_who_is_a_patient_of_brats(tmp_path: Path) -> None:
    names = [f"p{n}_{end}/p{n}_{end}_t1.nii" for n in (1, 2) for end in "ab"]
    with pytest.raises(ValueError, match=r"two patients, or two visits.*volumes\.patient_pattern"):
        brats(tmp_path / "in", *names)
    found, _ = brats(tmp_path / "in", *names, patient_pattern=r"(?P<patient>p\d)_")
    assert {record.patient for record in found.values()} == {"p1", "p2"}


def test_nnunet_label_maps_and_channels_come_in_with_their_images(tmp_path: Path) -> None:
    folder = touch(
        tmp_path / "in", *(f"Dataset1/imagesTr/BRATS_00{n}_000{c}.nii.gz" for n in (1, 2) for c in (0, 1)),
        "Dataset1/labelsTr/BRATS_001.nii.gz", "Dataset1/labelsTr/BRATS_009.nii.gz",
        "Dataset1/imagesTs/BRATS_003_0000.nii.gz",
    )  # fmt: skip
    (folder / "Dataset1/dataset.json").write_text('{"channel_names": {"0": "FLAIR", "1": "T1ce"}}')
    records = {record.volume.rpartition("/")[2]: record for record in listed("nifti", folder)}
    assert len(records) == 6
    assert records["BRATS_001_0000.nii.gz"].segmentation == "Dataset1/labelsTr/BRATS_001.nii.gz"
    assert records["BRATS_002_0000.nii.gz"].segmentation is None
    assert records["BRATS_001_0000.nii.gz"].modality == "FLAIR"
    assert records["BRATS_001_0001.nii.gz"].modality == "T1c"
    assert records["BRATS_003_0000.nii.gz"].patient == "BRATS_003"
    assert records["BRATS_009.nii.gz"].problem.reason == "label-map"


def test_files_that_are_no_scans_by_their_names_are_kept_aside(tmp_path: Path) -> None:
    label_maps = ["aligned_seg24", "seg4", "aparc+aseg", "T1_synthseg", "aseg", "wmparc", "T1_brain_mask",
                  "aparc.a2009s+aseg", "aparc.DKTatlas+aseg", "T1_label", "T1_roi", "labels/T1",
                  "lh.hippoAmygLabels-T1.v21", "c1T1", "mwp1T1", "T1_pve_0", "T1_lesion",
                  "c2sub-01_T1w"]  # fmt: skip
    parts = ["T1_ph", "swi_phase", "T1_part-phase", "e1_real", "e1_imaginary"]
    differences = ["T1_subtraction", "T1_sub"]
    scans = ["T1", "FLAIR_2d", "ct_arterial_phase", "aligned_norm", "T1_masked", "T1_segmented_off",
             "lesion_T1", "c1_T2", "vsseg001_ses-1_T1c", "VS-SEG-001_T1"]  # fmt: skip
    names = [*label_maps, *parts, *differences, *scans]
    folder = touch(tmp_path / "in", *(f"p{n}/{name}.nii.gz" for n in (1, 2) for name in names))
    records = {r.volume: r.problem and r.problem.reason for r in listed("nifti", folder)}
    for reason, of_reason in (("label-map", label_maps), ("no-magnitude", parts),
                              ("subtraction", differences), (None, scans)):  # fmt: skip
        assert {name: records[f"p1/{name}.nii.gz"] for name in of_reason} == dict.fromkeys(
            of_reason, reason
        )


def test_a_word_that_all_names_share_says_nothing_of_any(tmp_path: Path) -> None:
    folder = touch(tmp_path / "in", *(f"segmentation/seg_{n}_T1.nii" for n in (1, 2)))
    assert [record.problem for record in listed("nifti", folder)] == [None, None]


def test_volumes_in_other_formats_say_how_to_convert_them(tmp_path: Path) -> None:
    names = ["p1/T1.nrrd", "p1/T1.mha", "p1/T1.hdr", "p1/T1.img"]
    folder = touch(tmp_path / "in", "p2/T1.nii.gz", *names)
    records = {record.volume: record.problem for record in listed("nifti", folder)}
    assert set(records) == {"p2/T1.nii.gz", *names[:3]}
    for name in names[:3]:
        problem = records[name]
        assert problem
        assert problem.reason == "other-format"
        assert ".nii.gz" in problem.detail
    with pytest.raises(FileNotFoundError, match="2 in other formats: other-format: NRRD: convert"):
        listed("nifti", touch(tmp_path / "none", "a.nrrd", "b.nrrd"))


def test_openmind_images_are_left_out_by_quality_and_origin(tmp_path: Path) -> None:
    images = [
        {"name": name, "modality": modality, "image_path": f"{name}.nii.gz",
         "image_info": {"derived_from": origin} if origin else {}}
        for name, modality, origin in [("a", "T1w", None), ("b", "MD", "DWI"), ("c", "T2w", None)]
    ]  # fmt: skip
    scores = [
        {"modality": "T1w", "derived_from": None, "image_quality_score": 1.2},
        {"modality": "MD", "derived_from": "DWI", "image_quality_score": 3.5},
        {"modality": "MD", "derived_from": None, "image_quality_score": 1.0},
    ]
    dataset = {"dataset_info": {"image_quality_score": scores},
               "subjects": {"s": {"sessions": {"1": {"images": images}}}}}  # fmt: skip
    manifest = tmp_path / "m.json"
    manifest.write_text(json.dumps({"datasets": {"d": dataset}}))

    def reasons(**volumes: Any) -> list[str | None]:
        return [r.problem and r.problem.reason for r in listed("openmind", manifest, **volumes)]

    assert reasons() == [None, None, None]
    assert reasons(max_quality_score=3.0) == [None, "low-quality", None]
    assert reasons(max_quality_score=1.0) == ["low-quality", "low-quality", None]
    assert reasons(derived="quarantine") == [None, "derived", None]
    config = settings("openmind", manifest, tmp_path / "o")
    notes = VOLUME_READERS["openmind"](config, lambda *_: None).notes
    assert (notes["images_derived"], notes["images_without_quality_score"]) == (1, 1)


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
