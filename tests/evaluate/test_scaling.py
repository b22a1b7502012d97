"""Features that do not vary must not become noise: of principal components, of scalers, of probes."""

import numpy as np
import pytest
from conftest import Cohort
from conftest import probe as probe_cohort

from ray_mae.evaluate.probe.labelled import ProbeData
from ray_mae.evaluate.probe.linear import pixel_components, probe
from ray_mae.evaluate.probe.scaling import FeatureScaler, principal_components


def cohort_of(pixels: np.ndarray, signal: np.ndarray, train: int) -> tuple:
    """Of which the first rows train, and half of the others are val and test."""
    rest = len(pixels) - train
    split = np.array(["train"] * train + ["val"] * (rest // 2) + ["test"] * (rest - rest // 2))
    return (signal > 0).astype(float)[:, None], np.arange(len(pixels)), split


@pytest.mark.parametrize("train", [40, 41, 60])
def test_as_many_components_as_training_samples_add_no_noise(train: int, config) -> None:
    draw = np.random.default_rng(train)
    signal = draw.normal(size=train + 160)
    pixels = 100 + np.outer(signal, draw.normal(size=300)) + draw.normal(size=(len(signal), 300))
    pixels = pixels.astype(np.float32)
    labels, patient, split = cohort_of(pixels, signal, train)
    few = pixel_components(pixels, split, 10)
    most = pixel_components(pixels, split, 128)
    assert most.shape[1] == train - 1
    result = probe({"few": few, "most": most}, ProbeData(labels, ["one"], patient, split), config())
    auroc = {name: score.macro["auroc"].value for name, score in result.features.items()}
    assert auroc["most"] > 0.9
    assert auroc["most"] > auroc["few"] - 0.05


def test_components_follow_from_what_varies_and_not_from_how_many_images_there_are() -> None:
    draw = np.random.default_rng(0)
    plane = draw.normal(size=(50, 3)) @ draw.normal(size=(3, 64))
    train = np.arange(50) < 30
    for images in (plane, plane.astype(np.float32), plane * 1e-3 + 700, plane * 1e6):
        assert principal_components(images, train, 20, 0).shape == (50, 3)
    twice = np.concatenate([plane[:4]] * 12)  # 48 files of 4 pictures
    assert principal_components(twice, np.ones(48, bool), 20, 0).shape == (48, 3)


def test_images_that_are_all_alike_or_a_single_one_have_no_component() -> None:
    alike = np.full((20, 64), 0.1, np.float32)
    alike += np.random.default_rng(0).integers(-1, 2, alike.shape) * np.float32(7e-9)  # rounding
    train = np.arange(20) < 10
    np.testing.assert_array_equal(principal_components(alike, train, 8, 0), np.zeros((20, 1)))
    one = np.random.default_rng(0).normal(size=(20, 64))
    assert not principal_components(one, np.arange(20) < 1, 8, 0).any()


def test_a_feature_that_varies_by_rounding_alone_becomes_zero_and_a_faint_one_stays() -> None:
    draw = np.random.default_rng(0)
    x = draw.normal(size=(100, 4))
    x[:, 1] = 0.3 + 1e-8 * draw.normal(size=100)  # less than a step of float32
    x[:, 2] = 1000 + 1e-2 * draw.normal(size=100)  # hardly varies around a large mean
    x[:, 3] = 0
    scaler = FeatureScaler().fit(x[:50])
    scaled = scaler.transform(x)
    assert scaler.constant_.tolist() == [False, True, False, True]
    assert not scaled[:, [1, 3]].any()
    assert np.allclose(scaled[:50, [0, 2]].std(0), 1)


def test_embeddings_that_are_all_equal_tell_nothing_and_are_said_to(cohort: Cohort, config) -> None:
    equal = np.full((len(cohort.split), 16), 0.123, np.float32)
    half = np.concatenate([equal[:, :8], cohort.features["trained"]], axis=1)
    result = probe_cohort({"trained": equal, "half": half}, *cohort[1:], config())
    assert result.features["trained"].macro["auroc"].value == 0.5
    whole = probe_cohort({"half": cohort.features["trained"]}, *cohort[1:], config())
    assert result.features["half"].macro["auroc"].value == pytest.approx(
        whole.features["half"].macro["auroc"].value, abs=1e-3
    )
    assert any("trained features: 16 of them do not vary" in note for note in result.notes)
