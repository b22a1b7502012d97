"""Differences between settings: what is told apart, and what is luck."""

from pathlib import Path

import numpy as np
import pytest

from ray_mae.search.groups import difference, group
from ray_mae.search.results import TrialRecord
from ray_mae.train.tracking import RESAMPLES

PATIENTS = np.random.default_rng(0).normal(0, 0.03, 400)
"""What a resample of the patients does to every run alike."""


def trial(folder: Path, number: int, beta: float, auroc: float, **changes: object) -> TrialRecord:
    path = folder / str(number)
    (path / RESAMPLES).mkdir(parents=True)
    np.savez(path / RESAMPLES / "00000010.npz", all=auroc + PATIENTS)
    fields: dict = {
        "number": number,
        "state": "ended",
        "values": {"beta": beta, "seed": number},
        "probes": [(100, auroc, auroc - 0.05, auroc + 0.05)],
        "last_step": 10,
        "hours": 1.0,
        "seconds": 60.0,
        "start_up_seconds": 10.0,
        "restarts": [],
        "reason": "",
        "folder": path,
    }
    return TrialRecord(**{**fields, **changes})


def test_runs_that_differ_in_their_seed_are_one_setting(tmp_path: Path) -> None:
    trials = [trial(tmp_path, i, beta, 0.7) for i, beta in enumerate([0, 0, 2, 0])]
    trials.append(trial(tmp_path, 9, 2, 0.9, state="stopped early", probes=[(50, 0.9, 0.8, 1.0)]))
    groups = group(trials)
    assert [(g.values, len(g.trials)) for g in groups] == [({"beta": 0}, 3), ({"beta": 2}, 1)]
    assert groups[1].spread is None


def test_a_small_difference_on_the_same_patients_is_told_apart(tmp_path: Path) -> None:
    low, high = group([trial(tmp_path, 0, 0, 0.70), trial(tmp_path, 1, 2, 0.71)])
    found = difference(high, low)
    assert found.value == pytest.approx(0.01)
    assert found.low > 0  # although each interval alone is ± .06
    assert low.auroc.high - low.auroc.low > 0.1


def test_a_difference_within_the_spread_of_seeds_is_not(tmp_path: Path) -> None:
    noisy = [(0, 0.66), (0, 0.70), (0, 0.74), (2, 0.68), (2, 0.72), (2, 0.76)]
    one, other = group([trial(tmp_path, i, beta, auroc) for i, (beta, auroc) in enumerate(noisy)])
    found = difference(other, one)
    assert found.value == pytest.approx(0.02)
    assert found.low < 0 < found.high


def test_the_same_setting_does_not_differ_from_itself_by_the_patients(tmp_path: Path) -> None:
    [one] = group([trial(tmp_path, i, 0, 0.7) for i in range(3)])
    assert abs(difference(one, one).low) < 1e-9
