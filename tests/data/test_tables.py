"""Tables that were damaged: no row is ever taken for a part of another."""

import csv
import gzip
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from volume_files import ball, settings, write_nifti

from ray_mae.config import IngestConfig
from ray_mae.data.archives.tables import MOST_CHARACTERS, DamagedRow, iter_table, read_table
from ray_mae.data.ingest.job import ingest

HEADER = "study,patient,path,text"
ROWS = [f"s{n},p{n},{n}.png,Clear {n}" for n in range(60)]


def read(path: Path, lines: list[str]) -> tuple[dict[str, str], list[DamagedRow]]:
    """Text by study, and the damaged rows, of a table with these lines below its header."""
    path.write_text("\n".join([HEADER, *lines]) + "\n")
    damaged: list[DamagedRow] = []
    return {row["study"]: row["text"] for row in iter_table(path, damaged.append)}, damaged


@pytest.mark.parametrize(
    ("changed", "lost", "problem"),
    [
        ({5: 's5,p5,5.png,"Clear 5'}, 5, "none closes it"),
        ({5: 's5,p5,"5.png,Clear 5'}, 5, "none closes it"),
        ({5: '"s5,p5,5.png,Clear 5'}, 5, "none closes it"),
        ({5: 's5,p5,5.png,"Clear', 44: 's44,p44,44.png,"Clear, 44"'}, 5, "write it twice"),
        ({5: 's5,p5,5.png,"Clear', 44: 's44,p44,44.png,Clear 44"'}, 5, "are inside it"),
        ({5: 's5,p5,5.png,"Clear', 6: 's6,p6,6.png,Clear 6"'}, 5, "are inside it"),
        ({5: 's5,p5,5.png,"A "large" heart."'}, 5, "write it twice"),
        ({5: "s5,p5,5.png,Clear, and normal"}, 5, "5 cells, and the header has 4"),
        ({5: "s5,p5,5.png,Cl\0ear"}, 5, "NUL"),
        ({5: "s5,p5,5.png," + "x" * MOST_CHARACTERS}, 5, "more than 16,777,216 characters"),
        ({5: 's5,p5,5.png,"' + "x" * (MOST_CHARACTERS - 19) + '\nmore and more and more"'}, 5, "cell of"),
    ],
)  # fmt: skip
def test_of_a_damaged_row_the_line_is_told_and_all_others_are_read(
    tmp_path: Path, changed: dict[int, str], lost: int, problem: str
) -> None:
    texts, damaged = read(tmp_path / "a.csv", [changed.get(n, row) for n, row in enumerate(ROWS)])
    assert {f"s{n}" for n in range(60)} - texts.keys() == {f"s{lost}"}
    assert all(texts[f"s{n}"] == f"Clear {n}" for n in range(60) if n not in changed)
    assert damaged[0].place == f"line {lost + 2}"
    assert problem in damaged[0].problem
    assert len(damaged) == 1
    with pytest.raises(ValueError, match=f"a.csv, line {lost + 2}: "):
        read_table(tmp_path / "a.csv")


def test_what_csv_allows_is_no_damage(tmp_path: Path) -> None:
    texts, damaged = read(
        tmp_path / "a.csv",
        ["s1,p1,1.png,Clear,,", "", "s2,p2,2.png", 's3,p3,3.png,5" nodule', 's4,p4,4.png,"A ""b"" c"',
         's5,p5,5.png,"1. Heart, lungs, bones, soft tissue\nT12, L1, L2 normal\n1, 2, 3, 4\n"',
         "s6,p6,6.png,it's clear"],
    )  # fmt: skip
    assert not damaged
    assert texts["s1"] == "Clear"
    assert texts["s2"] == ""
    assert texts["s3"] == '5" nodule'
    assert texts["s4"] == 'A "b" c'
    assert texts["s5"].startswith("1. Heart, lungs, bones, soft tissue\nT12, L1")


