"""Metrics equal scikit-learn's in every resample, and resamples are of patients."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from ray_mae.evaluate.metrics import (
    METRICS,
    estimate,
    macro,
    measure,
    patient_resamples,
    reliability,
)


@st.composite
def scored(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Targets [S] of both classes and probabilities [S], often tied, 0 and 1 among them."""
    n = draw(st.integers(2, 40))
    target = draw(
        st.lists(st.integers(0, 1), min_size=n, max_size=n).filter(lambda t: 0 < sum(t) < n)
    )
    levels = draw(st.sampled_from([2, 5, 1000]))
    probability = draw(st.lists(st.integers(0, levels), min_size=n, max_size=n))
    return np.array(target, float), np.array(probability) / levels


@settings(max_examples=50, deadline=None)
@given(scored(), st.integers(0, 1000))
def test_every_resample_scores_as_scikit_learn_scores_its_studies(
    case: tuple[np.ndarray, np.ndarray], seed: int
) -> None:
    target, probability = case
    weights = np.random.default_rng(seed).integers(0, 3, (len(target), 5))
    values = measure(target, probability, weights)
    for r in range(5):
        rows = np.repeat(np.arange(len(target)), weights[:, r])
        y, p = target[rows], probability[rows]
        if len(set(y)) < 2:
            assert all(np.isnan(values[m][r]) for m in METRICS)
            continue
        assert values["auroc"][r] == pytest.approx(roc_auc_score(y, p))
        assert values["average_precision"][r] == pytest.approx(average_precision_score(y, p))
        assert values["brier"][r] == pytest.approx(brier_score_loss(y, p))


@settings(max_examples=50, deadline=None)
@given(scored())
def test_without_weights_every_study_counts_once(case: tuple[np.ndarray, np.ndarray]) -> None:
    target, probability = case
    assert measure(target, probability)["auroc"] == pytest.approx(
        roc_auc_score(target, probability)
    )


@settings(max_examples=50, deadline=None)
@given(scored())
def test_auroc_does_not_change_under_a_monotone_transform(
    case: tuple[np.ndarray, np.ndarray],
) -> None:
    target, probability = case
    transformed = np.exp(3 * probability) / np.exp(3)
    assert measure(target, transformed)["auroc"] == pytest.approx(
        measure(target, probability)["auroc"]
    )


@settings(max_examples=50, deadline=None)
@given(scored())
def test_the_ece_is_the_mean_gap_of_the_reliability_bins(
    case: tuple[np.ndarray, np.ndarray],
) -> None:
    target, probability = case
    bins = [b for b in reliability(target, probability) if b.studies]
    gap = sum(b.studies * abs(b.positive - b.probability) for b in bins) / len(target)
    assert measure(target, probability)["ece"] == pytest.approx(gap)
    positive, mean = calibration_curve(target, probability, n_bins=15)
    np.testing.assert_allclose([b.positive for b in bins], positive)
    np.testing.assert_allclose([b.probability for b in bins], mean)


def test_a_perfect_forecast_has_the_best_value_of_every_metric() -> None:
    target = np.array([0.0, 1, 1, 0])
    values = measure(target, target)
    assert [values[m][0] for m in METRICS] == [1, 1, 0, 0]


def _noisy(patients: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    target = (draw.random(patients) < 0.3).astype(float)
    return target, 1 / (1 + np.exp(-(2 * target - 1.5 + draw.normal(size=patients))))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000))
def test_an_interval_contains_its_value_on_typical_data(seed: int) -> None:
    target, probability = _noisy(200, seed)
    value = measure(target, probability)
    spread = measure(target, probability, patient_resamples(np.arange(200), 300, seed))
    for m in METRICS:
        e = estimate(value[m][0], spread[m], error=m == "ece")
        assert e.low <= e.value <= e.high


def test_intervals_cover_the_true_auroc_about_as_often_as_they_say() -> None:
    truth = 0.9214  # of N(2, 1) against N(0, 1): Φ(2 / √2)
    covered = 0
    for seed in range(100):
        target, probability = _noisy(200, seed)
        spread = measure(target, probability, patient_resamples(np.arange(200), 200, seed))
        e = estimate(0, spread["auroc"])
        covered += e.low <= truth <= e.high
    assert covered >= 88


def test_all_studies_of_a_patient_are_drawn_together() -> None:
    patient = np.array(["b", "a", "b", "c", "a", "b"])
    weights = patient_resamples(patient, 50, seed=0)
    for name in "abc":
        rows = weights[patient == name]
        assert (rows == rows[0]).all()
    one_each = weights[[1, 0, 3]]
    assert (one_each.sum(axis=0) == 3).all()
    assert one_each.max() > 1


def test_more_studies_of_the_same_patients_do_not_shrink_the_interval() -> None:
    target, probability = _noisy(100, 0)
    copies = [np.tile(a, 4) for a in (target, probability, np.arange(100))]

    def width(y: np.ndarray, p: np.ndarray, patient: np.ndarray) -> float:
        e = estimate(0, measure(y, p, patient_resamples(patient, 500, 0))["auroc"])
        return e.high - e.low

    alone = width(target, probability, np.arange(100))
    assert width(*copies) == pytest.approx(alone)
    assert width(copies[0], copies[1], np.arange(400)) < 0.7 * alone  # as if they were patients


def test_a_label_with_one_class_in_a_resample_is_left_out_of_its_mean() -> None:
    values = np.array([[0.5, np.nan, np.nan], [0.7, 0.9, np.nan]])
    np.testing.assert_allclose(macro(values), [0.6, 0.9, np.nan])


def test_without_a_usable_resample_there_is_a_value_and_no_interval() -> None:
    e = estimate(0.8, np.full(10, np.nan))
    assert e.value == 0.8
    assert np.isnan([e.low, e.high]).all()


def test_a_thousand_resamples_of_a_thousand_studies_take_no_time_to_speak_of() -> None:
    target, probability = _noisy(1000, 0)
    weights = patient_resamples(np.arange(1000), 1000, 0)
    start = time.process_time()
    measure(target, probability, weights)
    assert time.process_time() - start < 0.5  # 0.04 s when written; 42 of them make a probe
