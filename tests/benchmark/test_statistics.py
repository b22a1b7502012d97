"""Intervals hold a planted truth as often as they say, and equals are not told apart."""

from collections.abc import Callable

import numpy as np
import pytest
from tests.benchmark.memory import cohort_of, scored
from tests.benchmark.planted import auroc_of, d_of

COHORTS = 300


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
    [(15, 42, 0.69), (21, 78, 0.80), (15, 42, 0.96), (50, 200, 0.76), (80, 120, 0.85)],
)
def test_the_interval_of_one_fit_holds_the_planted_truth(
    positive: int, negative: int, auroc: float
) -> None:
    target = np.repeat([1.0, 0.0], [positive, negative])
    patient = np.array([f"{i:04d}" for i in range(len(target))])

    def one(draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        return target[:, None], patient, [ranked(target, d_of(auroc), draw)]

    assert 0.92 <= coverage(one, auroc, 400) <= 0.985


@pytest.mark.parametrize("patients", [50, 200])
def test_the_interval_holds_the_truth_where_patients_have_three_studies(patients: int) -> None:
    ill = np.arange(patients) % 3 == 0
    target = np.repeat(ill, 3).astype(float)
    patient = np.repeat([f"{i:04d}" for i in range(patients)], 3)

    def one(draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        # Two thirds of the noise are the patient's.
        noise = np.repeat(draw.normal(size=patients), 3) * np.sqrt(2 / 3)
        noise += draw.normal(size=3 * patients) * np.sqrt(1 / 3)
        return target[:, None], patient, [(d_of(0.78) * target + noise)[:, None]]

    assert 0.92 <= coverage(one, 0.78, 400) <= 0.985


@pytest.mark.parametrize(("times", "seeds"), [(1, 3), (2, 3), (1, 5), (1, 2)])
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

    assert coverage(one, truth, 300) >= 0.92
