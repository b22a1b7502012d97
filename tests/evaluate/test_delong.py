"""The error of an AUROC equals its sums over pairs, and its interval holds planted truths."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from ray_mae.evaluate.delong import AurocError, clustered, logit_interval, paired


@st.composite
def studies(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Targets of both classes, two scores with many ties, and patients, [S] each."""
    n = draw(st.integers(4, 30))
    of = st.lists(st.integers(0, 5), min_size=n, max_size=n)
    target = draw(
        st.lists(st.integers(0, 1), min_size=n, max_size=n).filter(lambda t: 0 < sum(t) < n)
    )
    return np.array(target), np.array(draw(of)), np.array(draw(of)), np.array(draw(of))  # fmt: skip


def by_pairs(target: np.ndarray, a: np.ndarray, b: np.ndarray, patient: np.ndarray) -> float:
    """Obuchowski's variance of the difference, patient by patient and pair by pair."""

    def win(score: np.ndarray, i: int, j: int) -> float:
        return float(score[i] > score[j]) + 0.5 * float(score[i] == score[j])

    positive, negative = np.flatnonzero(target == 1), np.flatnonzero(target == 0)
    m, n = len(positive), len(negative)
    v10 = {i: sum(win(a, i, j) - win(b, i, j) for j in negative) / n for i in positive}
    v01 = {j: sum(win(a, i, j) - win(b, i, j) for i in positive) / m for j in negative}
    value = sum(v10.values()) / m
    everyone = np.unique(patient)
    d10 = {p: sum(v10[i] - value for i in positive if patient[i] == p) for p in everyone}
    d01 = {p: sum(v01[j] - value for j in negative if patient[j] == p) for p in everyone}
    i10, i01, i = len(set(patient[positive])), len(set(patient[negative])), len(everyone)
    if min(i10, i01) < 2:
        return np.nan
    s10 = i10 / ((i10 - 1) * m) * sum(d**2 for d in d10.values())
    s01 = i01 / ((i01 - 1) * n) * sum(d**2 for d in d01.values())
    s11 = i / (i - 1) * sum(d10[p] * d01[p] for p in everyone)
    return max(0.0, s10 / m + s01 / n + 2 * s11 / (m * n))


@settings(max_examples=100, deadline=None)
@given(studies())
def test_the_error_is_that_of_the_sums_over_all_pairs(
    case: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
) -> None:
    target, a, b, patient = case
    alone, difference = clustered(target, a, patient), paired(target, a, b, patient)
    assert alone.value == pytest.approx(roc_auc_score(target, a))
    nothing = np.zeros(len(a))  # AUROC .5 of no error
    assert alone.error**2 == pytest.approx(
        by_pairs(target, a, nothing, patient), abs=1e-12, nan_ok=True
    )
    assert difference.value == pytest.approx(roc_auc_score(target, a) - roc_auc_score(target, b))
    assert difference.error**2 == pytest.approx(
        by_pairs(target, a, b, patient), abs=1e-12, nan_ok=True
    )


def test_with_one_study_per_patient_it_is_the_usual_one() -> None:
    """DeLong's S10/m + S01/n, from the variances of the placements."""
    draw = np.random.default_rng(0)
    target = draw.random(80) < 0.3
    score = target + draw.normal(size=80)
    wins = (score[target][:, None] > score[~target][None]).astype(float)
    m, n = wins.shape
    usual = wins.mean(1).var(ddof=1) / m + wins.mean(0).var(ddof=1) / n
    assert clustered(target, score, np.arange(80)).error == pytest.approx(usual**0.5)


@settings(max_examples=50, deadline=None)
@given(studies())
def test_an_interval_lies_within_0_and_1_and_is_never_a_point(
    case: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
) -> None:
    target, score, _, patient = case
    for s in (score, target, -target, np.zeros(len(score))):
        e = logit_interval(clustered(target, s, patient))
        if not e.known:  # one patient of a class
            continue
        assert 0 <= e.low <= e.value <= e.high <= 1
        assert e.high - e.low > 0.05


@pytest.mark.parametrize("truth", [0.69, 0.96])
def test_the_interval_of_15_against_42_patients_holds_the_truth(truth: float) -> None:
    """Of two normal distributions, √2 Φ⁻¹(truth) apart; percentiles hold it in 93 and 89 of 100."""
    draw, held, sets = np.random.default_rng(1), 0, 600
    target = np.arange(57) < 15
    for _ in range(sets):
        score = draw.normal(size=57) + target * 2**0.5 * norm.ppf(truth)
        e = logit_interval(clustered(target, score, np.arange(57)))
        held += e.low <= truth <= e.high
    assert 0.93 <= held / sets <= 0.98


def test_the_interval_of_patients_with_three_studies_each_holds_the_truth() -> None:
    """Studies of a patient share half their variance; as if independent, 89 of 100 would hold it."""
    draw, held, naive, sets = np.random.default_rng(2), 0, 0, 400
    truth = 0.8
    patient = np.repeat(np.arange(90), 3)
    for _ in range(sets):
        ill = np.repeat(draw.random(90) < 0.4, 3)
        target = np.where(draw.random(270) < 0.1, ~ill, ill)  # now and then a patient has both
        score = (np.repeat(draw.normal(size=90), 3) + draw.normal(size=270)) / 2**0.5
        score = score + target * 2**0.5 * norm.ppf(truth)
        for patients, by_patient in ((patient, True), (np.arange(270), False)):
            e = logit_interval(clustered(target, score, patients))
            if by_patient:
                held += e.low <= truth <= e.high
            else:
                naive += e.low <= truth <= e.high
    assert 0.93 <= held / sets <= 0.98
    assert naive / sets < 0.91


def test_of_perfect_scores_more_patients_tell_more() -> None:
    few, many = (
        logit_interval(AurocError(1.0, 0.0, positive, negative))
        for positive, negative in ((15, 42), (150, 420))
    )
    assert few.high == many.high == 1
    assert 0.85 < few.low < 0.97 < many.low < 1


def test_one_patient_of_a_class_has_no_interval_and_none_no_value() -> None:
    one = clustered([1, 1, 0, 0], [3, 2, 1, 0], ["a", "a", "b", "c"])
    assert one.value == 1
    assert not logit_interval(one).known
    assert np.isnan(clustered([1, 1], [0, 1], ["a", "b"]).value)
