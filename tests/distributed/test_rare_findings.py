"""Runs that weigh and repeat studies with rare findings, by DDP: the same on any workers, and declared."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ray_mae.checkpoint.format import last_committed, read_config
from ray_mae.config import (
    CheckpointConfig,
    EngineConfig,
    OptimConfig,
    PretrainConfig,
    ScalingConfig,
    TrackingConfig,
)
from ray_mae.train.metrics.jsonl import read_jsonl
from ray_mae.train.pretrain import pretrain
from ray_mae.train.run_folder import METRICS
from tests.distributed.test_pretrain import rewind
from tests.settings import small
from tests.shards import write_shards

pytestmark = pytest.mark.slow
STEPS = 8


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    write_shards(folder)
    return folder


def run_of(shards: Path, output: Path, workers: int, **settings: Any) -> PretrainConfig:
    values = {"rare_power": 1.0, "rare_terms": "both", "repeat_below": 0.9} | settings
    return PretrainConfig(
        shards=shards,
        output=output,
        **small(
            "mvmae", decoder_width=32, decoder_depth=1, decoder_heads=2, mask_ratio=0.5, beta=20.0, gamma=0.0,
            shuffle_window=8, **values,
        ),
        optim=OptimConfig(batch_size=8, micro_batch_size=2, steps=STEPS, base_lr=0.05),
        engine=EngineConfig(name="ddp", precision="fp32"),  # the others here have DeepSpeed's
        scaling=ScalingConfig(workers=workers, cpus_per_worker=0.5),
        checkpoint=CheckpointConfig(every=4),
        tracking=TrackingConfig(every=1, pictures_every=4, pictures=2),
    )  # fmt: skip


def figures(run: Path, name: str = "loss") -> list[float]:
    return [record[name] for record in read_jsonl(run / METRICS) if name in record]


@pytest.fixture(scope="module")
def one(
    shards: Path, tmp_path_factory: pytest.TempPathFactory, local_ray: None
) -> tuple[PretrainConfig, dict[str, Any]]:
    config = run_of(shards, tmp_path_factory.mktemp("runs") / "one", 1)
    return config, pretrain(config)


Run = tuple[PretrainConfig, dict[str, Any]]


def test_a_run_says_what_it_read_labels_for(one: Run) -> None:
    config, summary = one
    told = summary["labels_read"]
    assert told["train_splits_of"] == ["generated"]
    assert [use.split(" (")[1] for use in told["for"]] == [
        "method.rare_power 1)", "data.repeat_below 0.9)"
    ]  # fmt: skip
    assert told["findings"]["Edema"].keys() == {"positives", "weight", "draws"}
    checkpoint = last_committed(config.output)
    assert checkpoint is not None
    assert read_config(checkpoint).label_uses == config.label_uses


def test_begun_on_one_worker_it_goes_on_exactly_on_two(one: Run, tmp_path: Path) -> None:
    config, _ = one
    again = replace(
        config, output=tmp_path / "again", scaling=ScalingConfig(workers=2, cpus_per_worker=0.5)
    )
    shutil.copytree(config.output, again.output)
    assert rewind(again.output) == 4
    with pytest.raises(ValueError, match=r"a run with other settings \(method.rare_power\)"):
        pretrain(replace(again, method=replace(config.method, rare_power=0.5)))
    assert pretrain(again)["continued_from_step"] == 4
    ours, whole = figures(again.output), figures(config.output)
    assert ours[-4:] == pytest.approx(whole[4:], rel=1e-4)
