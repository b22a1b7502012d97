"""Which interval a label has, by how many patients there are to tell."""

import itertools

import numpy as np
import pytest

from ray_mae.evaluate.baselines import RANDOM, TRAINED
from ray_mae.evaluate.intervals import holm, p_of_difference
from ray_mae.evaluate.metrics import Estimate, patient_resamples
from ray_mae.evaluate.scores import (
    Evidence,
    LabelValues,
    doubtful,
    evidence_of,
    label_differences,
    label_estimate,
    score_label,
)
from ray_mae.evaluate.supervised.comparison import Comparison, MetricValues, compare


def label(
    positive: int, negative: int, apart: float, seed: int = 0, studies: int = 1
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Targets, logits and patients [S], of so many patients of a class with so many studies each."""
    draw = np.random.default_rng(seed)
    target = np.repeat(np.arange(positive + negative) < positive, studies).astype(float)
    patient = np.repeat(np.arange(positive + negative), studies)
    return target, draw.normal(size=len(target)) + apart * target, patient


def estimated(
    positive: int, negative: int, apart: float, runs: int = 1
) -> tuple[Estimate, Evidence]:
    scored = []
    for seed in range(runs):
        target, logits, patient = label(positive, negative, apart, seed)
        weights = patient_resamples(patient, 200, 0)
        scored.append(score_label(target, logits, patient, weights))
    evidence = evidence_of(target, patient, weights)
    e = label_estimate(
        "auroc",
        [s.value["auroc"] for s in scored],
        [s.resampled["auroc"] for s in scored],
        [s.error for s in scored],
        evidence,
        positive + negative,
    )
    return e, evidence


@pytest.mark.parametrize(
    ("positive", "interval"), [(9, "none"), (10, "logit_delong"), (49, "logit_delong"), (50, "percentile")]
)  # fmt: skip
@pytest.mark.parametrize("runs", [1, 3])
def test_the_patients_of_the_rarer_class_decide_the_interval(
    positive: int, interval: str, runs: int
) -> None:
    e, evidence = estimated(positive, 200, 1.0, runs)
    assert evidence.interval == interval
    assert e.known == (interval != "none")
    if interval == "logit_delong":
        odds = [v / (1 - v) for v in (e.low, e.value, e.high)]
        assert odds[1] ** 2 == pytest.approx(odds[0] * odds[2])


def test_studies_of_the_same_patients_tell_no_more() -> None:
    target, logits, patient = label(9, 100, 1.0, studies=4)
    evidence = evidence_of(target, patient, patient_resamples(patient, 50, 0))
    assert (evidence.positive_patients, evidence.negative_patients, evidence.interval) == (
        9,
        100,
        "none",
    )
    assert score_label(target, logits, patient, patient_resamples(patient, 5, 0)).error > 0


@pytest.mark.parametrize("positive", [20, 80])
@pytest.mark.parametrize("runs", [1, 3])
def test_the_interval_of_perfect_scores_is_no_point(positive: int, runs: int) -> None:
    e, _ = estimated(positive, 200, 100.0, runs)
    assert e.value == e.high == 1
    assert 0.8 < e.low < 0.999


def test_who_tells_nobody_apart_has_a_half_for_certain() -> None:
    target, _, patient = label(20, 100, 0.0)
    weights = patient_resamples(patient, 50, 0)
    scored = score_label(target, np.full(120, -2.0), patient, weights)
    e = label_estimate("auroc", [scored.value["auroc"]], [scored.resampled["auroc"]],
                       [scored.error], evidence_of(target, patient, weights), 120)  # fmt: skip
    assert (e.value, e.low, e.high) == (0.5, 0.5, 0.5)
    assert scored.value["average_precision"] == pytest.approx(20 / 120)


def test_errors_of_resamples_and_of_delong_agree_but_where_studies_are_taken_for_patients() -> None:
    target, logits, patient = label(40, 100, 1.0)
    weights = patient_resamples(patient, 400, 0)
    evidence = evidence_of(target, patient, weights)
    assert doubtful(score_label(target, logits, patient, weights), evidence) is None
    copies = [np.tile(a, 4) for a in (target, logits, patient)]
    wrong = patient_resamples(np.arange(560), 400, 0)
    ratio = doubtful(score_label(*copies, wrong), evidence)
    assert ratio == pytest.approx(0.5, abs=0.1)


def test_holm_tells_what_every_set_that_holds_it_would_and_what_is_not_known_counts() -> None:
    """Closed testing: a difference is real if Bonferroni says so of each set that it is in."""
    draw = np.random.default_rng(0)
    for _ in range(30):
        p = dict(enumerate(draw.random(5) ** 4))
        sets = [s for n in range(1, 6) for s in itertools.combinations(p, n)]
        real = [all(min(p[j] for j in s) <= 0.05 / len(s) for s in sets if i in s) for i in p]
        assert list(holm({str(i): v for i, v in p.items()}).values()) == real
    assert holm({"a": 0.02, "b": 0.04}) == {"a": True, "b": True}
    assert holm({"a": 0.02, "b": np.nan, "c": 0.9}) == {"a": False, "b": False, "c": False}
    assert holm({"a": 0.01, "b": np.nan, "c": 0.9})["a"]


@pytest.mark.parametrize("runs", [1, 3])
def test_differences_that_are_none_are_seldom_told_apart(runs: int) -> None:
    draw, told, sets = np.random.default_rng(1), 0, 400
    for _ in range(sets):
        values = 0.02 * draw.normal() + (0.01 * draw.normal(size=runs) if runs > 1 else np.zeros(1))
        around = 0.02 * draw.normal(size=300)
        told += p_of_difference(list(values), [v + around for v in values], 100) < 0.05
    assert told / sets < 0.08
    assert np.isnan(p_of_difference([0.1, 0.1], [np.zeros(5), np.zeros(5)], 100))


def test_a_label_is_told_apart_beside_all_others() -> None:
    around = np.random.default_rng(0).normal(0, 0.01, 1000)
    many = Evidence(60, 100, 1.0, "percentile")
    few = Evidence(5, 100, 0.9, "none")
    values = {"large": [0.1], "small": [0.021], "rare": [0.3]}
    found = label_differences(
        values,
        {name: [v[0] + around] for name, v in values.items()},
        {"large": many, "small": many, "rare": few},
        160,
    )
    assert found["large"].told_apart
    assert found["small"].low > 0  # alone it would be
    assert not found["small"].told_apart
    assert not found["rare"].told_apart
    assert not found["rare"].known


def compared(evidence: list[Evidence], seeds: int = 3) -> Comparison:
    around = np.random.default_rng(0).normal(0, 0.02, 200)

    def runs(value: float) -> list[dict[str, MetricValues]]:
        rows = np.full(len(evidence), value)
        resampled = value + np.tile(around, (len(evidence), 1))
        return [{"auroc": MetricValues(rows, resampled, np.full(len(evidence), 0.03))}] * seeds

    names = [f"label {i}" for i in range(len(evidence))]
    values = {TRAINED: runs(0.9), RANDOM: runs(0.6)}
    return compare(values, range(seeds), names, {"auroc": "AUROC"}, 200, evidence)


def test_a_mean_over_one_label_is_that_label_and_says_nothing_of_too_few() -> None:
    few = compared([Evidence(6, 190, 1.0, "none")])
    for row in ("macro", "label 0"):
        assert not few.initialisations[TRAINED][row]["auroc"].known
        assert not few.differences[row]["auroc"].known
    assert few.verdict() == "not told apart: the test patients are too few to tell."
    several = compared([Evidence(6, 190, 1.0, "none"), Evidence(80, 100, 1.0, "percentile")])
    assert several.initialisations[TRAINED]["macro"]["auroc"].known
    assert several.verdict().startswith("better")
    record = next(r for r in several.table() if r["row"] == "label 0")
    assert (record["positive_patients"], record["interval"]) == (6, "none")
    one = compared([Evidence(30, 170, 1.0, "logit_delong")], seeds=1)
    e = one.initialisations[TRAINED]["macro"]["auroc"]
    assert e == one.initialisations[TRAINED]["label 0"]["auroc"]
    assert np.log(e.high / (1 - e.high)) - np.log(9) == pytest.approx(1.96 * 0.03 / 0.09, rel=1e-3)


def test_values_of_a_label_hold_every_metric_in_every_resample() -> None:
    target, logits, patient = label(30, 60, 1.0)
    scored = score_label(target, logits, patient, patient_resamples(patient, 8, 0), 1.5)
    assert isinstance(scored, LabelValues)
    assert scored.value.keys() == scored.resampled.keys()
    assert {"auroc", "slope", "ece_mass", "log_loss_tempered"} <= scored.value.keys()
    assert all(r.shape == (8,) and np.isfinite(r).all() for r in scored.resampled.values())
