from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from ray_mae.config import IngestConfig, TableColumns
from ray_mae.data.archives import READERS
from ray_mae.data.archives.records import Archive
from ray_mae.data.labels import CHEXPERT_LABELS, NEGATIVE, NOT_MENTIONED, POSITIVE, UNCERTAIN

ROWS = [
    {"study": "007", "patient": "1", "path": "a.png", "view": "PA", "Edema": "1.0", "Effusion": ""},
    {"study": "007", "patient": "1", "path": "b.png", "view": "lateral", "Edema": "-1", "Effusion": "0"},
    {"study": "8", "patient": "2", "path": "", "view": "", "Edema": "maybe", "Effusion": ""},
    {"study": "9", "patient": "2", "path": "a.png", "view": "L shoulder", "Edema": "", "Effusion": ""},
]  # fmt: skip


def listed(path: Path, **settings: object) -> Archive:
    config = IngestConfig(archive="table", source=path, output=path.parent / "out")
    return READERS["table"](replace(config, **settings), lambda done, of: None)


def states(archive: Archive, record: int) -> dict[str, int]:
    labels = list(archive.records)[record].labels
    assert labels is not None
    return {n: s for n, s in zip(CHEXPERT_LABELS, labels, strict=True) if s != NOT_MENTIONED}


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".csv.gz", ".parquet"])
def test_a_table_is_listed_alike_in_every_format(tmp_path: Path, suffix: str) -> None:
    path, frame = tmp_path / f"table{suffix}", pd.DataFrame(ROWS)
    if suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, sep="\t" if suffix == ".tsv" else ",", index=False)
    archive = listed(path)

    assert [r.study for r in archive.records] == ["007", "007", "8", "9"]
    assert [r.view for r in archive.records] == ["frontal", "lateral", "unknown", "unknown"]
    problems = [r.problem.reason if r.problem else None for r in archive.records]
    assert problems == [None, None, "missing", "duplicate"]
    assert states(archive, 0) == {"Edema": POSITIVE}
    assert states(archive, 1) == {"Edema": UNCERTAIN, "Pleural Effusion": NEGATIVE}
    assert archive.notes["label_cells_by_text"] == {"Edema": {"maybe": 1}}


def test_names_in_one_column_are_mapped_or_counted(tmp_path: Path) -> None:
    cells = ["Mass|Pleural_Thickening", "COVID-19; edema", "No Finding", ""]
    pd.DataFrame(ROWS).assign(finding=cells).to_csv(tmp_path / "t.csv")
    archive = listed(tmp_path / "t.csv", columns=TableColumns(labels="finding"))
    assert states(archive, 0) == {"Lung Lesion": POSITIVE, "Pleural Other": POSITIVE}
    assert states(archive, 1) == {"Edema": POSITIVE}
    assert states(archive, 2) == {"No Finding": POSITIVE}
    assert states(archive, 3) == {}
    assert archive.notes["labels_not_mapped"] == {"COVID-19": 1}


def test_a_missing_column_is_named_with_the_nearest_there_are(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    pd.DataFrame(ROWS).rename(columns={"patient": "patient_id"}).to_csv(path)
    with pytest.raises(ValueError, match=r"no column 'patient' .* 'patient_id'.*columns\.patient"):
        listed(path)
    with pytest.raises(ValueError, match=r"no column 'viwe' for the view; it has 'view'"):
        listed(path, columns=TableColumns(patient="patient_id", view="viwe"))


def test_a_column_that_need_not_be_there_may_be_missing(tmp_path: Path) -> None:
    pd.DataFrame(ROWS)[["study", "patient", "path"]].to_csv(tmp_path / "t.csv")
    archive = listed(tmp_path / "t.csv")
    assert {r.view for r in archive.records} == {"unknown"}
    assert {r.text for r in archive.records} == {None}


def test_a_split_of_another_name_is_not_guessed(tmp_path: Path) -> None:
    pd.DataFrame(ROWS).assign(split="open").to_csv(tmp_path / "t.csv")
    with pytest.raises(ValueError, match=r"'open' \(4 rows\) is no split.*columns\.split to null"):
        listed(tmp_path / "t.csv")
    archive = listed(tmp_path / "t.csv", columns=TableColumns(split=None))
    assert {r.split for r in archive.records} == {None}


@pytest.mark.parametrize("archive", ["table", "dicom"])
def test_a_source_that_is_not_there_is_named(tmp_path: Path, archive: str) -> None:
    config = IngestConfig(archive=archive, source=tmp_path / "none", output=tmp_path / "o")
    with pytest.raises(FileNotFoundError, match=r"none is no f.*\(source\)"):
        READERS[archive](config, lambda done, of: None)
