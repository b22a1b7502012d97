"""What identifies a person is planted wherever it can stand; then every byte that was written is searched."""

from collections.abc import Iterator
from pathlib import Path
from shutil import rmtree

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from dicom_files import RAMP, write_dicom
from pydicom import Dataset, dcmread
from pydicom.datadict import DicomDictionary
from volume_files import settings

from ray_mae import cli
from ray_mae.config import IngestConfig, InspectConfig
from ray_mae.data.decoding.dicom import read_header
from ray_mae.data.decoding.images import read_image
from ray_mae.data.ingest.job import ingest
from ray_mae.data.phantoms.brain_cohort import write_volumes
from ray_mae.data.quarantine import QuarantineError, error_text
from ray_mae.evaluate.card.command import inspect

pytestmark = pytest.mark.usefixtures("local_ray")

NAME, NUMBER, STREET, DATE = "YPSILANTI", "47110815", "ELDERBERRY", "19370419"
PLANTED = (NAME, NUMBER, STREET, DATE, "Ypsilanti", "Elderberry", "1937-04-19", "04/19/1937")
WORDS = {"PN": f"{NAME}^XAVER", "DA": DATE, "DT": f"{DATE}120000", "LO": f"{NAME} {NUMBER}",
         "SH": NUMBER, "ST": f"{STREET} ROAD 7 {NAME}", "LT": f"{NAME} {STREET} {DATE}",
         "UT": f"{NAME} {NUMBER}", "UC": NAME, "AE": NAME, "CS": NAME, "UR": f"http://{NAME}/"}  # fmt: skip
# What the image could not be read without, or would be refused for.
KEPT = {"Modality", "PhotometricInterpretation", "BurnedInAnnotation", "SpecificCharacterSet",
        "PresentationIntentType", "PixelIntensityRelationship"}  # fmt: skip
SERIES_KEPT = KEPT | {"SeriesDescription", "ProtocolName", "SequenceName", "ImageType"}
REPORT = """Patient: Xaver Ypsilanti
MRN: 47110815
Address: Elderberry Road 7
Date of birth: 04/19/1937
Dear Dr. Ypsilanti, 1937-04-19

EXAM: Chest for Ypsilanti, 47110815
INDICATION: Mrs. Ypsilanti of Elderberry Road fell on 1937-04-19.
FINDINGS:
Clear lungs.
Name: Ypsilanti
RE: Xaver Ypsilanti, born 04/19/1937
MRN# 47110815, Elderberry Road 7
Pt Ypsilanti, Xaver DOB 04/19/1937
Nombre: Ypsilanti
IMPRESSION: Normal.
Finalized by Xaver Ypsilanti.
Dr. X. Ypsilanti, Radiologist
Signed by: X. Ypsilanti, M.D. 1937-04-19
"""
WITHOUT_HEADERS = """Xaver Ypsilanti
04/19/1937
Hospital No.: 47110815
Dear Dr. Ypsilanti,
Clear lungs.
Patient ID 47110815
Xaver Ypsilanti, M.D.
"""


def plant(path: Path, number: int) -> int:
    """A radiograph with something planted in every tag of text; how many there are."""
    write_dicom(path, StudyInstanceUID=f"1.2.{NUMBER}.{number}", PatientID=f"{NAME}-{number}",
                SOPInstanceUID=f"1.9.{NUMBER}.{number}")  # fmt: skip
    ds, planted = dcmread(path), 0
    for tag, (vr, _, _, retired, keyword) in DicomDictionary.items():
        if vr in WORDS and keyword and keyword not in KEPT and not retired and tag >> 16 > 0x0004:
            if keyword not in ("PatientID",):
                ds.add_new(tag, vr, WORDS[vr])
            planted += 1
    inner = Dataset()
    inner.PatientName, inner.CodeMeaning = NAME, f"{NAME} {NUMBER}"
    ds.ViewCodeSequence = ds.RequestAttributesSequence = [inner]
    block = ds.private_block(0x0011, f"{NAME} PRIVATE", create=True)
    block.add_new(0x01, "LO", f"{NAME} {NUMBER}")
    block.add_new(0x02, "UN", f"{STREET} {DATE}".encode())
    block.add_new(0x03, "SQ", [inner])
    ds.save_as(path)
    return planted + 7


