"""Segmentation in a suite: the same trials for all, test label maps opened once, numbers from stored rows."""

import csv
import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ray_mae.benchmarking.command import benchmark, benchmark_fit, benchmark_open, benchmark_report
from ray_mae.benchmarking.left_out import left_out
from ray_mae.benchmarking.plan import Suite
from ray_mae.benchmarking.records import Cases, Cell, Fit, FitKey, SampleTable, Trial
from ray_mae.benchmarking.report.command import FILES, report
from ray_mae.benchmarking.samples import fix_labels, read_samples, read_targets
from ray_mae.benchmarking.sources import Source
from ray_mae.benchmarking.store import Store
from ray_mae.config import SuiteConfig
from ray_mae.config.base import to_dict
from ray_mae.config.suite import DatasetEntry, TaskEntry
from ray_mae.data.decoding.voxels import decode_labels, encode_labels
from ray_mae.evaluate.segment.cases import COLUMNS, measure_case
from tests.balls import blobs
from tests.checkpoints import write_checkpoint

LESIONS = {"lesions": {"kind": "segmentation", "dataset": "here", "least_patients": 2}}


# ------------------------------------------------------------------------------------------- one case


def box(*corner: int, side: int) -> np.ndarray:
    mask = np.zeros((24, 24, 24), bool)
    mask[tuple(slice(c, c + side) for c in corner)] = True
    return mask


def measured(found: np.ndarray, truth: np.ndarray, **changes: Any) -> dict[str, float]:
    return measure_case(
        found, truth, **{"spacing_mm": (1.0, 1.0, 1.0), "tolerance_mm": 1.0, **changes}
    )


def test_a_shifted_box_has_the_overlap_and_the_distance_of_its_shift() -> None:
    case = measured(box(7, 5, 5, side=6), box(5, 5, 5, side=6), spacing_mm=(2.0, 1.0, 1.0))
    assert case["dice"] == pytest.approx(4 / 6)
    assert case["hd95_mm"] == pytest.approx(4.0)
    assert case["true_ml"] == case["found_ml"] == pytest.approx(6**3 * 2 / 1000)
    assert case["nsd"] < 1
    far = measured(
        box(7, 5, 5, side=6), box(5, 5, 5, side=6), spacing_mm=(2.0, 1.0, 1.0), tolerance_mm=2.0
    )
    assert far["nsd"] < far["nsd_twice"] == 1.0  # twice 2 mm is the whole shift


def test_an_empty_reference_is_neither_0_nor_1_and_what_was_found_is_told() -> None:
    nothing = np.zeros((24, 24, 24), bool)
    case = measured(box(5, 5, 5, side=2), nothing)
    assert all(np.isnan(case[name]) for name in ("dice", "nsd", "nsd_twice", "hd95_mm"))
    assert (case["found_ml"], case["lesions"], case["lesions_false"]) == (0.008, 0, 1)
    missed = measured(nothing, box(5, 5, 5, side=2))
    assert (missed["dice"], missed["nsd"], missed["lesions_hit"]) == (0, 0, 0)
    assert np.isnan(missed["hd95_mm"])
    assert set(case) == set(missed) == set(COLUMNS)


def test_lesions_are_counted_one_by_one() -> None:
    truth = box(2, 2, 2, side=3) | box(12, 12, 12, side=3) | box(20, 2, 2, side=2)
    found = box(3, 3, 3, side=3) | box(2, 18, 18, side=2) | box(4, 20, 20, side=1)
    case = measured(found, truth)
    # the last two found ones touch at a corner: they are one
    assert (case["lesions"], case["lesions_hit"], case["lesions_false"]) == (3, 1, 1)


# -------------------------------------------------------------------------------- what is to be told


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return volumes(tmp_path_factory.mktemp("volumes"))


