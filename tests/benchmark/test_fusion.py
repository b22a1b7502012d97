"""Views of a study: which a condition shows, and how they become one score."""

import dataclasses

import numpy as np
import pytest

from ray_mae.benchmarking.features import Features
from ray_mae.benchmarking.fusion import Inputs, seen_views
from ray_mae.config.suite import Heads
from ray_mae.evaluate.heads.base import Data, HeadFit
from ray_mae.evaluate.heads.choice import aurocs
from ray_mae.evaluate.heads.registry import HEADS

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


@pytest.mark.parametrize("kind", ["labels", "number", "survival"])
def test_settings_are_chosen_by_the_means_over_views(kind: str) -> None:
    """The views of a study have noise that is opposite: each tells little, and their mean everything."""
    draw = np.random.default_rng(0)
    n = 120
    of = np.repeat(np.arange(n), 2)
    signal, noise = draw.normal(size=n), draw.normal(0, 30, n)
    clean = np.stack([signal + noise, signal - noise], axis=1).ravel()  # of both views
    blurred = signal[of] + draw.normal(0, 0.7, 2 * n)
    vectors = {
        "cls": clean[:, None].astype(np.float32), "mean": blurred[:, None].astype(np.float32),
    }  # fmt: skip
    inputs = Inputs(Features(of, np.tile([0, 1], n).astype(np.int8), vectors), of[::2].astype(str),
                    "both_logits", ["cls", "mean"], kind)  # fmt: skip
    targets = {
        "labels": (signal > 0).astype(float)[:, None],
        "number": signal[:, None],
        "survival": np.stack([np.exp(-2 * signal), np.ones(n)], axis=1),
    }[kind]
    fits, chooses = np.arange(60), np.arange(60, n)
    train, val = (inputs.fitted_to(rows, targets) for rows in (fits, chooses))
    head = HEADS[{"labels": "linear", "number": "ridge", "survival": "cox"}[kind]].head
    found = head.fit(train, val, ["a", "b"][: targets.shape[1]], Heads(), 0)
    scores = {p: max(t.score for t in found.trials if t.settings["pool"] == p) for p in vectors}
    said = inputs.predict(head, found, chooses, targets, train)
    assert found.chosen["pool"] == max(scores, key=lambda pool: scores[pool])
    if kind == "labels":
        # what validation was told is what is predicted: the AUROC of the means, not of the views
        assert scores["cls"] == aurocs(targets[chooses], said[:, :, None])[0, 0] == 1
    seen_alone = dataclasses.replace(val, views_of=None)
    alone = head.fit(train, seen_alone, ["a", "b"][: targets.shape[1]], Heads(), 0)
    assert alone.chosen["pool"] == "mean"


def test_tokens_of_all_views_of_a_sample_are_one_sequence() -> None:
    tokens = np.arange(7 * 3 * 2, dtype=np.float16).reshape(7, 3, 2)
    features = Features(SAMPLE, VIEW, {"mean": VECTORS}, tokens)
    data = Inputs(features, PATIENT, "all").data(np.array([2, 1]), TARGETS)
    assert data.tokens is not None
    assert data.tokens.sample.tolist() == [0, 0, 0, 1]
    assert data.tokens.view.tolist() == [1, 0, 0, 0]
    np.testing.assert_array_equal(data.tokens.values, tokens[[3, 4, 5, 2]])
