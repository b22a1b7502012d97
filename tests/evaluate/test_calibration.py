"""Calibration of planted probabilities: skill, slope, intercept, temperature."""

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from ray_mae.evaluate.calibration import HOTTEST, measure_calibration, measure_tempered, temperature
from ray_mae.evaluate.metrics import measure, patient_resamples

S = 4000


def planted(slope: float, intercept: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Targets [S], and logits [S] that tell of them by this line."""
    draw = np.random.default_rng(seed)
    told = draw.normal(-1, 1.5, S)
    return (draw.random(S) < expit(intercept + slope * told)).astype(float), told


@pytest.mark.parametrize(("slope", "intercept"), [(1.0, 0.0), (0.5, 0.0), (2.0, 0.7)])
def test_slope_and_intercept_are_those_that_were_planted(slope: float, intercept: float) -> None:
    target, told = planted(slope, intercept)
    found = measure_calibration(target, told)
    assert found["slope"][0] == pytest.approx(slope, abs=0.12)
    assert found["intercept"][0] == pytest.approx(intercept, abs=0.12)
    line = LogisticRegression(C=np.inf, tol=1e-10).fit(told[:, None], target)
    assert found["slope"][0] == pytest.approx(line.coef_[0, 0], rel=1e-4)
    assert found["intercept"][0] == pytest.approx(line.intercept_[0], abs=1e-4)
    assert found["log_loss"][0] == pytest.approx(log_loss(target, expit(told)))


def test_one_step_from_the_sample_is_the_line_of_a_resample_nearly() -> None:
    target, told = (a[:300] for a in planted(1.0, 0.0))
    weights = patient_resamples(np.arange(300), 30, 0)
    found = measure_calibration(target, told, weights)
    slopes = []
    for w in weights.T:
        line = LogisticRegression(C=np.inf, tol=1e-8).fit(told[:, None], target, sample_weight=w)
        slopes.append(line.coef_[0, 0])
    assert np.corrcoef(slopes, found["slope"])[0, 1] > 0.98
    assert np.std(found["slope"]) == pytest.approx(np.std(slopes), rel=0.15)


def test_the_skill_is_0_for_the_prevalence_and_1_for_the_truth() -> None:
    target, _ = planted(1.0, 0.0)
    prevalence = np.full(S, logit(target.mean()))
    assert measure_calibration(target, prevalence)["brier_skill"][0] == pytest.approx(0, abs=1e-9)
    sure = measure_calibration(target, 80 * (2 * target - 1))
    assert sure["brier_skill"][0] == pytest.approx(1)
    assert 0 <= sure["log_loss"][0] < 1e-9


def test_bins_of_equal_mass_see_what_bins_of_equal_width_hide() -> None:
    """Of a rare label nearly all probabilities lie in the first of the bins of equal width."""
    draw = np.random.default_rng(0)
    p = draw.choice([0.005, 0.055], 20_000)
    target = (draw.random(20_000) < 0.03).astype(float)  # whatever is said
    of_width = measure(target, p)["ece"][0]
    of_mass = measure_calibration(target, logit(p))["ece_mass"][0]
    assert of_mass == pytest.approx(0.025, abs=0.004)
    assert of_width < 0.005


def test_where_the_classes_are_parted_or_nobody_is_told_apart_there_is_no_line() -> None:
    target = np.array([0.0, 0, 0, 1, 1])
    for told in (target, -target, np.zeros(5), np.array([0.0, 1, 2, 2, 3])):
        found = measure_calibration(target, told, patient_resamples(np.arange(5), 7, 0))
        assert np.isnan(found["slope"]).all()
        assert np.isnan(found["intercept"]).all()
        assert np.isfinite(measure_calibration(target, told)["log_loss"]).all()


@pytest.mark.parametrize("heat", [0.3, 1.0, 4.0])
def test_the_temperature_undoes_what_was_done_to_the_logits(heat: float) -> None:
    (target, told), (test, of_test) = planted(1.0, 0.0), planted(1.0, 0.0, seed=1)
    found = temperature(target, told * heat)
    assert found == pytest.approx(heat, rel=0.08)
    cool = measure_tempered(test, of_test * heat / found, np.ones((S, 1)))
    right = measure_tempered(test, of_test, np.ones((S, 1)))
    assert cool["log_loss_tempered"][0] == pytest.approx(right["log_loss_tempered"][0], abs=2e-3)
    assert cool["ece_tempered"][0] < 0.03


def test_validation_patients_that_cannot_tell_leave_the_temperature_at_1() -> None:
    assert temperature(np.ones(5), np.arange(5.0)) == 1
    assert temperature(np.array([0.0, 1, 1]), np.ones(3)) == 1
    perfect = temperature(np.array([0.0, 0, 1, 1]), np.array([-1.0, -1, 1, 1]))
    assert perfect == pytest.approx(1 / HOTTEST, rel=0.01)  # the coldest that is tried
