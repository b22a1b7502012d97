"""No step waits for the device: through the loop's own step, both engines, and the metrics."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ray_mae.config import EngineConfig, OptimConfig
from ray_mae.train import engine as engines
from ray_mae.train.batches import MicroBatch
from ray_mae.train.engine import Engine
from ray_mae.train.metrics.metrics import MetricAverages
from ray_mae.train.outcomes import Outcome, Outcomes
from ray_mae.train.recovery.lost_samples import LostRows
from ray_mae.train.run_folder import RunFolder
from ray_mae.train.worker import take_step
from tests.batches import VOCABULARY, study_batch
from tests.settings import build_of, small
from tests.volume_batches import volume_batch
from tests.waits import Waits, on_device

FIRST, STEPS, MICRO = 100, 2, 1


pytestmark = pytest.mark.usefixtures("process_group")


def engine_of(name: str, engine: str, **settings: Any) -> Engine:
    module = build_of(small(name, **settings), vocabulary=VOCABULARY)
    config = EngineConfig(name=engine, precision="bf16")  # type: ignore[arg-type]
    return engines.engine_of(module, config, OptimConfig(), micro_batch_size=4, accumulation=MICRO)


class Given:
    """Batches in memory, as `Batches` gives them."""

    def __init__(self, name: str) -> None:
        run = small(name)
        study = run["encoder"].kind == "study"
        whole = (
            study_batch([2, 1, 3, 2]) if study else volume_batch(4, 0, run["encoder"].input_size)
        )
        self.micro = MicroBatch(on_device(whole), 1.0, torch.tensor([0, 1, 0, 1]), [])
        self.prepared = 0

    def next(self, step: int) -> MicroBatch:
        return self.micro

    def prepare(self) -> None:
        self.prepared += 1


def steps(engine: Engine, given: Given, folder: Path) -> MetricAverages:
    """Some steps as the worker takes them, up to where metrics are due."""
    averages, outcomes = MetricAverages(1, ["a", "b"]), Outcomes()
    lost = LostRows(RunFolder.begin(folder, 1.0), 0)
    pulse: Any = SimpleNamespace()
    for step in range(FIRST, FIRST + STEPS):
        outcomes.add(
            step,
            take_step(
                engine,
                given,
                averages,
                lost,
                pulse,
                step,
                (1e-3, None),
                MICRO,
                watch=step == FIRST,  # type: ignore[arg-type]
            ),
        )
    for _ in range(STEPS):
        averages.keep()
    return averages


@pytest.mark.parametrize("engine", ["ddp", pytest.param("deepspeed", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["mvmae", "mdae"])  # of each kind: the models are asked elsewhere
def test_no_step_waits_for_the_device(name: str, engine: str, tmp_path: Path) -> None:
    made, given = engine_of(name, engine), Given(name)
    with Waits(made.module, given.micro.batch, [given.micro.folders]) as waits:
        averages = steps(made, given, tmp_path)
    # DeepSpeed waits by itself, where it looks for overflow and makes the norm
    assert [w for w in waits.found if engine == "ddp" or "deepspeed_engine.py" not in w] == []
    assert given.prepared == STEPS * MICRO
    metrics = averages.take(made.device, 0.0)
    assert metrics["loss"] > 0


@pytest.mark.parametrize("form", ["infonce", "vicreg", "centred"])
def test_no_form_of_the_alignment_waits_for_the_device(form: str, tmp_path: Path) -> None:
    made, given = engine_of("mvmae", "ddp", alignment=form), Given("mvmae")
    with Waits(made.module, given.micro.batch, [given.micro.folders]) as waits:
        steps(made, given, tmp_path)
    assert waits.found == []


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: float(x.sum() * 2),
        lambda x: bool((x > 0).all()),
        lambda x: x.exp().tolist(),
        lambda x: x[[0, 1]],
        lambda x: x[x > 0],
        lambda x: (x > 0).nonzero(),
        lambda x: x.new_tensor([1.0]),
        lambda x: torch.tensor([1.0], device=x.device),
        lambda x: x.detach().cpu(),
    ],
)
def test_a_wait_is_noticed(wait: Any) -> None:
    x = torch.ones(3)
    with Waits([x]) as waits:
        wait(x)
    assert len(waits.found) == 1


def test_what_the_host_knows_may_be_read() -> None:
    x, known = torch.ones(3), torch.ones(3)
    with Waits([x]) as waits:
        x[: int(known.sum())] += 1
        known.tolist()
    assert waits.found == []


def test_outcomes_are_told_in_order_and_the_host_is_never_far_ahead() -> None:
    class Late(Outcome):
        known = False  # type: ignore[assignment]

    outcomes = Outcomes()
    for step in range(5):
        outcomes.add(step, Late.of(1.0, step != 3))
    assert [step for step, _ in outcomes.settled(every=False)] == [0, 1, 2]
    told = [(step, outcome.skipped) for step, outcome in outcomes.settled(every=True)]
    assert told == [(3, True), (4, False)]
    outcomes.add(5, Outcome.of(2.5, True))
    assert [outcome.norm for _, outcome in outcomes.settled(every=False)] == [2.5]
