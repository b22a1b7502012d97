"""Heads of numbers and survival, and what they are measured by."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr
from sklearn.linear_model import Ridge
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from ray_mae.config.suite import Heads
from ray_mae.evaluate.heads import cox, knn, prevalence, ridge
from ray_mae.evaluate.heads.base import Data
from ray_mae.evaluate.regression import measure_numbers
from ray_mae.evaluate.survival import followed, harrell, measure_survival, uno


def ages(n: int, seed: int, width: int = 10) -> Data:
    """Ages that the first feature tells but for 3 years."""
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(n, width)).astype(np.float32)
    age = 60 + 10 * x[:, 0] + 3 * draw.normal(size=n)
    return Data({"cls": x}, age[:, None], np.arange(n).astype(str), kind="number")


def survivors(n: int, seed: int, coefficients: tuple[float, ...] = (1.0, -0.5, 0, 0, 0)) -> Data:
    """Times to an event by proportional hazards, some lost before it; days, so that there are ties."""
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(n, len(coefficients))).astype(np.float32)
    time = draw.exponential(400 * np.exp(-(x @ np.array(coefficients))))
    lost = draw.exponential(600, n)
    targets = np.stack([np.ceil(np.minimum(time, lost)), time <= lost], axis=1).astype(float)
    return Data({"cls": x}, targets, np.arange(n).astype(str), kind="survival")


@settings(max_examples=20, deadline=None)
@given(n=st.integers(3, 40), width=st.integers(1, 60), seed=st.integers(0, 1000))
def test_ridge_is_that_of_scikit_learn_for_every_penalty(n: int, width: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    x, y = draw.normal(size=(n, width)) + 5, 60 + 10 * draw.normal(size=n)
    alpha = [1e-3, 1.0, 1e4]
    w, b = ridge.ridge_path(x, y, alpha)
    for k, strength in enumerate(alpha):
        model = Ridge(strength, solver="svd").fit(x, y)
        assert x @ w[k] + b[k] == pytest.approx(model.predict(x), abs=1e-5)


def test_ridge_tells_ages_and_leaves_out_the_unknown() -> None:
    train, val = ages(400, 0), ages(300, 1)
    train.targets[:100] = np.nan
    val.targets[:50] = np.nan
    found = ridge.fit(train, val, ["age"], Heads(), 0)
    said = ridge.predict(found.chosen, found.arrays, val, train)
    assert said.shape == (300, 1)
    assert measure_numbers(val.targets[:, 0], said[:, 0])["mae"][0] == pytest.approx(2.4, abs=0.3)
    assert len(found.trials) == 19 + 4
    best = max(found.trials, key=lambda trial: trial.score)
    assert best.settings["alpha"] == found.chosen["alpha"][0]
    assert -best.score == pytest.approx(measure_numbers(val.targets[:, 0], said[:, 0])["mae"][0])


def test_neighbours_tell_ages() -> None:
    train, val = ages(2000, 0, width=3), ages(300, 1, width=3)
    found = knn.fit(train, val, ["age"], Heads(), 0)
    said = knn.predict(found.chosen, found.arrays, val, train)
    assert measure_numbers(val.targets[:, 0], said[:, 0])["pearson"][0] > 0.8
    assert len(found.trials) == 4


def test_without_features_a_number_is_the_median_and_risks_are_equal() -> None:
    train = ages(101, 0)
    found = prevalence.fit(train, train, ["age"], Heads(), 0)
    said = prevalence.predict(found.chosen, found.arrays, replace(train, vectors={}), train)
    assert np.unique(said) == pytest.approx([np.median(train.targets)])
    people = survivors(50, 0)
    found = prevalence.fit(people, people, ["time", "event"], Heads(), 0)
    risk = prevalence.predict(found.chosen, found.arrays, people, people)
    assert risk.shape == (50, 1)
    assert harrell(*people.targets.T, risk[:, 0])[0] == 0.5


def test_numbers_are_not_taken_for_states() -> None:
    with pytest.raises(ValueError, match="kind number"):
        replace(ages(10, 0), kind="labels")


def partial_likelihood(w: np.ndarray, x: np.ndarray, time: np.ndarray, event: np.ndarray) -> float:
    """Breslow's, event by event."""
    risk = x @ w
    return sum(risk[i] - np.log(np.exp(risk[time >= time[i]]).sum()) for i in np.flatnonzero(event))


def test_cox_is_at_the_maximum_of_the_penalised_partial_likelihood() -> None:
    people = survivors(80, 3)
    x, (time, event) = people.vectors["cls"].astype(float), people.targets.T
    assert len(np.unique(time)) < 80  # ties
    [(w, converged)] = cox.cox_path(x, time, event == 1, [2.0])

    def objective(w: np.ndarray) -> float:
        return partial_likelihood(w, x, time, event == 1) - w @ w

    assert converged
    step = 1e-3
    for axis in np.eye(5):
        here, up, down = (objective(w + d * axis) for d in (0, step, -step))
        slope, bend = (up - down) / (2 * step), (up + down - 2 * here) / step**2
        assert abs(slope / bend) < 1e-3  # what a Newton step would change


