"""The linear head is scikit-learn's logistic regression, for all labels and all C at once."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from ray_mae.config.suite import Heads
from ray_mae.evaluate.heads import linear
from ray_mae.evaluate.heads.base import Data
from ray_mae.evaluate.heads.choice import aurocs, widened
from ray_mae.evaluate.heads.logistic import logistic_path


def planted(n: int, width: int, labels: int, seed: int, strength: float = 1.0) -> Data:
    """Samples, a patient each, whose labels depend on the first features of the one vector."""
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(n, width)).astype(np.float32)
    logit = strength * x[:, :labels] - 0.5
    y = (draw.random((n, labels)) < 1 / (1 + np.exp(-logit))).astype(np.float64)
    return Data({"cls": x}, y, np.array([f"p{seed}-{i}" for i in range(n)]))


def both_classes(y: np.ndarray) -> bool:
    return bool(all({0, 1} <= set(column[~np.isnan(column)]) for column in y.T))


@settings(max_examples=20, deadline=None)
@given(
    n=st.integers(8, 60),
    width=st.integers(1, 40),
    unknown=st.sampled_from([0.0, 0.3]),
    same=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_coefficients_are_those_of_scikit_learn(
    n: int, width: int, unknown: float, same: bool, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(n, width))
    if same:  # features that say the same, and one that says nothing
        x = np.concatenate([x, x[:, :1], np.zeros((n, 1))], axis=1)
    y = (draw.random((n, 3)) < 0.5).astype(float)
    y[draw.random(y.shape) < unknown] = np.nan
    if not both_classes(y):
        y[:2] = [[0] * 3, [1] * 3]
    C_values = [1e-3, 0.1, 3.0]
    path = logistic_path(x, y, C_values)
    assert path.converged.all()
    for k, C in enumerate(C_values):
        for i in range(3):
            known = ~np.isnan(y[:, i])
            model = LogisticRegression(C=C, solver="newton-cholesky", tol=1e-10)
            expected = model.fit(x[known], y[known, i]).decision_function(x[known])
            assert path.logits(x[known])[:, i, k] == pytest.approx(expected, abs=5e-3, rel=5e-3)


@pytest.mark.parametrize(("n", "width"), [(40, 90), (300, 30)])
def test_what_can_be_told_apart_wholly_still_converges(n: int, width: int) -> None:
    draw = np.random.default_rng(0)
    x = draw.normal(size=(n, width))
    y = (x[:, :2] > 0).astype(float)
    path = logistic_path(x, y, [1.0, 1e4, 1e5])
    assert path.converged.all()
    assert np.isfinite(path.weight).all()
    model = LogisticRegression(C=1e4, solver="newton-cholesky", tol=1e-10).fit(x, y[:, 0])
    found = path.weight[1, 0] / np.linalg.norm(path.weight[1, 0])
    expected = model.coef_[0] / np.linalg.norm(model.coef_[0])
    assert found @ expected > 0.999


def test_features_far_from_zero_are_no_trouble() -> None:
    train, val = planted(300, 6, 2, 0), planted(300, 6, 2, 1)
    far = [
        replace(data, vectors={"cls": data.vectors["cls"] * 1e-2 + 1e3}) for data in (train, val)
    ]
    near, shifted = (
        linear.predict(f.chosen, f.arrays, v, t)
        for t, v, f in [
            (t, v, linear.fit(t, v, ["a", "b"], Heads(C=[0.1, 1.0]), 0))
            for t, v in [(train, val), tuple(far)]
        ]
    )
    assert shifted == pytest.approx(near, abs=0.05)  # float32 keeps 1e3 to 6e-5


def test_a_label_of_one_class_is_given_its_prevalence_and_keeps_its_place() -> None:
    train, val = planted(200, 5, 3, 0), planted(200, 5, 3, 1)
    train.targets[:, 1] = 0
    train.targets[:50, 1] = np.nan
    found = linear.fit(train, val, ["a", "b", "c"], Heads(), 0)
    assert found.constant == ["b"]
    assert found.chosen["C"][1] is None
    logits = linear.predict(found.chosen, found.arrays, val, train)
    assert logits.shape == (200, 3)
    assert logits[:, 1] == pytest.approx(np.log(0.5 / 150.5))
    assert np.ptp(logits[:, 0]) > 1


def test_where_no_label_varies_all_is_constant() -> None:
    train, val = planted(20, 5, 2, 0), planted(20, 5, 2, 1)
    train.targets[:] = [0, 1]
    found = linear.fit(train, val, ["a", "b"], Heads(), 0)
    assert found.constant == ["a", "b"]
    assert np.ptp(linear.predict(found.chosen, found.arrays, val, train), axis=0).tolist() == [0, 0]


def test_labels_of_few_validation_patients_do_not_choose_for_themselves() -> None:
    train, val = planted(400, 30, 3, 0), planted(400, 30, 3, 1)
    rare = np.flatnonzero(val.targets[:, 2] == 1)
    val.targets[rare[29:], 2] = np.nan
    found = linear.fit(train, val, ["a", "b", "c"], Heads(), 0)
    assert found.chosen["own_choice"] == ["a", "b"]
    by_mean = max(found.trials, key=lambda trial: (trial.score, -trial.settings["C"]))
    assert found.chosen["C"][2] == by_mean.settings["C"]
    # 30 studies of one patient are no 30 patients
    val.patient[val.targets[:, 0] == 1] = "one"
    assert linear.fit(train, val, ["a", "b", "c"], Heads(), 0).chosen["own_choice"] == ["b"]


def test_of_equally_good_strengths_the_smaller_is_taken() -> None:
    train, val = planted(300, 1, 1, 0), planted(300, 1, 1, 1)  # one feature: every C ranks alike
    found = linear.fit(train, val, ["a"], Heads(C=[0.1, 1.0, 10.0]), 0)
    assert found.chosen["C"] == [pytest.approx(1e-3)]
    assert found.at_edge == []  # a plateau is no edge


def test_every_encoder_of_as_many_vectors_has_as_many_trials() -> None:
    counts = set()
    for strength in (0.0, 0.3, 10.0):  # where the best lies elsewhere in the grid each time
        train, val = planted(150, 20, 2, 3, strength), planted(150, 20, 2, 4, strength)
        both = {"mean": train.vectors["cls"], **train.vectors}
        train = replace(train, vectors=both)
        val = replace(val, vectors={"mean": val.vectors["cls"], **val.vectors})
        counts.add(len(linear.fit(train, val, ["a", "b"], Heads(), 0).trials))
    assert counts == {2 * (19 + 4)}


def test_an_end_of_the_grid_is_told() -> None:
    train, val = planted(300, 60, 2, 0, 1.0), planted(5000, 60, 2, 1, 1.0)
    found = linear.fit(train, val, ["a", "b"], Heads(C=[100.0, 1000.0]), 0)
    assert found.at_edge == ["a", "b"]
    assert found.chosen["beyond_the_grid"] == ["a", "b"]
    assert found.chosen["C"] == pytest.approx([1.0, 1.0])
    assert linear.fit(train, val, ["a", "b"], Heads(C=[1.0]), 0).at_edge == []


def test_the_vector_that_validates_better_is_taken() -> None:
    train, val = planted(300, 5, 2, 0), planted(300, 5, 2, 1)
    noise = np.random.default_rng(2).normal(size=(2, 300, 5)).astype(np.float32)
    train = replace(train, vectors={"cls": noise[0], "mean": train.vectors["cls"]})
    val = replace(val, vectors={"cls": noise[1], "mean": val.vectors["cls"]})
    assert linear.fit(train, val, ["a", "b"], Heads(), 0).chosen["pool"] == "mean"


def test_validation_that_can_tell_nothing_leaves_it_at_one() -> None:
    train, val = planted(100, 5, 2, 0), planted(10, 5, 2, 1)
    val.targets[:] = np.nan
    found = linear.fit(train, val, ["a", "b"], Heads(), 0)
    assert found.chosen["C"] == pytest.approx([1.0, 1.0])
    assert np.isnan([trial.score for trial in found.trials]).all()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), levels=st.sampled_from([2, 5, 1000]))
def test_ranking_is_that_of_scikit_learn(seed: int, levels: int) -> None:
    draw = np.random.default_rng(seed)
    score = draw.integers(0, levels, (30, 2, 3)).astype(float)
    target = draw.integers(0, 2, (30, 2)).astype(float)
    target[:5] = np.nan
    found = aurocs(target, score)
    for i in range(2):
        for k in range(3):
            y, s = target[5:, i], score[5:, i, k]
            if len(set(y)) == 2:
                assert found[i, k] == pytest.approx(roc_auc_score(y, s))


def test_a_grid_is_widened_by_its_own_steps() -> None:
    assert widened([1.0, 10.0]) == pytest.approx([0.01, 0.1, 1, 10, 100, 1000])
    assert widened([3.0]) == [3.0]
