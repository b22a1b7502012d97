"""Ingest writes into an object store what it writes on disk, and goes on there."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from upath import UPath

from ray_mae.cluster.runtime import cluster
from ray_mae.config import InspectConfig
from ray_mae.data.ingest.job import ingest
from ray_mae.data.parquet import footer_sha256, open_parquet
from ray_mae.data.schema import Manifest
from ray_mae.evaluate.card.command import inspect
from tests.data.test_ingest import settings, table  # noqa: F401

pytestmark = pytest.mark.slow


def test_ingest_into_a_store_goes_on_there_and_is_what_it_writes_on_disk(
    store: str,
    table: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    there, here = UPath(store), tmp_path / "out"
    with cluster(cpus=3):
        first = ingest(settings(table, Path(store)))
        ingest(settings(table, here))
        assert Manifest.read(there) == Manifest.read(here)
        for shard in Manifest.read(here).shards:
            assert shard.footer == footer_sha256(here / shard.file)
            with open_parquet(there / shard.file, shard) as file:
                assert file.read() == pq.read_table(here / shard.file)
        again = ingest(settings(table, Path(store)))
        assert (again["shards"]["written"], again["studies"]) == (0, first["studies"])
        gone = Manifest.read(there).shards[0].file
        (there / gone).unlink()
        (there / Manifest.FILE).unlink()
        assert ingest(settings(table, Path(store)))["shards"]["written"] == 1
        with pytest.raises(ValueError, match="holds shards of other settings"):
            ingest(settings(table, Path(store), image_size=48))
        inspect(InspectConfig(shards=Path(store), against=[here], output=tmp_path / "card"))
    assert (tmp_path / "card" / "card.html").is_file()
