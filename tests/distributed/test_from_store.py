"""A run whose shards lie in an object store, on real Ray workers."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from upath import UPath

from ray_mae.cluster.runtime import cluster
from ray_mae.config.base import to_dict
from ray_mae.run import pretrain
from ray_mae.train.metrics.jsonl import read_jsonl
from ray_mae.train.run_folder import METRICS
from tests.data.test_object_store import upload
from tests.distributed.test_pretrain import rewind, run_of
from tests.shards import write_shards

pytestmark = pytest.mark.slow


def losses(run: Path) -> dict[int, float]:
    return {record["step"]: record["loss"] for record in read_jsonl(run / METRICS)}


def test_a_run_from_a_store_is_that_from_disk_also_where_it_goes_on(
    store: str, tmp_path: Path
) -> None:
    """Shards and a first part that was interrupted come from the store, the rest from the node's cache."""
    write_shards(tmp_path / "shards")
    upload(tmp_path / "shards", UPath(store))
    on_disk = run_of(tmp_path / "shards", tmp_path / "disk", workers=2, stage=0)
    data = replace(
        on_disk.data, tokenizer=None, vocabulary=200, cache=tmp_path / "cache", cache_gib=0.1
    )
    from_store = replace(on_disk, shards=Path(store), output=tmp_path / "store", data=data)
    with cluster(cpus=3):
        pretrain(replace(on_disk, data=replace(data, cache=None)))
        assert pretrain(from_store)["steps"] == max(losses(tmp_path / "disk"))
        assert losses(tmp_path / "store") == losses(tmp_path / "disk")
        kept = yaml.safe_load((tmp_path / "store" / "config.yaml").read_text())
        assert kept["shards"] == [store]
        assert to_dict(from_store)["shards"] == store
        assert len(list((tmp_path / "cache").glob("*/??/*"))) > 4
        step = rewind(tmp_path / "store")
        assert pretrain(from_store)["continued_from_step"] == step
        assert losses(tmp_path / "store") == losses(tmp_path / "disk")
        with pytest.raises(ValueError, match=r"data.cache is for shards in an object store"):
            pretrain(replace(on_disk, output=tmp_path / "other", data=data))
