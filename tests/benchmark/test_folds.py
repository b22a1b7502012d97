"""Small sets over folds: who is in which, what is fitted when, and how often equals are told apart."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from ray_mae.benchmarking.fits import Group, Opening, fit_group, predict_group
from ray_mae.benchmarking.fold_fits import _fit_group
from ray_mae.benchmarking.folds import FOLDS, deal, fold_keys, split_of_fold, store_of_folds
from ray_mae.benchmarking.records import Cell, FitKey, SampleTable
from ray_mae.benchmarking.report.command import report
from ray_mae.benchmarking.small import small_tasks
from ray_mae.benchmarking.statistics.contrasts import NOT_TOLD, TOO_FEW
from ray_mae.benchmarking.statistics.folds import FoldScores, compare_folds, components_of
from ray_mae.benchmarking.statistics.folds import small_tasks as over_folds
from ray_mae.benchmarking.statistics.results import Place, Results
from ray_mae.benchmarking.statistics.uncertainty import p_value
from ray_mae.benchmarking.store import Store
from ray_mae.config import SuiteConfig
from ray_mae.config.base import to_dict
from ray_mae.evaluate.heads.choice import aurocs
from tests.benchmark.test_fits import PATIENTS, group, suite, table, written
from tests.benchmark.test_plan import looked_at

J = 25


def two_each(labels: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Patients [S] with two studies each, and targets [S, L] of which the last label is rare."""
    patient = np.repeat([f"p{i}" for i in range(53)], 2)
    draw = np.random.default_rng(0)
    targets = np.stack([draw.random(106) < p for p in (0.5, 0.06)[:labels]], axis=1).astype(float)
    targets[::7] = np.nan
    return patient, targets


def test_folds_are_of_whole_patients_and_alike() -> None:
    patient, targets = two_each()
    fold = deal(patient, targets, "labels", 5, 0, 0)
    of = {name: set(fold[patient == name].tolist()) for name in np.unique(patient)}
    assert all(len(folds) == 1 for folds in of.values())
    for column in targets.T:
        counts = [len(np.unique(patient[(fold == k) & (column == 1)])) for k in range(5)]
        assert max(counts) - min(counts) <= 2
    rare = [len(np.unique(patient[(fold == k) & (targets[:, 1] == 1)])) for k in range(5)]
    assert max(rare) - min(rare) <= 1
    sizes = [len(np.unique(patient[fold == k])) for k in range(5)]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(("kind", "column"), [("number", 0), ("survival", 1)])
def test_folds_of_numbers_and_of_survival_are_alike(kind: str, column: int) -> None:
    draw = np.random.default_rng(3)
    patient = np.array([f"p{i}" for i in range(100)])
    targets = np.stack([draw.normal(60, 10, 100), draw.random(100) < 0.2], axis=1).astype(float)
    targets = targets[:, :1] if kind == "number" else targets
    fold = deal(patient, targets, kind, 5, 0, 1)
    means = [targets[fold == k, column].mean() for k in range(5)]
    dealt_at_random = [targets[draw.permutation(100)[:20], column].mean() for _ in range(200)]
    assert np.ptp(means) < 2 * np.std(dealt_at_random)


def test_the_order_of_the_patients_is_that_of_their_names_and_seed() -> None:
    patient, targets = two_each()
    fold = deal(patient, targets, "labels", 5, 0, 0)
    mixed = np.random.default_rng(1).permutation(len(patient))
    assert np.array_equal(deal(patient[mixed], targets[mixed], "labels", 5, 0, 0), fold[mixed])
    assert not np.array_equal(deal(patient, targets, "labels", 5, 0, 1), fold)
    assert not np.array_equal(deal(patient, targets, "labels", 5, 1, 0), fold)


def test_each_fold_is_tested_once_and_chooses_once() -> None:
    fold = np.arange(20) % 5
    splits = np.stack([split_of_fold(fold, k, 5) for k in range(5)])
    for name, times in (("test", 1), ("val", 1), ("train", 3)):
        assert ((splits == name).sum(axis=0) == times).all()


# ------------------------------------------------------------------------------------------ the plan


def closed(config: SuiteConfig, here: SampleTable) -> dict:
    """What a plan says of a suite of these samples."""
    looked = looked_at(config)
    targets = here.targets["t"].copy()
    targets[here.split == "test"] = np.nan
    samples = {"here": dataclasses.replace(here, targets={"t": targets})}
    return small_tasks(dataclasses.replace(looked, samples=samples))


