from pathlib import Path
from typing import Any

import pytest
from archive_trees import listed, problems, states, touch, write_csv

from ray_mae.data.archives.studies.padchest_labels import (
    INCIDENTAL,
    KNOWN,
    OTHER,
    TABLE,
    padchest_states,
)
from ray_mae.data.labels import CHEXPERT_LABELS, POSITIVE, UNCERTAIN

NAME = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"


def row(image: str, study: str, projection: str, labels: str, **other: str) -> dict[str, Any]:
    """The columns of the published table that are read, and two that must not be."""
    return {"": "0", "ImageID": image, "ImageDir": "7", "StudyDate_DICOM": "20140915",
            "StudyID": study, "PatientID": f"p-{study}", "PatientBirth": "1930.0",
            "Projection": projection, "Report": " sin hallazg patolog . ", "Labels": labels,
            **other}  # fmt: skip


ROWS = [
    row("a.png", "s1", "PA", "['normal']"),
    row("b.png", "s1", "L", "['normal']"),
    row("c.png", "s2", "AP_horizontal", "[' Kerley lines', 'nsg tube', 'unchanged', 'loc basal']"),
    row("d.png", "s3", "COSTAL", "nan", Report="nan"),
    row("e.png", "s4", "PA", "['exclude', 'nodule']"),
    row("f.png", "s5", "EXCLUDE", "['normal']"),
    row("g.png", "s6", "UNK", "[''"),
]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    touch(tmp_path, "7/a.png", "7/b.png", "c.png", "d.png", "54/e.png", "f.png", "7/h.png", "7.zip")
    write_csv(tmp_path / f"{NAME}.gz", ROWS)
    return tmp_path


def test_images_are_found_in_whatever_folder_and_listed_with_view_text_and_labels(
    tree: Path,
) -> None:
    archive = listed("padchest", tree)
    assert [r.path for r in archive.records[:4]] == ["7/a.png", "7/b.png", "c.png", "d.png"]
    assert [(r.view, r.position) for r in archive.records[:4]] == [
        ("frontal", "PA"), ("lateral", "L"), ("frontal", "AP horizontal"), ("unknown", "COSTAL")
    ]  # fmt: skip
    assert problems(archive) == {"54/e.png": "excluded", "f.png": "excluded", "g.png": "missing"}
    assert {r.split for r in archive.records} == {None}
    assert archive.records[0].text == "sin hallazg patolog ."
    assert archive.records[3].text is None
    assert states(archive.records[0].labels) == {"No Finding": POSITIVE}
    assert states(archive.records[2].labels) == {"Edema": POSITIVE, "Support Devices": POSITIVE}
    assert archive.records[3].labels is None
    assert archive.records[2].other_labels == ("loc basal",), "kept, though none of the 14"
    assert archive.notes == {
        "images_without_row": 1,
        "images_of_a_repeated_name": 0,
        "files_passed_over": {".gz": 1, ".zip": 1},
        "labels_not_mapped": {"unchanged": 1, "exclude": 1},
        "labels_not_known": {"loc basal": 1},
        "label_cells_not_understood": 1,
        "label_cells_by_text": {"Labels": {"[''": 1}},
        "images_without_labels": 1,
        "images_normal_with_a_finding": 0,
    }


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"scoliosis", "aortic elongation"}, {"No Finding": POSITIVE}),
        ({"normal", "pneumonia"}, {"Pneumonia": POSITIVE}),
        ({"normal", "pacemaker"}, {"Support Devices": POSITIVE}),
        ({"normal", "copd signs"}, {}),
        ({"normal", "a name that nobody knows"}, {}),
        ({"normal", "unchanged"}, {"No Finding": POSITIVE}),
        ({"unchanged"}, {}),
        ({"hydropneumothorax"}, {"Pneumothorax": POSITIVE, "Pleural Effusion": POSITIVE}),
        ({"pseudonodule"}, {"Lung Lesion": UNCERTAIN}),
        ({"pseudonodule", "nodule"}, {"Lung Lesion": POSITIVE}),
        ({"costophrenic angle blunting"}, {"Pleural Effusion": UNCERTAIN}),
        ({"heart insufficiency", "cardiomegaly"}, {"Edema": POSITIVE, "Cardiomegaly": POSITIVE}),
    ],
)
def test_labels_mean_what_the_table_says(names: set[str], expected: dict[str, int]) -> None:
    assert states(padchest_states(names)) == expected


def test_every_name_has_one_meaning() -> None:
    groups = [set(TABLE), set(INCIDENTAL), set(OTHER)]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 190
    assert len(KNOWN) == 193
    assert {label for statements in TABLE.values() for label, _ in statements} == {
        *CHEXPERT_LABELS
    } - {"No Finding"}


def test_a_folder_without_the_table_or_without_images_is_refused(tree: Path) -> None:
    for image in tree.rglob("*.png"):
        image.unlink()
    with pytest.raises(FileNotFoundError, match=r"holds no \.png"):
        listed("padchest", tree)
    (tree / f"{NAME}.gz").unlink()
    with pytest.raises(FileNotFoundError, match=rf"holds no {NAME}.*\(tables\)"):
        listed("padchest", tree)
    write_csv(tree / NAME, ROWS)
    write_csv(tree / NAME.replace("01.02.19", "02.02.20"), ROWS)
    with pytest.raises(ValueError, match="leave one of them there"):
        listed("padchest", tree)
