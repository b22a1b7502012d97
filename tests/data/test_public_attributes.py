"""Sex, age and scanner as published archives say them: traps, and what they cannot say."""

import json
from pathlib import Path
from typing import Any

import pytest
from archive_trees import listed, touch, write_csv
from volume_files import settings

from ray_mae.config import IngestConfig
from ray_mae.config.ingest import ATTRIBUTES_OF
from ray_mae.data.archives import READERS, VOLUME_READERS
from ray_mae.data.archives.attributes import age_between, tesla_of
from ray_mae.data.labels import CHEXPERT_LABELS


def attributes_of(archive: Any) -> list[dict[str, Any] | None]:
    return [record.attributes for record in archive.records]


@pytest.mark.parametrize(
    ("cell", "tesla"),
    [
        *(("3", 3.0), ("3T", 3.0), ("3.0 Tesla", 3.0), ("2.89362", 3.0), ("1.494", 1.5)),
        *(("15000", 1.5), ("30000", 3.0), ("0.55", 0.55), ("6.98", 7.0), ("2.2", 2.2)),
        *(("0", None), ("-3", None), ("high", None), ("1e9", None), ("", None)),
    ],
)
def test_a_field_strength_is_that_which_scanners_are_sold_with(
    cell: str, tesla: float | None
) -> None:
    assert tesla_of(cell) == tesla


def test_an_age_between_years_needs_both() -> None:
    assert age_between("1930.0", "20140915") == "84"
    assert age_between("19550820", "2011-03-28") == "56"
    assert age_between("", "20140915") == age_between("1930", "None") == ""


@pytest.mark.parametrize("archive", [*READERS, *VOLUME_READERS])
def test_what_an_archive_cannot_say_is_refused_by_name(archive: str) -> None:
    can = ATTRIBUTES_OF[archive]
    for name in ("sex", "age", "site", "manufacturer", "model", "field_strength"):
        wanted: dict[str, Any] = {"archive": archive, "source": Path("s"), "output": Path("o")}
        if name in can:
            assert IngestConfig(**wanted, attributes=[name]).attributes == [name]
            continue
        with pytest.raises(ValueError, match=f"the archive {archive} says no {name}; of what can"):
            IngestConfig(**wanted, attributes=[name])


def test_chestxray14_has_ages_that_are_none(tmp_path: Path) -> None:
    rows = [
        {"Image Index": f"{n}.png", "Finding Labels": "No Finding", "Patient ID": n,
         "Patient Age": age, "Patient Gender": "FM"[n % 2], "View Position": "PA"}
        for n, age in enumerate(["058Y", "411", "94", "010M"])
    ]  # fmt: skip
    write_csv(tmp_path / "Data_Entry_2017.csv", rows)
    touch(tmp_path, *(row["Image Index"] for row in rows))
    wanted = {"official_split": False, "attributes": ["sex", "age"]}
    archive = listed("chestxray14", tmp_path, **wanted)
    assert attributes_of(archive) == [
        {"sex": "F", "age": 58}, {"sex": "M"}, {"sex": "F", "age": 90}, {"sex": "M", "age": 0}
    ]  # fmt: skip
    assert archive.notes["attribute_cells_not_understood"] == {"age": {"411": 1}}
    assert attributes_of(listed("chestxray14", tmp_path, official_split=False)) == [None] * 4


def test_both_forms_of_chexpert_say_sex_and_age_and_the_age_0_is_none(tmp_path: Path) -> None:
    paths = [f"train/patient0000{n}/study1/view1_frontal.jpg" for n in range(3)]
    touch(tmp_path / "small", *paths)
    touch(tmp_path / "small", "test/patient00009/study1/view1_frontal.jpg")
    labels = dict.fromkeys(CHEXPERT_LABELS, "")
    about = [("Female", "68"), ("Unknown", "0"), ("Male", "90")]
    rows = [
        {"Path": f"CheXpert-v1.0-small/{path}", "Sex": sex, "Age": age, "Frontal/Lateral": "Frontal",
         "AP/PA": "AP", **labels}
        for path, (sex, age) in zip(paths, about, strict=True)
    ]  # fmt: skip
    write_csv(tmp_path / "small" / "train.csv", rows)
    bare = {"Path": "test/patient00009/study1/view1_frontal.jpg", **labels}
    write_csv(tmp_path / "small" / "test_labels.csv", [bare])
    told = [{"sex": "F", "age": 68}, None, {"sex": "M", "age": 90}]
    found = listed("chexpert", tmp_path / "small", attributes=["sex", "age"])
    assert attributes_of(found) == [*told, None]
    touch(tmp_path / "plus", *(path.replace(".jpg", ".png") for path in paths))
    plus = [
        {"path_to_image": path, "section_findings": "Clear.", "section_impression": "",
         "split": "train", "sex": sex, "age": f"{age}.0", "frontal_lateral": "Frontal"}
        for path, (sex, age) in zip(paths, about, strict=True)
    ]  # fmt: skip
    write_csv(tmp_path / "plus" / "df_chexpert_plus_240401.csv", plus)
    assert attributes_of(listed("chexpert", tmp_path / "plus", attributes=["sex", "age"])) == told


