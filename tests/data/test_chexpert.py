import json
from pathlib import Path
from typing import Any

import pytest
from archive_trees import listed, problems, states, touch, write_csv

from ray_mae.data.archives.records import NOT_TEST
from ray_mae.data.labels import NEGATIVE, POSITIVE, UNCERTAIN
from ray_mae.data.privacy.report_sections import sections

SMALL = "CheXpert-v1.0-small"


def row(path: str, view: str = "Frontal", position: str = "AP", **labels: str) -> dict[str, Any]:
    states = {"No Finding": "", "Edema": "", "Pleural Effusion": ""} | labels
    return {"Path": f"{SMALL}/{path}", "Sex": "Female", "Age": "68", "Frontal/Lateral": view,
            "AP/PA": position, **states}  # fmt: skip


TRAIN = [
    row("train/patient00001/study1/view1_frontal.jpg", Edema="1.0"),
    row(
        "train/patient00001/study2/view1_frontal.jpg", position="PA", **{"Pleural Effusion": "0.0"}
    ),
    row("train/patient00001/study2/view2_lateral.jpg", "Lateral", "", Edema="-1.0"),
    row("train/patient00002/study1/view1_frontal.jpg", position="LL", **{"No Finding": "1.0"}),
]
VALID = [row("valid/patient64541/study1/view1_frontal.jpg", Edema="0.0")]


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """The unpacked small version, in its folder; patient 2 was not downloaded."""
    for image in [*TRAIN[:3], *VALID]:
        touch(tmp_path, image["Path"])
    write_csv(tmp_path / SMALL / "train.csv", TRAIN)
    write_csv(tmp_path / SMALL / "valid.csv", VALID)
    return tmp_path


@pytest.mark.parametrize("inside", [False, True])
def test_the_small_version_is_listed_from_its_folder_or_the_one_above(
    small: Path, inside: bool
) -> None:
    source = small / SMALL if inside else small
    archive = listed("chexpert", source)
    assert [(r.study, r.patient, r.split) for r in archive.records] == [
        ("patient00001/study1", "patient00001", "train"),
        ("patient00001/study2", "patient00001", "train"),
        ("patient00001/study2", "patient00001", "train"),
        ("patient00002/study1", "patient00002", "train"),
        ("patient64541/study1", "patient64541", "val"),
    ]
    assert all((source / r.path).is_file() for r in archive.records if not r.problem)
    assert list(problems(archive).values()) == ["missing"]
    assert [states(r.labels) for r in archive.records] == [
        {"Edema": POSITIVE},
        {"Pleural Effusion": NEGATIVE},
        {"Edema": UNCERTAIN},
        {"No Finding": POSITIVE},
        {"Edema": NEGATIVE},
    ]


def test_a_frontal_image_with_a_lateral_position_is_of_unknown_view(small: Path) -> None:
    archive = listed("chexpert", small)
    assert [r.view for r in archive.records] == [
        "frontal", "frontal", "lateral", "unknown", "frontal"
    ]  # fmt: skip
    assert archive.notes["images_of_unknown_view"] == 1


def test_the_four_batches_of_the_full_version_are_found(small: Path) -> None:
    batch = small / "CheXpert-v1.0 batch 2 (train 1)"
    (small / SMALL / "train").rename(batch)
    (small / SMALL).rename(small / "CheXpert-v1.0 batch 1 (validate & csv)")
    archive = listed("chexpert", small)
    assert archive.records[0].path == f"{batch.name}/patient00001/study1/view1_frontal.jpg"
    assert len(problems(archive)) == 1


def test_without_valid_csv_the_hash_takes_validation_patients(small: Path) -> None:
    (small / SMALL / "valid.csv").unlink()
    assert {r.split for r in listed("chexpert", small).records} == {NOT_TEST}
    write_csv(small / SMALL / "test_labels.csv", [{"Path": VALID[0]["Path"], "Edema": "1.0"}])
    last = listed("chexpert", small).records[-1]
    assert (last.split, last.view) == ("test", "frontal")
    assert {r.split for r in listed("chexpert", small, official_split=False).records} == {None}


