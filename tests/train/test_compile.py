"""Compiled networks: the same losses, few compilations, and a clear word where there is no compiler."""

import dataclasses
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from ray_mae.config import EngineConfig, OptimConfig
from ray_mae.train import engine as engines
from ray_mae.train.errors import FatalError
from tests.batches import VOCABULARY, study_batch
from tests.settings import build_of, small
from tests.volume_batches import volume_batch

VIEWS = [[2, 1, 3, 2], [1, 1, 1, 2], [3, 3, 3, 3], [1, 2, 1, 3], [3, 2, 3, 3], [1, 1, 1, 1]]
"""Of the studies of each batch: as many shapes as batches."""


@pytest.fixture(autouse=True)
def fresh() -> Any:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def losses(name: str, *, compiled: bool, batches: int, **settings: Any) -> list[float]:
    module = build_of(small(name, **settings), vocabulary=VOCABULARY)
    engine = engines.engine_of(
        module,
        EngineConfig(name="ddp", precision="fp32", compile=compiled),
        OptimConfig(),
        micro_batch_size=4,
        accumulation=1,
    )
    found = []
    for step, views in enumerate(VIEWS[:batches]):
        batch: Any = volume_batch(4, step, 16)
        if small(name)["encoder"].kind == "study":
            batch = dataclasses.replace(study_batch(views, seed=step), known_most=max(views))
        loss = engine(batch.to("cpu"), 100 + step).total
        engine.backward(loss)
        engine.step(1e-3)
        found.append(float(loss.detach()))
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("mvmae", {"caption_memory": "study"}),
        ("mvmae", {}),
        ("simmim", {}),
        ("mdae", {}),
        ("dino", {}),
    ],
)
def test_batches_of_any_numbers_of_views_take_two_compilations_of_a_network(
    name: str, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One for the first shape, one for any: so views need not be padded to numbers of a few kinds.

    A captioner that reads studies has a third where none of them has a second view: PyTorch takes 1 apart.
    """
    plain = torch.nn.Module.compile
    # what is compiled again depends on the tracing; kernels would take minutes to make
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: plain(self, backend="eager"))
    ours = losses(name, compiled=True, batches=len(VIEWS), **settings)
    assert ours == pytest.approx(losses(name, compiled=False, batches=len(VIEWS), **settings))
    networks = len([*build_of(small(name, **settings), vocabulary=VOCABULARY).children()])
    more = (
        4 if name == "dino" else "caption_memory" in settings
    )  # two sizes of crops, with a mask or not
    assert 1 <= counters["stats"]["unique_graphs"] <= 2 * networks + more
    assert not counters["graph_break"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU wants another compiler")
def test_without_a_compiler_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(FatalError, match=r"engine\.compile wants a compiler .* g\+\+"):
        losses("simmim", compiled=True, batches=0)
