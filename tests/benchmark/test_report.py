"""The report is made of the stored rows alone, says what is so by rule, and is the same everywhere."""

import csv
import json
import re
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.special import expit

from ray_mae.benchmarking.records import ALL, Cell, Fit, FitKey, Predictions, SampleTable, Trial
from ray_mae.benchmarking.report.command import FILES, INDEX, report
from ray_mae.benchmarking.report.findings import main_of
from ray_mae.benchmarking.report.tables import escaped
from ray_mae.benchmarking.report.words import exposure_words
from ray_mae.benchmarking.statistics.curves import curves
from ray_mae.benchmarking.statistics.leaks import leaks
from ray_mae.benchmarking.statistics.overall import averages, ranks
from ray_mae.benchmarking.statistics.results import Results
from ray_mae.benchmarking.statistics.scores import score_all
from ray_mae.benchmarking.statistics.subgroups import gaps
from ray_mae.benchmarking.statistics.views import conditions
from ray_mae.benchmarking.store import Store
from ray_mae.config.base import from_dict, to_dict
from ray_mae.config.suite import SuiteConfig
from tests.benchmark.planted import Suite, Truth, plant

GOOD, BAD, RANDOM = "good", "bad", "random"
ENCODERS = {
    GOOD: Truth(0.9, pretrainings=3, pretraining_sd=0.02, loss=0.03),
    BAD: Truth(0.7, loss=0.02),
    RANDOM: Truth(0.55, kind="random"),
}


READ = "The pretraining read labels of the train split of home."
LABELS = {"read": ["labels"], "notes": [READ]}


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> SuiteConfig:
    """A suite with curves, views, groups and a test elsewhere, reported."""
    folder = tmp_path_factory.mktemp("suite")
    config = plant(
        folder,
        Suite(
            ENCODERS,
            patients=120,
            prevalence={"Edema": 0.4, "Nodule": 0.35, "Rare": 0.02},
            studies=(20, 60),
            draws=2,
            views=("all", "frontal", "both_logits"),
            external=("elsewhere",),
            contrasts=[[GOOD, BAD], [GOOD, RANDOM]],
            resamples=60,
            subgroups=("sex",),
            exposure={
                BAD: {"home": {"state": "images", "patients": 3, "images": 5, "why": "same pixels"}},
                GOOD: {"elsewhere": {"state": "unknown", "why": "Gone.", **LABELS}},
            },
        ),
    )  # fmt: skip
    report(config)
    return config


def rows(config: SuiteConfig, name: str) -> list[dict[str, str]]:
    with (config.output / name).open() as file:
        return list(csv.DictReader(file))


def test_the_report_is_the_same_to_the_byte_in_another_folder(
    planted: SuiteConfig, tmp_path: Path
) -> None:
    copy = tmp_path / "elsewhere"
    shutil.copytree(planted.output, copy)
    for name in (*FILES, INDEX):
        (copy / name).unlink()
    found = report(replace(planted, output=copy))
    for name in (*FILES, INDEX):
        assert (copy / name).read_bytes() == (planted.output / name).read_bytes(), name
    assert found["cautions"] == []
    for name in (*FILES, INDEX):
        assert str(planted.output).encode() not in (copy / name).read_bytes()


def test_scores_hold_the_planted_truth_and_verdicts_follow(planted: SuiteConfig) -> None:
    scores = {
        (r["encoder"], r["test"]): r
        for r in rows(planted, "scores.csv")
        if (r["label"], r["metric"], r["views"], r["studies"]) == ("macro", "auroc", "all", "all")
    }
    assert len(scores) == 6
    for (encoder, _), row in scores.items():
        # Six intervals need not all hold their truth: how often they do is the statistics' test.
        truth = ENCODERS[encoder].auroc
        assert float(row["low"]) - 0.03 < truth < float(row["high"]) + 0.03
    assert scores[GOOD, "home"]["n_pretraining"] == "3"
    assert scores[BAD, "home"]["exposure"] == "images"
    table = pq.read_table(planted.output / "scores.parquet")
    assert table.num_rows == len(rows(planted, "scores.csv"))
    verdicts = {
        (r["a"], r["b"], r["test"]): r["verdict"]
        for r in rows(planted, "contrasts.csv")
        if (r["label"], r["views"], r["studies"]) == ("macro", "all", "all")
    }
    assert verdicts[GOOD, BAD, "home"] == "better"
    assert verdicts[GOOD, RANDOM, "elsewhere"] == "better"
    planned = {(r["a"], r["b"]): r["planned"] for r in rows(planted, "contrasts.csv")}
    assert planned == {(GOOD, BAD): "True", (GOOD, RANDOM): "True", (BAD, RANDOM): "False"}


