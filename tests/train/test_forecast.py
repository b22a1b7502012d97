"""What a run is told to take, against theory, against the real method and against itself."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode

from ray_mae import cli
from ray_mae.config import EngineConfig, PlanConfig, PretrainConfig
from ray_mae.data.kinds import KINDS
from ray_mae.data.shard_set import ShardSet
from ray_mae.methods.mdae.settings import MdaeSettings
from ray_mae.methods.mvmae.settings import MvmaeSettings
from ray_mae.methods.registry import METHODS
from ray_mae.train.forecast.activations import LiveBytes, activation_bytes
from ray_mae.train.forecast.command import plan
from ray_mae.train.forecast.memory import states
from ray_mae.train.forecast.tables import StartTables
from ray_mae.train.setup import make_plan, method_of, plan_of
from tests.settings import sections
from tests.shards import write_shards, write_volume_shards
from tests.volume_batches import config as small_volumes
from tests.volume_batches import mdae, volume_batch

SMALL = ["--encoder.width", "32", "--encoder.depth", "2", "--encoder.heads", "2"]


def summary_of(config: PlanConfig, **changes: Any) -> dict[str, Any]:
    return plan(replace(config, **changes))


def volumes(**settings: Any) -> PlanConfig:
    small = sections("mdae", preset="tiny", crop_size=32)
    return PlanConfig(samples=1000, gpu="A100", **small, **settings)


def empty_batch(config: PlanConfig, samples: int, inputs: int) -> Any:
    tokens = getattr(config.data, "max_tokens", None) if config.method.reads_reports else None
    kind = KINDS[config.kind]
    return kind.empty_batch(config.encoder.input_size, samples, inputs, tokens=tokens)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_each_stage_shares_what_its_paper_says(precision: str) -> None:
    """ZeRO, section 5: states from stage 1 on, gradients from 2, weights from 3."""

    def of(stage: int, workers: int) -> Any:
        return states(10**6, stage=stage, workers=workers, precision=precision)

    for stage in (1, 2, 3):
        one, two = of(stage, 1), of(stage, 2)
        assert two.optimizer == one.optimizer / 2
        assert stage < 2 or two.gradients == one.gradients / 2
        assert two.weights == (one.weights / 2 if stage == 3 else one.weights)
    kept = [of(stage, 8).kept for stage in (1, 2, 3)]
    assert kept == sorted(kept, reverse=True)
    # Adam in mixed precision: weights and gradients, twelve bytes of states (section 3.1)
    assert of(2, 1).optimizer == 12e6


def test_sgd_keeps_one_moment_and_adamw_two() -> None:
    sgd, adamw = (
        states(10**6, stage=0, workers=1, precision="fp32", optimizer=o) for o in ("sgd", "adamw")
    )
    assert (sgd.optimizer, adamw.optimizer) == (4e6, 8e6)


def test_activations_on_meta_are_those_of_a_real_pass() -> None:
    model, batch = mdae(), volume_batch(4)
    with LiveBytes() as live:
        model(batch, 10**9).total.backward()
    gradients = sum(p.numel() for p in model.parameters()) * 4
    with torch.device("meta"):
        empty = mdae()
    settings = PlanConfig(**small_volumes(), samples=1)
    found = activation_bytes(empty, empty_batch(settings, 4, 4), "fp32")
    assert live.peak - gradients <= found * 1.05
    assert live.peak >= found * 0.95


@pytest.mark.parametrize(
    ("name", "values"),
    [*((name, {}) for name in METHODS), ("mvmae", {"gamma": 0.0, "decode_share": 0.25})],
)
def test_operations_are_those_that_pytorch_counts(name: str, values: dict[str, Any]) -> None:
    config = PlanConfig(samples=100, **sections(name, preset="base", **values))
    made = plan_of(config, available=100, workers=1)
    with torch.device("meta"):
        method: Any = method_of(config, made, None, vocabulary=8192)
    with FlopCounterMode(display=False) as counted:
        activation_bytes(method, empty_batch(config, 2, 2), "bf16")
    assert method.flops(images=2, samples=2) == pytest.approx(counted.get_total_flops(), rel=0.05)


def test_numbers_of_a_plan_hang_together(tmp_path: Path) -> None:
    config = volumes(output=tmp_path / "plan", gpus=4)
    first = summary_of(config)
    assert json.loads((tmp_path / "plan/summary.json").read_text()) == first
    found = first["forecast"]
    real = mdae(preset="tiny", crop_size=32)
    assert found["parameters"] == sum(p.numel() for p in real.parameters())
    assert found["encoder"] == sum(p.numel() for p in real.encoder.parameters())
    assert found["flops"] == real.flops(images=1, samples=1)

    more = summary_of(config, gpus=8, price_per_gpu_hour=2.0)
    assert more["forecast"]["hours"] == pytest.approx(found["hours"] / 2)
    assert more["cost"] == pytest.approx(more["forecast"]["hours"] * 16)
    faster = summary_of(config, mfu=0.3)
    assert faster["forecast"]["hours"] == pytest.approx(found["hours"] / 2)
    own = summary_of(config, gpu=None, peak_tflops=624.0, gpu_memory=79.0)
    assert own["forecast"]["hours"] == pytest.approx(found["hours"] / 2)

    again = summary_of(config, engine=EngineConfig(activation_checkpointing=True))
    assert again["forecast"]["hours"] == pytest.approx(found["hours"] * 4 / 3)
    assert again["bytes_per_gpu"]["zero_1"] < first["bytes_per_gpu"]["zero_1"]
    optim = replace(config.optim, micro_batch_size=4)
    twice = summary_of(config, optim=optim)["forecast"]["memory"]["1"]["activations"]
    assert twice == pytest.approx(2 * found["memory"]["1"]["activations"], rel=0.02)


def test_a_plan_of_shards_is_that_of_their_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = write_shards(tmp_path / "shards")
    settings = [*SMALL, "--method.gamma", "0", "--optim.batch_size", "8"]
    settings += ["--optim.micro_batch_size", "2", "--gpu", "T4"]
    cli.run(["plan", "--shards", str(tmp_path / "shards"), "--output", str(tmp_path), *settings])
    shown = capsys.readouterr().out
    assert "2 × T4, 8.1 TFLOP/s in fp32" in shown  # it has no bf16
    assert "✗\n" not in shown
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["plan"]["available"] == manifest.rows("train")
    assert summary["inputs"]["per_sample"] == 2  # studies have one, two or three views
    assert summary["inputs"]["stored"] == sum(s.bytes for s in manifest.shards)


def test_a_run_opens_with_its_table_and_tells_its_hours_once(tmp_path: Path) -> None:
    write_volume_shards(tmp_path)
    shards = ShardSet.read(tmp_path)
    config = PretrainConfig(shards=tmp_path, output=tmp_path / "run", method=MdaeSettings())
    made = make_plan(config, shards)
    opening = StartTables(config, made, shards)
    event = {"parameters": 10**8, "encoder": 10**7, "flops": 1e12, "precision": "bf16"}
    event |= {"flops_of_study": 0.0, "buffers": 0}
    tables = opening.started(event | {"gpu": "NVIDIA A100-SXM4-80GB", "workers": 4})
    console = Console(width=100, record=True)
    console.print(*tables)
    text = console.export_text()
    assert "4 × A100, 312 TFLOP/s in bf16" in text
    assert "›" in text
    assert opening.started(event | {"gpu": None, "workers": 2}) == []  # after a restart
    speed = made.samples / 7200
    metrics = {"samples_per_s": speed, "mfu": 0.25, "gpu_gib": 31.0}
    assert opening.measured(metrics | {"samples_per_s": 1e-3}) is None  # the start is in it
    told = opening.measured(metrics)
    assert told is not None
    for said in ("takes 2.0 hours", "25.0% of the peak", "31.0 GiB"):
        assert said in told
    assert opening.measured(metrics) is None


def test_a_plan_says_what_does_not_fit(capsys: pytest.CaptureFixture[str]) -> None:
    plan(volumes(gpu_memory=0.01))
    assert "✗\n" in capsys.readouterr().out


def test_what_cannot_be_planned_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--samples where there are none yet"):
        PlanConfig(method=MvmaeSettings())
    with pytest.raises(ValueError, match="give both"):
        plan(PlanConfig(method=MvmaeSettings(), samples=100, peak_tflops=100.0))
    (tmp_path / "config.yaml").touch()
    with pytest.raises(ValueError, match="is the folder of a run"):
        plan(PlanConfig(method=MvmaeSettings(), samples=100, output=tmp_path))
