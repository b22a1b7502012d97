"""Fits and predictions without Ray: what is old is not taken for new, everybody fits the same samples."""

import dataclasses
import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pytest

from ray_mae.benchmarking.features import Cache, Features
from ray_mae.benchmarking.fits import Group, Opening, Problem, fit_group, predict_group
from ray_mae.benchmarking.fusion import samples_with, seen_views
from ray_mae.benchmarking.records import ALL, Cell, FitKey, SampleTable
from ray_mae.benchmarking.sources import Source
from ray_mae.benchmarking.statistics.results import Results
from ray_mae.benchmarking.store import Store
from ray_mae.config import SuiteConfig
from ray_mae.config.suite import Views
from ray_mae.data.schema import VIEWS, Manifest
from tests.shards import write_shards

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


@pytest.mark.parametrize("missing", ["site", "sex"])
def test_a_data_set_elsewhere_need_not_have_an_attribute(tmp_path: Path, missing: str) -> None:
    tasks = {"t": {"dataset": "here", "test": ["here", "there"], "leave_out": "site"}}
    config = suite(tmp_path, tasks=tasks)
    store = written(config, table(), table(["test"] * PATIENTS, **{missing: None}))
    this = group(config, held_out="north")
    fit_group(this)
    for dataset in ("here", "there"):
        predict_group(Opening(this, dataset, None))
    (key,) = this.keys
    elsewhere = store.predictions(key, "there", "test")
    assert len(elsewhere.sample) == PATIENTS
    own = {*store.predictions(key, "here", "test").sample.tolist()}
    here = table()
    assert own == {*here.sample[(here.split == "test") & (here.attributes["site"] == "north")]}
    if missing == "sex":
        assert len(np.unique(elsewhere.values)) == 1  # nothing is known of anybody


def test_metadata_that_are_not_there_are_a_failed_row(tmp_path: Path) -> None:
    config = suite(tmp_path, encoders={"m": {"kind": "metadata", "columns": ["scanner"]}})
    store = written(config, table(), table())
    fit_group(group(config))
    (fit,) = store.fits()
    assert fit.status == "failed"
    assert "no attribute 'scanner'" in fit.reason
    assert predict_group(Opening(group(config), "here", None)) == 0


def test_identifiers_of_visits_are_no_metadata(tmp_path: Path) -> None:
    config = suite(tmp_path, encoders={"m": {"kind": "metadata"}})
    visits = np.array([f"visit-{i}" for i in range(PATIENTS)], dtype=object)
    store = written(config, table(session_id=visits), table())
    fit_group(group(config))
    (fit,) = store.fits()
    assert fit.dimensions < PATIENTS / 2


def test_baselines_without_images_fit_the_samples_that_have_the_views(tmp_path: Path) -> None:
    config = suite(tmp_path)
    here = table()
    store = written(config, here, table())
    for views in ("all", "lateral", "both_logits", "first1"):
        fit_group(group(config, views=views))
    lateral = int(((here.split == "train") & (here.attributes["views"] == 2)).sum())
    assert {f.key.cell.views: f.train_studies for f in store.fits()} == {
        "all": 30, "lateral": lateral, "both_logits": lateral, "first1": lateral,
    }  # fmt: skip


@pytest.mark.parametrize("condition", get_args(Views))
def test_views_are_told_alike_with_images_and_without(condition: str) -> None:
    draw = np.random.default_rng(0)
    views = [draw.integers(len(VIEWS), size=draw.integers(1, 4)) for _ in range(PATIENTS)]
    of = np.repeat(np.arange(PATIENTS), [len(v) for v in views])
    features = Features(of, np.concatenate(views).astype(np.int8), {})
    rows = seen_views(features, PATIENTS, condition)
    words = ["+".join(sorted({VIEWS[v] for v in some})) for some in views]
    known = table(
        view=np.array(words, dtype=object),
        views=np.array([len(v) for v in views], dtype=object),
    )
    expected = np.bincount(of[rows], minlength=PATIENTS) > 0
    assert np.array_equal(samples_with(known, condition, 16), expected)


def test_what_is_held_out_shapes_no_component(tmp_path: Path) -> None:
    tasks = {"t": {"dataset": "here", "leave_out": "site"}}
    config = suite(tmp_path, tasks=tasks)
    here = table()
    problem = Problem(group(config, held_out="north"), here, "here", ["train"])
    assert (
        problem.fitting.sum()
        == ((here.split == "train") & (here.attributes["site"] == "south")).sum()
    )


def test_tokens_are_read_for_heads_that_look_at_them(tmp_path: Path) -> None:
    write_shards(tmp_path / "shards", train=4, held_out=2)
    cache = Cache(tmp_path / "cache", Source("weights", "study"), tmp_path / "shards")
    for shard in Manifest.read(cache.shards).of_split("train"):
        rows = {"sample": ["a"], "view": pa.array([0], pa.int8())}
        for name, width, kind in (("vector:mean", 3, pa.float32()), ("tokens", 6, pa.float16())):
            values = pa.array(np.ones(width, kind.to_pandas_dtype()), kind)
            rows[name] = pa.FixedSizeListArray.from_arrays(values, width)
        cache.write(shard.file, pa.table(rows))
    names = np.array(["a"])
    assert cache.read(names, ["train"]).tokens is None
    found = cache.read(names, ["train"], tokens=True).tokens
    assert found is not None
    assert found.shape[1:] == (2, 3)


@pytest.mark.parametrize(("split", "word"), [("train", "training"), ("val", "validation")])
@pytest.mark.parametrize("head", ["linear", "knn"])
def test_nobody_to_fit_or_to_choose_by_is_a_failed_row(
    tmp_path: Path, split: str, word: str, head: str
) -> None:
    config = suite(tmp_path)
    here = table()
    here.targets["t"][here.split == split] = np.nan
    store = written(config, here, table())
    fit_group(group(config, head=head))
    (fit,) = store.fits()
    assert (fit.status, word in fit.reason) == ("failed", True)
