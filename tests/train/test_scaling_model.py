"""The model of a step on more GPUs, against theory and against itself."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_mae import cli
from ray_mae.config import PlanConfig
from ray_mae.train.forecast.command import plan
from ray_mae.train.forecast.scaling import Network, exchanged
from tests.settings import sections

FAST = Network(per_node=8, inside=300e9, between=50e9)


@pytest.mark.parametrize(("engine", "times"), [("DDP", 2), ("0", 2), ("1", 2), ("2", 2), ("3", 3)])
def test_each_engine_moves_what_its_paper_says(engine: str, times: int) -> None:
    """ZeRO, section 7: twice the parameters, three times where they are shared out as well."""
    assert sum(exchanged(engine, "fp32")) == 4 * times


def test_bf16_halves_the_weights_and_not_the_gradients() -> None:
    assert exchanged("3", "bf16") == [4.0, 2.0, 2.0]


@given(
    size=st.floats(1e3, 1e11),
    gpus=st.sampled_from([2, 4, 8, 16, 64, 512]),
    faster=st.floats(1, 10),
)
def test_a_faster_network_is_never_slower(size: float, gpus: int, faster: float) -> None:
    better = replace(FAST, inside=FAST.inside * faster, between=FAST.between * faster)
    assert 0 < better.seconds(size, gpus) <= FAST.seconds(size, gpus)
    assert FAST.seconds(size, gpus) >= size * (gpus - 1) / gpus / FAST.inside
    assert FAST.seconds(size, 1) == 0


def points(**settings: Any) -> dict[int, dict[str, Any]]:
    config = PlanConfig(
        samples=100_000, gpu="A100", gpus=8, **sections("mvmae", preset="tiny"), **settings
    )
    return {point["gpus"]: point for point in plan(config)["scaling"]}


def test_more_gpus_share_a_step_until_each_has_one_sample() -> None:
    every = points()
    assert list(every) == [2**i for i in range(10)]
    assert every[1]["efficiency"] == pytest.approx(1)
    assert every[1]["exchange"] == 0
    for gpus, point in every.items():
        assert point["gpus"] * point["passes"] * point["micro_batch_size"] >= 1024
        assert point["micro_batch_size"] <= 64
        assert point["efficiency"] * gpus * (point["compute"] + point["exchange"]) == pytest.approx(
            every[1]["compute"]
        )
    efficiency = [point["efficiency"] for point in every.values()]
    assert efficiency == sorted(efficiency, reverse=True)


def test_between_nodes_their_network_counts() -> None:
    slow, fast = points(node_gbps=25.0), points(node_gbps=3200.0)
    assert slow[8] == fast[8]
    assert slow[16]["exchange"] > fast[16]["exchange"]
    assert points(node_gbps=25.0, gpus_per_node=2)[8]["exchange"] > slow[8]["exchange"]


def test_plan_prints_the_curve_and_what_it_assumes(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "--method.name", "mvmae", "--encoder.preset", "tiny", "--method.gamma", "0"]
    words += ["--samples", "10000", "--gpu", "H100", "--gpus", "3", "--optim.batch_size", "768"]
    cli.run([*words, "--node_gbps", "100"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "a model. It assumes 30% of the peak" in printed
    assert "12.5 GB/s between nodes" in printed
    assert "› 3" in printed
