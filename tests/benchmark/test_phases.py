"""The phases on real Ray: test labels stay closed, what is there stays, what is lost comes again."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ray_mae.benchmarking.command import benchmark, benchmark_fit, benchmark_open, benchmark_report
from ray_mae.benchmarking.folds import store_of_folds
from ray_mae.benchmarking.records import Fit
from ray_mae.benchmarking.store import Store
from ray_mae.config import SuiteConfig
from tests.benchmark.suites import study_shards, study_suite, volume_shards
from tests.checkpoints import write_checkpoint
from tests.shards import rewrite

REPORTED = ("report.html", "scores.csv", "contrasts.csv", "tables.tex", "index.json")
pytestmark = [pytest.mark.usefixtures("local_ray"), pytest.mark.slow]


def facts(store: Store) -> list[dict[str, Any]]:
    """What fits say, without the clock and the hash of the shards."""
    left = ("seconds", "inputs")
    rows = [dataclasses.asdict(fit) for fit in store.fits()]
    return [{k: v for k, v in row.items() if k not in left} for row in rows]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> SuiteConfig:
    root = tmp_path_factory.mktemp("suite")
    config = study_suite(root, study_shards(root / "shards"))
    summary = benchmark(config)
    assert summary["failed"] == 0
    assert summary["opened"] == 1
    return config


def test_every_encoder_has_every_cell_and_as_many_trials(done: SuiteConfig) -> None:
    fits = Store(done.output).fits()
    cells = {name: {f.key.cell for f in fits if f.key.encoder == name} for name in done.encoders}
    assert all(of == cells["ours"] for of in cells.values())
    points = {(c.studies, c.validation) for c in cells["ours"]}
    assert points == {(12, "full"), (12, "spent"), (0, "full")}
    ours, random = (
        {f.key.cell: len(f.trials) for f in fits if f.key.encoder == name}
        for name in ("ours", "random")
    )
    assert ours == random
    assert {f.key.pretraining for f in fits if f.key.encoder == "ours"} == {0, 1}
    spent = [f for f in fits if f.key.cell.validation == "spent" and f.key.cell.views == "all"]
    assert all(f.train_studies + f.val_studies < f.key.cell.studies + 6 for f in spent)


def test_predictions_are_of_test_samples_that_the_condition_shows(done: SuiteConfig) -> None:
    store = Store(done.output)
    table = store.samples("here")
    test = {*table.sample[table.rows("test")].tolist()}
    sizes = {}
    for fit in store.fits():
        said = store.predictions(fit.key, "here", "test")
        assert {*said.sample.tolist()} <= test
        assert said.values.shape == (len(said.sample), len(fit.labels))
        sizes[fit.key.encoder, fit.key.cell.views] = len(said.sample)
    assert sizes["ours", "all"] == len(test)
    assert 0 < sizes["ours", "both_logits"] < len(test)


def test_folds_are_fitted_when_tests_are_opened_and_cover_all_patients(done: SuiteConfig) -> None:
    store, plan = store_of_folds(done.output), Store(done.output).plan
    assert plan["small"]["findings"]["why"] == "36 patients, fewer than 500"
    everybody = Store(done.output).samples("here").sample.tolist()
    by: dict[tuple, list[str]] = {}
    for fit in store.fits():
        assert (fit.key.cell.validation, fit.key.cell.views) == ("folds", "all")
        of = by.setdefault((fit.key.encoder, fit.key.pretraining, fit.key.cell.head), [])
        of += store.predictions(fit.key, "here", "test").sample.tolist()
    assert {encoder for encoder, _, _ in by} == set(done.encoders)
    assert all(sorted(of) == everybody for of in by.values())
    # its pretraining saw the training patients, whom folds test
    assert plan["exposure"]["ours"]["here"]["state"] == "none"
    assert plan["exposure_of_folds"]["ours"]["here"]["state"] == "patients"
    assert plan["exposure_of_folds"]["random"]["here"]["state"] == "none"


def test_the_labels_of_test_patients_change_nothing_that_is_fitted(
    done: SuiteConfig, tmp_path: Path
) -> None:
    other = study_suite(tmp_path, study_shards(tmp_path / "shards", test_labels=1))
    benchmark_fit(other)
    assert not store_of_folds(other.output).folder.exists()
    stores = Store(done.output), Store(other.output)
    assert facts(stores[0]) == facts(stores[1])
    for fit in stores[0].fits():
        heads = [store.read_head(fit.key) for store in stores]
        assert all(np.array_equal(heads[0][k], heads[1][k]) for k in heads[0])
    closed = stores[1].samples("here", opened=False)
    assert np.isnan(closed.targets["findings"][closed.rows("test")]).all()
    a, b = (s.samples("here").targets["findings"] for s in (stores[0], _opened(other)))
    assert not np.array_equal(a, b)


def _opened(config: SuiteConfig) -> Store:
    benchmark_open(config)
    return Store(config.output)


def test_what_is_lost_is_fitted_again_and_nothing_else(done: SuiteConfig, tmp_path: Path) -> None:
    config = dataclasses.replace(done, output=tmp_path / "copy")
    shutil.copytree(done.output, config.output)
    before = {fit.key.id: fit for fit in Store(config.output).fits()}
    files = sorted((config.output / "fits").glob("*.json"))
    for file in files[::2]:
        file.unlink()
    kept = {file: file.stat().st_mtime_ns for file in files[1::2]}
    summary = benchmark_fit(config)
    assert summary["fitted_now"] == len(files[::2])
    assert all(file.stat().st_mtime_ns == time for file, time in kept.items())
    after = {fit.key.id: fit for fit in Store(config.output).fits()}
    assert {i: _clockless(f) for i, f in before.items()} == {
        i: _clockless(f) for i, f in after.items()
    }
    assert summary["plan"] == Store(done.output).plan["sha256"]
    assert benchmark_open(config)["opened"] == 1  # the same plan is the same opening


def _clockless(fit: Fit) -> Fit:
    return dataclasses.replace(fit, seconds=0.0)


def test_another_plan_is_another_opening_and_is_counted(done: SuiteConfig, tmp_path: Path) -> None:
    config = dataclasses.replace(done, output=tmp_path / "copy")
    shutil.copytree(done.output, config.output)
    heads = dataclasses.replace(config.heads, C=[0.1, 10.0])
    changed = dataclasses.replace(config, heads=heads)
    with pytest.raises(ValueError, match="run `ray-mae benchmark fit` again"):
        benchmark_open(changed)
    summary = benchmark_fit(changed)
    assert 0 < summary["fitted_now"] < summary["fits"]  # kNN does not depend on C
    assert benchmark_open(changed)["opened"] == 2


def test_a_report_needs_neither_shards_nor_weights(done: SuiteConfig, tmp_path: Path) -> None:
    config = dataclasses.replace(done, output=tmp_path / "elsewhere" / "suite")
    shutil.copytree(done.output, config.output)
    for file in REPORTED:
        (config.output / file).unlink()
    shards = done.datasets["here"].shards
    (checkpoints,) = {path.parent for path in done.encoders["ours"].sources}
    for folder in (shards, checkpoints):
        folder.rename(f"{folder}-away")
    try:
        benchmark_report(config)
    finally:
        for folder in (shards, checkpoints):
            Path(f"{folder}-away").rename(folder)
    for file in REPORTED:
        assert (config.output / file).read_bytes() == (done.output / file).read_bytes(), file


def test_open_without_a_plan_says_what_to_do(done: SuiteConfig, tmp_path: Path) -> None:
    config = dataclasses.replace(done, output=tmp_path)
    for phase in (benchmark_open, benchmark_report):
        with pytest.raises(FileNotFoundError, match="run `ray-mae benchmark fit` first"):
            phase(config)


def test_volumes_numbers_transfer_sites_and_fine_tuning(tmp_path: Path) -> None:
    here, there = volume_shards(tmp_path / "here"), volume_shards(tmp_path / "there")

    def move(row: dict) -> None:
        row["site"] = "north" if int(row["volume_id"].rpartition("-")[2]) % 4 < 2 else "south"

    rewrite(here, move)
    path = write_checkpoint(tmp_path / "checkpoint", here, "mdae")
    config = SuiteConfig(
        output=tmp_path / "suite",
        encoders={
            "ours": {"paths": path},
            "scratch": {"kind": "scratch", "like": "ours"},
            "pixels": {"kind": "pixels", "components": 4},
            "histogram": {"kind": "histogram"},
        },
        datasets={"here": {"shards": here}, "there": {"shards": there, "role": "external"}},
        tasks={
            "rough": {"dataset": "here", "test": ["here", "there"], "least_patients": 2},
            "age": {"dataset": "here", "kind": "number", "labels": ["age"]},
            "sites": {"dataset": "here", "least_patients": 2, "leave_out": "site", "heads": ["knn"]},
        },
        heads={
            "use": ["linear", "ridge", "knn", "finetune"],
            "C": [0.1],
            "alpha": [1.0, 100.0],
            "k": [3],
            "finetune": {
                "encoders": ["ours"], "epochs": 1, "seeds": [0, 1], "batch_size": 4, "trial_seeds": 1,
            },
        },
        small={"folds": 3, "repeats": 1},
        trust={"knows": ["site"], "corruptions": ["noise"]},
        statistics={"resamples": 50},
        batch_size=4,
        gpu=False,
    )  # fmt: skip
    summary = benchmark(config)
    store = Store(config.output)
    assert summary["failed"] == 0
    fits = store.fits()
    tuned = [f for f in fits if f.key.cell.head == "finetune"]
    assert {(f.key.encoder, f.key.seed) for f in tuned} == {
        (name, seed) for name in ("ours", "scratch") for seed in (0, 1)
    }
    assert {len(f.trials) for f in tuned} == {6}
    for fit in fits:
        if fit.key.cell.task == "rough":
            everybody = store.predictions(fit.key, "there", "test")
            assert len(everybody.sample) == len(store.samples("there").sample)
    held_out = {f.key.cell.held_out for f in fits if f.key.cell.task == "sites"}
    assert held_out == {"north", "south"}
    table = store.samples("here")
    site = dict(zip(table.sample.tolist(), table.attributes["site"], strict=True))
    for fit in [f for f in fits if f.key.cell.task == "sites"]:
        said = store.predictions(fit.key, "here", "test")
        assert {site[name] for name in said.sample.tolist()} == {fit.key.cell.held_out}
    trust = store.trust()
    assert {r["encoder"] for r in trust["knows"]} == {"ours", "pixels", "histogram"}
    strongest = [r for r in trust["robustness"] if r["strength"] == 3]
    assert {r["encoder"] for r in strongest} >= {"ours", "pixels"}
    assert all(r["low"] <= r["high"] for r in strongest)