def test_an_encoder_whose_pretraining_read_labels_is_marked(
    planted: SuiteConfig,
) -> None:
    page = (planted.output / "report.html").read_text()
    # beside its scores, and where exposure is told
    assert page.count("not known what it saw, read training labels") >= 2
    assert f"Gone. {READ}" in page
    alone = {"state": "none", "read": ["reports", "labels"]}
    assert exposure_words(alone) == "read training labels"


def test_the_label_set_of_a_curve_is_the_same_at_every_number_of_studies(
    planted: SuiteConfig,
) -> None:
    results = Results(Store(planted.output), planted)
    found = curves(results, list(score_all(results)))
    assert {len(c.points) for c in found} == {3}
    by_place: dict[Any, set[str]] = {}
    for r in rows(planted, "scores.csv"):
        if r["label"] == "macro":
            by_place.setdefault((r["task"], r["test"], r["views"]), set()).add(r["label_set"])
    assert len(by_place) == 6
    assert all(len(sets) == 1 for sets in by_place.values())
    home = next(c for c in found if c.encoder == GOOD)
    assert home.points[0].cohort.left_out.keys() == {"Rare"}
    assert home.studies == [20, 60, 240]
    assert home.scores[0].value < home.area.value < home.scores[-1].value


def test_views_are_compared_on_the_same_studies(planted: SuiteConfig) -> None:
    results = Results(Store(planted.output), planted)
    found = conditions(results)
    table = results.tables["home"]
    two = (table.split == "test") & (table.attributes["view"] == "frontal+lateral")
    assert {c.studies for c in found if c.dataset == "home"} == {int(two.sum())}
    assert {c.views for c in found} == {"all", "frontal", "both_logits"}
    assert {c.views for c in found if c.difference is None} == {"frontal"}


def test_headline_averages_leave_out_what_pretraining_saw(planted: SuiteConfig) -> None:
    results = Results(Store(planted.output), planted)
    found = {a.encoder: a for a in averages(results, list(score_all(results)))}
    # of `good` nothing is known and `bad` saw home: neither has an unseen test
    assert found[GOOD].unseen is None
    assert found[BAD].unseen is None
    assert found[RANDOM].unseen_cells == 2
    assert {a.cells for a in found.values()} == {2}


def test_a_page_needs_nothing_from_outside_and_names_all_encoders(planted: SuiteConfig) -> None:
    page = (planted.output / "report.html").read_text()
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)
    for name in ENCODERS:
        assert f"</span> {name}</span>" in page
    assert "good is better than bad" in page
    assert "of this checkpoint" in page
    assert "nan" not in re.sub(r"data:[^\"]*", "", page).lower().replace("finance", "")


def add(config: SuiteConfig, key: FitKey, values: np.ndarray | None, **changes: Any) -> None:
    """Another fit, with the same logits [L] for everybody."""
    store = Store(config.output)
    labels = ["Edema", "Nodule"]
    store.write_fit(Fit(key, labels, **changes))
    plan = json.loads((config.output / "plan.json").read_text())
    plan["fits"].append({**vars(key), "cell": vars(key.cell)})
    (config.output / "plan.json").write_text(json.dumps(plan))
    if values is not None:
        table = store.samples("home")
        sample = table.sample[table.rows("test")]
        told = np.tile(values.astype(np.float32), (len(sample), 1))
        store.write_predictions(key, "home", "test", labels, Predictions(sample, told))