def test_lines_are_counted_as_an_editor_counts_them(tmp_path: Path) -> None:
    _, damaged = read(tmp_path / "a.csv", ['s1,p1,1.png,"one\ntwo\n\nfour"', "", "s2,p2,2.png,a,b"])
    assert [row.place for row in damaged] == ["line 7"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"study,path\ns1,1.png\ns2,M\xfcller.png\n", "line 3: it holds bytes that are not UTF-8"),
        ("study,path\ns1,1.png\n".encode("utf-16"), "line 1"),
        (b'study,"path\ns1,1.png\n', "line 1, the header: a double quote"),
        (b'study,text\n' + b'a","c\n' * 3000, "the double quotes of too many rows"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_table_ends_with_its_line(
    tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_table(tmp_path / "a.csv", lambda row: None)


@pytest.mark.parametrize("name", ["a.csv.gz", "a.parquet"])
def test_a_file_that_is_not_what_its_suffix_says_ends_with_a_sentence(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_bytes(b"study,path\n")
    with pytest.raises(ValueError, match=r"a\.(csv\.gz|parquet) is no"):
        read_table(tmp_path / name)


def test_text_of_parquet_that_is_no_utf_8_is_a_damaged_row(tmp_path: Path) -> None:
    cells = pa.array([b"s1", b"\xed\xa0\x80"])
    strings = pa.Array.from_buffers(pa.string(), 2, cells.buffers())
    pq.write_table(pa.table({"study": strings, "n": [1.0, None]}), tmp_path / "a.parquet")
    damaged: list[DamagedRow] = []
    assert list(iter_table(tmp_path / "a.parquet", damaged.append)) == [{"study": "s1", "n": "1.0"}]
    assert [row.place for row in damaged] == ["row 2"]


@pytest.mark.usefixtures("local_ray")
def test_what_is_damaged_or_lies_elsewhere_is_quarantined_and_the_job_goes_on(
    tmp_path: Path,
) -> None:
    for number in range(12):
        Image.linear_gradient("L").resize((40 + number, 40)).save(tmp_path / f"{number}.png")
    lines = list(ROWS[:12])
    lines[2] = 's2,p2,2.png,"Clear 2'
    lines[3] = "s3,p3,3.png,Clear, and normal"
    lines[4] = "s4,p4,http://169.254.169.254/latest/4.png,Clear 4"
    lines[5] = "s5,p5,nobody-has-this://bucket/5.png,Clear 5"
    lines[6] = "s6,p6,s3://bucket/6.png,Clear 6"
    lines[7] = "s7,p7,7.png,Clear\nand normal"
    (tmp_path / "a.csv").write_text("\n".join([HEADER, *lines]) + "\n")
    summary = ingest(
        IngestConfig(archive="table", source=tmp_path / "a.csv", output=tmp_path / "out",
                     insecure_pseudonyms=True, image_size=32)
    )  # fmt: skip
    table = pq.read_table(tmp_path / "out" / "quarantine.parquet").to_pylist()
    told = {(row["path"], row["reason"]): row["detail"] for row in table if row["kind"] == "image"}
    assert summary["images"] == {"in": 13, "out": 7, "quarantined": 6}
    reasons = {"other-store": 3, "damaged-row": 2, "missing": 1}
    assert summary["quarantined"]["image"] == reasons
    details = [row["detail"] for row in table if row["reason"] == "damaged-row"]
    assert sorted(detail.split(":")[0] for detail in details) == ["line 4", "line 5"]
    assert "--stores [s3]" in told["s3://bucket/6.png", "other-store"]
    assert "line 10 names no file; 3 of its cells are missing" in told["", "missing"]


@pytest.mark.usefixtures("local_ray")
def test_half_a_character_in_a_manifest_is_quarantined_and_the_job_goes_on(tmp_path: Path) -> None:
    images = []
    for number in range(3):
        write_nifti(tmp_path / f"{number}.nii.gz", ball(seed=number))
        images.append({"name": f"i{number}", "modality": "T1w", "image_path": f"{number}.nii.gz"})
    images[1]["image_path"] = "1\0.nii.gz"
    subjects = {
        "a": {"sessions": {"1": {"images": images[:2]}}},
        "b": {"sessions": {"1": {"images": images[2:]}}},
    }
    collection = {
        "datasets": {
            "one": {"subjects": subjects},
            "half \ud800": {"subjects": {"c": {"sessions": {"1": {"images": images[:1]}}}}},
        }
    }
    (tmp_path / "pretrain_data.json").write_text(json.dumps(collection))
    summary = ingest(settings("openmind", tmp_path / "pretrain_data.json", tmp_path / "out"))
    assert summary["volumes"] == {"in": 4, "out": 2, "quarantined": 2}
    assert summary["quarantined"]["volume"] == {"not-text": 2}


CLINIC = [["Fall", "Patient", "Datei", "Befund"], ["s1", "Müller", "1.png", "Herz, Lunge; frei"],
          ["s2", "Jäger", "2.png", "Größe 1,5 cm"]]  # fmt: skip


def clinic(delimiter: str, lead: str = "") -> str:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\r\n").writerows(CLINIC)
    return lead + text.getvalue()


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.csv.gz"])
def test_the_delimiter_is_what_divides_the_header(
    tmp_path: Path, name: str, delimiter: str
) -> None:
    data = clinic(delimiter).encode("utf-8-sig")
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    rows = read_table(tmp_path / name)
    assert [list(row.values()) for row in rows] == CLINIC[1:]
    assert rows[1].place == "line 3"


def test_a_header_with_other_delimiters_in_it_is_read_by_its_own(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("Name, Vorname;Fall;Datei\nMüller, A;s1;1.png\n")
    assert read_table(tmp_path / "a.csv")[0]["Name, Vorname"] == "Müller, A"
    (tmp_path / "b.csv").write_text('study,"a;b;c;d;e",path\ns1,x,1.png\n')
    assert read_table(tmp_path / "b.csv")[0]["path"] == "1.png"
    (tmp_path / "c.csv").write_text("study\ns1;2\n")  # one column: its cells are left alone
    assert read_table(tmp_path / "c.csv")[0]["study"] == "s1;2"


def test_the_line_in_which_excel_says_the_delimiter_is_no_header(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(clinic("|", "sep=|\r\n"), newline="")
    rows = read_table(tmp_path / "a.csv")
    assert [list(row.values()) for row in rows] == CLINIC[1:]
    assert rows[0].place == "line 3"


def test_a_table_of_windows_is_read_where_that_is_told_and_the_setting_is_named_where_not(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.csv").write_bytes(clinic(";").encode("cp1252"))
    with pytest.raises(ValueError, match=r"a.csv, line 2: .*table_encoding windows-1252"):
        read_table(tmp_path / "a.csv")
    rows = read_table(tmp_path / "a.csv", encoding="windows-1252")
    assert [list(row.values()) for row in rows] == CLINIC[1:]
    (tmp_path / "b.csv").write_bytes(clinic(";").encode())  # another table, of UTF-8, beside it
    assert read_table(tmp_path / "b.csv", encoding="windows-1252") == rows
    (tmp_path / "c.csv").write_bytes(b"study,path\ns1,\x81.png\n")
    with pytest.raises(ValueError, match=r"c.csv, line 2: .*nor Windows-1252"):
        read_table(tmp_path / "c.csv", encoding="windows-1252")


def test_an_archive_of_a_table_of_windows_is_ingested(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (40, 40), dtype=np.uint8)
    for name in ("Müller.tif", "Jäger.bmp", "Weiß.webp"):
        Image.fromarray(picture).save(tmp_path / name)
    rows = "".join(
        f"s{i};p{i};{name}\r\n" for i, name in enumerate(("Müller.tif", "Jäger.bmp", "Weiß.webp"))
    )
    (tmp_path / "a.csv").write_bytes(("study;patient;path\r\n" + rows).encode("cp1252"))
    summary = ingest(
        IngestConfig(
            archive="table",
            source=tmp_path / "a.csv",
            output=tmp_path / "out",
            image_size=32,
            insecure_pseudonyms=True,
            table_encoding="windows-1252",
        )
    )
    assert summary["images"] == {"in": 3, "out": 3, "quarantined": 0}
