"""`inspect`: what the card says is what the shards hold."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ray_mae import cli
from ray_mae.config import InspectConfig
from ray_mae.data.schema import Manifest
from ray_mae.evaluate.card import inspect
from ray_mae.evaluate.card_sample import chosen
from ray_mae.evaluate.card_volumes import middles
from tests.shards import write_shards, write_volume_shards


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
    assert "1 pairs of images of different patients" in (tmp_path / "card.html").read_text()


def test_a_sample_is_dealt_over_its_groups() -> None:
    groups = ["a"] * 90 + ["b"] * 4 + ["c"]
    taken = chosen(groups, 9, seed=0)
    assert [sum(groups[i] == g for i in taken) for g in "abc"] == [4, 4, 1]
    assert taken == sorted(set(taken))
    assert len(chosen(groups, 1000, seed=0)) == len(groups)


def test_slices_have_the_proportions_of_the_scan() -> None:
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in (60, 60, 10)], indexing="ij"))
    ball = ((grid**2).sum(0) < 0.5).astype(np.float32)
    for plane in middles(ball, (1.0, 1.0, 6.0)):
        bright = plane > 127
        assert bright.any(0).sum() == pytest.approx(bright.any(1).sum(), rel=0.2)
