"""Fits and predictions without Ray: what is old is not taken for new, everybody fits the same samples."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from ray_mae.benchmark.fits import Group, Opening, fit_group, predict_group
from ray_mae.benchmark.records import ALL, Cell, FitKey, SampleTable
from ray_mae.benchmark.statistics.results import Results
from ray_mae.benchmark.store import Store
from ray_mae.config import SuiteConfig

PATIENTS = 60


def table(split: list[str] | None = None, **changes: Any) -> SampleTable:
    """A study for each patient; the label goes with the sex, every third study has a lateral view."""
    n = np.arange(PATIENTS)
    names = np.array([f"s{i:02d}" for i in n])
    values: dict[str, Any] = {
        "sex": np.where(n % 2 == 0, "F", "M").astype(object),
        "site": np.where(n % 4 < 2, "north", "south").astype(object),
        "view": np.where(n % 3 == 0, "frontal+lateral", "frontal").astype(object),
        "views": (1 + (n % 3 == 0)).astype(object),
    }
    values = {k: v for k, v in (values | changes).items() if v is not None}
    where = np.array(split or ["train"] * 30 + ["val"] * 15 + ["test"] * 15)
    targets = {"t": ((n + (n % 7 == 0)) % 2).astype(float)[:, None]}
    return SampleTable(names, names, where, values, targets, {"t": ["Edema"]})


def suite(root: Path, **changes: Any) -> SuiteConfig:
    for name in ("here", "there"):
        (root / name).mkdir(exist_ok=True)
        (root / name / "manifest.json").write_text(name)
    values: dict[str, Any] = {
        "output": root / "suite",
        "encoders": {"m": {"kind": "metadata", "columns": ["sex"]}},
        "datasets": {
            "here": {"shards": root / "here"},
            "there": {"shards": root / "there", "role": "external"},
        },
        "tasks": {"t": {"dataset": "here", "test": ["here", "there"], "labels": ["Edema"]}},
        "heads": {"C": [0.1]},
    }
    return SuiteConfig(**{**values, **changes})


def written(config: SuiteConfig, here: SampleTable, there: SampleTable) -> Store:
    """The samples of a suite as `fit` and `open` leave them."""
    store = Store(config.output)
    closed = here.targets["t"].copy()
    closed[here.split == "test"] = np.nan
    store.write_samples("here", dataclasses.replace(here, targets={"t": closed}), opened=False)
    store.write_samples("there", dataclasses.replace(there, targets={}), opened=False)
    store.write_samples("here", here)
    store.write_samples("there", there)
    return store


def group(config: SuiteConfig, inputs: str = "a", **cell: Any) -> Group:
    values = {"task": "t", "head": "linear", "views": "all", "studies": ALL, **cell}
    key = FitKey(Cell(**values), "m")
    return Group(config, [key], [inputs], ["Edema"], None)


def test_a_fit_of_other_inputs_leaves_no_prediction_of_the_old_one(tmp_path: Path) -> None:
    config = suite(tmp_path)
    store = written(config, table(), table(["test"] * PATIENTS))
    old = group(config)
    fit_group(old)
    for dataset in ("here", "there"):
        assert predict_group(Opening(old, dataset, None)) == 1
        assert predict_group(Opening(old, dataset, None)) == 0
    (key,) = old.keys
    before = store.predictions(key, "here", "test").values
    stronger = dataclasses.replace(config, heads=dataclasses.replace(config.heads, C=[1e-5]))
    new = group(stronger, "b")
    fit_group(new)
    assert not store.has_predictions(key, "here", "test")
    assert predict_group(Opening(new, "here", None)) == 1
    assert not np.array_equal(store.predictions(key, "here", "test").values, before)


def test_predictions_of_other_shards_are_made_again(tmp_path: Path) -> None:
    config = suite(tmp_path)
    written(config, table(), table(["test"] * PATIENTS))
    this = group(config)
    fit_group(this)
    for dataset in ("here", "there"):
        predict_group(Opening(this, dataset, None))
    (tmp_path / "there" / "manifest.json").write_text("ingested again")
    assert [predict_group(Opening(this, d, None)) for d in ("here", "there")] == [0, 1]


def test_fits_of_an_earlier_plan_are_not_in_the_table(tmp_path: Path) -> None:
    config = suite(tmp_path)
    store = written(config, table(), table(["test"] * PATIENTS))
    this = group(config)
    more = dataclasses.replace(this, keys=[dataclasses.replace(this.keys[0], pretraining=1)])
    for some in (this, more):
        fit_group(some)
        predict_group(Opening(some, "here", None))
    plan = {"fits": [dataclasses.asdict(this.keys[0])]}
    (config.output / "plan.json").write_text(json.dumps(plan))
    assert [fit.key for fit in Results(store, config).fits] == this.keys
