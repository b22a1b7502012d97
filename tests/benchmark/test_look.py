"""What does not go together with the data sets is one clear line, before anything is embedded."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ray_mae.benchmarking.plan import look, unknown_attributes
from ray_mae.benchmarking.samples import _as_named
from ray_mae.config import SuiteConfig
from ray_mae.config.suite import Trust
from ray_mae.data.schema import Manifest
from tests.benchmark.suites import study_shards, volume_shards
from tests.shards import write_shards


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("shards")
    folders = {name: root / name for name in ("films", "brains", "untested")}
    study_shards(folders["films"])
    volume_shards(folders["brains"])
    write_shards(folders["untested"], train=8, held_out=8)
    manifest = Manifest.read(folders["untested"])
    kept = [shard for shard in manifest.shards if shard.split != "test"]
    manifest.shards[:] = kept
    manifest.write(folders["untested"])
    return folders


def suite(shards: dict[str, Path], **task: Any) -> SuiteConfig:
    return SuiteConfig(
        output="out",
        encoders={"nothing": {"kind": "prevalence"}},
        datasets={name: {"shards": folder} for name, folder in shards.items()},
        tasks={"t": {"least_patients": 2, **task}},
        heads={"use": ["linear", "knn"]},
    )


def test_a_task_that_goes_together_is_looked_at(shards: dict[str, Path]) -> None:
    looked = look(suite(shards, dataset="films", macro=["Edema"]))
    assert "Edema" in looked.label_sets["t"].names


@pytest.mark.parametrize(
    ("task", "text"),
    [
        (
            {"dataset": "brains", "kind": "number", "labels": ["age"], "heads": ["linear"]},
            r"none of its heads \(linear\) is for tasks of kind number; there are knn, attentive, ridge",
        ),
        ({"dataset": "films", "test": ["films", "brains"]}, "brains holds volumes, and films studies"),
        ({"dataset": "untested"}, "untested has no patient in the split test"),
        ({"dataset": "films", "macro": ["Edem"]}, "macro: 'Edem' is none of its labels"),
        ({"dataset": "films", "kind": "number", "labels": ["view"]}, "attribute view is no number"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_named(
    shards: dict[str, Path], task: dict[str, Any], text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        look(suite(shards, **task))


def test_an_unknown_label_of_a_volume_is_not_positive() -> None:
    rows = [{"a": 1.0}, {"a": 0.0}, {"a": float("nan")}, {}]
    assert np.array_equal(_as_named(rows, ["a"])[:, 0], [1, 0, np.nan, np.nan], equal_nan=True)


def test_repeats_without_scanners_are_named_before_the_test_is_opened(
    shards: dict[str, Path],
) -> None:
    task = {"dataset": "films", "least_patients": 2}
    suite_of = dataclasses.replace(suite(shards, **task), trust=Trust(repeats="brains"))
    with pytest.raises(ValueError, match="brains does not say on which scanner"):
        look(suite_of)


def test_an_attribute_that_nobody_has_is_told(shards: dict[str, Path]) -> None:
    config = dataclasses.replace(
        suite(shards, dataset="films"), trust=Trust(subgroups=["veiw", "view"], knows=["veiw"])
    )
    (told,) = unknown_attributes(look(config))
    assert "no data set has the attribute 'veiw'; there are" in told
