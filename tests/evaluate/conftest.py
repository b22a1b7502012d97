"""A small cohort of features with known signal: enough for a probe in about a second."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from ray_mae.config import ProbeConfig
from ray_mae.data.labels import (
    CHEXPERT_LABELS,
    NEGATIVE,
    NOT_MENTIONED,
    POSITIVE,
    UNCERTAIN,
    binary_targets,
)
from ray_mae.evaluate.probe import linear
from ray_mae.evaluate.probe.labelled import ProbeData
from ray_mae.evaluate.probe.result import ProbeResult


class Cohort(NamedTuple):
    """The first four arguments of `probe`."""

    features: dict[str, np.ndarray]
    labels: np.ndarray
    patient: np.ndarray
    split: np.ndarray


def make_cohort() -> Cohort:
    """600 studies of 300 patients; four labels occur, "trained" sees them best, "pixels" little."""
    draw = np.random.default_rng(0)
    patients, studies = 300, 600
    of = np.repeat(np.arange(patients), studies // patients)
    split = np.array(["train", "val", "test"])[draw.choice(3, patients, p=[0.4, 0.3, 0.3])][of]
    signal = draw.normal(size=(studies, 14))
    labels = np.full((studies, 14), NOT_MENTIONED, np.int8)
    for name in ("Edema", "Fracture", "Cardiomegaly", "Pleural Effusion"):
        i = CHEXPERT_LABELS.index(name)
        labels[:, i] = np.where(signal[:, i] > 0.8, POSITIVE, NEGATIVE)
        labels[draw.random(studies) < 0.05, i] = UNCERTAIN
    mix = draw.normal(size=(14, 24))
    features = {
        name: signal @ mix * strength + draw.normal(size=(studies, 24)) * 4
        for name, strength in (("trained", 2.0), ("random", 0.5), ("pixels", 0.2))
    }
    return Cohort(features, labels, np.char.add("p", of.astype(str)), split)


def make_config(**settings: Any) -> ProbeConfig:
    """100 resamples and two strengths, unless told otherwise."""
    settings = {"bootstrap": 100, "strengths": [1e-3, 1e-1], **settings}
    here = Path()
    return ProbeConfig(checkpoint=here, shards=here, output=here, **settings)


def probe(
    features: dict[str, np.ndarray],
    labels: np.ndarray,
    patient: np.ndarray,
    split: np.ndarray,
    config: ProbeConfig,
) -> ProbeResult:
    """A probe of the states of CheXpert's labels, under the policy of the settings."""
    targets = binary_targets(labels, config.uncertain, config.unmentioned)
    return linear.probe(features, ProbeData(targets, CHEXPERT_LABELS, patient, split), config)


@pytest.fixture
def cohort() -> Cohort:
    """A cohort of its own for a test, to be changed at will."""
    return make_cohort()


@pytest.fixture
def config() -> Callable[..., ProbeConfig]:
    """`make_config`."""
    return make_config
