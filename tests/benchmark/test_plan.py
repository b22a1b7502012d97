"""What is opened is what was planned, and what is lost is chosen again by the same trials."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ray_mae.benchmarking import finetuning, trust, tuning
from ray_mae.benchmarking.dry_run import _seconds
from ray_mae.benchmarking.fits import Opening, fit_group, predict_group
from ray_mae.benchmarking.open import require_plan
from ray_mae.benchmarking.plan import Suite, inputs_of, keys_of
from ray_mae.benchmarking.records import Fit
from ray_mae.benchmarking.samples import LabelSet, read_samples, read_targets, with_targets
from ray_mae.benchmarking.shared import fitted_elsewhere, in_words
from ray_mae.benchmarking.sources import Source
from ray_mae.benchmarking.store import Store
from ray_mae.config import SuiteConfig
from ray_mae.config.base import to_dict
from ray_mae.evaluate.supervised.fit import Diverged
from tests.benchmark.suites import study_shards
from tests.benchmark.test_fits import PATIENTS, group, suite, table, written


def looked_at(config: SuiteConfig, sources: dict[str, list[Source]] | None = None) -> Suite:
    """The suite of `suite`, as `look` gives it."""
    return Suite(
        config,
        {"here": table(), "there": table(["test"] * PATIENTS)},
        {name: LabelSet(["Edema"], {}) for name in config.tasks},
        {(name, "study"): of for name, of in (sources or {}).items()},
        {"here": "study", "there": "study"},
    )


def planned(looked: Suite) -> Store:
    """Writes a fit for each key, and the plan."""
    store, config = Store(looked.config.output), looked.config
    keys = [*keys_of(looked), *finetuning.finetune_keys(looked)]
    for key in keys:
        store.write_fit(Fit(key, ["Edema"], inputs=inputs_of(looked, key)))
    plan = {"suite": to_dict(config), "fits": [dataclasses.asdict(key) for key in keys]}
    (config.output / "plan.json").write_text(json.dumps(plan, default=str))
    return Store(config.output)


TUNED = {
    "encoders": {"m": {"kind": "metadata"}, "ours": {"paths": "ours", "crop_size": 48}},
    "heads": {"use": ["finetune"], "finetune": {"encoders": ["ours"], "seeds": [3, 4, 5]}},
}
OURS = {"ours": [Source("weights", "study", Path("ours"), "w", crop_size=48)]}


def test_only_what_was_planned_is_opened(tmp_path: Path) -> None:
    config = suite(tmp_path, **TUNED)
    store = planned(looked_at(config, OURS))
    require_plan(looked_at(config, OURS), store)
    epochs = dataclasses.replace(
        config.heads, finetune=dataclasses.replace(config.heads.finetune, epochs=1.0)
    )
    task = {"t": dataclasses.replace(config.tasks["t"], test=["there"])}
    for change in ({"contrasts": [["ours", "m"]]}, {"tasks": task}, {"heads": epochs}):
        with pytest.raises(ValueError, match=f"{next(iter(change))}.* of the suite.* fit` again"):
            require_plan(looked_at(dataclasses.replace(config, **change), OURS), store)
    other = {"ours": [dataclasses.replace(OURS["ours"][0], weights="others")]}
    with pytest.raises(ValueError, match="ours on t, finetune"):
        require_plan(looked_at(config, other), store)


def test_a_lost_fine_tuning_is_chosen_by_the_same_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[list[finetuning.Training]] = []

    def run(work: Any, items: Sequence[finetuning.Training], *_: Any) -> list[float]:
        ran.append(list(items))
        told = dict.fromkeys(
            ("train_studies", "train_patients", "val_studies", "dimensions", "parameters",
             "samples_seen"), 1,
        )  # fmt: skip
        for training in items:
            training.folder.mkdir(parents=True, exist_ok=True)
            result = {**told, "score": training.settings["lr"], "seconds": 0.0}
            training.result.write_text(json.dumps(result))
            np.savez(training.folder / "validation.npz", sample=["s30"], values=[[0.5]])
        return []

    monkeypatch.setattr(tuning, "run_tasks", run)
    monkeypatch.setattr(tuning, "gpus_per_run", lambda _: 0)
    looked = looked_at(suite(tmp_path, **TUNED), OURS)
    keys = finetuning.finetune_keys(looked)
    finetuning.finetune_all(looked, keys)
    store = Store(looked.config.output)
    assert all(store.has_fit(key) for key in keys)
    store.forget(keys[2])
    finetuning.finetune_all(looked, keys)
    trials, fits, again, lost = ran
    assert {t.key.seed for t in trials} == {3, 4}  # validation is small
    assert len({t.folder for t in trials}) == len(trials)
    assert [t.folder for t in again] == [t.folder for t in trials]
    assert (len(fits), [t.key for t in lost]) == (3, [keys[2]])
    assert {t.source.crop_size for t in trials} == {48}


@pytest.mark.parametrize("bad", [1, 6])
def test_a_fine_tuning_that_diverges_is_a_trial_or_a_row_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: int
) -> None:
    """bad: trials that diverge, the first ones."""

    def diverge(*_: Any) -> None:
        raise Diverged("the loss is nan after step 1")

    def run(_: Any, items: Sequence[finetuning.Training], *rest: Any) -> None:
        for i, training in enumerate(items):
            if training.folder.parent.name == "models" or i < 2 * bad:  # of each two seeds
                finetuning.train(training)
            else:
                training.folder.mkdir(parents=True)
                training.result.write_text(json.dumps({"score": 0.6}))

    monkeypatch.setattr(tuning, "run_tasks", run)
    monkeypatch.setattr(tuning, "gpus_per_run", lambda _: 0)
    monkeypatch.setattr("ray_mae.evaluate.finetune.training.finetune", diverge)
    shards = study_shards(tmp_path / "films")
    config = suite(
        tmp_path,
        **{**TUNED, "datasets": {"here": {"shards": shards}}},
        tasks={"t": {"dataset": "here", "labels": ["Edema"], "least_patients": 2}},
    )
    samples = read_samples(config.datasets["here"])
    targets, names, _ = read_targets(
        config.datasets["here"], samples, config.tasks["t"], ("train", "val"), None
    )
    samples = with_targets(samples, "t", targets, names)
    Store(config.output).write_samples("here", samples, opened=False)
    looked = Suite(
        config, {"here": samples}, {"t": LabelSet(names, {})}, {("ours", "study"): OURS["ours"]},
        {"here": "study"},
    )  # fmt: skip
    keys = finetuning.finetune_keys(looked)
    finetuning.finetune_all(looked, keys)
    fits = Store(config.output).fits()
    assert {(fit.status, fit.reason) for fit in fits} == {
        ("failed", "the loss is nan after step 1")
    }
    assert {sum(np.isnan(t.score) for t in fit.trials) for fit in fits} == {bad}
    assert finetuning.predict_finetuned(looked) == 0


def test_what_is_held_out_is_not_fine_tuned(tmp_path: Path) -> None:
    tasks = {"t": {"dataset": "here", "leave_out": "site"}}
    assert finetuning.finetune_keys(looked_at(suite(tmp_path, **TUNED, tasks=tasks), OURS)) == []


def test_robustness_is_of_fits_that_were_tested_at_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(trust, "run_tasks", lambda _, items, *rest: asked.extend(items))
    monkeypatch.setattr(trust, "fill", lambda *_: {})
    tasks = {
        "t": {"dataset": "here", "labels": ["Edema"]},
        "away": {"dataset": "here", "test": ["there"], "labels": ["Edema"]},
    }
    encoders = {"pixels": {"kind": "pixels"}}
    config = suite(tmp_path, encoders=encoders, tasks=tasks, trust={"corruptions": ["noise"]})
    looked = looked_at(config, {"pixels": [Source("pixels", "study", side=8)]})
    samples = {n: dataclasses.replace(t, targets={"t": t.targets["t"], "away": t.targets["t"]})
               for n, t in looked.samples.items()}  # fmt: skip
    looked = dataclasses.replace(looked, samples=samples)
    store = planned(looked)
    (key,) = [key for key in keys_of(looked) if key.cell.task == "t"]
    store.write_fit(Fit(key, ["Edema"], status="failed", reason="too few"))
    assert trust._robustness(looked) == []
    assert asked == []


def test_no_robustness_where_the_test_has_one_class(tmp_path: Path) -> None:
    config = suite(tmp_path)
    here = table()
    here.targets["t"][here.split == "test"] = 0
    written(config, here, table())
    this = group(config)
    fit_group(this)
    for suffix in ("", "~noise-1"):
        predict_group(Opening(this, "here", None, suffix=suffix))
    wanted = [(this.keys, "here", "noise", 1, "~noise-1")]
    assert trust._losses(looked_at(config), wanted) == []


def test_a_dry_run_times_the_fits_of_one_patient(tmp_path: Path) -> None:
    tasks = {"t": {"dataset": "here", "kind": "survival", "labels": ["time", "event"]}}
    looked = looked_at(suite(tmp_path, tasks=tasks, heads={"use": ["cox"]}))
    here = table(["train"] + ["val"] * 30 + ["test"] * (PATIENTS - 31))
    here = dataclasses.replace(here, targets={"t": np.repeat(here.targets["t"], 2, axis=1)})
    looked = dataclasses.replace(looked, samples={**looked.samples, "here": here})
    (key,) = keys_of(looked)
    assert _seconds(looked, key, 4, 2) > 0


@pytest.mark.parametrize(
    ("task", "views", "counts"),
    [
        ({}, "all", {5, 12, 0}),
        ({}, "lateral", {5, 0}),  # of 30 training studies 10 have one
        ({"leave_out": "site"}, "all", {5, 12, 0}),
        ({"leave_out": "site"}, "lateral", {0}),
    ],
)
def test_a_curve_has_the_points_that_there_are_studies_for(
    tmp_path: Path, task: dict[str, Any], views: str, counts: set[int]
) -> None:
    config = suite(
        tmp_path,
        tasks={"t": {"dataset": "here", "least_patients": 2, **task}},
        label_counts={"studies": [5, 12], "draws": 2},
        views=[views],
    )
    assert {key.cell.studies for key in keys_of(looked_at(config))} == counts


def test_one_more_seed_or_encoder_tunes_no_other_again(tmp_path: Path) -> None:
    few = looked_at(suite(tmp_path, **TUNED), OURS)
    tuned = few.config.heads.finetune
    (key, *_) = finetuning.finetune_keys(few)

    def inputs(**changes: Any) -> str:
        heads = dataclasses.replace(
            few.config.heads, finetune=dataclasses.replace(tuned, **changes)
        )
        return inputs_of(looked_at(dataclasses.replace(few.config, heads=heads), OURS), key)

    assert inputs(seeds=[*tuned.seeds, 9], encoders=["ours", "m"], studies=[5]) == inputs()
    assert inputs(seeds=[9, *tuned.seeds]) != inputs()  # the trials have the first one
    assert inputs(epochs=tuned.epochs + 1) != inputs()


def test_test_patients_elsewhere_who_are_fitted_to_are_told(tmp_path: Path) -> None:
    looked = looked_at(suite(tmp_path))
    (told,) = in_words(looked)
    assert "45 of 60 test patients of there have the name of a patient of here" in told
    there = dataclasses.replace(
        looked.samples["there"], patient=np.char.add("t", looked.samples["there"].patient)
    )
    others = dataclasses.replace(looked, samples={**looked.samples, "there": there})
    assert in_words(others) == []
    fitted = looked.samples["here"].split != "test"
    (of_task,) = fitted_elsewhere(looked)["t"].values()
    assert of_task["samples"] == looked.samples["here"].sample[fitted].tolist()
