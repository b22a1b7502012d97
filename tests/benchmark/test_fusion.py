"""Views of a study: which a condition shows, and how they become one score."""

import numpy as np
import pytest

from ray_mae.benchmarking.features import Features
from ray_mae.benchmarking.fusion import Inputs, seen_views
from ray_mae.evaluate.heads.base import Data, HeadFit

# samples: 0 frontal + lateral; 1 frontal alone; 2 lateral, frontal, frontal; 3 lateral alone
SAMPLE = np.array([0, 0, 1, 2, 2, 2, 3])
VIEW = np.array([0, 1, 0, 1, 0, 0, 1], np.int8)
VECTORS = np.arange(14, dtype=np.float32).reshape(7, 2) ** 2
FEATURES = Features(SAMPLE, VIEW, {"mean": VECTORS, "cls": -VECTORS})
PATIENT = np.array(list("abcd"))
TARGETS = np.array([[0.0], [1.0], [0.0], [1.0]])
EVERY = np.arange(4)


@pytest.mark.parametrize(
    ("condition", "views"),
    [
        ("all", [0, 1, 2, 3, 4, 5, 6]),
        ("frontal", [0, 2, 4, 5]),
        ("lateral", [1, 3, 6]),
        ("both_features", [0, 1, 3, 4, 5]),
        ("first1", [0]),
        ("first2", [0, 1]),
    ],
)
def test_a_condition_shows_its_views_alone(condition: str, views: list[int]) -> None:
    assert np.flatnonzero(seen_views(FEATURES, 4, condition)).tolist() == views
    usable = Inputs(FEATURES, PATIENT, condition).usable
    assert np.flatnonzero(usable).tolist() == sorted({*SAMPLE[views].tolist()})


def test_features_are_averaged_over_views_and_pools_stand_side_by_side() -> None:
    data = Inputs(FEATURES, PATIENT, "all").data(np.array([2, 0]), TARGETS)
    np.testing.assert_allclose(data.vectors["mean"], [VECTORS[3:6].mean(0), VECTORS[:2].mean(0)])
    np.testing.assert_allclose(
        data.vectors["cls+mean"], np.concatenate([data.vectors["cls"], data.vectors["mean"]], 1)
    )
    assert data.patient.tolist() == ["c", "a"]
    only = Inputs(FEATURES, PATIENT, "all", ["cls"]).data(EVERY, TARGETS)
    assert list(only.vectors) == ["cls"]


class Cube:
    """A head that is not affine: its mean over views is not that of their mean."""

    def fit(self, *_: object) -> HeadFit:
        return HeadFit({}, {})

    def predict(self, chosen: object, arrays: object, data: Data, train: object) -> np.ndarray:
        return data.vectors["mean"].sum(1, keepdims=True) ** 3


class Affine(Cube):
    def predict(self, chosen: object, arrays: object, data: Data, train: object) -> np.ndarray:
        return data.vectors["mean"] @ np.array([[2.0], [-1.0]]) + 3


@pytest.mark.parametrize(("head", "same"), [(Affine(), True), (Cube(), False)])
def test_the_mean_of_logits_is_the_logit_of_the_mean_for_affine_heads_alone(
    head: Cube, same: bool
) -> None:
    rows = np.array([2, 0])
    said = []
    for condition in ("both_features", "both_logits"):
        inputs = Inputs(FEATURES, PATIENT, condition)
        train = inputs.fitted_to(rows, TARGETS)
        said.append(inputs.predict(head, head.fit(), rows, TARGETS, train))  # type: ignore[arg-type]
        assert len(train) == (2 if condition == "both_features" else 5)
    assert np.allclose(said[0], said[1], rtol=1e-6) == same


def test_tokens_of_all_views_of_a_sample_are_one_sequence() -> None:
    tokens = np.arange(7 * 3 * 2, dtype=np.float16).reshape(7, 3, 2)
    features = Features(SAMPLE, VIEW, {"mean": VECTORS}, tokens)
    data = Inputs(features, PATIENT, "all").data(np.array([2, 1]), TARGETS)
    assert data.tokens is not None
    assert data.tokens.sample.tolist() == [0, 0, 0, 1]
    assert data.tokens.view.tolist() == [1, 0, 0, 0]
    np.testing.assert_array_equal(data.tokens.values, tokens[[3, 4, 5, 2]])
