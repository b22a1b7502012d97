"""Labels of any names out of tables: what is asked for comes, and what does not come is told."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from archive_trees import listed as published
from archive_trees import touch, write_csv
from hypothesis import given
from hypothesis import strategies as st

from ray_mae.config import IngestConfig, TableColumns
from ray_mae.config.parser import parser_for
from ray_mae.data.archives import READERS
from ray_mae.data.archives.records import Archive
from ray_mae.data.ingest.grouping import group_studies
from ray_mae.data.labels import (
    CHEXPERT_LABELS,
    NEGATIVE,
    NOT_LABELLED,
    NOT_MENTIONED,
    POSITIVE,
    UNCERTAIN,
    state_of,
    strongest,
)

CELLS = ["yes", "NO", "TRUE", "2", "", "-1"]
BASE = {
    "study": list("abcdef"), "patient": list("abcdef"), "path": [f"{c}.png" for c in "abcdef"]
}  # fmt: skip


def listed(path: Path, columns: TableColumns, **table: Any) -> Archive:
    pd.DataFrame({**BASE, **table}).to_csv(path, index=False)
    config = IngestConfig(archive="table", source=path, output=path.parent / "out", columns=columns)
    return READERS["table"](config, lambda done, of: None)


def column_of(archive: Archive, label: str) -> list[int]:
    place = archive.label_names.index(label)
    return [record.labels[place] for record in archive.records if record.labels]


@pytest.mark.parametrize(
    ("cell", "state"),
    [
        *((c, POSITIVE) for c in ("1", "1.0", " yes", "Yes", "TRUE", "true", "positive")),
        *((c, NEGATIVE) for c in ("0", "0.0", "no", "NO", "False", "negative")),
        *((c, UNCERTAIN) for c in ("-1", "-1.0", "uncertain")),
        *((c, NOT_MENTIONED) for c in ("", "  ", "nan", "NaN", "NA", "n/a", "<NA>", "null")),
        *((c, None) for c in ("2", "maybe", "none", "0.5", "inf", "1,0", "ja?", "-2")),
    ],
)
def test_a_cell_is_a_state_or_is_not_understood(cell: str, state: int | None) -> None:
    assert state_of(cell) == state


@given(st.lists(st.sampled_from([1, 0, -1, -2, -3]), min_size=1))
def test_no_label_source_is_weaker_than_any_statement(states: list[int]) -> None:
    found = strongest(*states)
    assert (found == NOT_LABELLED) == (set(states) == {NOT_LABELLED})
    assert found in states


def test_the_columns_that_are_named_are_the_labels_in_their_order(tmp_path: Path) -> None:
    columns = TableColumns(label_names=["Tube misplaced", "Herz-groß"])
    table = {"Herz-groß": CELLS, "tube_Misplaced": list("100101"), "Edema": list("111111")}
    archive = listed(tmp_path / "t.csv", columns, **table)
    assert archive.label_names == ("Tube misplaced", "Herz-groß")
    assert column_of(archive, "Tube misplaced") == [1, 0, 0, 1, 0, 1]
    assert column_of(archive, "Herz-groß") == [1, 0, 1, NOT_LABELLED, NOT_MENTIONED, -1]
    assert archive.notes["label_cells_by_text"] == {"Herz-groß": {"2": 1}}
    assert archive.notes["columns_like_labels_not_read"] == ["Edema"]
    told = "\n".join(archive.warnings)
    assert "column 'Herz-groß': 1 cells are no label state: '2' (1)" in told
    assert "1 columns look like labels and are not read: 'Edema'" in told


def test_without_names_the_14_are_read_and_columns_like_labels_are_told(tmp_path: Path) -> None:
    table = {
        "Effusion": CELLS, "Emphysema": list("10") + [""] * 4, "weight": list("123456"),
        "nothing": [""] * 6,
    }  # fmt: skip
    archive = listed(tmp_path / "t.csv", TableColumns(), **table)
    assert archive.label_names == CHEXPERT_LABELS
    assert column_of(archive, "Pleural Effusion") == [1, 0, 1, NOT_LABELLED, NOT_MENTIONED, -1]
    assert set(column_of(archive, "Fracture")) == {NOT_MENTIONED}
    assert archive.notes["columns_like_labels_not_read"] == ["Emphysema"]


def test_own_takes_every_column_of_states_and_no_other(tmp_path: Path) -> None:
    table = {
        "ICU": list("010101"),
        "view": list("000000"),
        "note": list("01x010"),
        "blank": [""] * 6,
    }
    archive = listed(tmp_path / "t.csv", TableColumns(label_names="own"), **table)
    assert archive.label_names == ("ICU",)  # `view` is another setting's
    with pytest.raises(ValueError, match="no column with label states alone"):
        listed(tmp_path / "n.csv", TableColumns(label_names="own"), note=list("01x010"))


@pytest.mark.parametrize(
    ("label_names", "message"),
    [
        (["Edma"], r"t\.csv has no column 'Edma' \(columns\.label_names\); it has 'Edema'"),
        (["Edema", "edema"], r"names 'edema' 2 times"),
        (["note"], r"'note' \(columns\.label_names\) holds no label state but 'mild', 'severe'"),
    ],
)
def test_a_name_that_cannot_be_read_is_an_error(
    tmp_path: Path, label_names: list[str], message: str
) -> None:
    table = {"Edema": list("010101"), "note": ["mild", "severe", "mild", "mild", "", ""]}
    with pytest.raises(ValueError, match=message):
        listed(tmp_path / "t.csv", TableColumns(label_names=label_names), **table)


def test_two_columns_of_one_label_are_refused_where_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    header = "study,patient,path,ICU,ICU,Emphysema,Emphysema\n"
    path.write_text(header + "a,a,a.png,1,0,1,0\n")
    config = IngestConfig(archive="table", source=path, output=tmp_path / "out")
    read = READERS["table"]
    wanted = replace(config, columns=TableColumns(label_names=["ICU"]))
    with pytest.raises(ValueError, match="has 2 columns 'ICU': keep one of them"):
        read(wanted, lambda done, of: None)
    assert len(read(config, lambda done, of: None).records) == 1
    path.write_text("study,study,patient,path\n1,2,3,a.png\n")
    with pytest.raises(ValueError, match="has 2 columns 'study'"):
        read(config, lambda done, of: None)


def test_names_in_one_column_become_labels(tmp_path: Path) -> None:
    cells = ["COVID-19|Edema", "covid_19; Flail chest", "", "Edema", "", "Edema"]
    own = listed(tmp_path / "t.csv", TableColumns(labels="f", label_names="own"), f=cells)
    assert own.label_names == ("COVID-19", "Edema", "Flail chest", "covid_19")
    some = TableColumns(labels="f", label_names=["Flail chest", "Edema"])
    archive = listed(tmp_path / "t.csv", some, f=cells)
    assert column_of(archive, "Flail chest") == [-2, 1, -2, -2, -2, -2]
    assert [r.other_labels for r in archive.records][:2] == [("COVID-19",), ("covid_19",)]
    assert "2 names are none of the labels" in "\n".join(archive.warnings)
    with pytest.raises(ValueError, match=r"no row names the label 'Edma'; it has 'Edema'"):
        listed(tmp_path / "t.csv", TableColumns(labels="f", label_names=["Edma"]), f=cells)


def test_label_names_are_a_list_or_own_on_the_command_line() -> None:
    parser = parser_for(IngestConfig)
    given_as = ["--archive=table", "--source=t.csv", "--output=o", "--columns.label_names"]
    for text, value in (("own", "own"), ("[A b, 'C, d']", ["A b", "C, d"]), ("null", None)):
        settings = parser.instantiate(parser.parse_args([*given_as, text]))
        assert settings.columns.label_names == value


def test_public_archives_have_labels_of_their_own(tmp_path: Path) -> None:
    touch(tmp_path, "a.png")
    row = {"Image Index": "a.png", "Finding Labels": "Emphysema|Pleural_Thickening",
           "Patient ID": "1", "View Position": "PA"}  # fmt: skip
    write_csv(tmp_path / "Data_Entry_2017.csv", [row])
    own = published(
        "chestxray14", tmp_path, official_split=False, columns=TableColumns(label_names="own")
    )
    positive = {
        n for n, s in zip(own.label_names, own.records[0].labels or (), strict=True) if s > 0
    }
    assert positive == {"Emphysema", "Pleural_Thickening"}
    assert len(own.label_names) == 15
    assert own.records[0].other_labels == ()
    some = TableColumns(label_names=["pleural thickening", "Hernia"])
    archive = published("chestxray14", tmp_path, official_split=False, columns=some)
    assert archive.label_names == ("Pleural_Thickening", "Hernia")
    assert archive.records[0].labels == (POSITIVE, NOT_MENTIONED)
    assert archive.records[0].other_labels == ("Emphysema",)
    some = TableColumns(label_names=["Hernias"])
    with pytest.raises(ValueError, match="chestxray14 has no label 'Hernias', it has 'Hernia'"):
        published("chestxray14", tmp_path, official_split=False, columns=some)


def test_padchest_has_labels_of_its_own(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "b.png")
    rows = [
        {"ImageID": f"{name}.png", "StudyID": name, "PatientID": name, "Projection": "PA",
         "Report": "", "Labels": labels}
        for name, labels in (("a", "['COPD signs ', 'normal', 'new thing']"), ("b", ""))
    ]  # fmt: skip
    write_csv(tmp_path / "PADCHEST_chest_x_ray_images_labels.csv", rows)
    own = published("padchest", tmp_path, columns=TableColumns(label_names="own"))
    positive = {
        n for n, s in zip(own.label_names, own.records[0].labels or (), strict=True) if s > 0
    }
    assert positive == {"copd signs", "normal"}
    assert own.records[0].other_labels == ("new thing",)
    assert own.records[1].labels is None
    assert not {"exclude", "suboptimal study", "unchanged"} & set(own.label_names)
    studies = group_studies(
        own.records, key=b"k" * 16, validation_share=0, test_share=0, max_views=4,
        labels=len(own.label_names),
    ).studies  # fmt: skip
    unlabelled = [study for study in studies if set(study.labels) == {NOT_LABELLED}]
    assert len(unlabelled) == 1
