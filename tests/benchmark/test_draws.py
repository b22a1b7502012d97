"""Labelled patients: drawn as a whole, nested, each from its own split."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_mae.benchmarking.draws import draw_patients, labelled_rows
from ray_mae.benchmarking.records import ALL

PATIENTS = st.lists(st.integers(0, 20), min_size=1, max_size=80).map(
    lambda ids: np.array([f"p{i}" for i in ids])
)


@settings(deadline=None, max_examples=60)
@given(PATIENTS, st.integers(1, 90), st.integers(1, 90), st.integers(0, 5))
def test_patients_come_whole_and_smaller_draws_lie_within_larger_ones(
    patient: np.ndarray, a: int, b: int, seed: int
) -> None:
    small, large = (draw_patients(patient, n, seed) for n in sorted((a, b)))
    assert set(small) <= set(large)
    for rows, wanted in ((small, min(a, b)), (large, max(a, b))):
        inside = np.isin(np.arange(len(patient)), rows)
        assert not {*patient[inside]} & {*patient[~inside]}
        assert len(rows) >= min(wanted, len(patient))
        without_one = [len(rows) - (patient[rows] == p).sum() for p in {*patient[rows]}]
        assert min(without_one) < wanted  # no more patients than it takes


def test_all_is_all_and_seeds_differ() -> None:
    patient = np.array([f"p{i // 2}" for i in range(100)])
    assert len(draw_patients(patient, ALL, 3)) == 100
    assert {*draw_patients(patient, 20, 0)} != {*draw_patients(patient, 20, 1)}


@pytest.mark.parametrize(("validation", "fit", "choose"), [("full", 50, 60), ("spent", 40, 10)])
def test_spent_validation_counts_for_the_labelled_studies(
    validation: str, fit: int, choose: int
) -> None:
    patient = np.array([f"p{i}" for i in range(200)])
    split = np.array(["train"] * 100 + ["val"] * 60 + ["test"] * 40)
    usable = np.ones(200, bool)
    train, val = labelled_rows(patient, split, usable, 50, validation, 0)
    assert (len(train), len(val)) == (fit, choose)
    assert {*split[train]} == {"train"}
    assert {*split[val]} == {"val"}


def test_what_cannot_be_used_is_not_drawn() -> None:
    patient, split = np.array(list("abcdef")), np.array(["train"] * 4 + ["val"] * 2)
    usable = np.array([True, False, True, False, True, False])
    train, val = labelled_rows(patient, split, usable, ALL, "full", 0)
    assert (train.tolist(), val.tolist()) == ([0, 2], [4])