def written(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every file as it is; of Parquet, which is compressed, the cells as well. Not the images' pixels."""
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        yield path.name, path.read_bytes()
        if path.suffix == ".parquet":
            cells = pq.read_table(path).to_pylist()
            for row in cells:
                row["views"] = [v["position"] for v in row.get("views", [])]
            yield f"{path.name}, cells", repr(cells).encode()


def test_nothing_that_identifies_a_person_is_written_anywhere(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_MAE_PSEUDONYM_KEY", "a secret that nobody ever guesses")
    archive, output = tmp_path / "archive", tmp_path / "out"
    planted = sum(plant(archive / f"{number}.dcm", number) for number in range(6))
    # Files that are refused, each for a reason of its own whose detail might tell.
    plant(archive / "a.dcm", 90)
    changed = {"b": {"Modality": NAME}, "c": {"Rows": 60_000, "Columns": 60_000},
               "d": {"PixelData": np.zeros_like(RAMP).tobytes()}, "e": {"PixelData": b"\1" * 9},
               "f": {"PhotometricInterpretation": NAME}, "g": {"BurnedInAnnotation": "YES"}}  # fmt: skip
    for name, tags in changed.items():
        ds = dcmread(archive / "a.dcm")
        ds.SOPInstanceUID, ds.StudyInstanceUID = f"1.5.{NUMBER}.{ord(name)}", f"1.6.{ord(name)}"
        for tag, value in tags.items():
            setattr(ds, tag, value)
        ds.save_as(archive / f"{name}.dcm")
    (archive / "z.dcm").write_bytes((archive / "a.dcm").read_bytes())  # a duplicate of it
    raw = (archive / "0.dcm").read_bytes()
    (archive / "h.dcm").write_bytes(raw[: len(raw) // 2])
    (archive / "i.dcm").write_bytes(f"{NAME} {NUMBER}".encode() * 99)
    reports = archive / "reports.csv"
    texts = [REPORT, WITHOUT_HEADERS]
    rows = [f'1.2.{NUMBER}.{number},"{texts[number % 2]}"' for number in range(6)]
    reports.write_text("\n".join(["study,text", *rows]) + "\n")

    cli.run(["ingest", "--archive", "dicom", "--source", str(archive), "--output", str(output),
             "--image_size", "32", "--max_pixels", "1000000", "--year_bucket", "5"])  # fmt: skip
    cli.run(["inspect", "--shards", str(output)])
    captured = capfd.readouterr()
    session = Path(ray._private.worker._global_node.get_session_dir_path()) / "logs"
    sources = [
        *written(output),
        *written(session),
        ("output", (captured.out + captured.err).encode()),
    ]

    quarantine = pq.read_table(output / "quarantine.parquet").to_pylist()
    assert {r["reason"] for r in quarantine if r["kind"] == "image"} >= {
        "modality", "too-large", "constant", "undecodable", "burned-in", "not-dicom"
    }  # fmt: skip
    texts = [pq.read_table(f).column("findings").to_pylist() for f in output.glob("*-0*.parquet")]
    assert {t for column in texts for t in column} == {"Clear lungs.", None}, (
        "searched what was kept"
    )
    years = {y for f in output.glob("*-0*.parquet") for y in pq.read_table(f)["years"].to_pylist()}
    assert years == {"1935-1939"}
    card = (output / "card.html").read_bytes() + (output / "card.json").read_bytes()
    assert b"a.dcm" not in card, "file names may be names of patients"
    for name, content in sources:
        for word in PLANTED:
            assert word.encode() not in content, f"{word} in {name}"
            assert word.encode("utf-16-le") not in content, f"{word} in {name}"
    searched = sum(len(content) for _, content in sources)
    assert planted > 5000
    assert searched > 100_000
    print(f"{planted:,} planted values of {len(PLANTED)} words, {searched:,} bytes searched in "
          f"{len(sources)} files and tables")  # fmt: skip


def test_a_name_as_the_suffix_of_a_file_or_in_the_error_of_a_store_is_not_on_the_card(
    tmp_path: Path,
) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    write_dicom(source / "0.dcm")
    (source / f"a.{NAME}").write_bytes(b"no image" * 50)
    ingest(IngestConfig(archive="dicom", source=source, output=output, insecure_pseudonyms=True))
    quarantine = pq.read_table(output / "quarantine.parquet")
    store = {"kind": "image", "reason": "unreadable", "detail": f"no answer from http://{NAME}/1"}
    rows = [*quarantine.to_pylist(), store]
    pq.write_table(pa.Table.from_pylist(rows, quarantine.schema), output / "quarantine.parquet")
    inspect(InspectConfig(shards=output))
    card = (output / "card.json").read_text() + (output / "card.html").read_text()
    assert "unreadable" in card
    assert "other suffix, 400 bytes" in card
    assert NAME not in card
    with pytest.raises(QuarantineError, match="other suffix"):
        read_image(source / f"a.{NAME}", 10**6)


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("value 'MILLER' is wrong", "value … is wrong"),
        ("tag doesn't match 'MILLER'", "tag doesn't match …"),
        ("got b'O'MILLER' and \"J MILLER\"", "got … and …"),
        ("it starts 'MILLER", "it starts …"),
    ],
)
def test_what_an_error_quotes_is_not_said(message: str, told: str) -> None:
    assert error_text(ValueError(message)) == f"ValueError: {told}"


@pytest.mark.parametrize(("size", "kept"), [(0, [None, None]), (10, ["2010-2019", None])])
def test_no_date_is_kept_unless_a_bucket_is_asked_for(
    tmp_path: Path, size: int, kept: list[str | None]
) -> None:
    for number, date in enumerate(["20140915", ""]):
        tags = {"StudyDate": date, "StudyInstanceUID": f"1.2.{number}", "PatientID": f"p{number}",
                "SOPInstanceUID": f"1.3.{number}"}  # fmt: skip
        file = write_dicom(tmp_path / "in" / f"{number}.dcm", **tags)
        assert read_header(file, 10**6).year is None
    table = tmp_path / "in" / "table.csv"
    table.write_text("study,patient,path,date\n0,0,0.dcm,2014-09-15\n1,1,1.dcm,\n")
    for archive, source in (("dicom", tmp_path / "in"), ("table", table)):
        output = tmp_path / archive
        ingest(
            IngestConfig(
                archive=archive,
                source=source,
                output=output,
                insecure_pseudonyms=True,
                validation_share=0,
                test_share=0,
                year_bucket=size,
            )
        )
        years = pq.read_table(output / "train-00000.parquet")["years"].to_pylist()
        assert sorted(years, key=str, reverse=True) == sorted(kept, key=str, reverse=True)


def test_a_series_of_slices_gives_what_was_asked_for_and_nothing_that_is_planted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_MAE_PSEUDONYM_KEY", "a secret that nobody ever guesses")
    source, output = tmp_path / "in", tmp_path / "out"
    write_volumes(source, 2, seed=0, size=24, as_dicom=True, broken=False)
    for contrast in ("T2w", "FLAIR", "SWI"):
        for folder in source.glob(f"*/{contrast}"):
            rmtree(folder)
    sexes: dict[str, str] = {}
    series: dict[str, Path] = {}
    for path in sorted(source.rglob("*.dcm")):
        ds = dcmread(path)
        first = series.setdefault(ds.SeriesInstanceUID, path) == path
        for tag, (vr, _, _, retired, keyword) in DicomDictionary.items() if first else ():
            known = keyword in ds or keyword in SERIES_KEPT
            if vr in WORDS and keyword and not retired and tag >> 16 > 0x0004 and not known:
                ds.add_new(tag, vr, WORDS[vr])
        sex = sexes.setdefault(ds.PatientID, "F" if not sexes else f"{NAME} {NUMBER}")
        ds.PatientSex, ds.PatientAge, ds.MagneticFieldStrength = sex, "097Y", "2.89362"
        ds.ManufacturerModelName = "Skyline"
        ds.save_as(path)
    wanted = {"attributes": ["sex", "age", "model", "field_strength"]}
    config = settings("dicom-series", source, output, spacing_mm=8.0)
    asked = IngestConfig(**{**vars(config), **wanted, "insecure_pseudonyms": False})
    summary = ingest(asked)
    card = inspect(InspectConfig(shards=output))

    rows = [r for f in output.glob("*-0*.parquet") for r in pq.read_table(f).to_pylist()]
    assert rows
    assert {r["age"] for r in rows} == {90}
    assert {r["field_strength"] for r in rows} == {3.0}
    assert {r["sex"] for r in rows} == {"F", None}
    assert {r["model"] for r in rows} == {"Skyline"}
    assert not {"manufacturer"} & rows[0].keys()
    assert card["attributes"]["field_strength"] == {
        "3 T": {s: sum(r["split"] == s for r in rows) for s in ("train", "val", "test")}
    }
    told = summary["notes"]["attribute_cells_not_understood"]
    assert told == {"sex": {"aaaaaaaaa 999999": len(rows) // 2}}
    page = (output / "card.html").read_text()
    assert "<h2>Field strength</h2>" in page
    assert "Cells not understood as sex: “aaaaaaaaa 999999”" in page
    for name, content in written(output):
        for word in PLANTED:
            assert word.encode() not in content, f"{word} in {name}"
