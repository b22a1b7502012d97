"""Intervals hold a planted truth as often as they say, and equals are not told apart."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import pearsonr
from sklearn.metrics import r2_score

from ray_mae.benchmarking.statistics import metrics
from ray_mae.benchmarking.statistics.contrasts import (
    BETTER,
    NOT_TOLD,
    WORSE,
    between_runs,
    contrasts,
)
from ray_mae.benchmarking.statistics.curves import reached
from ray_mae.benchmarking.statistics.metrics import resample_weights
from ray_mae.benchmarking.statistics.scores import Scored
from ray_mae.benchmarking.statistics.uncertainty import (
    TOO_FEW,
    Component,
    detectable,
    holm,
    p_value,
)
from ray_mae.evaluate.metrics import measure
from tests.benchmark.memory import cohort_of, scored
from tests.benchmark.planted import auroc_of, d_of

COHORTS = 300
slow = pytest.mark.slow


def coverage(
    draw_one: Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray, list[np.ndarray]]],
    truth: float,
    resamples: int,
) -> float:
    """Share of planted cohorts whose interval holds the truth; draw_one gives target, patient, logits."""
    held = 0
    for seed in range(COHORTS):
        target, patient, runs = draw_one(np.random.default_rng(seed))
        (one,) = scored(cohort_of(target, patient), {"planted": runs}, resamples, seed)
        found = one.score("auroc", one.cohort.names[0])
        held += found.low <= truth <= found.high
    return held / COHORTS


def ranked(target: np.ndarray, d: float, draw: np.random.Generator) -> np.ndarray:
    return (d * target + draw.normal(size=target.shape))[:, None]


@pytest.mark.parametrize(
    ("positive", "negative", "auroc"),
    [
        (15, 42, 0.69),
        pytest.param(21, 78, 0.80, marks=slow),
        pytest.param(15, 42, 0.96, marks=slow),
        pytest.param(50, 200, 0.76, marks=slow),
        pytest.param(80, 120, 0.85, marks=slow),
    ],
)
def test_the_interval_of_one_fit_holds_the_planted_truth(
    positive: int, negative: int, auroc: float
) -> None:
    target = np.repeat([1.0, 0.0], [positive, negative])
    patient = np.array([f"{i:04d}" for i in range(len(target))])

    def one(draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        return target[:, None], patient, [ranked(target, d_of(auroc), draw)]

    assert 0.93 <= coverage(one, auroc, 400 if positive >= 50 else 20) <= 0.97


@pytest.mark.parametrize("patients", [50, pytest.param(200, marks=slow)])
def test_the_interval_holds_the_truth_where_patients_have_three_studies(patients: int) -> None:
    ill = np.arange(patients) % 3 == 0
    target = np.repeat(ill, 3).astype(float)
    patient = np.repeat([f"{i:04d}" for i in range(patients)], 3)

    def one(draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        # Two thirds of the noise are the patient's.
        noise = np.repeat(draw.normal(size=patients), 3) * np.sqrt(2 / 3)
        noise += draw.normal(size=3 * patients) * np.sqrt(1 / 3)
        return target[:, None], patient, [(d_of(0.78) * target + noise)[:, None]]

    assert 0.93 <= coverage(one, 0.78, 400 if patients > 150 else 20) <= 0.975


@slow
@pytest.mark.parametrize(("times", "seeds"), [(1, 3), (2, 3), (1, 5)])
def test_the_interval_of_a_mean_over_seeds_holds_what_the_method_is_worth(
    times: float, seeds: int
) -> None:
    """The seeds' SD is that many times the error by patients."""
    target = np.repeat([1.0, 0.0], [70, 130])
    patient = np.array([f"{i:04d}" for i in range(200)])
    truth, error = 0.76, 0.036
    slope = (auroc_of(d_of(truth) + 0.01) - auroc_of(d_of(truth) - 0.01)) / 0.02

    def one(draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        common = draw.normal(size=200)
        d = d_of(truth) + draw.normal(0, times * error / slope, seeds)
        runs = [
            (x * target + np.sqrt(0.9) * common + np.sqrt(0.1) * draw.normal(size=200))[:, None]
            for x in d
        ]
        return target[:, None], patient, runs

    assert coverage(one, truth, 300) >= 0.93


def suite_of(planned: list[list[str]]) -> Any:
    """What `contrasts` asks of stored results."""
    return SimpleNamespace(
        suite=SimpleNamespace(contrasts=planned, views=["all"]),
        statistics=SimpleNamespace(margin=0.01),
    )


def equals(seed: int, encoders: int, seeds: int = 1) -> list[Scored]:
    """So many encoders of one truth on one cohort."""
    draw = np.random.default_rng(seed)
    target = (draw.random((100, 1)) < 0.4).astype(float)
    patient = np.array([f"{i:04d}" for i in range(100)])
    common = draw.normal(size=target.shape)
    logits = {
        f"e{k}": [
            (1 + draw.normal(0, 0.2 * (seeds > 1))) * target
            + np.sqrt(0.5) * (common + draw.normal(size=target.shape))
            for _ in range(seeds)
        ]
        for k in range(encoders)
    }
    return scored(cohort_of(target, patient), logits, 100, seed)


@pytest.mark.parametrize(("runs", "level"), [(3, 0.05), (3, 0.005), (5, 0.05), (40, 0.05)])
def test_what_could_have_been_seen_is_seen_in_four_of_five_cases(runs: int, level: float) -> None:
    """With few seeds as with many: the same t distribution says what is told apart and what could be."""
    rng = np.random.default_rng(0)
    spread = np.sqrt(2.0)
    true = detectable([Component("pretraining", spread**2 / runs, runs - 1)], level)
    found = 0
    for _ in range(4000):
        values = true + spread * rng.normal(size=runs)
        component = Component("pretraining", float(np.var(values, ddof=1)) / runs, runs - 1)
        found += p_value(float(values.mean()), [component]) < level
    assert found / 4000 == pytest.approx(0.8, abs=0.04)


@pytest.mark.parametrize(
    ("suites", "seeds"),
    [(4, 1), pytest.param(100, 1, marks=slow), pytest.param(100, 3, marks=slow)],
)
def test_of_twenty_equal_encoders_hardly_ever_is_one_called_better(suites: int, seeds: int) -> None:
    planned = suite_of([["e0", "e1"], ["e0", "e2"], ["e0", "e3"]])
    called = sum(
        any(c.verdict in (BETTER, WORSE) for c in contrasts(planned, equals(seed, 20, seeds)))
        for seed in range(suites)
    )
    assert called <= suites * 0.05


def test_what_is_better_is_called_so_and_the_other_way_round() -> None:
    draw = np.random.default_rng(0)
    target = (draw.random((400, 2)) < 0.4).astype(float)
    patient = np.array([f"{i:04d}" for i in range(400)])
    noise = draw.normal(size=target.shape)
    logits = {"good": [2 * target + noise], "bad": [target + noise], "same": [target * 2 + noise]}
    found = contrasts(
        suite_of([["good", "bad"], ["bad", "good"], ["good", "same"]]),
        scored(cohort_of(target, patient), logits, 200),
    )
    verdicts = {(c.a, c.b): c for c in found if c.label == "macro"}
    assert verdicts["good", "bad"].verdict == BETTER
    assert verdicts["bad", "good"].verdict == WORSE
    assert verdicts["good", "bad"].difference == -verdicts["bad", "good"].difference
    same = verdicts["good", "same"]
    assert same.verdict == NOT_TOLD
    assert same.equivalent
    assert same.p == 1
    # by label only where the mean is told apart
    assert {c.verdict for c in found if c.label != "macro" and c.b == "same"} == {NOT_TOLD}


def test_two_seeds_have_no_interval_and_no_verdict() -> None:
    two = equals(0, 2, seeds=2)
    assert not two[0].score("auroc").known
    (found,) = (c for c in contrasts(suite_of([["e0", "e1"]]), two) if c.label == "macro")
    assert np.isnan(found.p)
    assert found.verdict == TOO_FEW


def test_a_draw_with_a_seed_of_its_own_is_one_source_of_variance() -> None:
    (one,) = equals(0, 1, seeds=4)

    def error(**levels: int) -> float:
        keys = [
            replace(fit.key, pretraining=0, **{name: i * step for name, step in levels.items()})
            for i, fit in enumerate(one.fits)
        ]
        fits = [replace(fit, key=key) for fit, key in zip(one.fits, keys, strict=True)]
        of = replace(one, fits=fits).score("auroc")
        return float(np.hypot(of.sd("draw"), np.nan_to_num(of.sd("seed"))))

    assert error(draw=1, seed=7) == error(draw=1)  # as few_shot's, and those of fine-tuning


@pytest.mark.parametrize(
    ("positive", "interval"),
    [(7, TOO_FEW), (12, "logit_delong"), (60, "percentile")],
)
def test_few_patients_of_the_rarer_class_have_their_own_rules(positive: int, interval: str) -> None:
    draw = np.random.default_rng(1)
    target = np.repeat([1.0, 0.0], [positive, 100])[:, None]
    patient = np.array([f"{i:04d}" for i in range(len(target))])
    (one,) = scored(
        cohort_of(target, patient), {"a": [target + draw.normal(size=target.shape)]}, 50
    )
    found = one.score("auroc")
    assert found.interval == interval
    assert found.known == (interval != TOO_FEW)


def test_paired_seeds_leave_out_what_both_encoders_have_in_common() -> None:
    draw = np.random.default_rng(2)
    target = (draw.random((200, 1)) < 0.5).astype(float)
    patient = np.array([f"{i:04d}" for i in range(200)])
    noise = draw.normal(size=target.shape)
    slopes = (0.6, 1.0, 1.4)  # a good draw is good for both
    logits = {"a": [s * target + noise for s in slopes], "b": [s * target + noise for s in slopes]}
    a, b = scored(cohort_of(target, patient), logits, 50)
    (paired,) = between_runs(a, b, "auroc", "macro")
    assert paired.variance == 0
    alone = scored(cohort_of(target, patient), {"c": logits["b"][:2]}, 50)[0]
    apart = between_runs(a, alone, "auroc", "macro")
    assert [c.source for c in apart] == ["pretraining", "pretraining"]
    assert all(c.variance > 0 for c in apart)


def test_resampled_metrics_are_those_of_the_evaluation() -> None:
    draw = np.random.default_rng(3)
    target = (draw.random(80) < 0.3).astype(float)
    logit = np.round(target + draw.normal(size=80), 1)  # ties
    weights = resample_weights(np.arange(80), 30, 0)
    found = metrics.measure_of("labels", target, weights)(logit)
    expected = measure(target, expit(logit), weights, score=logit)
    for name in ("auroc", "average_precision", "brier", "ece"):
        np.testing.assert_allclose(found[name], expected[name], atol=2e-6)


def test_logits_rank_where_their_probabilities_tie() -> None:
    target = np.array([0.0, 1.0, 0.0, 1.0])
    logit = np.array([40.0, 50.0, 45.0, 60.0])
    found = metrics.measure_of("labels", target, np.ones((4, 1)))(logit)
    assert found["auroc"][0] == 1


def test_numbers_and_survival_are_measured_as_libraries_do() -> None:
    draw = np.random.default_rng(4)
    y = draw.normal(60, 12, 200)
    p = 20 + 0.6 * y + draw.normal(0, 5, 200)
    one = np.ones((200, 1))
    found = {k: v[0] for k, v in metrics.measure_of("number", y, one)(p).items()}
    assert found["mae"] == pytest.approx(np.abs(p - y).mean())
    assert found["r2"] == pytest.approx(r2_score(y, p))
    assert found["pearson"] == pytest.approx(pearsonr(y, p).statistic)
    assert found["error_slope"] == pytest.approx(np.polyfit(y, p - y, 1)[0])
    time = np.array([1.0, 2.0, 3.0, 4.0])
    event = np.array([1.0, 0.0, 1.0, 0.0])
    survival = np.stack([time, event], axis=1)
    risk = np.array([4.0, 9.0, 1.0, 2.0])
    # known pairs: 1 before all others, 3 before 4: of these 4, won are 1>3 and 1>4
    c = metrics.measure_of("survival", survival, np.ones((4, 1)))(risk)["harrell"][0]
    assert c == 0.5
    # one of three is lost at 2: the pair of 3 and 4, which is not won, counts 1 / (2 / 3)²
    weighted = metrics.measure_of("survival", survival, np.ones((4, 1)))(risk)["uno"][0]
    assert weighted == pytest.approx((1 + 1) / (3 + 1 / (2 / 3) ** 2))


def test_holm_stops_at_the_first_that_is_too_large() -> None:
    np.testing.assert_allclose(holm([0.01, 0.04, np.nan, 0.03]), [0.03, 0.06, np.nan, 0.06])


def test_a_goal_is_reached_between_two_numbers_of_studies() -> None:
    x = np.log([10.0, 100.0, 1000.0])
    curves = np.array([[0.6, 0.7, 0.8], [0.8, 0.9, 0.9], [0.5, 0.6, 0.7]])
    at = np.exp(reached(curves, x, 0.75))
    np.testing.assert_allclose(at, [np.sqrt(100 * 1000), 10, np.inf])
