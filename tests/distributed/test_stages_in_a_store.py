"""A pretraining in stages with its folder in a store, on a real Ray worker."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ray_mae.checkpoint.format import all_weights, find_checkpoint, read_state
from ray_mae.cluster.runtime import cluster
from ray_mae.config import StagesConfig
from ray_mae.run import pretrain
from ray_mae.train.stages import REPORT
from tests.settings import SMALL
from tests.shards import write_shards

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def ray(bucket: str) -> Iterator[None]:
    """Begun with the server's address in the environment, which its worker has as well."""
    with cluster(cpus=2):
        yield


def test_stages_in_a_store_begin_where_the_one_before_ended_and_are_not_trained_twice(
    bucket: str, tmp_path: Path
) -> None:
    write_shards(tmp_path, train=24, held_out=8)
    blocks = SMALL["vit"]["depth"]
    labels = {"name": "supervised", "labels": ["Edema", "Fracture"]}
    stages: list[dict[str, Any]] = [
        {"name": "masked", "method": {"name": "mae", "mask_ratio": 0.5}},
        # what is frozen stays as the stage began
        {"name": "labels", "method": labels, "optim": {"lr": 0.01, "freeze": blocks}},
    ]
    config = StagesConfig(
        settings={
            "shards": str(tmp_path),
            "output": f"{bucket}/stages",
            "encoder": SMALL["vit"],
            "optim": {"batch_size": 4, "micro_batch_size": 2, "steps": 3, "warmup": 0.0},
            "scaling": {"workers": 1, "cpus_per_worker": 0.5},
            "tracking": {"every": 1, "pictures_every": 2, "held_out": 4},
            "probe": {"every": 1, "min_positive": 1, "bootstrap": 10},
        },
        stages=stages,
    )
    summary = pretrain(config)
    first, second = (find_checkpoint(stage.run.output) for stage in config.runs)
    before, after = all_weights(first), all_weights(second)
    frozen = [name for name in before if name.startswith("encoder.body.blocks.")]
    assert frozen
    assert [name for name in frozen if not np.array_equal(before[name], after[name])] == []
    assert not np.array_equal(before["encoder.body.norm.weight"], after["encoder.body.norm.weight"])
    assert read_state(second)["step"] == 3
    records = list(summary["stages"].values())
    assert all(record["losses"]["loss"] for record in records)
    assert all(record["held_out_losses"]["loss"] for record in records)
    assert all("probe" in record for record in records)
    assert [("labels_read" in record) for record in records] == [False, True]
    assert config.output is not None
    assert "Online probe" in (config.output / REPORT).read_text()
    again = pretrain(config)
    assert not any(record["trained_now"] for record in again["stages"].values())
