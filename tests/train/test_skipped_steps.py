"""Losses that jump, and encoders that collapse."""

import numpy as np
import pytest

from ray_mae.train.metrics.metrics import Collapse, Spikes


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


def test_methods_without_such_figures_are_left_alone() -> None:
    collapse = Collapse()
    assert all(collapse.warning({"loss": 1.0}) is None for _ in range(5))
