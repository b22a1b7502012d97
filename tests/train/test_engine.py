"""Both engines in one process: precision, what is saved, and the gradient norm."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from ray_mae.checkpoint.convert import make_universal
from ray_mae.checkpoint.format import STATE, TAG, WEIGHTS
from ray_mae.config import EngineConfig, OptimConfig
from ray_mae.train import engine as engines
from ray_mae.train.engine import Engine
from ray_mae.train.optim import parameter_groups
from tests.batches import method, study_batch
from tests.volume_batches import mdae, volume_batch

STEPS = 12
DDP = -1
"""Stands for a ZeRO stage where the engine is DDP."""


pytestmark = pytest.mark.usefixtures("process_group")


def engine_of(
    precision: str,
    stage: int,
    accumulation: int = 1,
    optim: OptimConfig | None = None,
    **settings: Any,
) -> Engine:
    name = "ddp" if stage < 0 else "deepspeed"
    return engines.engine_of(
        method(beta=2.0, **settings),
        EngineConfig(name=name, zero_stage=max(stage, 0), precision=precision),  # type: ignore[arg-type]
        optim or OptimConfig(),
        micro_batch_size=4,
        accumulation=accumulation,
    )


def trained(engine: Engine, first: int = 0, last: int = STEPS) -> list[float]:
    losses = []
    for step in range(first, last):
        loss = engine(study_batch([2, 1, 3, 2]), step).total
        engine.backward(loss)
        engine.step(2e-3)
        losses.append(float(loss.detach()))
    return losses


def save(engine: Engine, folder: Path) -> None:
    """As a checkpoint has it: weights lie beside what the engine saves."""
    folder.mkdir(exist_ok=True)
    engine.save(folder)
    save_file(engine.weights(), folder / WEIGHTS)
    (folder / STATE).write_text("{}")


def test_only_matrices_and_kernels_decay() -> None:
    for module in (method(beta=2.0), mdae()):
        decayed, plain = (group["params"] for group in parameter_groups(module, 0.1))
        assert {p.ndim for p in decayed} <= {2, 5}
        names = {id(p): name for name, p in module.named_parameters()}
        tables = ("cls", "mask", "position", "view", "word")
        assert all(p.ndim == 1 or any(t in names[id(p)] for t in tables) for p in plain)
        assert not any(t in names[id(p)].split(".")[1] for p in decayed for t in tables)
        assert len(decayed) + len(plain) == len(names)


@pytest.fixture(scope="module")
def fp32() -> list[float]:
    return trained(engine_of("fp32", DDP))


@pytest.mark.parametrize(
    "stage", [DDP, *(pytest.param(stage, marks=pytest.mark.slow) for stage in (1, 3))]
)
def test_bf16_trains_like_fp32_and_keeps_fp32_weights(stage: int, fp32: list[float]) -> None:
    engine = engine_of("bf16", stage)
    losses = trained(engine)
    assert losses[-1] < 0.9 * losses[0]
    torch.testing.assert_close(torch.tensor(losses), torch.tensor(fp32), rtol=0.03, atol=0)
    weight = engine.weights()["encoder.patch.weight"]
    assert weight.dtype == torch.float32
    assert (weight != weight.bfloat16().float()).float().mean() > 0.9  # not the rounded ones
    assert engine.gradient_norm()["gradient_norm"] > 0


@pytest.mark.parametrize(
    ("precision", "stage"),
    [
        ("fp32", DDP),
        pytest.param("fp32", 0, marks=pytest.mark.slow),
        pytest.param("fp32", 3, marks=pytest.mark.slow),
        ("bf16", DDP),
        pytest.param("bf16", 1, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(
    ("accumulation", "way"),
    [(1, "loss alone"), pytest.param(2, "loss and gradient", marks=pytest.mark.slow)],
)  # of the four pairs two that differ in both
def test_a_step_with_a_loss_that_is_not_finite_never_was(
    precision: str, stage: int, accumulation: int, way: str
) -> None:
    engines = [engine_of(precision, stage, accumulation) for _ in range(2)]
    batch = study_batch([2, 1, 3, 2])
    for step, poison in enumerate([None, 0, None, accumulation - 1, None]):
        for engine, poisoned in zip(engines, (True, False), strict=True):
            if poison is not None and not poisoned:
                continue
            for micro in range(accumulation):
                loss = engine(batch, step).total
                if micro == poison:
                    loss = loss * torch.nan if way == "loss and gradient" else loss + torch.inf
                engine.backward(loss)
                engine.step(2e-3)
            assert engine.skipped == (poison is not None)
            assert ("gradient_norm" in engine.gradient_norm()) == (poison is None)
    ours, theirs = (engine.weights() for engine in engines)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("stage", [DDP, 0])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_skipped_first_step_leaves_no_trace_in_moments_nor_in_what_follows_steps(
    stage: int, optimizer: Any
) -> None:
    """SGD has no momentum yet; and the mean over studies has taken in what was not finite."""
    optim = OptimConfig(optimizer=optimizer)
    engines = [engine_of("fp32", stage, 1, optim, alignment="centred") for _ in range(2)]
    good = study_batch([2, 1, 3, 2])
    bad = study_batch([2, 2], seed=1)
    for step, batch in enumerate([bad, good, bad, good]):
        for engine, meets_bad in zip(engines, (True, False), strict=True):
            if batch is bad and not meets_bad:
                continue
            loss = engine(batch, step).total
            engine.backward(loss * torch.nan if batch is bad else loss)
            engine.step(1e-3)
            engine.after_step(step + 1)
            assert engine.skipped == (batch is bad)
    ours, theirs = (engine.weights() for engine in engines)
    assert any(name.endswith("centre.mean") for name in theirs)
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []


@pytest.mark.parametrize(
    ("precision", "stage"),
    [
        ("fp32", DDP),
        ("bf16", DDP),
        ("fp32", 0),
        pytest.param("bf16", 1, marks=pytest.mark.slow),
        pytest.param("bf16", 2, marks=pytest.mark.slow),
    ],
)
def test_what_is_saved_goes_on_as_if_nothing_had_happened(
    precision: str, stage: int, tmp_path: Path
) -> None:
    first = engine_of(precision, stage)
    trained(first)
    save(first, tmp_path)
    second = engine_of(precision, stage)
    second.load(tmp_path)
    assert trained(second) == trained(first)
    ours, theirs = second.weights(), first.weights()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_both_engines_take_the_same_steps(accumulation: int) -> None:
    """In fp32, up to rounding: gradients are clipped, added up and decayed alike."""
    optim = OptimConfig(optimizer="sgd", weight_decay=0.3, clip=0.5)
    first, second = (engine_of("fp32", stage, accumulation, optim) for stage in (DDP, 0))
    for step in range(4):
        for micro in range(accumulation):
            for engine in (first, second):
                engine.backward(engine(study_batch([2, 1, 3], seed=micro), step).total)
                engine.step(2e-3)
        norms = [engine.gradient_norm()["gradient_norm"] for engine in (first, second)]
        assert norms[0] == pytest.approx(norms[1], rel=1e-4)
    theirs = second.weights()
    for name, weight in first.weights().items():
        torch.testing.assert_close(weight, theirs[name], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_weights_with_two_names_are_the_same_under_both() -> None:
    """nnU-Net registers each convolution twice: both names are loaded, so both must be the fp32 ones."""
    engine = engines.engine_of(
        mdae(),
        EngineConfig(zero_stage=1, precision="bf16"),
        OptimConfig(),
        micro_batch_size=4,
        accumulation=1,
    )
    for step in range(3):
        engine.backward(engine(volume_batch(4), step).total)
        engine.step(1e-3)
    weights = engine.weights()
    names = [name for name in weights if ".all_modules.0." in name]
    assert names
    for name in names:
        torch.testing.assert_close(
            weights[name], weights[name.replace(".all_modules.0.", ".conv.")], rtol=0, atol=0
        )


@pytest.mark.parametrize(
    ("precision", "before", "after", "optimizer"),
    [
        pytest.param("fp32", 2, 1, "sgd", marks=pytest.mark.slow),
        pytest.param("fp32", 3, 3, "adamw", marks=pytest.mark.slow),
        pytest.param("bf16", 1, 2, "adamw", marks=pytest.mark.slow),
    ],
)
def test_a_universal_checkpoint_goes_on_as_if_nothing_had_been(
    precision: str, before: int, after: int, optimizer: str, tmp_path: Path
) -> None:
    """Weights, moments, steps and the decay of each group: the next losses are those of one training."""
    optim = OptimConfig(optimizer=optimizer, weight_decay=0.5)  # type: ignore[arg-type]
    whole = engine_of(precision, before, optim=optim)
    trained(whole, 0, STEPS // 2)
    whole.save(tmp_path / "parts")
    make_universal(tmp_path / "parts" / TAG, tmp_path / "whole" / TAG)
    undisturbed = trained(whole, STEPS // 2)
    again = engine_of(precision, after, optim=optim)
    again.load(tmp_path / "whole", universal=True)
    rounding = 100 if precision == "bf16" and before != after else 1  # sums in another order
    assert trained(again, STEPS // 2) == pytest.approx(undisturbed, rel=1e-5 * rounding)
    theirs = whole.weights()
    for name, weight in again.weights().items():
        torch.testing.assert_close(weight, theirs[name], rtol=1e-4 * rounding, atol=5e-5 * rounding)


@pytest.mark.slow
def test_a_universal_checkpoint_of_no_step_is_a_start(tmp_path: Path) -> None:
    whole = engine_of("fp32", 2)
    whole.save(tmp_path / "parts")
    make_universal(tmp_path / "parts" / TAG, tmp_path / "whole" / TAG)
    again = engine_of("fp32", 2)
    again.load(tmp_path / "whole", universal=True)
    assert trained(again) == pytest.approx(trained(whole), rel=1e-5)


@pytest.mark.parametrize(
    ("precision", "stage"),
    [
        ("fp32", DDP),
        pytest.param("bf16", 1, marks=pytest.mark.slow),
        pytest.param("fp32", 3, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("universal", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_frozen_layers_stay_as_they_are_bit_by_bit_and_a_checkpoint_goes_on(
    precision: str, stage: int, universal: bool, tmp_path: Path
) -> None:
    if universal and stage != 3:
        pytest.skip(
            "without partitions there are no parts to join, and of several stages one will do"
        )

    def engine() -> Engine:
        module = method(beta=2.0)
        module.encoder.freeze(1)
        return engines.engine_of(
            module,
            EngineConfig(
                name="ddp" if stage < 0 else "deepspeed",
                zero_stage=max(stage, 0),
                precision=precision,
            ),  # type: ignore[arg-type]
            OptimConfig(layer_decay=0.5),
            micro_batch_size=4,
            accumulation=1,
        )

    module = method(beta=2.0)
    before = {name: w.clone() for name, w in module.state_dict().items()}
    first = engine()
    trained(first)
    after = first.weights()
    inside = {n for n in before if n.startswith("encoder.")}
    frozen = {n for n in inside if module.encoder.layer_of(n.removeprefix("encoder.")) <= 1}
    assert "encoder.body.blocks.0.attn.qkv.weight" in frozen
    assert "encoder.body.blocks.1.attn.qkv.weight" not in frozen
    for name, weight in before.items():
        fixed = name in frozen or (name.endswith("position") and not first_trains(module, name))
        assert torch.equal(weight, after[name]) == fixed, name

    save(first, tmp_path / "saved")
    second = engine()
    with torch.no_grad():  # of other weights, as a run has that began with a source now gone
        second.set_frozen({name: torch.zeros_like(w) for name, w in after.items()})
    if universal:
        make_universal(tmp_path / "saved" / TAG, tmp_path / "whole" / TAG)
    second.load(tmp_path / ("whole" if universal else "saved"), universal=universal)
    second.set_frozen(after)
    ours = second.weights()
    assert all(torch.equal(ours[name], after[name]) for name in after)
    assert trained(second, STEPS, STEPS + 3) == trained(first, STEPS, STEPS + 3)
    assert all(torch.equal(first.weights()[name], before[name]) for name in frozen)


def first_trains(module: torch.nn.Module, name: str) -> bool:
    """Whether a name is of a parameter, and not of fixed positions."""
    return name in dict(module.named_parameters())


def test_the_learning_rate_falls_towards_the_input_and_is_whole_outside_the_encoder() -> None:
    engine = engine_of("fp32", 1, optim=OptimConfig(layer_decay=0.5))
    before = {n: w.clone() for n, w in engine.weights().items()}
    engine.backward(engine(study_batch([2, 1, 3, 2]), 0).total)
    engine.step(1e-3)
    after = engine.weights()

    def moved(name: str) -> float:  # AdamW's first step has the size of the rate
        return float((after[name] - before[name]).abs().median())

    depth = engine.module.encoder.depth
    assert depth == 2
    assert moved("decoder.embed.weight") == pytest.approx(1e-3, rel=0.05)
    assert moved("encoder.body.norm.weight") == pytest.approx(1e-3, rel=0.05)
    assert moved("encoder.body.blocks.1.mlp.fc1.weight") == pytest.approx(5e-4, rel=0.05)
    assert moved("encoder.body.blocks.0.mlp.fc1.weight") == pytest.approx(2.5e-4, rel=0.05)
    assert moved("encoder.patch.weight") == pytest.approx(1.25e-4, rel=0.05)