def test_cox_finds_planted_hazards_and_ranks_people() -> None:
    train, val = survivors(3000, 0), survivors(1000, 1)
    [(w, _)] = cox.cox_path(
        train.vectors["cls"], train.targets[:, 0], train.targets[:, 1] == 1, [0.1]
    )
    assert w == pytest.approx([1, -0.5, 0, 0, 0], abs=0.07)
    found = cox.fit(train, val, ["time", "event"], Heads(alpha=[0.1, 1.0, 10.0]), 0)
    assert found.converged
    risk = cox.predict(found.chosen, found.arrays, val, train)
    assert risk.shape == (1000, 1)
    assert found.columns == ["log hazard ratio"]
    best = max(trial.score for trial in found.trials)
    assert harrell(*val.targets.T, risk[:, 0])[0] == pytest.approx(best, abs=1e-4)
    assert best > 0.7


def test_cox_needs_an_event() -> None:
    people = survivors(30, 0)
    people.targets[:, 1] = 0
    with pytest.raises(ValueError, match="no training sample has had the event"):
        cox.fit(people, people, ["time", "event"], Heads(), 0)


@settings(max_examples=20, deadline=None)
@given(n=st.integers(3, 40), seed=st.integers(0, 1000))
def test_metrics_of_numbers_are_those_of_scikit_learn_in_every_resample(n: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    y, p = 1e4 + draw.normal(size=n), 1e4 + draw.normal(size=n)
    weights = draw.integers(0, 3, (n + 2, 4))
    missing = np.concatenate([y, [np.nan, 1.0]]), np.concatenate([p, [1.0, np.nan]])
    found = measure_numbers(*missing, weights)
    for r in range(4):
        rows = np.repeat(np.arange(n), weights[:n, r])
        if len(set(rows)) < 2:
            assert np.isnan(found["r2"][r])
            continue
        a, b = y[rows], p[rows]
        assert found["mae"][r] == pytest.approx(mean_absolute_error(a, b))
        assert found["rmse"][r] == pytest.approx(root_mean_squared_error(a, b))
        assert found["r2"][r] == pytest.approx(r2_score(a, b), rel=1e-5)
        assert found["pearson"][r] == pytest.approx(pearsonr(a, b)[0], abs=1e-6)
        assert found["slope"][r] == pytest.approx(np.polyfit(a - 1e4, b - a, 1)[0], rel=1e-5)


def test_whoever_says_the_mean_has_slope_minus_one_and_no_correlation() -> None:
    y = np.arange(10.0)
    found = measure_numbers(y, np.full(10, 4.5))
    assert found["slope"][0] == pytest.approx(-1)
    assert found["r2"][0] == pytest.approx(0)
    assert np.isnan(found["pearson"][0])


def pairs(time: np.ndarray, event: np.ndarray, risk: np.ndarray) -> float:
    """Harrell's C, pair by pair."""
    won = total = 0.0
    for i in np.flatnonzero(event):
        for j in range(len(time)):
            if time[j] > time[i] or (time[j] == time[i] and not event[j]):
                total += 1
                won += 1.0 if risk[i] > risk[j] else 0.5 if risk[i] == risk[j] else 0.0
    return won / total if total else np.nan


@settings(max_examples=20, deadline=None)
@given(n=st.integers(2, 25), seed=st.integers(0, 1000))
def test_concordance_counts_pairs_in_every_resample(n: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    time, event = draw.integers(1, 8, n).astype(float), draw.integers(0, 2, n).astype(float)
    risk, weights = draw.integers(0, 5, n).astype(float), draw.integers(0, 3, (n, 3))
    found = harrell(time, event, risk, weights)
    for r in range(3):
        rows = np.repeat(np.arange(n), weights[:, r])
        assert found[r] == pytest.approx(pairs(time[rows], event[rows], risk[rows]), nan_ok=True)


def test_concordance_by_uno_does_not_depend_on_who_is_lost() -> None:
    draw = np.random.default_rng(0)
    x = draw.normal(size=4000)
    time = draw.exponential(np.exp(-2 * x))
    whole = harrell(time, np.ones(4000), x)[0]
    lost = draw.uniform(0, 1.5, 4000)
    seen, event = np.minimum(time, lost), (time <= lost).astype(float)
    within = np.where(time < 1.4, 1.0, 0.0)  # nobody is followed longer
    truth = harrell(np.minimum(time, 1.4), within, x)[0]
    assert abs(uno(seen, event, x)[0] - truth) < 0.01
    assert abs(harrell(seen, event, x)[0] - truth) > 0.01
    assert whole != truth
    assert measure_survival(seen, event, x)["uno"][0] == uno(seen, event, x)[0]
    everybody = np.ones(4000)
    assert uno(time, everybody, x)[0] == pytest.approx(whole)


def test_follow_up_is_estimated_as_kaplan_and_meier_do() -> None:
    time, event = np.array([1.0, 2, 2, 3, 4]), np.array([1.0, 1, 0, 0, 1])
    # lost at 2: one of three there (two that came to the event before or then are gone), at 3: one of two
    assert followed(time, event, np.array([1.0, 2, 2.5, 3, 4])) == pytest.approx(
        [1, 1, 2 / 3, 2 / 3, 1 / 3]
    )