@pytest.fixture
def small(tmp_path: Path) -> SuiteConfig:
    return plant(
        tmp_path,
        Suite(
            {"a": Truth(0.8), "b": Truth(0.8), "none": Truth(0.5, kind="prevalence")},
            patients=80, resamples=50, contrasts=[["a", "b"]],
        ),
    )  # fmt: skip


@pytest.mark.parametrize("logits", [[-1.0, 0.2], [np.nan, np.nan]])
def test_a_label_with_one_class_gives_one_half_and_keeps_its_place(
    small: SuiteConfig, logits: list[float]
) -> None:
    key = FitKey(Cell("findings-home", "knn", "all", 20), "a")
    add(small, key, np.array(logits), status="constant", constant=["Edema", "Nodule"])
    report(small)
    found = [r for r in rows(small, "scores.csv") if r["head"] == "knn" and r["metric"] == "auroc"]
    assert {(r["label"], r["value"]) for r in found} == {
        ("macro", "0.5"), ("Edema", "0.5"), ("Nodule", "0.5"),
    }  # fmt: skip
    assert found[0]["constant"] == "2"


def test_failed_and_missing_fits_are_told_and_in_no_average(small: SuiteConfig) -> None:
    cell = Cell("findings-home", "knn", "all", ALL)
    add(small, FitKey(cell, "a"), None, status="failed", reason="no memory left")
    add(small, FitKey(cell, "b"), np.array([1.0, 1.0]))
    gone = FitKey(Cell("findings-home", "linear", "all", ALL), "b")
    (small.output / "fits" / f"{gone.id}.json").unlink()
    found = report(small)
    assert found["cautions"] == ["Of 5 fits not all have a result: 1 failed, 1 missing."]
    page = (small.output / "report.html").read_text()
    assert "no memory left" in page
    assert not [r for r in rows(small, "scores.csv") if (r["encoder"], r["head"]) == ("a", "knn")]


def test_unequal_numbers_of_trials_are_an_error_that_is_shown(small: SuiteConfig) -> None:
    store = Store(small.output)
    fit = next(f for f in store.fits() if f.key.encoder == "b")
    more = [*fit.trials, Trial({"C": 5.0}, 0.9), Trial({"C": 9.0, "pool": "mean"}, 0.9)]
    store.write_fit(replace(fit, trials=more))
    (caution,) = report(small)["cautions"]
    assert caution.startswith(
        "Unequal numbers of trials (findings-home, linear): a 2, b 4, none 2."
    )
    # the choice among vectors is not a trial of the head
    store.write_fit(replace(fit, trials=[*fit.trials, Trial({"C": 1.0, "pool": "mean"}, 0.9)]))
    assert report(small)["cautions"] == []


def test_a_second_plan_and_other_settings_are_told(small: SuiteConfig) -> None:
    with (small.output / "opened.jsonl").open("a") as file:
        file.write(json.dumps({"plan": "1" * 64, "time": "2026-02-02T00:00:00"}) + "\n")
    statistics = replace(small.statistics, resamples=100)
    found = report(replace(small, statistics=statistics, title="Another title"))
    assert found["opened"] == 2
    assert found["title"] == "Another title"
    assert found["cautions"] == [
        "The test labels were opened 2 times, under 2 different plans.",
        "This report was made with 100 resamples; the plan says 50.",
    ]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"contrasts": [["b", "a"]]}, "contrasts of the suite"),
        ({"trust": {"subgroups": ["sex", "age"]}}, "trust.subgroups of the suite"),
        ({"statistics": {"margin": 0.02, "seed": 1}}, "statistics.seed, statistics.margin of"),
        ({"small": {"repeats": 1}}, "small.repeats of the suite"),
        ({"views": ["frontal"]}, "views of the suite"),
    ],
)
def test_what_the_plan_fixed_is_not_changed_once_tests_are_open(
    small: SuiteConfig, changes: dict, named: str
) -> None:
    values = to_dict(small)
    for section, change in changes.items():
        values[section] = {**values[section], **change} if isinstance(change, dict) else change
    with pytest.raises(ValueError, match=named):
        report(from_dict(SuiteConfig, values))


