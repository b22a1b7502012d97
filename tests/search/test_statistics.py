"""Differences between settings: which are real, and which are luck."""

from pathlib import Path

import numpy as np
import pytest

from ray_mae.search.results import TrialResult
from ray_mae.search.statistics import SeedVariance, difference, group_by_setting, mean_auroc
from ray_mae.train.run_folder import RESAMPLES

PATIENTS = np.random.default_rng(0).normal(0, 0.03, 400)
"""What a resample of the patients does to every run alike."""


def trial(folder: Path, number: int, beta: float, auroc: float, **changes: object) -> TrialResult:
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
    return TrialResult(**{**fields, **changes})


def test_runs_that_differ_in_their_seed_are_one_setting(tmp_path: Path) -> None:
    trials = [trial(tmp_path, i, beta, 0.7) for i, beta in enumerate([0, 0, 2, 0])]
    trials.append(trial(tmp_path, 9, 2, 0.9, state="stopped early", probes=[(50, 0.9, 0.8, 1.0)]))
    trials.append(trial(tmp_path, 8, 2, 0.8, values={"beta": 2, "seed": 2}))  # seed 2 was there
    groups = group_by_setting(trials)
    assert [(g.values, len(g.trials)) for g in groups] == [({"beta": 0}, 3), ({"beta": 2}, 1)]
    assert groups[1].std is None


def test_single_runs_are_never_told_apart(tmp_path: Path) -> None:
    low, high = group_by_setting([trial(tmp_path, 0, 0, 0.5), trial(tmp_path, 1, 2, 0.9)])
    assert SeedVariance.of([low, high]) is None
    assert difference(high, low, None) is None
    assert mean_auroc(high, None).low < 0.9 < mean_auroc(high, None).high


def test_a_small_difference_on_the_same_patients_is_told_apart(tmp_path: Path) -> None:
    values = [(0, 0.699), (0, 0.701), (0, 0.7), (2, 0.711), (2, 0.709), (2, 0.71)]
    low, high = group_by_setting([trial(tmp_path, i, b, a) for i, (b, a) in enumerate(values)])
    seed_variance = SeedVariance.of([low, high])
    estimate = difference(high, low, seed_variance)
    assert estimate is not None
    assert estimate.value == pytest.approx(0.01)
    assert estimate.low > 0
    assert (
        mean_auroc(high, seed_variance).low < low.mean
    )  # although the patients alone make each ± .06


@pytest.mark.parametrize("seeds", [3, 5])
def test_settings_that_do_not_differ_are_seldom_told_apart(seeds: int, tmp_path: Path) -> None:
    draw = np.random.default_rng(seeds)
    wrong = 0
    for repeat in range(200):
        groups = []
        for beta in range(3):
            values = 0.7 + 0.02 * draw.normal(size=seeds)
            trials = tuple(
                trial(tmp_path / f"{repeat}-{beta}", i, beta, a) for i, a in enumerate(values)
            )
            groups += group_by_setting(trials)
        estimate = difference(groups[1], groups[0], SeedVariance.of(groups))
        assert estimate is not None
        wrong += estimate.low > 0 or estimate.high < 0
    assert wrong / 200 < 0.09  # 5 % are meant


def test_two_runs_have_no_interval_and_no_difference(tmp_path: Path) -> None:
    values = [(0, 0.66), (0, 0.73), (2, 0.71), (2, 0.70), (2, 0.72)]
    two, three = group_by_setting([trial(tmp_path, i, b, a) for i, (b, a) in enumerate(values)])
    alone = SeedVariance.of([two])
    assert alone is not None
    assert alone.freedom == 1  # its t quantile is 12.7: [0.143, 1.000] around 0.694
    assert not mean_auroc(two, alone).known
    assert mean_auroc(two, alone).describe() == "0.695 (no interval)"
    both = SeedVariance.of([two, three])
    assert difference(three, two, both) is None
    assert mean_auroc(three, both).known