def test_which_tasks_are_small_is_told_without_a_test_label(tmp_path: Path) -> None:
    here, config = table(), suite(tmp_path)
    small = closed(config, here)
    assert small["t"]["why"] == "60 patients, fewer than 500"
    other = {"t": np.where((here.split == "test")[:, None], 1.0, here.targets["t"])}
    assert closed(config, dataclasses.replace(here, targets=other)) == small
    large = suite(tmp_path, small={"patients": 50, "rarer": 7})
    assert closed(large, here) == {}
    rare = suite(tmp_path, small={"patients": 50, "rarer": 9})
    assert "test patients of the rarer class" in closed(rare, here)["t"]["why"]
    assert closed(suite(tmp_path, small={"repeats": 0}), here) == {}


def test_other_patients_or_another_seed_are_another_plan(tmp_path: Path) -> None:
    here = table()
    small = closed(suite(tmp_path), here)["t"]["order"]
    renamed = dataclasses.replace(here, patient=np.char.add(here.patient, "x"))
    assert closed(suite(tmp_path), renamed)["t"]["order"] != small
    seed = suite(tmp_path, statistics={"seed": 1})
    assert closed(seed, here)["t"]["order"] != small


def test_heads_on_vectors_and_all_studies_are_folded_alone() -> None:
    small = {"t": {"folds": 5, "repeats": 2}}
    cells = [
        Cell("t", "linear", "all"), Cell("t", "attentive", "all"), Cell("t", "finetune", "all"),
        Cell("t", "few_shot", "all", 4), Cell("t", "linear", "all", 12), Cell("t", "linear", "frontal"),
        Cell("other", "linear", "all"),
    ]  # fmt: skip
    keys = fold_keys([FitKey(cell, "m") for cell in cells], small, "all")
    assert {key.cell for key in keys} == {Cell("t", "linear", "all", validation=FOLDS)}
    assert [key.draw for key in keys] == list(range(10))


# -------------------------------------------------------------------------------------------- fits


def folded(config: SuiteConfig, here: SampleTable, encoders: tuple[str, ...] = ("m",)) -> Results:
    """Fits the fixed split and the folds without Ray, and writes the plan."""
    store = written(config, here, table(["test"] * PATIENTS))
    small = closed(config, here)
    keys = []
    for encoder in encoders:
        fixed = dataclasses.replace(
            group(config), keys=[FitKey(Cell("t", "linear", "all"), encoder)]
        )
        fit_group(fixed)
        predict_group(Opening(fixed, "here", None))
        keys += fixed.keys
        of_folds = fold_keys(fixed.keys, small, "all")
        _fit_group((Group(config, of_folds, ["a"] * len(of_folds), ["Edema"], None), small))
    plan = {
        "suite": to_dict(config),
        "fits": [dataclasses.asdict(key) for key in keys],
        "small": small,
        "label_sets": {"t": {"labels": ["Edema"], "left_out": {}}},
        "sha256": "0" * 64,
    }
    (config.output / "plan.json").write_text(json.dumps(plan, default=str))
    return Results(Store(store.folder), config)


TWO = {
    "encoders": {
        "m": {"kind": "metadata", "columns": ["sex"]},
        "s": {"kind": "metadata", "columns": ["site"]},
    },
    "tasks": {"t": {"dataset": "here", "labels": ["Edema"], "least_patients": 5}},
    "statistics": {"resamples": 50},
    "contrasts": [["m", "s"]],
}


def test_every_patient_is_tested_once_in_each_repeat_by_heads_that_never_saw_them(
    tmp_path: Path,
) -> None:
    config = suite(tmp_path, small={"repeats": 2})
    folded(config, table())
    store = store_of_folds(config.output)
    fits = sorted(store.fits(), key=lambda fit: fit.key.draw)
    assert [fit.key.draw for fit in fits] == list(range(10))
    for repeat in range(2):
        said = [store.predictions(f.key, "here", "test") for f in fits[5 * repeat : 5 * repeat + 5]]
        assert sorted(np.concatenate([p.sample for p in said]).tolist()) == table().sample.tolist()
    chose = store.predictions(fits[0].key, "here", "val").sample
    tested = store.predictions(fits[0].key, "here", "test").sample
    assert not {*chose.tolist()} & {*tested.tolist()}
    assert fits[0].train_patients == PATIENTS - len(chose) - len(tested)


def test_folds_stand_beside_the_fixed_split_on_the_page_and_in_the_verdicts(tmp_path: Path) -> None:
    config = suite(tmp_path, **TWO)
    results = folded(config, table(), ("m", "s"))
    (small,) = over_folds(results)
    sex, site = small.scores
    assert sex.values.shape == (1, J)
    # the label goes with the sex but for every seventh, and not with the site
    assert sex.score().low > site.score().high
    index = report(config)
    verdicts = [v for v in index["verdicts"] if "over folds" in v]
    assert len(verdicts) == 1
    assert "m is better than s" in verdicts[0]
    page = (config.output / "report.html").read_text()
    assert "Small sets, over folds" in page
    assert "5 × 5 folds (60 patients, fewer than 500)" in page
    rows = (config.output / "scores.csv").read_text()
    assert ",folds," in rows
    assert (config.output / "contrasts.csv").read_text().count(",folds,") == 1