def test_a_report_does_not_ask_where_shards_and_weights_lay(small: SuiteConfig) -> None:
    values = to_dict(small)
    values["datasets"]["home"]["shards"] = "/elsewhere"
    values["encoders"]["a"]["paths"] = ["/elsewhere/a"]
    report(from_dict(SuiteConfig, values))
    del values["encoders"]["b"]
    values["contrasts"] = []
    with pytest.raises(ValueError, match=r"encoders\.b, contrasts of the suite"):
        report(from_dict(SuiteConfig, values))


def test_nothing_opened_is_one_clear_error(small: SuiteConfig) -> None:
    shutil.rmtree(small.output / "predictions")
    with pytest.raises(FileNotFoundError, match="benchmark open"):
        report(small)


def test_a_planted_gap_between_groups_is_larger_than_chance_makes(tmp_path: Path) -> None:
    config = plant(
        tmp_path,
        Suite({"fair": Truth(0.8), "unfair": Truth(0.8)}, patients=300, resamples=50,
              subgroups=("sex", "age"), contrasts=[["fair", "unfair"]]),
        seed=1,
    )  # fmt: skip
    store = Store(tmp_path)
    table = store.samples("home")
    sex = dict(zip(table.sample.tolist(), table.attributes["sex"].tolist(), strict=True))
    (fit,) = (f for f in store.fits() if f.key.encoder == "unfair")
    said = store.predictions(fit.key, "home", "test")
    noise = np.random.default_rng(0).normal(size=said.values.shape) * 20
    women = np.array([sex[s] == "F" for s in said.sample.tolist()])[:, None]
    blurred = Predictions(said.sample, (said.values + noise * women).astype(np.float32))
    store.write_predictions(fit.key, "home", "test", fit.labels, blurred)
    found = {(g.encoder, g.attribute): g for g in gaps(Results(store, config))}
    unfair, fair = found["unfair", "sex"], found["fair", "sex"]
    ranked = unfair.spreads["auroc"]
    assert ranked.worst == "F"
    assert ranked.p < 0.01
    assert fair.spreads["auroc"].p > 0.05
    assert ranked.gap.value > 3 * ranked.chance
    # at the threshold of 90 % specificity on validation, noise puts many of the healthy women above it
    errors = unfair.spreads["fpr"]
    assert (errors.worst, errors.p < 0.01) == ("F", True)
    assert errors.gap.value > 3 * errors.chance
    assert fair.spreads["fpr"].p > 0.05
    group = next(g for g in fair.groups if g.name == "M")
    assert group.scores["fpr"].value == pytest.approx(0.1, abs=0.06)
    target = table.targets["findings-home"]
    men = np.array([sex[s] == "M" for s in table.sample.tolist()]) & (table.split == "test")
    assert group.prevalence == pytest.approx(target[men].mean())
    (of_fair,) = (f for f in store.fits() if f.key.encoder == "fair")
    said = store.predictions(of_fair.key, "home", "test")
    row = dict(zip(said.sample.tolist(), said.values, strict=True))
    logit = np.stack([row[s] for s in table.sample[men].tolist()])
    assert group.scores["brier"].value == pytest.approx(
        ((expit(logit) - target[men]) ** 2).mean(), rel=1e-4
    )
    assert sum(g.patients for g in unfair.groups) == 300