def test_padchest_says_years_of_birth(tmp_path: Path) -> None:
    rows = [
        {"ImageID": f"{n}.png", "StudyID": n, "PatientID": n, "Projection": "PA", "Report": "",
         "Labels": "['normal']", "StudyDate_DICOM": "20140915", "PatientBirth": birth,
         "PatientSex_DICOM": sex, "Manufacturer_DICOM": "ImagingDynamicsCompanyLtd"}
        for n, (birth, sex) in enumerate([("1930.0", "F"), ("None", "O"), ("1910.0", "")])
    ]  # fmt: skip
    write_csv(tmp_path / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv", rows)
    touch(tmp_path, *(row["ImageID"] for row in rows))
    archive = listed("padchest", tmp_path, attributes=["sex", "age", "manufacturer"])
    made = {"manufacturer": "ImagingDynamicsCompanyLtd"}
    assert attributes_of(archive) == [
        {"sex": "F", "age": 84, **made}, {"sex": "O", **made}, {"age": 90, **made}
    ]  # fmt: skip
    assert not any("1930" in str(record) for record in archive.records)


def test_mimic_says_nothing_of_a_person_without_the_table_of_patients(tmp_path: Path) -> None:
    rows = [
        {"dicom_id": f"d{n}", "subject_id": subject, "study_id": n, "ViewPosition": "PA",
         "StudyDate": "21800506"}
        for n, subject in enumerate(["10000032", "10000033", "10000034"])
    ]  # fmt: skip
    for row in rows:
        subject, study, image = row["subject_id"], row["study_id"], row["dicom_id"]
        touch(tmp_path, f"files/p10/p{subject}/s{study}/{image}.dcm")
    write_csv(tmp_path / "mimic-cxr-2.0.0-metadata.csv.gz", rows)
    wanted = {"official_split": False, "attributes": ["sex", "age"]}
    with pytest.raises(FileNotFoundError, match=r"no patients\.csv: attributes asks for sex and"):
        listed("mimic-cxr", tmp_path, **wanted)
    people = [
        {"subject_id": "10000032", "gender": "F", "anchor_age": "52", "anchor_year": "2179"},
        {"subject_id": "10000033", "gender": "M", "anchor_age": "91", "anchor_year": "2185"},
    ]
    write_csv(tmp_path / "hosp" / "patients.csv.gz", people)
    archive = listed("mimic-cxr", tmp_path, **wanted)
    assert attributes_of(archive) == [{"sex": "F", "age": 53}, {"sex": "M", "age": 90}, None]
    assert archive.notes["patients_without_patients_row"] == 1
    (tmp_path / "mimic-cxr-2.0.0-metadata.csv.gz").unlink()
    bare = [{k: row[k] for k in ("dicom_id", "subject_id", "study_id")} for row in rows]
    write_csv(tmp_path / "cxr-record-list.csv.gz", bare)
    with pytest.raises(ValueError, match="has no column 'StudyDate'"):
        listed("mimic-cxr", tmp_path, **wanted)


def test_openi_says_an_age_where_the_table_of_tags_is_there(tmp_path: Path) -> None:
    touch(tmp_path, "CXR1_1_IM-0001-3001.png")
    (tmp_path / "1.xml").write_text(
        '<eCitation><uId id="CXR1"/><parentImage id="CXR1_1_IM-0001-3001"/></eCitation>'
    )
    with pytest.raises(FileNotFoundError, match=r"holds no nlmcxr_dicom_metadata\.csv"):
        listed("openi", tmp_path, attributes=["age"])
    row = {"imageid": "CXR1_1_IM-0001-3001", "View Position": "PA", "Study Date": "20110328",
           "Patient's Birth Date": "19550820"}  # fmt: skip
    write_csv(tmp_path / "nlmcxr_dicom_metadata.csv", [row])
    assert attributes_of(listed("openi", tmp_path, attributes=["age"])) == [{"age": 56}]


def volumes(archive: str, source: Path, wanted: list[str], **of_volumes: Any) -> Any:
    config = settings(archive, source, source.parent / "out", **of_volumes)
    asked = IngestConfig(**{**vars(config), "attributes": wanted})
    return VOLUME_READERS[archive](asked, lambda done, of: None)


def test_bids_says_people_in_its_table_and_scanners_in_the_nearest_json(tmp_path: Path) -> None:
    root = tmp_path / "bids"
    touch(root, "sub-1/anat/sub-1_T1w.nii.gz", "sub-1/anat/sub-1_acq-fast_T1w.nii.gz",
          "sub-2/ses-a/anat/sub-2_ses-a_T2w.nii.gz")  # fmt: skip
    (root / "participants.tsv").write_text(
        "participant_id\tage\tgender\nsub-1\t93\tfemale\nsub-2\tn/a\tM\n"
    )
    sidecars = {
        "T1w.json": {"Manufacturer": "ACME", "MagneticFieldStrength": 2.89362},
        "acq-fast_T1w.json": {"ManufacturersModelName": "Quick"},
        "sub-1/anat/sub-1_acq-fast_T1w.json": {"MagneticFieldStrength": 1.5, "PatientName": "X"},
        "sub-2/ses-a/anat/sub-2_ses-a_T2w.json": {"InstitutionName": "North", "Manufacturer": 7},
    }
    for name, content in sidecars.items():
        (root / name).write_text(json.dumps(content))
    (root / "sub-2" / "sub-2_T2w.json").write_text("{")
    wanted = ["sex", "age", "site", "manufacturer", "model", "field_strength"]
    columns = settings("bids", root, root).volumes.columns
    renamed = type(columns)(**{**vars(columns), "sex": "gender"})
    archive = volumes("bids", root, wanted, columns=renamed)
    person = {"sex": "F", "age": 90, "manufacturer": "ACME"}
    assert {r.paths[0].rpartition("/")[2]: r.attributes for r in archive.records} == {
        "sub-1_T1w.nii.gz": {**person, "field_strength": 3.0},
        "sub-1_acq-fast_T1w.nii.gz": {**person, "model": "Quick", "field_strength": 1.5},
        "sub-2_ses-a_T2w.nii.gz": {"sex": "M", "site": "North", "manufacturer": "7"},
    }
    assert archive.notes["sidecars_not_readable"] == 1
    with pytest.raises(ValueError, match=r"has no column 'sex' \(attributes\); it has"):
        volumes("bids", root, wanted)
    (root / "participants.tsv").unlink()
    with pytest.raises(ValueError, match=r"participants\.tsv is missing: attributes names"):
        volumes("bids", root, ["age"])
    assert volumes("bids", root, ["model"]).records  # needs no table


def test_openmind_says_people_by_subject_and_scanners_by_image(tmp_path: Path) -> None:
    about = {"manufacturer": "ACME", "model_name": "Trio", "magnetic_field_strength": 2.89}
    image = {"name": "a", "modality": "T1w", "image_path": "a.nii.gz", "image_info": about}
    subject = {"subject_info": {"age": 31.0, "sex": "F", "record": 4711},
               "sessions": {"1": {"images": [image]}}}  # fmt: skip
    manifest = tmp_path / "in" / "pretrain_data.json"
    manifest.parent.mkdir()
    manifest.write_text(json.dumps({"datasets": {"d": {"subjects": {"s": subject}}}}))
    wanted = ["sex", "age", "manufacturer", "model", "field_strength"]
    assert attributes_of(volumes("openmind", manifest, wanted)) == [
        {"sex": "F", "age": 31, "manufacturer": "ACME", "model": "Trio", "field_strength": 3.0}
    ]
    assert attributes_of(volumes("openmind", manifest, [])) == [None]


def test_a_table_of_volumes_must_have_the_columns_that_are_asked_for(tmp_path: Path) -> None:
    table = write_csv(
        tmp_path / "t.csv",
        [{"path": "a.nii", "patient": "1", "field_strength": "1.5T", "age": "seven"}],
    )
    archive = volumes("volume-table", table, ["age", "field_strength"])
    assert attributes_of(archive) == [{"field_strength": 1.5}]
    assert archive.notes["attribute_cells_not_understood"] == {"age": {"aaaaa": 1}}
    with pytest.raises(ValueError, match=r"no column 'model' for the model.*volumes\.columns"):
        volumes("volume-table", table, ["model"])