def volumes(folder: Path, *, test: str = "") -> Path:
    """Of 8 patients to train on, 6 to choose by, 6 to test on, two volumes each.

    Args:
        folder: to write to.
        test: turned, or absent: what became of the label maps of test patients.
    """

    def change(row: dict) -> None:
        labels = decode_labels(row)
        if labels is None:
            return
        if row["volume_id"] in ("test-0", "test-2"):
            labels = np.where(labels == 4, 0, labels).astype(np.uint8)
        if row["split"] == "test" and test:
            labels = labels[::-1].copy()
        absent = row["split"] == "test" and test == "absent"
        row["segmentation"] = None if absent else encode_labels(labels, 1)

    return blobs(folder, change, train=16, held_out=12)


@pytest.mark.parametrize(
    ("task", "names", "left_out"),
    [
        ({}, ["label 1", "label 4"], set()),
        ({"regions": {"whole": [1, 4], "dark": [4], "none": [7]}}, ["whole", "dark"], {"none"}),
        ({"least_patients": 7}, [], {"label 1", "label 4"}),  # 6 patients choose
    ],
)
def test_regions_are_those_that_fitted_patients_have(
    shards: Path, task: dict[str, Any], names: list[str], left_out: set[str]
) -> None:
    entry = DatasetEntry(shards=shards)
    table = read_samples(entry)
    asked = TaskEntry(kind="segmentation", dataset="here", **{"least_patients": 2, **task})
    targets, found, none = read_targets(entry, table, asked, ("train", "val"), None)
    fixed = fix_labels(table, asked, targets, found, none)
    assert fixed.names == names
    assert set(fixed.left_out) == left_out
    assert np.isnan(targets[table.split == "test"]).all()
    without = table.sample.tolist().index("train-3")
    assert np.isnan(targets[without]).all()
    opened, _, _ = read_targets(entry, table, asked, ("train", "val", "test"), found)
    test = {n: opened[table.sample.tolist().index(n), -1] for n in ("test-0", "test-1", "test-5")}
    assert (test["test-0"], test["test-1"]) == (0, 1)
    assert np.isnan(test["test-5"])