def test_scores_stand_with_and_without_a_planted_leak(tmp_path: Path) -> None:
    """An encoder that has seen every fourth test sample tells these, and is no better on the others."""
    encoders = {"clean": Truth(0.75), "leaky": Truth(0.75)}
    contrasts = [["leaky", "clean"]]
    plant(tmp_path, Suite(encoders, patients=400, contrasts=contrasts))
    table = Store(tmp_path).samples("home")
    seen = table.sample[table.split == "test"][::4]
    of_home = {
        "state": "patients",
        "why": "planted",
        "samples": seen.tolist(),
        "which_is_known": True,
    }
    shutil.rmtree(tmp_path)
    suite = Suite(
        encoders, patients=400, contrasts=contrasts, exposure={"leaky": {"home": of_home}}
    )
    config = plant(tmp_path, suite)
    store = Store(tmp_path)
    (fit,) = (f for f in store.fits() if f.key.encoder == "leaky")
    said = store.predictions(fit.key, "home", "test")
    place = {name: i for i, name in enumerate(table.sample.tolist())}
    truth = table.targets["findings-home"][[place[s] for s in said.sample.tolist()]]
    values = np.where(np.isin(said.sample, seen)[:, None], 20 * truth - 10, said.values)
    store.write_predictions(
        fit.key, "home", "test", fit.labels, Predictions(said.sample, values.astype(np.float32))
    )
    results = Results(store, config)
    found = leaks(results, main_of(results, list(score_all(results))))
    of = {one.encoder: one for one in found.scores}
    assert {e: (k.seen, k.samples, k.left) for e, k in of.items()} == {
        "clean": (0, 400, 300), "leaky": (100, 400, 300),
    }  # fmt: skip
    leaky, clean = of["leaky"], of["clean"]
    assert leaky.clean is not None
    assert clean.clean is not None
    assert leaky.every.value - leaky.clean.value > 0.05
    assert abs(clean.every.value - clean.clean.value) < 0.02
    (pair,) = found.contrasts
    assert pair.clean is not None
    assert pair.every.low > 0  # the leak alone
    assert pair.clean.low < 0 < pair.clean.high
    report(config)
    page = (tmp_path / "report.html").read_text()
    assert "Scores with and without rows that leak" in page


def test_test_patients_whom_heads_were_fitted_to_are_named_and_in_no_headline(
    tmp_path: Path,
) -> None:
    config = plant(
        tmp_path, Suite({"a": Truth(0.8), "b": Truth(0.7)}, patients=150, external=["away"])
    )
    store = Store(tmp_path)
    shared = store.samples("away").sample[::3].tolist()
    told = {"patients": len(shared), "of": 150, "samples": shared}
    none = {e: {d: {"state": "none", "why": ""} for d in ("home", "away")} for e in ("a", "b")}
    plan = json.loads((tmp_path / "plan.json").read_text())
    plan |= {"fitted_elsewhere": {"findings-home": {"away": told}}, "exposure": none}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    index = report(config)
    (caution,) = index["cautions"]
    assert (
        f"{len(shared)} of 150 test patients have the name of one whom heads were fitted" in caution
    )
    results = Results(Store(tmp_path), config)
    scored = list(score_all(results))
    assert {(a.unseen_cells, a.cells) for a in averages(results, scored)} == {(1, 2)}
    found = leaks(results, main_of(results, scored)).scores
    assert {(k.place.dataset, k.fitted > 0, k.samples - k.left == k.fitted) for k in found} == {
        ("away", True, True)
    }


def test_ranks_take_ten_cohorts(tmp_path: Path) -> None:
    names = tuple(f"hospital{i}" for i in range(10))
    encoders = {"best": Truth(0.9), "middle": Truth(0.75), "worst": Truth(0.6)}
    config = plant(
        tmp_path, Suite(encoders, patients=80, datasets=names, resamples=10, prevalence={"Edema": 0.5})
    )  # fmt: skip
    results = Results(Store(tmp_path), config)
    scored = list(score_all(results))
    (found,) = ranks(results, scored)
    assert sorted(found.average, key=lambda e: found.average[e]) == ["best", "middle", "worst"]
    # q.05 of three, 2.343, by sqrt(3 * 4 / (6 * 10))
    assert found.critical == pytest.approx(2.343 * np.sqrt(12 / 60), abs=1e-3)
    (few,) = ranks(results, [s for s in scored if s.cohort.place.dataset != "hospital3"])
    assert not few.average
    assert few.why_not.startswith("9 independent cohorts")


def test_foreign_text_is_safe_in_latex() -> None:
    assert escaped("a_b & 50 %") == r"a\_b \& 50 \%"


