"""Metrics between two reports, losses that jump, and encoders that collapse."""

import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from ray_mae.methods.base import Losses
from ray_mae.train.batches import MicroBatch
from ray_mae.train.metrics.metrics import Collapse, MetricAverages, Spikes
from ray_mae.train.metrics.run_log import tensorboard_tag

FOLDERS = torch.zeros(2, dtype=torch.long)


def step(averages: MetricAverages, loss: float) -> None:
    batch: Any = SimpleNamespace(key=torch.tensor([1, 2]), samples=2, inputs=4)
    averages.add(Losses(torch.tensor(loss), {}), MicroBatch(batch, 1.0, FOLDERS, []))
    averages.end_step()
    averages.keep()


def test_what_is_saved_between_two_reports_takes_no_step_and_no_time_from_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    averages = MetricAverages(1)
    step(averages, 1.0)
    now += 0.3
    averages.leave_out(0.2)  # of 0.3 s
    step(averages, 3.0)
    metrics = averages.take(torch.device("cpu"), 0.0)
    assert metrics["loss"] == pytest.approx(2.0)
    assert metrics["loss_highest"] == pytest.approx(3.0)
    assert metrics["samples_per_s"] == pytest.approx(4 / 0.1)
    step(averages, 7.0)
    now += 0.1
    assert averages.take(torch.device("cpu"), 0.0)["loss"] == pytest.approx(7.0)


def test_a_step_that_was_skipped_is_in_no_metric() -> None:
    averages = MetricAverages(1)
    step(averages, 1.0)
    batch: Any = SimpleNamespace(key=torch.tensor([1, 2]), samples=2, inputs=4)
    averages.add(Losses(torch.tensor(torch.nan), {}), MicroBatch(batch, 1.0, FOLDERS, []))
    averages.end_step()
    (dropped,) = averages.drop()
    assert dropped.key.tolist() == [1, 2]
    assert averages.take(torch.device("cpu"), 0.0)["loss"] == 1.0


def test_of_several_folders_each_has_its_own_loss() -> None:
    averages = MetricAverages(1, ["a", "b", "none drawn"])
    batch: Any = SimpleNamespace(key=torch.tensor([1, 2, 3]), samples=3, inputs=3)
    each = torch.tensor([1.0, 5.0, 3.0])
    micro = MicroBatch(batch, 1.0, torch.tensor([0, 1, 0]), [])
    averages.add(Losses(each.mean(), {}, each=each), micro)
    averages.end_step()
    averages.keep()
    metrics = averages.take(torch.device("cpu"), 0.0)
    losses = {name: value for name, value in metrics.items() if name.startswith("loss/")}
    assert losses == {"loss/a": 2.0, "loss/b": 5.0}


@pytest.mark.parametrize("seed", range(5))
def test_a_loss_that_falls_with_noise_has_no_spikes_but_those_put_in(seed: int) -> None:
    rng = np.random.default_rng(seed)
    loss = 0.3 + np.exp(-np.arange(2000) / 300) + 0.02 * rng.normal(size=2000)
    spikes = Spikes()
    spikes.add(loss)
    assert spikes.total == 0
    loss[[700, 701, 1500]] *= 5
    spikes = Spikes()
    for part in np.split(loss, 20):
        spikes.add(part)
    assert spikes.total == 3


def test_a_constant_loss_has_none() -> None:
    spikes = Spikes()
    spikes.add([0.1] * 200 + [0.1000001] * 10)
    assert spikes.total == 0


def test_collapse_is_told_once_while_it_lasts_and_again_when_it_returns() -> None:
    collapse = Collapse()
    good, bad = {"cosine_other_study": 0.4, "effective_rank": 30.0}, {"effective_rank": 1.2}
    told = [collapse.warning(f) is not None for f in [good, bad, bad, good, *[bad] * 5, good]]
    assert told == [False] * 6 + [True] + [False] * 3
    assert [collapse.warning(bad) is not None for _ in range(3)] == [False, False, True]


def test_methods_without_such_metrics_are_left_alone() -> None:
    collapse = Collapse()
    assert all(collapse.warning({"loss": 1.0}) is None for _ in range(5))


@pytest.mark.parametrize(
    ("name", "tag"),
    [
        ("loss", "loss/total"),
        ("caption", "loss/caption"),
        ("loss_spikes", "loss/spikes"),
        ("held_out/loss", "loss/held_out_total"),
        ("held_out/caption", "loss/held_out_caption"),
        ("loss/total", "loss/of total"),  # of a data set of that name
        ("samples_per_s", "speed/samples_per_s"),
        ("effective_rank", "collapse/effective_rank"),
        ("lr", "optimiser/lr"),
        ("beta", "method/beta"),
    ],
)
def test_tensorboard_shows_metrics_in_groups(name: str, tag: str) -> None:
    assert tensorboard_tag(name, {"caption"}) == tag