def test_a_fold_without_a_result_is_counted_and_its_encoder_has_no_score(tmp_path: Path) -> None:
    config = suite(tmp_path, **TWO)
    results = folded(config, table(), ("m", "s"))
    store = store_of_folds(config.output)
    store.forget(next(f.key for f in store.fits() if f.key.encoder == "m" and f.key.draw == 3))
    (small,) = over_folds(results)
    assert (small.without, [s.complete for s in small.scores]) == (1, [False, True])
    report(config)
    assert f"1 of its {2 * J} fits have no result" in (config.output / "report.html").read_text()


# --------------------------------------------------------------------------------------- statistics


def of_folds(values: np.ndarray, encoder: str = "a", rarer: int = 40) -> FoldScores:
    """Scores of so many pretrainings [P, J]."""
    return FoldScores(
        Place("t", "here", "all"), Cell("t", "linear", "all", validation=FOLDS), encoder, "auroc",
        values, 1 / 3, ["Edema"], 100, rarer,
    )  # fmt: skip


def test_the_variance_of_folds_is_that_of_nadeau_and_bengio() -> None:
    values = np.random.default_rng(0).normal(0.7, 0.05, (1, J))
    (component,) = components_of(values, 1 / 3)
    assert component.variance == pytest.approx(values.var(ddof=1) * (1 / 25 + 1 / 3))
    assert component.freedom == 24


def test_few_patients_and_two_pretrainings_have_no_verdict_over_folds() -> None:
    draw = np.random.default_rng(0)
    a, b = (draw.normal(mean, 0.01, (2, J)) for mean in (0.9, 0.6))
    for few in ({"rarer": 9}, {}):
        pair = of_folds(a, **few), of_folds(b, "b", **few)
        assert np.isnan(pair[0].score().low)
        found = compare_folds(*pair, 0.01)
        assert found is not None
        assert found.verdict == TOO_FEW
    one = compare_folds(of_folds(a[:1]), of_folds(a[:1], "b"), 0.01)
    assert one is not None
    assert dataclasses.replace(one, p_holm=one.p).verdict == NOT_TOLD


def fitted_over_folds(draw: np.random.Generator, patients: int, prevalence: float) -> np.ndarray:
    """AUROC [2, J] of two encoders of the same worth: their features are the label and noise of their own."""
    ill = (draw.random(patients) < prevalence).astype(float)
    names = np.array([f"{draw.integers(2**60)}" for _ in range(patients)])
    features = draw.normal(size=(2, patients, 6))
    features[:, :, 0] += ill
    found = np.empty((2, J))
    for repeat in range(5):
        fold = deal(names, ill[:, None], "labels", 5, 0, repeat)
        for k in range(5):
            split = split_of_fold(fold, k, 5)
            fits, tested = split == "train", split == "test"
            for encoder, x in enumerate(features):
                weight = x[fits & (ill == 1)].mean(0) - x[fits & (ill == 0)].mean(0)
                score = (x[tested] @ weight)[:, None, None]
                found[encoder, 5 * repeat + k] = aurocs(ill[tested, None], score)[0, 0]
    return found


@pytest.mark.parametrize(
    ("patients", "prevalence"),
    [(60, 0.4), *(pytest.param(*at, marks=pytest.mark.slow) for at in ((120, 0.2), (300, 0.3)))],
)
def test_equal_encoders_are_seldom_told_apart_over_folds(patients: int, prevalence: float) -> None:
    draw = np.random.default_rng(1)
    sets = [fitted_over_folds(draw, patients, prevalence) for _ in range(120)]
    told, naively = [], []
    for a, b in sets:
        found = compare_folds(of_folds(a[None]), of_folds(b[None], "b"), 0.01)
        assert found is not None
        told.append(found.p < 0.05)
        naively.append(p_value(found.difference, components_of((a - b)[None], 0.0)) < 0.05)
    assert np.mean(told) <= 0.08
    assert np.mean(naively) > 0.25  # what it would be if folds did not hang together


def test_the_interval_over_folds_holds_the_worth_of_such_a_fit() -> None:
    draw = np.random.default_rng(2)
    sets = np.stack([fitted_over_folds(draw, 60, 0.4) for _ in range(150)])
    truth = sets.mean()
    scores = [of_folds(one[None]).score() for pair in sets for one in pair]
    assert 0.91 <= np.mean([s.low <= truth <= s.high for s in scores]) <= 0.995
