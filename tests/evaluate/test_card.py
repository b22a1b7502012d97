"""`inspect`: what the card says is what the shards hold."""

import io
import json
import shutil
from base64 import b64decode
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from upath import UPath

from ray_mae import cli
from ray_mae.config import InspectConfig
from ray_mae.data.decoding.voxels import encode_voxels
from ray_mae.data.quarantine import QUARANTINE_SCHEMA
from ray_mae.data.schema import Manifest
from ray_mae.evaluate.card.charts import choose, tile
from ray_mae.evaluate.card.command import inspect
from ray_mae.evaluate.card.volumes import middles
from tests.shards import png, record, rewrite, write_shards, write_volume_shards


@pytest.fixture(params=["study", "volume"])
def shards(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    write = write_shards if request.param == "study" else write_volume_shards
    write(tmp_path / "shards", train=12, held_out=6)
    return tmp_path / "shards"


def change_row(folder: Path, split: str, **values: object) -> None:
    """Change the first row of a split."""
    file = folder / Manifest.read(folder).of_split(split)[0].file
    table = pq.read_table(file)
    rows = table.to_pylist()
    rows[0] |= values
    pq.write_table(pa.Table.from_pylist(rows, table.schema), file, row_group_size=4)
    record(folder)


def first_row(folder: Path, split: str) -> dict:
    file = folder / Manifest.read(folder).of_split(split)[0].file
    return pq.read_table(file).slice(0, 1).to_pylist()[0]


def test_the_card_counts_what_is_there_and_leaves_a_page_that_loads_nothing(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.run(["inspect", "--shards", str(shards), "--output", str(tmp_path / "card")])
    assert "patients_in_two_splits 0" in capsys.readouterr().out
    card = json.loads((tmp_path / "card" / "card.json").read_text())
    noun = "studies" if card["kind"] == "study" else "volumes"
    manifest = Manifest.read(shards)
    for split in ("train", "val", "test"):
        assert card["splits"][split][noun] == manifest.rows(split)
    if card["kind"] == "study":
        assert sum(sum(views.values()) for views in card["views"].values()) == sum(
            shard.images for shard in manifest.shards
        )
        assert (
            card["years"]["2010-2014"]
            == {"train": 6, "val": 3, "test": 3}
            == card["years"]["unknown"]
        )
    else:
        counted = [n for splits in card["modalities"].values() for n in splits.values()]
        assert sum(counted) == sum(manifest.rows(s) for s in ("train", "val", "test"))
    page = (tmp_path / "card" / "card.html").read_text()
    assert 'src="data:image/png' in page
    assert 'src="http' not in page
    assert "<link" not in page


def test_a_patient_in_two_splits_is_reported(shards: Path) -> None:
    change_row(shards, "test", patient_id=first_row(shards, "train")["patient_id"])
    card = inspect(InspectConfig(shards=shards))
    assert card["leaks"]["patients_in_two_splits"] == 1
    assert "1 patient is in more than one split" in (shards / "card.html").read_text()


def test_the_same_image_in_two_splits_is_reported(shards: Path) -> None:
    row = first_row(shards, "train")
    same = {k: row[k] for k in ("views", "voxels", "shape") if k in row}
    change_row(shards, "val", **same)
    found = inspect(InspectConfig(shards=shards))["leaks"]["same_content_in_two_splits"]
    assert found == len(row.get("views", [1]))
    unread = inspect(InspectConfig(shards=shards, duplicates=False))
    assert unread["leaks"]["same_content_in_two_splits"] is None


def test_the_same_film_under_two_patients_is_found_though_it_was_encoded_otherwise(
    tmp_path: Path,
) -> None:
    write_shards(tmp_path, train=12, held_out=6)
    assert inspect(InspectConfig(shards=tmp_path))["leaks"]["alike_in_two_splits"] == 0
    view = first_row(tmp_path, "train")["views"][0]
    image = Image.open(io.BytesIO(view["image"]))
    file = io.BytesIO()
    image.resize((57, 53)).save(file, "JPEG", quality=95)
    change_row(tmp_path, "val", views=[view | {"image": file.getvalue(), "encoding": "jpeg"}])
    leaks = inspect(InspectConfig(shards=tmp_path))["leaks"]
    assert leaks["same_content_in_two_splits"] == 0
    assert leaks["alike_in_two_splits"] == 1
    assert "1 pair of images of different patients" in (tmp_path / "card.html").read_text()


def other_dataset(folder: Path, kind: str) -> Path:
    """Shards of other patients with other images or voxels, under a name of their own."""
    (write_shards if kind == "study" else write_volume_shards)(folder, train=12, held_out=6)
    draw = np.random.default_rng(7)
    for shard in (manifest := Manifest.read(folder)).shards:
        table = pq.read_table(folder / shard.file)
        rows = table.to_pylist()
        for row in rows:
            row["patient_id"] = "other-" + row["patient_id"]
            for view in row.get("views", ()):
                view["image"] = png(draw, view["height"], view["width"])
            if "voxels" in row:
                shape = tuple(row["shape"])
                noise = draw.normal(size=shape).astype(row["dtype"])
                row["voxels"] = encode_voxels(noise, row["dtype"], 3)
        pq.write_table(pa.Table.from_pylist(rows, table.schema), folder / shard.file,
                       row_group_size=4)  # fmt: skip
    replace(manifest, dataset="other").write(folder)
    record(folder)
    return folder


def test_other_datasets_are_counted_and_what_is_in_both_is_reported(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kind = Manifest.read(shards).kind
    other = other_dataset(tmp_path / "other", kind)
    config = InspectConfig(shards=shards, against=[other])
    card = inspect(config)
    assert all(not found for found in card["leaks"].values())
    assert {name: splits["train"]["patients"] > 0 for name, splits in card["datasets"].items()} == {
        "generated": True, "other": True
    }  # fmt: skip
    assert "No patient is in two data sets" in (shards / "card.html").read_text()

    row = first_row(shards, "train")
    names = ("patient_id", "views", "voxels", "shape")
    change_row(other, "test", **{name: row[name] for name in names if name in row})
    leaks = inspect(config)["leaks"]
    same = len(row.get("views", [1]))
    assert leaks["patients_in_two_datasets"] == leaks["patients_in_two_splits"] == 1
    assert leaks["same_content_in_two_datasets"] == leaks["same_content_in_two_splits"] == same
    page = (shards / "card.html").read_text()
    assert "1 patient is in more than one data set" in page

    copy = shutil.copytree(shards, tmp_path / "copy")
    cli.run(["inspect", "--shards", str(shards), "--against", f"[{other},{copy}]"])
    said = capsys.readouterr().out
    assert f"patients_in_two_datasets {len(patients(shards))}" in said
    assert "generated (2)" in said
    assert inspect(InspectConfig(shards=shards))["leaks"].keys() == {
        "patients_in_two_splits", "same_content_in_two_splits", "alike_in_two_splits"
    }  # fmt: skip


def test_what_leaks_is_named_by_pseudonyms_and_shown_and_the_rest_counted(
    shards: Path, tmp_path: Path
) -> None:
    """Two patients and what was taken of them stand in two splits of the data set, one in another."""
    kind = Manifest.read(shards).kind
    other = other_dataset(tmp_path / "other", kind)
    row = first_row(shards, "train")
    values = {n: row[n] for n in ("patient_id", "views", "voxels", "shape") if n in row}
    for folder, split in ((shards, "val"), (shards, "test"), (other, "test")):
        change_row(folder, split, **values)
    card = inspect(InspectConfig(shards=shards, against=[other], leaks=1))
    named, leaks = card["leaks_named"], card["leaks"]
    assert set(named) == {name for name, number in leaks.items() if number}
    for name, found in named.items():
        assert len(found["pairs"]) + found["not_shown"] == leaks[name]
        assert len(found["pairs"]) == 1
        assert sum(found["datasets"].values()) == leaks[name]
    identifier = f"{kind}_id"
    for name in ("patients_in_two_datasets", "same_content_in_two_datasets"):
        assert named[name]["datasets"] == {"generated and other": leaks[name]}
        here, there = named[name]["pairs"][0]
        assert (here["dataset"], here["split"]) == ("generated", "train")
        assert (there["dataset"], there["split"]) == ("other", "test")
        assert here["patient_id"] == there["patient_id"] == row["patient_id"]
        assert here[identifier] == row[identifier]
        assert there[identifier] == first_row(other, "test")[identifier]
    here, there = named["same_content_in_two_splits"]["pairs"][0]
    assert {here["split"], there["split"]} == {"train", "val"}
    page = (shards / "card.html").read_text()
    assert page.count("patient " + row["patient_id"]) == 2 * len(named)
    noun = "image" if kind == "study" else "volume"
    same = leaks["same_content_in_two_datasets"]
    stand = "stand" if same > 1 else "stands"
    assert f"byte for byte in more than one data set (generated and other: {same})." in page
    assert f"{same} {noun}{'s' if same > 1 else ''} {stand} byte for byte" in page
    none = inspect(InspectConfig(shards=shards, leaks=0))
    assert all(not found["pairs"] for found in none["leaks_named"].values())
    assert "not shown" in (shards / "card.html").read_text()
    assert inspect(InspectConfig(shards=tmp_path / "other"))["leaks_named"] == {}


def test_the_picture_of_a_pair_is_of_the_two_that_are_named(tmp_path: Path) -> None:
    write_shards(tmp_path, train=12, held_out=6)
    views = first_row(tmp_path, "train")["views"]
    file = tmp_path / Manifest.read(tmp_path).of_split("val")[0].file
    rows = pq.read_table(file).to_pylist()
    rows[5]["views"][2] = views[0]
    pq.write_table(pa.Table.from_pylist(rows, pq.read_schema(file)), file, row_group_size=4)
    record(tmp_path)
    card = inspect(InspectConfig(shards=tmp_path))
    (pair,) = card["leaks_named"]["alike_in_two_splits"]["pairs"]
    assert [one["view"] for one in pair] == [0, 2]
    assert pair[1]["study_id"] == rows[5]["study_id"]
    page = (tmp_path / "card.html").read_text()
    source = page.split("<h3>Different patients in two splits who look the same</h3>")[1]
    sheet = Image.open(io.BytesIO(b64decode(source.split("base64,")[1].split('"')[0])))
    left, right = np.asarray(sheet)[:, :128], np.asarray(sheet)[:, -128:]
    assert (left == right).all()
    assert (left == tile(np.asarray(Image.open(io.BytesIO(views[0]["image"]))))).all()


def patients(folder: Path) -> set[str]:
    found = [pq.read_table(folder / s.file)["patient_id"] for s in Manifest.read(folder).shards]
    return {patient for column in found for patient in column.to_pylist()}


def test_studies_are_not_held_against_volumes(tmp_path: Path) -> None:
    write_shards(tmp_path / "a", train=12, held_out=6)
    write_volume_shards(tmp_path / "b", train=12, held_out=6)
    with pytest.raises(ValueError, match=r"b holds volumes, .*a studies"):
        inspect(InspectConfig(shards=tmp_path / "a", against=[tmp_path / "b"]))


def test_shards_in_a_store_give_the_card_of_the_same_folder(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quarantine = [
        {"kind": "image", "path": "a", "sample_id": None, "reason": "constant", "detail": ""}
    ]
    pq.write_table(
        pa.Table.from_pylist(quarantine, QUARANTINE_SCHEMA), shards / "quarantine.parquet"
    )
    here = inspect(InspectConfig(shards=shards))
    monkeypatch.chdir(tmp_path)
    for name in ("shards", "cards"):
        UPath(f"memory://{name}").mkdir(parents=True, exist_ok=True)
    for file in shards.iterdir():
        UPath(f"memory://shards/{file.name}").write_bytes(file.read_bytes())
    url = Path("memory://shards")
    there = inspect(InspectConfig(shards=url, output=Path("memory://cards"), against=[url]))
    assert json.loads(UPath("memory://cards/card.json").read_text()) == there
    assert (UPath("memory://cards/card.html")).is_file()
    changing = {"page", "seconds", "leaks", "leaks_named", "datasets"}
    assert {k: v for k, v in there.items() if k not in changing} == {
        k: v for k, v in here.items() if k not in changing
    }
    assert not list(tmp_path.glob("memory*"))


def test_a_sample_is_dealt_over_its_groups() -> None:
    groups = ["a"] * 90 + ["b"] * 4 + ["c"]
    taken = choose(groups, 9, seed=0)
    assert [sum(groups[i] == g for i in taken) for g in "abc"] == [4, 4, 1]
    assert taken == sorted(set(taken))
    assert len(choose(groups, 1000, seed=0)) == len(groups)


def test_slices_have_the_proportions_of_the_scan() -> None:
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in (60, 60, 10)], indexing="ij"))
    ball = ((grid**2).sum(0) < 0.5).astype(np.float32)
    for plane in middles(ball, (1.0, 1.0, 6.0)):
        bright = plane > 127
        bright[:20] = False  # letters
        assert bright.any(0).sum() == pytest.approx(bright.any(1).sum(), rel=0.2)


def test_slices_are_in_radiological_convention_with_letters() -> None:
    head = np.full((64, 64, 64), 0.2, np.float32)  # right, anterior, superior
    head[48:56, 48:56, 28:36] = 1  # on the right in front, at half height
    head[48:56, 28:36, 48:56] = 1  # on the right on top, in the middle from back to front
    axial, coronal, sagittal = middles(head, (1.0, 1.0, 1.0))
    for plane in (axial, coronal):
        rows, columns = np.nonzero(plane[20:] > 200)  # below the letters
        assert rows.max() + 20 < 64
        assert columns.max() < 64
    for plane in (axial, coronal, sagittal):
        corners = plane[:14, :14], plane[:14, -14:]
        assert all((corner > 200).any() for corner in corners)


def test_the_card_says_which_labels_a_split_cannot_carry_and_draws_no_empty_histogram(
    tmp_path: Path,
) -> None:
    write_shards(tmp_path / "shards", train=30, held_out=6)
    card = inspect(InspectConfig(shards=tmp_path / "shards", output=tmp_path / "card"))
    for split, lacking in card["too_few_to_probe"].items():
        for label, states in card["labels"].items():
            negative = sum(states[split][s] for s in ("negative", "uncertain", "not mentioned"))
            assert (label in lacking) == (min(states[split]["positive"], negative) < 5)
    assert card["too_few_to_probe"]["val"]
    assert "the" not in card["reports"]["frequent_words"]
    page = (tmp_path / "card" / "card.html").read_text()
    assert "--cross_validate 5" in page
    assert "Words per report" in page

    def silent(row: dict) -> None:
        row |= {"findings": None, "impression": None}

    rewrite(tmp_path / "shards", silent)
    inspect(InspectConfig(shards=tmp_path / "shards", output=tmp_path / "card"))
    page = (tmp_path / "card" / "card.html").read_text()
    assert "Words per report" not in page
    assert "No study has a report." in page
