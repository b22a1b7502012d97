"""Figures between two reports."""

import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ray_mae.methods.base import Losses
from ray_mae.train.batches import MicroBatch
from ray_mae.train.metrics.metrics import Window


def step(window: Window, loss: float) -> None:
    batch: Any = SimpleNamespace(key=torch.tensor([1, 2]), samples=2, inputs=4)
    window.add(Losses(torch.tensor(loss), {}), MicroBatch(batch, 1.0, []))
    window.keep()


def test_what_is_saved_between_two_reports_takes_no_step_and_no_time_from_them() -> None:
    window = Window(1)
    step(window, 1.0)
    time.sleep(0.2)
    window.leave_out(0.2)
    step(window, 3.0)
    figures = window.figures(torch.device("cpu"), 0.0)
    assert figures["loss"] == pytest.approx(2.0)
    assert figures["loss_highest"] == pytest.approx(3.0)
    assert figures["samples_per_s"] > 4 / 0.15
    step(window, 7.0)
    assert window.figures(torch.device("cpu"), 0.0)["loss"] == pytest.approx(7.0)


def test_a_step_that_was_skipped_is_in_no_figure() -> None:
    window = Window(1)
    step(window, 1.0)
    batch: Any = SimpleNamespace(key=torch.tensor([1, 2]), samples=2, inputs=4)
    window.add(Losses(torch.tensor(torch.nan), {}), MicroBatch(batch, 1.0, []))
    (seen,) = window.drop()
    assert seen.key.tolist() == [1, 2]
    assert window.figures(torch.device("cpu"), 0.0)["loss"] == 1.0
