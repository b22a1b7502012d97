from pathlib import Path

import pytest
from archive_trees import listed, problems, states, touch, write_csv

from ray_mae.data.archives.records import NOT_TEST
from ray_mae.data.ingest.grouping import group_studies
from ray_mae.data.labels import POSITIVE


def row(image: str, labels: str, view: str = "PA") -> dict[str, str]:
    return {"Image Index": image, "Finding Labels": labels, "Follow-up #": "0",
            "Patient ID": str(int(image[:8])), "Patient Age": "57", "Patient Gender": "M",
            "View Position": view}  # fmt: skip


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    touch(tmp_path, "images_001/images/00000001_000.png", "images_002/images/00000001_001.png",
          "images_002/images/00000002_000.png")  # fmt: skip
    write_csv(
        tmp_path / "Data_Entry_2017_v2020.csv",
        [
            row("00000001_000.png", "Cardiomegaly|Emphysema"),
            row("00000001_001.png", "No Finding", "AP"),
            row("00000002_000.png", "Nodule|Mass|Infiltration"),
            row("00000003_000.png", "Hernia"),
        ],
    )
    (tmp_path / "train_val_list.txt").write_text("00000001_000.png\n00000001_001.png\n")
    (tmp_path / "test_list.txt").write_text("00000002_000.png")
    return tmp_path


def test_each_image_is_a_study_with_the_split_of_the_lists(tree: Path) -> None:
    archive = listed("chestxray14", tree)
    assert [(r.study, r.patient, r.split) for r in archive.records] == [
        ("00000001_000", "1", NOT_TEST),
        ("00000001_001", "1", NOT_TEST),
        ("00000002_000", "2", "test"),
        ("00000003_000", "3", None),
    ]
    assert archive.records[0].path == "images_001/images/00000001_000.png"
    assert {r.view for r in archive.records} == {"frontal"}
    assert problems(archive) == {"00000003_000.png": "missing"}
    assert states(archive.records[0].labels) == {"Cardiomegaly": POSITIVE}
    assert states(archive.records[2].labels) == {"Lung Opacity": POSITIVE, "Lung Lesion": POSITIVE}
    assert archive.notes["images_in_neither_list"] == 1
    assert archive.notes["labels_not_mapped"] == {"Emphysema": 1, "Hernia": 1}


def test_validation_patients_come_from_outside_the_test_split_alone(tree: Path) -> None:
    records = listed("chestxray14", tree).records[:3]
    for share, split in ((0.0, "train"), (0.999999, "val")):
        studies = group_studies(
            records, key=b"k", validation_share=share, test_share=0.9, max_views=1
        ).studies
        assert sorted(study.split for study in studies) == sorted([split, split, "test"])


def test_the_official_lists_must_be_there_unless_they_are_not_wanted(tree: Path) -> None:
    (tree / "test_list.txt").write_text("00000001_001.png")
    with pytest.raises(ValueError, match=r"1 images, such as 00000001_001.png, are in train_val"):
        listed("chestxray14", tree)
    (tree / "test_list.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"holds no test_list.txt, which says the official"):
        listed("chestxray14", tree)
    archive = listed("chestxray14", tree, official_split=False)
    assert {r.split for r in archive.records} == {None}
    assert archive.notes["images_in_neither_list"] == 0