def test_two_versions_in_one_folder_or_none_are_refused(small: Path) -> None:
    touch(small, "CheXpert-v1.0/train/patient00001/study1/view1_frontal.jpg")
    with pytest.raises(
        ValueError, match=r"holds patient00001 in .* and in .*name the folder of one"
    ):
        listed("chexpert", small)
    with pytest.raises(FileNotFoundError, match="holds no folders named patient00001"):
        listed(
            "chexpert", small / SMALL / "train" / "patient00001" / "study1", tables=small / SMALL
        )
    with pytest.raises(FileNotFoundError, match=r"neither train.csv nor df_chexpert_plus"):
        listed("chexpert", small / SMALL / "train")


@pytest.fixture
def plus(tmp_path: Path) -> Path:
    """CheXpert Plus with PNG files, its table and its labels."""
    folder = "patient42142/study5"
    for path in (f"train/{folder}/view1_frontal", f"train/{folder}/view2_lateral",
                 "valid/patient64541/study1/view1_frontal"):  # fmt: skip
        touch(tmp_path / "PNG" / "PNG", f"{path}.png")
    texts = {
        "report": "NARRATIVE: Chest, Dr. Ypsilanti\nFINDINGS:\nClear.\nIMPRESSION:\n1. Normal.",
        "section_narrative": "Chest, Dr. Ypsilanti",
        "section_findings": "Clear.\nDictated by: Ypsilanti",
        "section_impression": "1. Normal.",
    }
    none = dict.fromkeys(texts, "")
    write_csv(
        tmp_path / "df_chexpert_plus_240401.csv",
        [
            {"path_to_image": f"train/{folder}/view1_frontal.jpg", "frontal_lateral": "Frontal",
             "ap_pa": "PA", "deid_patient_id": "patient42142", "split": "train", **texts},
            {"path_to_image": f"train/{folder}/view2_lateral.jpg", "frontal_lateral": "Lateral",
             "ap_pa": "", "deid_patient_id": "patient42142", "split": "train", **texts},
            {"path_to_image": "valid/patient64541/study1/view1_frontal.jpg", "frontal_lateral": "",
             "ap_pa": "", "deid_patient_id": "patient64541", "split": "valid", **none},
        ],
    )  # fmt: skip
    cells = {"path_to_image": f"train/{folder}/view1_frontal.jpg", "Edema": -1.0, "Fracture": None}
    (tmp_path / "chexbert_labels").mkdir()
    (tmp_path / "chexbert_labels" / "report_fixed.json").write_text(json.dumps(cells) + "\n")
    return tmp_path


def test_plus_brings_sections_splits_and_its_own_labels(plus: Path) -> None:
    archive = listed("chexpert", plus)
    assert [r.path for r in archive.records if not (plus / r.path).is_file()] == []
    assert [r.split for r in archive.records] == ["train", "train", "val"]
    assert [r.view for r in archive.records] == ["frontal", "lateral", "frontal"]
    assert states(archive.records[0].labels) == {"Edema": UNCERTAIN}
    assert sections(archive.records[0].text) == ("Clear.", "1. Normal.")
    assert archive.records[0].text is archive.records[1].text
    assert archive.records[2].text is None
    assert archive.notes["images_without_labels"] == 2
    assert archive.notes["studies_without_report"] == 1
    assert archive.notes["images_without_split"] == 0


def test_a_damaged_line_of_the_labels_of_plus_is_named(plus: Path) -> None:
    with (plus / "chexbert_labels" / "report_fixed.json").open("a") as file:
        file.write("[1, 2]\n")
    with pytest.raises(ValueError, match=r"report_fixed.json, line 2: one JSON object"):
        listed("chexpert", plus)
