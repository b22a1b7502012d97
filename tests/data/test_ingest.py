import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from dicom_files import RAMP, SHARED, needs_shared, write_dicom
from PIL import Image

from ray_mae.config import IngestConfig, InspectConfig, TableColumns
from ray_mae.data.decoding.files import decode_image
from ray_mae.data.decoding.stored_images import Window, decode
from ray_mae.data.ingest.job import ingest
from ray_mae.data.loading.integrity import DamagedShard
from ray_mae.data.loading.rows import read_rows
from ray_mae.data.loading.study_collator import StudyCollator
from ray_mae.data.quarantine import QUARANTINE_REASONS
from ray_mae.data.schema import STUDY_SCHEMA, Manifest
from ray_mae.evaluate.card.command import inspect

pytestmark = pytest.mark.usefixtures("local_ray")

REPORT = "Name: {name}\nFINDINGS: Clear lungs.\nIMPRESSION: Normal."


def picture(path: Path, seed: int, size: tuple[int, int] = (80, 64)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)).save(path)
    return path


def settings(source: Path, output: Path, **other: Any) -> IngestConfig:
    archive = "dicom" if source.is_dir() else "table"
    return IngestConfig(
        **{"archive": archive, "source": source, "output": output, "insecure_pseudonyms": True,
           "image_size": 32, "studies_per_shard": 6, "studies_per_row_group": 4, **other}
    )  # fmt: skip


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """24 studies of 12 patients with two views each."""
    rows = []
    for study in range(24):
        for view in ("PA", "LAT"):
            file = picture(tmp_path / "archive" / f"{study}-{view}.png", 2 * study + (view == "PA"))
            rows.append(
                {"study": f"study-{study}", "patient": f"patient-{study // 2}", "path": file.name,
                 "view": view, "text": REPORT.format(name="Ypsilanti"), "Edema": study % 2}
            )  # fmt: skip
    pd.DataFrame(rows).to_csv(tmp_path / "archive" / "table.csv", index=False)
    return tmp_path / "archive" / "table.csv"


def shards(output: Path) -> dict[str, str]:
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in output.glob("*-0*.parquet")}


def studies(output: Path) -> pd.DataFrame:
    manifest = Manifest.read(output)
    return pd.concat([pq.read_table(output / s.file).to_pandas() for s in manifest.shards])


def quarantine(output: Path) -> dict[tuple[str, str], list[Any]]:
    rows = pq.read_table(output / "quarantine.parquet").to_pylist()
    found: dict[tuple[str, str], list[Any]] = {}
    for row in rows:
        assert row["reason"] in QUARANTINE_REASONS
        found.setdefault((row["kind"], row["reason"]), []).append(row["path"])
    return found


