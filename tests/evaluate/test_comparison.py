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
    return compare(values, range(len(trained)), ["one"], {"auroc": "AUROC"})


@pytest.mark.parametrize(
    ("trained", "random", "verdict"),
    [
        ([0.9, 0.88, 0.91], [0.7, 0.72, 0.71], "better: the interval lies above 0, and so does each of 3"),
        ([0.6, 0.61], [0.7, 0.72], "worse: the interval lies below 0, and so does each of 2"),
        ([0.7, 0.71], [0.7, 0.71], "not told apart: the interval holds 0."),
        ([0.9, 0.69, 0.9], [0.7, 0.7, 0.7], "not told apart: the seeds do not agree, 2 of 3 lie above 0."),
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
    assert compare(values, [0], ["one"], {"auroc": "AUROC"}).verdict() == ""