def test_numbers_survival_and_places_held_out_are_reported(tmp_path: Path) -> None:
    """Age, time with event, scores per sample, and heads that never saw the site they are tested on."""
    draw = np.random.default_rng(0)
    n = 120
    config = from_dict(
        SuiteConfig,
        {
            "output": tmp_path,
            "encoders": {"a": {"paths": ["a"]}, "median": {"kind": "prevalence"}},
            "datasets": {"home": {"shards": "/shards/home"}},
            "tasks": {
                "age": {"kind": "number", "dataset": "home", "labels": ["age"]},
                "death": {"kind": "survival", "dataset": "home", "labels": ["months", "died"]},
                "neighbours": {"kind": "retrieval", "dataset": "home"},
                "edema": {"dataset": "home", "labels": ["Edema"], "leave_out": "site"},
            },
            "contrasts": [["a", "median"]],
            "statistics": {"resamples": 50},
        },
    )
    age, died = draw.normal(60, 10, n), (draw.random(n) < 0.6).astype(float)
    months, ill = draw.exponential(20, n), (draw.random(n) < 0.5).astype(float)
    site = np.array(["north" if i % 2 else "south" for i in range(n)], dtype=object)
    sample = np.array([f"s{i}" for i in range(n)])
    asked = np.where(np.arange(n) < 20, np.nan, 0.0)  # the others have no finding in common
    store = Store(tmp_path)
    store.write_samples(
        "home",
        SampleTable(
            sample, np.array([f"p{i}" for i in range(n)]), np.full(n, "test"), {"site": site},
            {"age": age[:, None], "death": np.stack([months, died], 1), "edema": ill[:, None]},
            {"age": ["age"], "death": ["months", "died"], "edema": ["Edema"]},
        ),
    )  # fmt: skip
    said = {
        ("age", "ridge", ""): (["age"], age + draw.normal(0, 4, n), np.full(n, 60.0)),
        ("death", "cox", ""): (["risk"], -months + draw.normal(0, 9, n), np.zeros(n)),
        ("neighbours", "retrieval", ""): (["mAP@R"], asked + draw.random(n), draw.random(n) / 2),
        ("edema", "linear", "north"): (["Edema"], 2 * ill + draw.normal(size=n), np.zeros(n)),
        ("edema", "linear", "south"): (["Edema"], 2 * ill + draw.normal(size=n), np.zeros(n)),
    }
    fits = []
    for (task, head, held_out), (labels, *values) in said.items():
        for encoder, value in zip(("a", "median"), values, strict=True):
            key = FitKey(Cell(task, head, "all", held_out=held_out), encoder)
            fits.append(asdict(key))
            store.write_fit(Fit(key, labels))
            told = Predictions(sample, value.astype(np.float32)[:, None])
            store.write_predictions(key, "home", "test", labels, told)
    plan = {"suite": to_dict(config), "sha256": "2" * 64, "fits": fits}
    (tmp_path / "trust.json").write_text(json.dumps({"knows": [{"site": 0.9}]}))
    (tmp_path / "plan.json").write_text(json.dumps(plan, default=str))
    report(config)
    found = {
        (r["task"], r["metric"], r["held_out"], r["encoder"]): r for r in rows(config, "scores.csv")
    }
    assert 2 < float(found["age", "mae", "", "a"]["value"]) < 4
    assert found["age", "pearson", "", "median"]["value"] == ""  # the same for all: no correlation
    assert float(found["death", "harrell", "", "median"]["value"]) == 0.5
    assert float(found["death", "harrell", "", "a"]["value"]) > 0.6
    assert found["neighbours", "mean", "", "a"]["n_samples"] == "100"
    north = found["edema", "auroc", "north", "a"]
    assert north["n_patients"] == "60"
    assert float(north["value"]) > 0.8
    verdicts = {
        (r["task"], r["held_out"]): r["verdict"]
        for r in rows(config, "contrasts.csv")
        if r["label"] == "macro"
    }
    # a smaller error is better
    assert set(verdicts.values()) == {"better"}
    assert set(verdicts) == {
        ("age", ""), ("death", ""), ("neighbours", ""), ("edema", "north"), ("edema", "south"),
    }  # fmt: skip