def test_a_table_becomes_shards_as_the_manifest_says(table: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    summary = ingest(settings(table, output))

    manifest = Manifest.read(output)
    assert sum(s.rows for s in manifest.shards) == 24 == summary["studies"]["out"]
    assert manifest.form["image_size"] == settings(table, output).image_size
    assert sum(sum(c.values()) for c in manifest.form["views"].values()) == summary["images"]["out"]
    assert summary["images"] == {"in": 48, "out": 48, "quarantined": 0}
    for shard in manifest.shards:
        file = pq.ParquetFile(output / shard.file)
        assert file.schema_arrow.equals(STUDY_SCHEMA)
        assert file.metadata.metadata[b"ray_mae.schema_version"] == b"1"
        groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        assert groups == shard.row_groups
        assert shards(output)[shard.file] == shard.sha256
        assert (output / shard.file).stat().st_size == shard.bytes
    assert json.loads((output / "summary.json").read_text()) == summary

    row = studies(output).iloc[0]
    assert [v["view"] for v in row["views"]] == ["lateral", "frontal"]
    assert (row["findings"], row["impression"]) == ("Clear lungs.", "Normal.")
    image = decode(row["views"][0]["image"])
    assert image.shape == (40, 32) == (row["views"][0]["height"], row["views"][0]["width"])
    assert image.dtype == np.uint8

    flipped = output / manifest.shards[0].file
    content = bytearray(flipped.read_bytes())
    at = content.find(row["views"][0]["image"][:64])
    assert at > 0  # the first image of the first shard
    content[at + 100] ^= 1  # it may well still be an image
    flipped.write_bytes(content)
    with pytest.raises(DamagedShard, match="CRC checksum"):
        read_rows(flipped, manifest.shards[0], 0, StudyCollator.columns)


def test_a_patient_is_in_one_split_and_no_identity_is_in_a_shard(
    table: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    ingest(settings(table, output, validation_share=0.3, test_share=0.3))
    assert (studies(output).groupby("patient_id")["split"].nunique() == 1).all()
    assert set(studies(output)["split"]) == {"train", "val", "test"}
    for file in [*output.glob("*.parquet"), output / "manifest.json", output / "summary.json"]:
        for planted in (b"Ypsilanti", b"patient-1", b"study-1", str(tmp_path).encode()):
            assert planted not in file.read_bytes(), file.name


def test_two_runs_give_identical_shards_and_a_second_start_does_only_what_is_missing(
    table: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    ingest(settings(table, first))
    assert ingest(settings(table, second))["shards"]["kept"] == 0
    assert shards(first) == shards(second)

    made = shards(second)
    gone, cut, *rest = sorted(made)
    (second / gone).unlink()
    (second / cut).write_bytes((second / cut).read_bytes()[:100])
    kept = {f: (second / f).stat().st_mtime_ns for f in rest}
    summary = ingest(settings(table, second))
    assert summary["shards"] == {"written": 2, "kept": len(rest)}
    assert shards(second) == made
    assert {f: (second / f).stat().st_mtime_ns for f in rest} == kept
    assert summary["images"]["out"] == 48


def test_other_settings_make_other_shards_and_leave_no_old_ones(
    table: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    before = ingest(settings(table, output, studies_per_shard=2))
    after = ingest(settings(table, output, studies_per_shard=20, encoding="jpeg", overwrite=True))
    assert after["shards"]["kept"] == 0
    assert after["shards"]["written"] < before["shards"]["written"]
    assert set(shards(output)) == {s.file for s in Manifest.read(output).shards}
    assert studies(output).iloc[0]["views"][0]["encoding"] == "jpeg"
    with pytest.raises(ValueError, match="holds the shards of 'archive', not of 'other'"):
        ingest(settings(table, output, dataset="other"))


def test_a_file_that_was_missing_is_taken_in_when_it_is_there(table: Path, tmp_path: Path) -> None:
    output, late = tmp_path / "out", table.parent / "3-PA.png"
    whole = tmp_path / "whole"
    ingest(settings(table, whole))
    late.rename(tmp_path / "late.png")
    assert ingest(settings(table, output))["quarantined"]["image"] == {"missing": 1}
    assert len(quarantine(output)[("image", "missing")]) == 1
    (tmp_path / "late.png").rename(late)
    summary = ingest(settings(table, output))
    assert summary["shards"]["written"] == 1
    assert summary["images"]["quarantined"] == 0
    assert shards(output) == shards(whole)


def test_a_url_of_a_store_that_nobody_named_is_never_asked_for(table: Path, tmp_path: Path) -> None:
    rows = pd.read_csv(table)
    rows.loc[0, "path"] = "foo://bucket/0-PA.png"
    rows.to_csv(table, index=False)
    summary = ingest(settings(table, tmp_path / "out"))
    assert summary["quarantined"]["image"] == {"other-store": 1}
    assert summary["images"] == {"in": 48, "out": 47, "quarantined": 1}


def test_an_archive_that_grew_changes_only_the_last_shards_and_adds_new_ones(
    table: Path, tmp_path: Path
) -> None:
    rows, output = pd.read_csv(table), tmp_path / "out"
    rows[rows["patient"] < "patient-5"].to_csv(table, index=False)
    ingest(settings(table, output))
    before, known = shards(output), set(studies(output)["study_id"])
    full = {s.file for s in Manifest.read(output).shards if s.rows == 6}
    assert full

    rows.to_csv(table, index=False)
    summary = ingest(settings(table, output))
    assert summary["studies"] == {"in": 24, "out": 24, "quarantined": 0}
    after = shards(output)
    assert {file: after[file] for file in full} == {file: before[file] for file in full}
    assert summary["shards"]["kept"] >= len(full)
    assert known < set(studies(output)["study_id"])
    assert ingest(settings(table, output))["shards"]["written"] == 0
    assert shards(output) == after

    rows[rows["patient"] != "patient-3"].to_csv(table, index=False)  # whose consent was withdrawn
    summary = ingest(settings(table, output))
    assert len(studies(output)) == 22
    assert 0 < summary["shards"]["written"] < len(after)


@pytest.fixture
def dicom_folder(tmp_path: Path) -> Path:
    """Two good studies, one of them with bad files beside; and files that are no study."""
    root = tmp_path / "archive"
    write_dicom(
        root / "a" / "1.dcm", ViewPosition="PA", StudyInstanceUID="1.1", PatientID="Ypsilanti"
    )
    write_dicom(root / "a" / "2", ViewPosition="LL", StudyInstanceUID="1.1", PatientID="Ypsilanti",
                SOPInstanceUID="9.9")  # fmt: skip
    write_dicom(root / "b" / "1.dcm", StudyInstanceUID="1.2", PatientID="Zeppelin")
    write_dicom(root / "b" / "2.dcm", StudyInstanceUID="1.1", PatientID="Ypsilanti",
                SOPInstanceUID="9.9")  # fmt: skip
    write_dicom(
        root / "b" / "3.dcm", StudyInstanceUID="1.2", PatientID="Zeppelin", NumberOfFrames=3
    )
    write_dicom(root / "b" / "4.dcm", StudyInstanceUID="1.2", PatientID="Zeppelin",
                PixelData=b"\0" * RAMP.nbytes)  # fmt: skip
    write_dicom(root / "b" / "5.dcm", StudyInstanceUID="1.2", PatientID="Zeppelin",
                PixelData=b"\1" * 10)  # fmt: skip
    write_dicom(root / "c.dcm", StudyInstanceUID="1.3", Modality="CT")
    write_dicom(root / "d.dcm", StudyInstanceUID="1.4", PatientID="")
    write_dicom(root / "e.dcm", StudyInstanceUID=None)
    write_dicom(root / "f.dcm", StudyInstanceUID="1.5", Rows=9000, Columns=9000)
    (root / "g.dcm").write_bytes(b"\x89PNG and so on" * 20)
    (root / "notes.txt").write_text("no image")
    pd.DataFrame(
        {"study": ["1.1", "1.2", "1.9"], "text": [REPORT.format(name="Y"), "", "x"],
         "Edema": ["1", "", "0"], "split": ["test", "train", "train"]}
    ).to_csv(root / "reports.csv", index=False)  # fmt: skip
    return root


def test_a_dicom_folder_keeps_what_is_good_and_says_why_the_rest_is_not(
    dicom_folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    summary = ingest(settings(dicom_folder, output, max_pixels=1_000_000))

    assert quarantine(output) == {
        ("image", "duplicate"): ["b/2.dcm"],
        ("image", "multi-frame"): ["b/3.dcm"],
        ("image", "constant"): ["b/4.dcm"],
        ("image", "undecodable"): ["b/5.dcm"],
        ("image", "modality"): ["c.dcm"],
        ("image", "no-patient"): ["d.dcm"],
        ("image", "no-study"): ["e.dcm"],
        ("image", "too-large"): ["f.dcm"],
        ("image", "not-dicom"): ["g.dcm"],
        ("study", "no-patient"): [None],
        ("study", "no-usable-image"): [None, None],
    }
    assert summary["images"] == {"in": 12, "out": 3, "quarantined": 9}
    assert summary["studies"] == {"in": 5, "out": 2, "quarantined": 3}
    assert summary["notes"]["files_passed_over"] == {".csv": 1, ".txt": 1}
    assert summary["notes"]["reports_without_images"] == 1

    by_split = studies(output).set_index("split")
    assert [v["view"] for v in by_split.loc["test", "views"]] == ["frontal", "lateral"]
    assert [v["position"] for v in by_split.loc["test", "views"]] == ["PA", "LL"]
    assert by_split.loc["test", "findings"] == "Clear lungs."
    assert pd.isna(by_split.loc["train", "findings"])
    assert by_split.loc["test", "labels"][5] == 1


def test_a_file_that_was_replaced_is_read_again_and_the_others_are_not(tmp_path: Path) -> None:
    good = write_dicom(tmp_path / "in" / "a.dcm", StudyInstanceUID="1.1", PatientID="p")
    broken = write_dicom(tmp_path / "in" / "b.dcm", StudyInstanceUID="1.2", PatientID="q")
    whole = broken.read_bytes()
    broken.write_bytes(whole[:-2000])
    wanted = settings(tmp_path / "in", tmp_path / "out", studies_per_shard=1)
    wanted = replace(wanted, validation_share=0.0, test_share=0.0)
    assert ingest(wanted)["studies"]["out"] == 1
    broken.write_bytes(whole)
    summary = ingest(wanted)
    assert summary["studies"]["out"] == 2
    assert summary["shards"] == {"written": 1, "kept": 1}
    os.utime(good, (0, 0))
    assert ingest(wanted)["shards"] == {"written": 1, "kept": 1}


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    write_dicom(tmp_path / "elsewhere" / "a.dcm")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "same").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "round").symlink_to(tmp_path / "in")
    assert ingest(settings(tmp_path / "in", tmp_path / "out"))["images"]["in"] == 1


def test_a_strip_is_refused_as_it_would_make_every_image_of_its_batch_as_long(
    tmp_path: Path,
) -> None:
    write_dicom(tmp_path / "in" / "a.dcm")
    strip = np.arange(20 * 200, dtype=np.uint8).reshape(200, 20)
    Image.fromarray(strip).save(tmp_path / "in" / "strip.png")
    rows = {"study": ["1", "2"], "patient": ["1", "2"], "path": ["in/a.dcm", "in/strip.png"]}
    pd.DataFrame(rows).to_csv(tmp_path / "t.csv")
    ingest(settings(tmp_path / "t.csv", tmp_path / "out"))
    assert ("image", "elongated") in quarantine(tmp_path / "out")


def test_text_files_and_emptied_headers_can_be_completed_from_beside(
    dicom_folder: Path, tmp_path: Path
) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "1.2.txt").write_text("IMPRESSION: Normal.")
    ingest(settings(dicom_folder, tmp_path / "a", reports=texts, max_pixels=1_000_000))
    assert list(studies(tmp_path / "a")["impression"].dropna()) == ["Normal."]

    sidecar = tmp_path / "sidecar.csv"
    pd.DataFrame({"study": ["1.4"], "patient": ["new"]}).to_csv(sidecar)
    summary = ingest(settings(dicom_folder, tmp_path / "b", reports=sidecar, max_pixels=1_000_000))
    assert summary["studies"]["out"] == 3


def test_a_table_may_list_dicom_files_whose_view_they_know_themselves(tmp_path: Path) -> None:
    write_dicom(tmp_path / "a.dcm", ViewPosition="LL")
    pd.DataFrame({"study": ["s"], "patient": ["p"], "path": ["a.dcm"]}).to_csv(tmp_path / "t.csv")
    ingest(settings(tmp_path / "t.csv", tmp_path / "out", image_size=64))
    view = studies(tmp_path / "out").iloc[0]["views"][0]
    assert (view["view"], view["position"]) == ("lateral", "LL")
    assert decode(view["image"]).shape == (64, 64)


def test_shards_of_more_bits_are_seen_as_those_of_eight_and_keep_more(tmp_path: Path) -> None:
    ramp = np.linspace(0, 4095, 48 * 48).astype(np.uint16).reshape(48, 48)
    path = write_dicom(tmp_path / "in" / "a.dcm", ramp, WindowCenter=2000, WindowWidth=1000)
    found = {}
    for bits in (8, 12, 16):
        output = tmp_path / f"out-{bits}"
        ingest(settings(tmp_path / "in", output, bits=bits))
        form = json.loads((output / "manifest.json").read_text())["form"]
        assert (form["bits"], form["encoding"]) == (bits, "zstd")
        view = studies(output).iloc[0]["views"][0]
        assert (view["encoding"], view["height"], view["width"]) == ("zstd", 32, 32)
        found[bits] = decode(view["image"]), decode(view["image"], Window(-0.5, 0.0))
        np.testing.assert_array_equal(decode_image(path, image_size=32, bits=bits), found[bits][0])
    own, darker = zip(*found.values(), strict=True)
    for image in own[1:]:
        assert np.abs(image.astype(int) - own[0]).max() <= 1
    assert len(np.unique(darker[0])) == 1 < len(np.unique(darker[1]))  # it was cut off at 8 bits


def test_burned_in_text_is_quarantined_unless_it_is_to_be_kept(tmp_path: Path) -> None:
    write_dicom(tmp_path / "in" / "a.dcm", BurnedInAnnotation="YES")
    write_dicom(tmp_path / "in" / "b.dcm", BurnedInAnnotation="NO", StudyInstanceUID="1.5")
    summary = ingest(settings(tmp_path / "in", tmp_path / "out"))
    assert summary["quarantined"]["image"] == {"burned-in": 1}
    summary = ingest(settings(tmp_path / "in", tmp_path / "out", burned_in="keep", overwrite=True))
    assert summary["images"]["out"] == 2
    kept = [split["images_with_burned_in_text"] for split in summary["splits"].values()]
    assert sum(kept) == 1
    card = inspect(InspectConfig(shards=tmp_path / "out", duplicates=False))
    assert card["burned_in_kept"] == 1
    assert "text burned into their pixels" in (tmp_path / "out" / "card.html").read_text()


RAW_CLASS = "1.2.840.10008.5.1.4.1.1.1.1.1"


@pytest.mark.parametrize(
    ("rule", "widths"),
    [("alone", [16, 48, 64]), ("quarantine", [16, 64]), ("keep", [16, 32, 48, 64, 80])],
)
def test_an_exposure_and_the_picture_made_of_it_are_no_two_views(
    tmp_path: Path, rule: str, widths: list[int]
) -> None:
    def write(name: str, study: str, width: int, **tags: Any) -> None:
        pixels = np.ascontiguousarray(
            RAMP[:, :width] if width <= 64 else np.hstack([RAMP, RAMP])[:, :width]
        )
        write_dicom(tmp_path / "in" / name, pixels, StudyInstanceUID=study, PatientID=study, **tags)

    write("both/shown.dcm", "1.1", 64, PresentationIntentType="FOR PRESENTATION")
    write("both/raw.dcm", "1.1", 32, PresentationIntentType="FOR PROCESSING")
    write("both/raw of its class.dcm", "1.1", 80, SOPClassUID=RAW_CLASS)
    write("alone/raw.dcm", "1.2", 48, PresentationIntentType="FOR PROCESSING")
    write("plain.dcm", "1.3", 16)
    output = tmp_path / "out"
    wanted = settings(tmp_path / "in", output, for_processing=rule, image_size=4096)
    summary = ingest(replace(wanted, validation_share=0.0, test_share=0.0))
    assert sorted(v["width"] for row in studies(output)["views"] for v in row) == widths
    raw = summary["splits"]["train"]["images_for_processing"]
    assert raw == len({32, 48, 80} & set(widths))
    assert summary["quarantined"]["image"].get("for-processing", 0) == 3 - raw


def test_a_raw_exposure_stays_where_the_picture_made_of_it_is_broken(tmp_path: Path) -> None:
    write_dicom(tmp_path / "in" / "a.dcm", PresentationIntentType="FOR PROCESSING")
    write_dicom(tmp_path / "in" / "b.dcm", PixelData=b"\1" * 10)
    assert ingest(settings(tmp_path / "in", tmp_path / "out"))["images"]["out"] == 1


def test_body_parts_are_counted_and_only_those_wanted_are_taken(tmp_path: Path) -> None:
    tags: list[dict[str, Any]] = [
        {"BodyPartExamined": "CHEST"}, {"BodyPartExamined": "HIP"}, {"SeriesDescription": "Unterarm"},
        {"QualityControlImage": "YES"}, {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.3"}, {},
    ]  # fmt: skip
    for number, of_image in enumerate(tags):
        uid = f"1.{number}"
        write_dicom(
            tmp_path / "in" / f"{number}.dcm", StudyInstanceUID=uid, PatientID=uid, **of_image
        )
    all_in_train = {"validation_share": 0.0, "test_share": 0.0}
    summary = ingest(settings(tmp_path / "in", tmp_path / "out", **all_in_train))
    assert summary["quarantined"]["image"] == {"body-part": 1}
    assert summary["splits"]["train"]["body_parts"] == {
        "arm": 1, "hip": 1, "chest": 1, "tooth": 1, "unknown": 1
    }  # fmt: skip
    wanted = settings(
        tmp_path / "in", tmp_path / "out", body_parts=["chest"], overwrite=True, **all_in_train
    )
    assert ingest(wanted)["splits"]["train"]["body_parts"] == {"chest": 1}
    rows = pq.read_table(tmp_path / "out" / "quarantine.parquet").to_pylist()
    details = {r["path"]: r["detail"] for r in rows if r["kind"] == "image"}
    assert details["1.dcm"] == "hip; body_parts keeps chest"


def test_forms_and_screenshots_are_quarantined_unless_they_are_to_be_kept(tmp_path: Path) -> None:
    write_dicom(tmp_path / "in" / "a.dcm", ConversionType="SD")
    write_dicom(tmp_path / "in" / "b.dcm", ImageType=["DERIVED", "SECONDARY", "SCREEN SAVE"])
    write_dicom(tmp_path / "in" / "c.dcm", ViewPosition="PA")
    write_dicom(tmp_path / "in" / "d.dcm", BurnedInAnnotation="Y")
    summary = ingest(settings(tmp_path / "in", tmp_path / "out"))
    assert summary["quarantined"]["image"] == {"secondary-capture": 2, "burned-in": 1}
    summary = ingest(
        settings(tmp_path / "in", tmp_path / "out", secondary_captures="keep", overwrite=True)
    )
    assert summary["images"]["out"] == 3


def test_an_empty_patient_and_views_in_unknown_words_say_what_to_do(tmp_path: Path) -> None:
    write_dicom(tmp_path / "in" / "a.dcm", PatientID=" ")
    write_dicom(tmp_path / "in" / "b.dcm", StudyInstanceUID="1.4", ViewPosition="BOCZNE")
    summary = ingest(settings(tmp_path / "in", tmp_path / "out"))
    assert summary["notes"]["views_not_understood"] == 1
    rows = pq.read_table(tmp_path / "out" / "quarantine.parquet").to_pylist()
    assert {r["reason"] for r in rows} == {"no-patient"}
    assert all("a table of --reports with columns study and patient" in r["detail"] for r in rows)


@pytest.mark.timeout(120)
def test_a_pipe_in_an_archive_is_quarantined_and_blocks_nothing(tmp_path: Path) -> None:
    write_dicom(tmp_path / "in" / "a.dcm")
    os.mkfifo(tmp_path / "in" / "pipe.dcm")
    os.mkfifo(tmp_path / "in" / "pipe.png")
    (tmp_path / "in" / "zeros").symlink_to("/dev/zero")
    ingest(settings(tmp_path / "in", tmp_path / "out"))
    assert quarantine(tmp_path / "out") == {
        ("image", "unreadable"): ["pipe.dcm", "pipe.png", "zeros"]
    }
    rows = {"study": list("12"), "patient": list("12"), "path": ["in/a.dcm", "in/pipe.png"]}
    pd.DataFrame(rows).to_csv(tmp_path / "t.csv")
    ingest(settings(tmp_path / "t.csv", tmp_path / "of table"))
    assert quarantine(tmp_path / "of table")[("image", "unreadable")] == ["in/pipe.png"]


def test_names_that_are_none_of_the_14_labels_stay_with_their_study(tmp_path: Path) -> None:
    write_dicom(tmp_path / "a.dcm")
    rows = {
        "study": ["1"],
        "patient": ["1"],
        "path": ["a.dcm"],
        "found": ["Edema|Hernia|Emphysema"],
    }
    pd.DataFrame(rows).to_csv(tmp_path / "t.csv")
    columns = TableColumns(labels="found")
    ingest(settings(tmp_path / "t.csv", tmp_path / "out", columns=columns))
    row = studies(tmp_path / "out").iloc[0]
    assert row["labels"][5] == 1
    assert list(row["other_labels"]) == ["Emphysema", "Hernia"]


def test_an_archive_without_a_single_usable_study_is_an_error_that_says_why(tmp_path: Path) -> None:
    write_dicom(tmp_path / "in" / "a.dcm", Modality="MR")
    with pytest.raises(ValueError, match=r"not one study .* reason 'modality'.*quarantine"):
        ingest(settings(tmp_path / "in", tmp_path / "out"))
    assert not (tmp_path / "out" / "manifest.json").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"insecure_pseudonyms": False}, "there is no key"),
        ({"validation_share": 0.6, "test_share": 0.5}, "must be less than 1"),
    ],
)
def test_wrong_settings_are_refused_before_any_work(
    tmp_path: Path, change: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_MAE_PSEUDONYM_KEY", raising=False)
    with pytest.raises(ValueError, match=message):
        ingest(replace(settings(tmp_path / "t.csv", tmp_path / "out"), **change))
    assert not (tmp_path / "out").exists()


@needs_shared
def test_the_real_radiographs_come_in_without_loss(tmp_path: Path) -> None:
    columns = TableColumns(
        study="study_id", patient="patient_id", path="image_path", labels="labels", split=None
    )
    summary = ingest(
        settings(
            SHARED / "cxr" / "metadata.csv",
            tmp_path / "out",
            columns=columns,
            studies_per_shard=256,
        )
    )
    assert summary["images"] == {"in": 975, "out": 975, "quarantined": 0}
    assert summary["studies"] == {"in": 913, "out": 913, "quarantined": 0}
    total: Callable[[str], int] = lambda view: sum(  # noqa: E731
        split["views"][view] for split in summary["splits"].values()
    )
    assert [total(v) for v in ("frontal", "lateral", "unknown")] == [929, 30, 16]
    assert summary["notes"]["labels_not_mapped"]["COVID-19"] == 270


@needs_shared
def test_the_real_dicom_files_come_in_or_are_refused_for_the_right_reason(tmp_path: Path) -> None:
    summary = ingest(settings(SHARED / "dicom_cases", tmp_path / "out"))
    assert summary["images"] == {"in": 19, "out": 5, "quarantined": 14}
    # the two captures are test patterns of SMPTE
    assert summary["quarantined"]["image"] == {
        "modality": 11, "secondary-capture": 2, "duplicate": 1
    }  # fmt: skip
    assert summary["studies"] == {"in": 10, "out": 5, "quarantined": 5}
    parts = [split["body_parts"] for split in summary["splits"].values()]
    assert sum((Counter(part) for part in parts), Counter()) == {
        "chest": 3, "hip": 1, "extremity": 1
    }  # fmt: skip


def test_what_names_files_is_for_its_owner_alone(table: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    ingest(settings(table, output))
    assert (output / ".ingest").stat().st_mode & 0o777 == 0o700
    for file in (output / "quarantine.parquet", *(output / ".ingest").iterdir()):
        assert file.stat().st_mode & 0o777 == 0o600, file
    assert (
        output / "manifest.json"
    ).stat().st_mode & 0o044  # shards are for whoever trains on them


def test_insecure_pseudonyms_are_told_wherever_one_looks_and_differ_by_data_set(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patients = {}
    for name in ("one", "two"):
        output = tmp_path / name
        summary = ingest(settings(table, output, dataset=name))
        assert summary["pseudonyms"] == Manifest.read(output).pseudonyms == "public by data set"
        card = inspect(InspectConfig(shards=output, pictures=0, sample=4))
        assert card["pseudonyms"] == "public by data set"
        assert "Insecure pseudonyms" in (output / "card.html").read_text()
        patients[name] = set(studies(output)["patient_id"])
    assert not patients["one"] & patients["two"]
    monkeypatch.setenv("RAY_MAE_PSEUDONYM_KEY", "a secret that nobody ever guesses")
    output = tmp_path / "three"
    assert ingest(settings(table, output, insecure_pseudonyms=False))["pseudonyms"] == "secret"
    inspect(InspectConfig(shards=output, pictures=0, sample=4))
    assert "Insecure pseudonyms" not in (output / "card.html").read_text()


def test_what_was_ingested_with_one_public_key_for_all_keeps_it(
    table: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    ingest(settings(table, output))
    layout = output / ".ingest" / "layout.parquet"
    earlier = pq.read_table(layout)
    metadata = {k: v for k, v in earlier.schema.metadata.items() if k != b"pseudonyms"}
    pq.write_table(earlier.replace_schema_metadata(metadata), layout)  # as earlier versions left it
    (output / ".ingest" / "settings.json").unlink()
    summary = ingest(settings(table, output, overwrite=True))
    assert summary["pseudonyms"] == "public"
    assert ingest(settings(table, output))["shards"] == {"written": 0, "kept": len(shards(output))}
