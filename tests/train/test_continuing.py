"""Which command may continue a run. None here trains: the runs have taken their last step."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from ray_mae.checkpoint.commands import checkpoint_list
from ray_mae.checkpoint.format import STATE, facts_of, read_state
from ray_mae.checkpoint.integrity import SNAPSHOT
from ray_mae.config import CheckpointListConfig, EngineConfig, OptimConfig, PretrainConfig
from ray_mae.data.schema import Manifest
from ray_mae.data.shard_set import ShardSet
from ray_mae.methods.mdae.settings import MdaeSettings
from ray_mae.train.checkpointing import _require_precision
from ray_mae.train.errors import FatalError
from ray_mae.train.pretrain import pretrain
from ray_mae.train.run_folder import CONFIG
from tests.records import write_record, write_state
from tests.shards import write_volume_shards


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    write_volume_shards(tmp_path / "volumes")
    return tmp_path / "volumes"


@pytest.fixture
def run(tmp_path: Path, shards: Path) -> PretrainConfig:
    """Trained with ZeRO 2, in what `auto` was there: bf16."""
    config = PretrainConfig(
        shards=shards,
        output=tmp_path / "run",
        method=MdaeSettings(),
        optim=OptimConfig(batch_size=4, micro_batch_size=2, steps=600, optimizer="sgd", lr=0.02),
        engine=EngineConfig(zero_stage=2),
    )
    config.output.mkdir()
    folder = write_record(config.output, 600)
    write_state(folder, config, step=600, workers=2, precision="bf16")
    return config


def test_what_leaves_the_training_as_it_was_may_change(run: PretrainConfig) -> None:
    for engine in (EngineConfig(zero_stage=1), EngineConfig(zero_stage=2, precision="bf16")):
        other = replace(run, engine=engine, scaling=replace(run.scaling, workers=1))
        assert pretrain(other)["continued_from_step"] == 600


def test_another_zero_family_or_precision_is_refused_with_weights_offered(
    run: PretrainConfig,
) -> None:
    with pytest.raises(ValueError, match=r"ZeRO 3 cannot read .* --weights .*checkpoint_600"):
        pretrain(replace(run, engine=EngineConfig(zero_stage=3)))
    with pytest.raises(ValueError, match=r"other settings \(engine\.precision\)"):
        pretrain(replace(run, engine=EngineConfig(zero_stage=2, precision="fp32")))


def test_a_run_goes_on_by_the_engine_that_it_was_begun_with(run: PretrainConfig) -> None:
    """Also where settings leave the engine open, as the command did that began it in an earlier version."""
    summary = pretrain(replace(run, engine=EngineConfig()))
    assert summary["continued_from_step"] == 600
    kept = yaml.safe_load((run.output / CONFIG).read_text())["engine"]
    assert (kept["name"], kept["zero_stage"]) == ("deepspeed", 2)
    with pytest.raises(ValueError, match=r"ZeRO 2, and DDP cannot .* engine\.name deepspeed, or"):
        pretrain(replace(run, engine=EngineConfig(name="ddp")))


def test_a_run_by_ddp_has_no_stage_that_could_change(run: PretrainConfig) -> None:
    begun = replace(run, engine=EngineConfig(name="ddp"))
    folder = run.output / "checkpoint_600"
    write_state(folder, begun, step=600, workers=2, precision="bf16")
    for engine in (
        EngineConfig(),
        EngineConfig(name="ddp"),
        EngineConfig(name="ddp", zero_stage=0),
    ):
        assert pretrain(replace(run, engine=engine))["continued_from_step"] == 600
    with pytest.raises(
        ValueError, match=r"by DDP, and DeepSpeed ZeRO 3 cannot .* engine\.name ddp, or"
    ):
        pretrain(replace(run, engine=EngineConfig(zero_stage=3)))
    with pytest.raises(
        ValueError, match=r"zero_stage 3 is DeepSpeed's: leave it out, or engine\.name"
    ):
        pretrain(replace(run, engine=EngineConfig(name="ddp", zero_stage=3)))
    listed = checkpoint_list(CheckpointListConfig(run=run.output))["step 600"]
    assert listed["engine"] == "ddp"
    assert "zero_stage" not in listed


@pytest.mark.parametrize(
    ("given", "described"),
    [
        ({}, "DDP"),
        ({"zero_stage": 0}, "DeepSpeed ZeRO 0"),
        ({"zero_stage": 3}, "DeepSpeed ZeRO 3"),
        ({"name": "deepspeed"}, "DeepSpeed ZeRO 1"),
    ],
)
def test_a_stage_of_zero_chooses_deepspeed(given: Any, described: str) -> None:
    assert EngineConfig(**given).described == described
    assert EngineConfig(**given).chosen.chosen == EngineConfig(**given).chosen


def test_other_shards_are_refused(run: PretrainConfig, shards: Path) -> None:
    manifest = Manifest.read(shards)
    replace(manifest, dataset="another").write(shards)
    with pytest.raises(ValueError, match="trained on other shards"):
        pretrain(run)


def test_a_run_without_its_record_is_not_begun_anew(run: PretrainConfig) -> None:
    (run.output / SNAPSHOT).unlink()
    with pytest.raises(ValueError, match=rf"step 600, and not .* put {SNAPSHOT} back"):
        pretrain(run)
    assert (run.output / "checkpoint_600" / STATE).is_file()


def test_a_checkpoint_keeps_the_facts_of_the_shards_it_was_trained_on(
    run: PretrainConfig, shards: Path
) -> None:
    before = facts_of(ShardSet.read(shards))
    replace(Manifest.read(shards), dataset="ingested anew").write(shards)
    write_state(run.output, run, step=700, workers=2, of_shards=before)
    assert read_state(run.output).items() >= before.items()
    assert facts_of(ShardSet.read(shards)) != before
    assert json.loads((run.output / STATE).read_text())["step"] == 700


def test_workers_in_another_precision_than_the_checkpoint_end_the_run() -> None:
    """As where `auto` meets other GPUs: the driver has none and cannot see it."""
    engine: Any = SimpleNamespace(precision="fp32")
    _require_precision(engine, "fp32")
    with pytest.raises(FatalError, match=r"set engine\.precision to bf16, or .* --weights"):
        _require_precision(engine, "bf16")
