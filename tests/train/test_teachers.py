"""A method with a teacher on both engines: its precision, exact resume, and decay by step."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from ray_mae.checkpoint.convert import make_universal
from ray_mae.checkpoint.format import STATE, TAG, WEIGHTS
from ray_mae.config import EngineConfig, OptimConfig
from ray_mae.config.pretrain import PretrainConfig
from ray_mae.train import engine as engines
from ray_mae.train.engine import Engine
from ray_mae.train.optim import weight_decay
from tests.batches import study_batch
from tests.settings import build_of, small

DDP = -1
"""Stands for a ZeRO stage where the engine is DDP."""
STEPS = 4

pytestmark = pytest.mark.usefixtures("process_group")


def engine_of(precision: str, stage: int, optim: OptimConfig | None = None) -> Engine:
    return engines.engine_of(
        build_of(small("dino", koleo=0.1, momentum=0.99)),
        EngineConfig(
            name="ddp" if stage < 0 else "deepspeed",
            zero_stage=max(stage, 0),
            precision=precision,  # type: ignore[arg-type]
        ),
        optim or OptimConfig(),
        micro_batch_size=4,
        accumulation=1,
    )


def train(engine: Engine, first: int, last: int) -> list[float]:
    losses = []
    for step in range(first, last):
        loss = engine(study_batch([2, 1, 3], seed=step), step).total
        engine.backward(loss)
        engine.step(1e-3, 0.04 + 0.1 * step)
        engine.after_step(step + 1)
        losses.append(float(loss.detach()))
    return losses


def differences(a: dict[str, Tensor], b: dict[str, Tensor]) -> list[str]:
    assert a.keys() == b.keys()
    return [name for name in a if not torch.equal(a[name], b[name])]


ENGINES = [
    ("fp32", DDP),
    ("bf16", DDP),
    *(pytest.param("bf16", stage, marks=pytest.mark.slow) for stage in (1, 2, 3)),
]


@pytest.mark.parametrize(("precision", "stage"), ENGINES)
def test_a_teacher_goes_on_exactly_in_fp32(precision: str, stage: int, tmp_path: Path) -> None:
    first = engine_of(precision, stage)
    before = first.weights()
    train(first, 0, STEPS)
    weights = first.weights()
    teacher = weights["teacher.network.body.blocks.0.mlp.fc1.weight"]
    assert not torch.equal(teacher, before["teacher.network.body.blocks.0.mlp.fc1.weight"])
    assert not torch.equal(teacher, teacher.bfloat16().float())
    assert weights["centre.mean"].any()

    first.save(tmp_path)
    save_file(weights, tmp_path / WEIGHTS)
    (tmp_path / STATE).write_text("{}")
    second = engine_of(precision, stage)
    second.load(tmp_path)
    assert differences(second.weights(), weights) == []
    assert train(second, STEPS, 2 * STEPS) == train(first, STEPS, 2 * STEPS)
    assert differences(second.weights(), first.weights()) == []


@pytest.mark.slow
def test_a_teacher_comes_with_a_checkpoint_for_other_workers(tmp_path: Path) -> None:
    first = engine_of("bf16", 1)
    train(first, 0, STEPS)
    first.save(tmp_path / "parts")
    make_universal(tmp_path / "parts" / TAG, tmp_path / "whole" / TAG)
    second = engine_of("bf16", 2)
    second.load(tmp_path / "whole", universal=True)
    second.set_buffers(first.weights())
    assert differences(second.weights(), first.weights()) == []


@pytest.mark.parametrize("stage", [DDP, pytest.param(0, marks=pytest.mark.slow)])
def test_the_decay_of_a_step_is_that_of_what_decays(stage: int) -> None:
    """The rest of two runs is alike: a step of AdamW takes lr · decay of a weight away."""
    optim = OptimConfig(weight_decay=0.04)
    engines_ = [engine_of("fp32", stage, optim) for _ in range(3)]
    for engine, decay in zip(engines_, (None, 0.04, 0.4), strict=True):
        engine.backward(engine(study_batch([2, 1, 3]), 0).total)
        before = {name: w.clone() for name, w in engine.weights().items()}
        engine.step(1e-2, decay)
    plain, same, more = (engine.weights() for engine in engines_)
    assert differences(plain, same) == []
    matrix, bias = "encoder.body.blocks.0.mlp.fc1.weight", "encoder.body.blocks.0.mlp.fc1.bias"
    torch.testing.assert_close(plain[matrix] - more[matrix], 1e-2 * 0.36 * before[matrix])
    for exempt in (bias, "encoder.cls", "mask", "head.prototypes.weight"):
        assert torch.equal(plain[exempt], more[exempt])


def test_a_decay_goes_from_its_first_to_its_last_value() -> None:
    values = [weight_decay(step, first=0.04, last=0.4, steps=11) for step in range(12)]
    assert values[0] == pytest.approx(0.04)
    assert values[5] == pytest.approx(0.22)
    assert values[10] == values[11] == pytest.approx(0.4)
    assert weight_decay(3, first=0.04, last=None, steps=11) is None


def test_a_decay_that_begins_at_0_is_refused() -> None:
    config = PretrainConfig(
        shards=Path("s"),
        output=Path("o"),
        **small("dino"),
        optim=OptimConfig(weight_decay=0.0, final_weight_decay=0.4),
    )
    with pytest.raises(ValueError, match="final_weight_decay wants an optim"):
        config.check_sizes()
