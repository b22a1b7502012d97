"""The card's Croissant file is one that MLCommons' own reader validates and streams rows by."""

import json
import shutil
from pathlib import Path

import pytest

from ray_mae.config import InspectConfig
from ray_mae.data.schema import NOUNS, Manifest
from ray_mae.evaluate.card.command import inspect
from tests.shards import write_shards, write_volume_shards

KINDS = {"study": write_shards, "volume": write_volume_shards}


@pytest.mark.parametrize("kind", KINDS)
def test_a_reader_of_catalogues_streams_every_row(kind: str, tmp_path: Path) -> None:
    mlc = pytest.importorskip("mlcroissant")
    shards = tmp_path / "shards"
    manifest = KINDS[kind](shards, train=12, held_out=3)
    shutil.copy(shards / manifest.shards[0].file, shards / "other.parquet")  # no shard
    inspect(InspectConfig(shards=shards, duplicates=False, pictures=0))
    data = mlc.Dataset(jsonld=shards / "croissant.json")
    assert data.metadata.ctx.issues.errors == set()
    noun = NOUNS[kind]
    rows = list(data.records(noun))
    total = sum(manifest.rows(split) for split in ("train", "val", "test"))
    assert len(rows) == total
    name = f"{noun}/{kind}_id"
    assert {row[name] for row in rows} >= {b"train-0", b"test-2"}


def test_it_names_every_shard_with_its_checksum_and_no_row(tmp_path: Path) -> None:
    write_shards(tmp_path, train=12, held_out=3)
    inspect(InspectConfig(shards=tmp_path, duplicates=False))
    text = (tmp_path / "croissant.json").read_text()
    files = {f["@id"]: f.get("sha256") for f in json.loads(text)["distribution"]}
    assert files.pop("shards") is None
    assert files == {shard.file: shard.sha256 for shard in Manifest.read(tmp_path).shards}
    assert "train-patient-" not in text


def test_elsewhere_there_is_none_since_it_could_not_name_the_files(tmp_path: Path) -> None:
    write_shards(tmp_path / "shards", train=12, held_out=3)
    inspect(InspectConfig(shards=tmp_path / "shards", output=tmp_path / "card", duplicates=False))
    assert not list(tmp_path.rglob("croissant.json"))