@pytest.mark.parametrize(
    ("task", "text"),
    [
        ({"labels": ["1"]}, "tasks.t.labels is not of kind segmentation"),
        ({"heads": ["linear"]}, "tasks.t.heads is not of kind segmentation"),
        ({"leave_out": "site"}, "tasks.t.leave_out is not of kind segmentation"),
        ({"regions": {"whole": [0]}}, "regions.whole must hold values of label maps, 1 to 255"),
        ({"regions": {"whole": []}}, "regions.whole must hold values"),
        ({"kind": "labels", "regions": {"whole": [1]}}, "is of kind segmentation, not labels"),
    ],
)
def test_a_task_that_is_no_segmentation_is_named(task: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        SuiteConfig(
            output="o",
            encoders={"ours": {"paths": "a"}},
            datasets={"here": {"shards": "s"}},
            tasks={"t": {"kind": "segmentation", "dataset": "here", **task}},
        )


def test_who_cannot_segment_is_left_out_with_the_reason(shards: Path, tmp_path: Path) -> None:
    tokens = write_checkpoint(tmp_path / "tokens", shards, "mvmae", gamma=0.0)
    config = SuiteConfig(
        output=tmp_path / "suite",
        encoders={
            "ours": {"paths": "ours"}, "films": {"paths": "films"}, "tokens": {"paths": tokens},
            "random": {"kind": "random", "like": "ours"}, "histogram": {"kind": "histogram"},
            "prevalence": {"kind": "prevalence"}, "scratch": {"kind": "scratch", "like": "ours"},
        },
        datasets={"here": {"shards": "s"}},
        tasks={"t": {"kind": "segmentation", "dataset": "here"}, "age": {"dataset": "here"}},
    )  # fmt: skip
    sources = {
        (name, "volume"): [Source("weights", "volume", path)]
        for name, path in (("ours", tokens), ("tokens", tokens))
    }
    reads = {
        ("films", "volume"): "encoders.films reads samples of kind 'study', these are 'volume'"
    }
    suite = Suite(config, {}, {}, sources, {"here": "volume"}, reads)
    told = left_out(
        suite,
        [FitKey(Cell("t", "segment", "all"), "ours"), FitKey(Cell("age", "linear", "all"), "ours")],
    )
    assert "has no decoder of voxels" in told["t"].pop("tokens")
    assert "reads samples of kind 'study'" in told["t"].pop("films")
    assert "kind scratch" in told["t"].pop("random")
    assert {"histogram", "prevalence"} <= set(told["t"])
    assert "fine-tuning alone" in told["age"]["scratch"]
    assert told["age"]["histogram"] == "none of the task's heads (linear) takes it"


# --------------------------------------------------------------------------- rows → scores → page


PATIENTS = 12
WORTH = {"ours": 0.8, "others": 0.6}


def planted(folder: Path) -> SuiteConfig:
    """Stored rows of two encoders, three seeds each: two volumes of every patient, whose Dice differ.

    The second volume of the first four patients has no `core`; `others` finds some in it.
    """
    config = SuiteConfig(
        output=folder,
        encoders={"ours": {"paths": "a"}, "others": {"paths": "b"}, "pixels": {"kind": "pixels"}},
        datasets={"here": {"shards": "s"}},
        tasks={"lesions": {**LESIONS["lesions"], "regions": {"whole": [1, 2], "core": [2]}}},
        contrasts=[["ours", "others"]],
        statistics={"resamples": 200},
    )
    store, labels = Store(folder), ["whole", "core"]
    patient = np.repeat([f"p{i:02d}" for i in range(PATIENTS)], 2)
    sample = np.array([f"{p}-{i % 2}" for i, p in enumerate(patient)])
    targets = np.ones((2 * PATIENTS, 2))
    targets[1:8:2, 1] = 0
    unmapped = np.full((1, 2), np.nan)
    table = SampleTable(
        np.append(sample, "q-0"), np.append(patient, "q"), np.full(2 * PATIENTS + 1, "test"),
        {}, {"lesions": np.concatenate([targets, unmapped])}, {"lesions": labels},
    )  # fmt: skip
    store.write_samples("here", table)
    draw = np.random.default_rng(0)
    of_patient = np.repeat(draw.normal(0, 0.05, PATIENTS), 2)
    keys = [
        FitKey(Cell("lesions", "segment", "all"), e, seed=seed) for e in WORTH for seed in range(3)
    ]
    for key in keys:
        dice = WORTH[key.encoder] + of_patient[:, None] + 0.01 * key.seed + np.zeros((1, 2))
        dice[1::2] -= 0.1  # the second volumes
        dice[0] = 0.05  # a failure
        dice[targets == 0] = np.nan
        found = np.where(targets == 1, 2.0, 3.0 * (key.encoder == "others"))
        values = dict.fromkeys(COLUMNS, targets) | {
            "dice": dice, "nsd": dice + 0.1, "nsd_twice": dice + 0.15, "hd95_mm": 10 * dice,
            "true_ml": 2.5 * targets, "found_ml": found, "lesions": 3 * targets,
            "lesions_hit": 2 * targets, "lesions_false": 1 - targets,
            "tolerance_mm": np.full_like(targets, 1.5),
        }  # fmt: skip
        store.write_cases(key, "here", Cases(sample, patient, labels, values), "shards")
        trials = [Trial({"lr": lr}, 0.5 + lr) for lr in (0.01, 0.001)]
        store.write_fit(Fit(key, labels, chosen={"lr": 0.01}, trials=trials, seconds=1.0))
    plan = {
        "suite": to_dict(config),
        "sha256": "0" * 64,
        "fits": [dataclasses.asdict(key) for key in keys],
        "label_sets": {"lesions": {"labels": labels, "left_out": {}}},
        "left_out": {"lesions": {"pixels": "pixels has no network"}},
        "exposure": {e: {"here": {"state": "none", "why": ""}} for e in config.encoders},
    }
    (folder / "plan.json").write_text(json.dumps(plan, default=str))
    (folder / "opened.jsonl").write_text(json.dumps({"plan": "0" * 64, "time": "now"}) + "\n")
    return config


def test_scores_are_means_over_patients_without_empty_references(tmp_path: Path) -> None:
    config = planted(tmp_path)
    found = report(config)
    rows = {
        (r["encoder"], r["label"], r["metric"]): r
        for r in csv.DictReader((tmp_path / "scores.csv").open())
    }
    store, core = Store(tmp_path), rows["ours", "core", "dice"]
    cases = [store.cases(fit.key, "here") for fit in store.fits() if fit.key.encoder == "ours"]
    of_patients = [
        np.nanmean(c.values["dice"][c.patient == p, 1]) for c in cases for p in np.unique(c.patient)
    ]
    assert float(core["value"]) == pytest.approx(np.mean(of_patients), rel=1e-5)
    pooled = np.nanmean([c.values["dice"][:, 1] for c in cases])
    assert abs(float(core["value"]) - pooled) > 0.001, "volumes are not the unit"
    assert float(rows["ours", "core", "nsd"]["value"]) == pytest.approx(
        float(core["value"]) + 0.1, abs=1e-5
    )
    told = {k: float(core[k]) for k in ("n_with", "n_empty", "n_false_alarms", "n_failed")}
    assert told == {"n_with": 20, "n_empty": 4, "n_false_alarms": 0, "n_failed": 1}
    others = rows["others", "core", "dice"]
    assert (float(others["n_false_alarms"]), float(others["false_ml"])) == (4, 3)
    assert (float(core["lesions"]), float(core["lesions_hit"])) == (60, 40)
    assert float(core["n_patients"]) == PATIENTS
    for column in ("se_patients", "se_seed"):
        assert float(rows["ours", "macro", "dice"][column]) > 0

    (verdict,) = found["verdicts"]
    assert "ours is better than others: Dice" in verdict
    contrasts = list(csv.DictReader((tmp_path / "contrasts.csv").open()))
    assert {(c["label"], c["metric"]) for c in contrasts} == {
        (label, "dice") for label in ("macro", "whole", "core")
    }
    # paired: what patients have in common is in neither difference
    mean = next(c for c in contrasts if c["label"] == "macro")
    assert float(mean["se_patients"]) < float(rows["ours", "macro", "dice"]["se_patients"]) / 2
    page = (tmp_path / "report.html").read_text()
    for words in (
        "Outlines, region by region", "within 1.5 mm of the other, and within 3 mm", "pixels has no network",
        "lesions, here: 1 test volumes without a label map", "40 of 60",
    ):  # fmt: skip
        assert words in page, words
    assert "ours $-$ others" in (tmp_path / "tables.tex").read_text()


def test_a_report_of_segmentation_is_the_same_twice(tmp_path: Path) -> None:
    config = planted(tmp_path)
    report(config)
    before = {name: (tmp_path / name).read_bytes() for name in FILES}
    report(config)
    assert before == {name: (tmp_path / name).read_bytes() for name in FILES}


# ------------------------------------------------------------------------------------- on real Ray


def suite_of(root: Path, here: Path, ours: Path) -> SuiteConfig:
    return SuiteConfig(
        output=root / "suite",
        encoders={
            "ours": {"paths": ours},
            "scratch": {"kind": "scratch", "like": "ours"},
            "random": {"kind": "random", "like": "ours"},
            "pixels": {"kind": "pixels"},
        },
        datasets={"here": {"shards": here}},
        tasks=LESIONS,
        heads={
            "segment": {
                "lr": [0.01, 0.003], "steps": 2, "validate_every": 2, "seeds": [0, 1], "overlap": 0.0,
                "trial_seeds": 1,
            }
        },
        contrasts=[["ours", "scratch"]],
        statistics={"resamples": 50},
        gpu=False,
    )  # fmt: skip


def facts(store: Store) -> list[dict[str, Any]]:
    """What fits say, without the clock and the hash of the shards."""
    rows = [dataclasses.asdict(fit) for fit in store.fits()]
    for row in rows:
        del row["seconds"], row["inputs"], row["chosen"]["model"]
    return rows


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_volumes_are_segmented_resumed_and_reported_from_what_is_stored(
    shards: Path, tmp_path: Path
) -> None:
    ours = write_checkpoint(tmp_path / "ours", shards, "mdae")
    config = suite_of(tmp_path, shards, ours)
    forecast = benchmark(dataclasses.replace(config, dry_run=True))
    assert (forecast["fits"], forecast["segmentations"]) == (4, 4 + 2 * 2)
    assert not config.output.exists()

    summary = benchmark(config)
    assert (summary["fits"], summary["failed"], summary["opened"]) == ({"done": 4}, 0, 1)
    store = Store(config.output)
    fits = store.fits()
    assert {f.key.encoder for f in fits} == {"ours", "scratch"}
    assert {tuple(t.settings["lr"] for t in f.trials) for f in fits} == {(0.01, 0.003)}
    assert {f.train_studies for f in fits} == {15}  # one of 16 has no label map
    # of each start one fit has the cost of the trials: two of two steps with two crops
    assert sorted(f.samples_seen for f in fits) == [4, 4, 12, 12]
    assert set(store.plan["left_out"]["lesions"]) == {"random", "pixels"}
    cases = store.cases(fits[0].key, "here")
    assert len(cases.sample) == 11  # one test volume has no label map
    empty = np.isnan(cases.values["dice"][:, 1])
    assert cases.sample[empty].tolist() == ["test-0", "test-2"]

    # what is lost is fitted and said again, the same
    said = {fit.key: store.cases(fit.key, "here").values for fit in fits}
    before, lost = facts(store), fits[0].key
    store.forget(lost)
    shutil.rmtree(config.output / fits[0].chosen["model"])
    again = benchmark_fit(config)
    assert (again["fitted_now"], again["plan"]) == (1, summary["plan"])
    assert facts(Store(config.output)) == before
    assert benchmark_open(config)["opened"] == 1
    for key, values in said.items():
        now = Store(config.output).cases(key, "here").values
        assert all(np.array_equal(values[c], now[c], equal_nan=True) for c in COLUMNS)

    # another tolerance is another plan, and no other fit
    strict = dataclasses.replace(config.heads.segment, tolerance_mm=0.5)
    changed = dataclasses.replace(config, heads=dataclasses.replace(config.heads, segment=strict))
    shutil.copytree(config.output, tmp_path / "strict")
    changed = dataclasses.replace(changed, output=tmp_path / "strict")
    assert benchmark_fit(changed)["fitted_now"] == 0
    assert benchmark_open(changed)["predicted_now"] == 4
    assert np.all(Store(changed.output).cases(lost, "here").values["tolerance_mm"] == 0.5)

    # neither shards nor weights are needed for the page
    benchmark_report(config)
    first = {name: (config.output / name).read_bytes() for name in FILES}
    elsewhere = dataclasses.replace(config, output=tmp_path / "elsewhere")
    shutil.copytree(config.output, elsewhere.output)
    shutil.rmtree(elsewhere.output / "models")
    away = shards.rename(f"{shards}-away")
    try:
        benchmark_report(elsewhere)
    finally:
        away.rename(shards)
    assert first == {name: (elsewhere.output / name).read_bytes() for name in FILES}

    # test label maps decide nothing: turned, or not there at all
    for test in ("turned", "absent"):
        there = volumes(tmp_path / f"of-{test}", test=test)
        other = suite_of(tmp_path / test, there, ours)
        benchmark_fit(other)
        assert facts(Store(other.output)) == before
