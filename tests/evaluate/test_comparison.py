"""What a comparison of runs may say: nothing of one seed, and of several only what all of them bear out."""

import numpy as np
import pytest

from ray_mae.evaluate.baselines import RANDOM, TRAINED
from ray_mae.evaluate.supervised.comparison import Comparison, MetricValues, compare


def comparison(trained: list[float], random: list[float], noise: float = 0.01) -> Comparison:
    """Of AUROCs by seed, with resamples of the patients around them."""
    spread = np.random.default_rng(0).normal(0, noise, 200)

    def runs(values: list[float], around: np.ndarray) -> list[dict[str, MetricValues]]:
        return [{"auroc": MetricValues(np.array([v]), v + around[None])} for v in values]

    values = {TRAINED: runs(trained, spread), RANDOM: runs(random, -spread)}
    return compare(values, range(len(trained)), ["one"], {"auroc": "AUROC"}, 200)


@pytest.mark.parametrize(
    ("trained", "random", "verdict"),
    [
        ([0.9, 0.88, 0.91], [0.7, 0.72, 0.71], "better: the interval lies above 0, and so does each of 3"),
        ([0.6, 0.61, 0.6], [0.7, 0.72, 0.7], "worse: the interval lies below 0, and so does each of 3"),
        ([0.7, 0.71, 0.7], [0.7, 0.71, 0.7], "not told apart: the interval holds 0."),
        ([0.9, 0.69, 0.9], [0.7, 0.7, 0.7], "not told apart: the interval holds 0."),
        ([0.9] * 11 + [0.69], [0.7] * 12, "not told apart: the seeds do not agree, 11 of 12 lie above 0."),
        ([0.6, 0.61], [0.7, 0.72], "two seeds tell nothing"),
        ([0.9], [0.5], "one seed tells nothing"),
        ([0.5], [0.9], "one seed tells nothing"),
    ],
)  # fmt: skip
def test_a_verdict_takes_several_seeds_that_agree(
    trained: list[float], random: list[float], verdict: str
) -> None:
    assert comparison(trained, random).verdict().startswith(verdict)


def test_without_two_initialisations_there_is_no_verdict() -> None:
    values = {TRAINED: [{"auroc": MetricValues(np.array([0.9]), np.array([[0.9, 0.8]]))}]}
    assert compare(values, [0], ["one"], {"auroc": "AUROC"}, 200).verdict() == ""


def test_an_interval_is_as_wide_as_the_seeds_differ_and_of_two_there_is_none() -> None:
    rows = comparison([0.80, 0.80, 0.80], [0.6, 0.7, 0.8]).initialisations
    agreeing, apart = rows[TRAINED]["macro"]["auroc"], rows[RANDOM]["macro"]["auroc"]
    assert agreeing.high - agreeing.low == pytest.approx(2 * 1.97 * 0.01, rel=0.15)
    # t of two degrees of freedom, 4.30, times 0.1 / √3
    assert apart.high - apart.low == pytest.approx(2 * 4.30 * 0.1 / 3**0.5, rel=0.15)
    (two,) = [comparison([0.8, 0.9], [0.6, 0.7]).initialisations[TRAINED]["macro"]["auroc"]]
    assert not two.known
    assert two.describe() == "0.850 (no interval)"
    assert comparison([0.8], [0.6]).initialisations[TRAINED]["macro"]["auroc"].known


@pytest.mark.parametrize("seed_sd", [0.0, 0.02, 0.04])
def test_intervals_of_three_seeds_hold_the_truth(seed_sd: float) -> None:
    """Patients' deviation 0.02 of all seeds alike; over patients alone 80 to 91 of 100 would hold it."""
    draw, held = np.random.default_rng(1), 0
    for _ in range(400):
        seeds = 0.7 + 0.02 * draw.normal() + seed_sd * draw.normal(size=3)
        around = 0.02 * draw.normal(size=300)
        runs = [{"auroc": MetricValues(np.array([v]), v + around[None])} for v in seeds]
        found = compare({TRAINED: runs}, range(3), ["one"], {"auroc": "AUROC"}, 100)
        interval = found.initialisations[TRAINED]["macro"]["auroc"]
        held += interval.low <= 0.7 <= interval.high
    assert 0.92 <= held / 400 <= 0.99
