"""Fine-tuning in a suite: six trials for every start, then fresh seeds of the one that validation chose."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ray_mae.benchmarking.caches import splits_of
from ray_mae.benchmarking.draws import labelled_rows
from ray_mae.benchmarking.fits import is_done
from ray_mae.benchmarking.plan import FINETUNE, FIT, Suite, inputs_of, labelled
from ray_mae.benchmarking.ray_tasks import run_tasks
from ray_mae.benchmarking.records import ALL, Cell, Fit, FitKey, Predictions, Trial
from ray_mae.benchmarking.sources import Source
from ray_mae.benchmarking.store import Store
from ray_mae.checkpoint.format import fingerprint
from ray_mae.config import FinetuneConfig
from ray_mae.config.suite import FinetuneHead, SuiteConfig
from ray_mae.data.loading.stream import from_block
from ray_mae.data.schema import Manifest
from ray_mae.data.shard_set import ShardSet
from ray_mae.evaluate.cohort import read_cohort
from ray_mae.evaluate.supervised.runs import Run
from ray_mae.files import write_whole
from ray_mae.terminal import console


def finetune_keys(suite: Suite) -> list[FitKey]:
    """Returns the keys of all fine-tunings: starts × label counts × seeds."""
    config = suite.config
    keys = []
    for name, task in config.tasks.items():
        if (
            task.kind != "labels"
            or task.leave_out
            or FINETUNE not in (task.heads or config.heads.use)
        ):
            continue
        there = int((labelled(suite, name) & (suite.samples[task.dataset].split == "train")).sum())
        counts = sorted({n for n in config.heads.finetune.studies if n < there})
        for studies in [*counts, ALL]:
            cell = Cell(name, FINETUNE, "all", studies)
            for encoder in starts_of(config):
                runs = suite.runs_of(encoder, name)
                for pretraining in range(runs):
                    seeds = config.heads.finetune.seeds
                    for i, seed in enumerate(seeds if runs == 1 else seeds[:1]):
                        draw = 0 if studies == ALL else i
                        keys.append(FitKey(cell, encoder, pretraining, draw, seed))
    return keys


def starts_of(config: SuiteConfig) -> list[str]:
    """Names of the encoders that are fine-tuned, in the order of the suite."""
    named = config.heads.finetune.encoders
    return [n for n, e in config.encoders.items() if n in named or e.kind == "scratch"]


def trials_of(settings: FinetuneHead, scratch: bool) -> list[dict[str, float]]:
    """Returns the settings to choose from, as many for every start.

    A pretrained start tries learning rates around the centre with each layer decay. Scratch has no layers
    that know anything, and needs longer: it tries its own learning rates with more epochs instead.
    """
    rates = [settings.lr / 3, settings.lr, settings.lr * 3]
    if not scratch:
        return [
            {"lr": lr, "layer_decay": decay, "epochs": settings.epochs}
            for lr in rates
            for decay in settings.layer_decay
        ]
    rates = [settings.scratch_lr / 3, settings.scratch_lr, settings.scratch_lr * 3]
    spans = np.geomspace(1, settings.longer, len(settings.layer_decay)).tolist()
    return [
        {"lr": lr, "layer_decay": 1.0, "epochs": settings.epochs * span}
        for lr in rates
        for span in spans
    ]


@dataclass(frozen=True)
class Training:
    """One run: a trial, or a seed of what was chosen."""

    config: SuiteConfig
    key: FitKey
    labels: list[str]
    source: Source
    """Whose weights, or whose network."""
    settings: dict[str, float]
    folder: Path

    @property
    def result(self) -> Path:
        return self.folder / "result.json"


def finetune_all(suite: Suite, keys: Sequence[FitKey]) -> None:
    """Runs the trials, chooses, and fits the seeds; what is there stays."""
    store = Store(suite.config.output)
    waiting = [key for key in keys if not is_done(store, key, inputs_of(suite, key))]
    if not waiting:
        return
    groups = {(key.cell, key.encoder): key for key in reversed(waiting)}
    trials: dict[tuple[Cell, str], list[Training]] = {
        at: [_training(suite, _of_trials(suite, key), s, "trials") for s in of_start]
        for at, key in groups.items()
        for of_start in [trials_of(suite.config.heads.finetune, _scratch(suite, key.encoder))]
    }
    flat = [t for some in trials.values() for t in some]
    console.print(f"fine-tuning: {len(flat)} trials, then {len(waiting)} fits")
    run_tasks(train, flat, "trained", "trials", [1] * len(flat))
    chosen = {at: _choose(some) for at, some in trials.items()}
    fits = []
    for key in waiting:
        best, tried = chosen[key.cell, key.encoder]
        if best is None:
            _write_failed(suite, key, tried, _failure(trials[key.cell, key.encoder][0]))
        else:
            fits.append(_training(suite, key, best.settings, "models"))
    run_tasks(train, fits, "fine-tuned", "fits", [1] * len(fits))
    for training in fits:
        tried = chosen[training.key.cell, training.key.encoder][1]
        if reason := _failure(training):
            _write_failed(suite, training.key, tried, reason)
        else:
            _write_fit(suite, training, tried)


def _of_trials(suite: Suite, key: FitKey) -> FitKey:
    """The key of the trials for a fit: the same whichever of the fits that they choose for are missing."""
    return replace(key, pretraining=0, draw=0, seed=suite.config.heads.finetune.seeds[0])


def _scratch(suite: Suite, encoder: str) -> bool:
    return suite.config.encoders[encoder].kind == "scratch"


def _training(suite: Suite, key: FitKey, settings: dict[str, Any], where: str) -> Training:
    found = suite.sources[key.encoder, suite.kind_of(key.cell.task)]
    source = found[key.pretraining]
    inputs = inputs_of(suite, key)[:16]
    name = f"{key.id}-{inputs}"
    if where == "trials":
        name += "-" + "-".join(f"{value:g}" for value in settings.values())
    labels = suite.label_sets[key.cell.task].names
    return Training(suite.config, key, labels, source, settings, suite.config.output / where / name)


def _failure(training: Training) -> str:
    """Why a run gave no model; "" where it did."""
    reason: str = json.loads(training.result.read_text()).get("failed", "")
    return reason


def _choose(trials: Sequence[Training]) -> tuple[Trial | None, list[Trial]]:
    """The best on validation patients, of equals the first, None where all failed; and all."""
    found = []
    for training in trials:
        result = json.loads(training.result.read_text())
        score = float("nan") if "failed" in result else result["score"]
        found.append(Trial(training.settings, score))
    known = [trial for trial in found if not np.isnan(trial.score)]
    return max(known, key=lambda trial: trial.score, default=None), found


def _write_failed(suite: Suite, key: FitKey, trials: list[Trial], reason: str) -> None:
    store, labels = Store(suite.config.output), suite.label_sets[key.cell.task].names
    store.forget(key)
    store.write_fit(Fit(key, labels, "failed", reason, trials=trials, inputs=inputs_of(suite, key)))


def _write_fit(suite: Suite, training: Training, trials: list[Trial]) -> None:
    store, key = Store(suite.config.output), training.key
    result = json.loads(training.result.read_text())
    dataset = suite.config.tasks[key.cell.task].dataset
    with np.load(training.folder / "validation.npz") as file:
        said = Predictions(file["sample"], file["values"])
    store.forget(key)
    store.write_predictions(key, dataset, "val", training.labels, said)
    folder = training.folder.relative_to(suite.config.output)
    store.write_fit(
        Fit(
            key,
            training.labels,
            chosen={**training.settings, "model": str(folder)},
            trials=trials,
            at_edge=_edges(training.settings, trials),
            inputs=inputs_of(suite, key),
            **{k: result[k] for k in _TOLD},
        )
    )


_TOLD = (
    *("train_studies", "train_patients", "val_studies", "dimensions"),
    *("parameters", "samples_seen", "seconds"),
)


def _edges(chosen: dict[str, float], trials: Sequence[Trial]) -> list[str]:
    rates = sorted({trial.settings["lr"] for trial in trials})
    return ["lr"] if chosen["lr"] in (rates[0], rates[-1]) and len(rates) > 1 else []


# ----------------------------------------------------------------------------------------- in a task


def train(training: Training) -> float:
    """Trains once, unless that was done; returns the score on validation patients.

    What diverges or has too few patients is kept with its reason, as the failed row that it will be.
    """
    from ray_mae.evaluate.finetune.training import FinetuneTask, finetune, schedule
    from ray_mae.evaluate.supervised.fit import Diverged

    if training.result.is_file():
        told = json.loads(training.result.read_text())
        return float("nan") if "failed" in told else float(told["score"])
    config, key, began = training.config, training.key, time.perf_counter()
    task = config.tasks[key.cell.task]
    shards = config.datasets[task.dataset].shards.resolve()
    cohort = read_cohort(ShardSet.read(shards), FIT)
    table = Store(config.output).samples(task.dataset, opened=False)
    place = {name: i for i, name in enumerate(table.sample.tolist())}
    order = [place[name] for name in cohort.name.tolist()]
    targets = table.targets[key.cell.task]
    known = np.asarray(~np.isnan(targets).all(axis=1))
    rows = labelled_rows(
        table.patient, table.split, known, key.cell.studies, key.cell.validation, key.draw
    )
    seen = np.zeros(len(targets), bool)
    seen[np.concatenate(rows)] = True
    targets = np.where(seen[:, None], targets, np.nan)[order]
    scratch = config.encoders[key.encoder].kind == "scratch"
    chosen: dict[str, Any] = training.settings
    assert training.source.path is not None
    settings = FinetuneConfig(
        checkpoint=training.source.path,
        shards=shards,
        output=training.folder,
        compare=["random" if scratch else "trained"],
        seeds=[key.seed],
        crop_size=training.source.crop_size,
        batch_size=config.heads.finetune.batch_size,
        max_views=min(config.max_views, 16),
        gpu=config.gpu,
        **chosen,
    )
    training.folder.mkdir(parents=True, exist_ok=True)
    problem = FinetuneTask(
        shards,
        Manifest.read(shards),
        cohort,
        training.labels,
        targets,
        **schedule(len(rows[0]), settings),
    )
    run = Run(settings.compare[0], key.seed, training.folder)
    run.folder.mkdir(parents=True, exist_ok=True)
    try:
        found = finetune(run, settings, problem)
    except (Diverged, ValueError) as error:
        write_whole(training.result, json.dumps({"failed": f"{error}"}) + "\n")
        return float("nan")
    val = problem.rows("val")
    np.savez(
        training.folder / "validation.npz",
        sample=cohort.name[val],
        values=found.validation.astype(np.float32),
    )
    result = {
        "score": found.fit.validation.score,
        "model": str(run.folder.relative_to(training.folder)),
        "train_studies": len(rows[0]),
        "train_patients": len(np.unique(table.patient[rows[0]])),
        "val_studies": len(rows[1]),
        "dimensions": 0,
        "parameters": _parameters(run.folder),
        "samples_seen": found.fit.batches * settings.batch_size,
        "seconds": round(time.perf_counter() - began, 2),
    }
    write_whole(training.result, json.dumps(result) + "\n")
    return float(found.fit.validation.score)


def _parameters(folder: Path) -> int:
    from ray_mae.evaluate.finetune.classifier import load_model

    return sum(p.numel() for p in load_model(folder).parameters())


@dataclass(frozen=True)
class Tested:
    """A fine-tuned model and the data set that it is tested on."""

    config: SuiteConfig
    key: FitKey
    dataset: str


def predict_finetuned(suite: Suite) -> int:
    """Predicts test samples with every fine-tuned model; returns how many did it now."""
    store, config = Store(suite.config.output), suite.config
    tests = [
        Tested(config, key, dataset)
        for key in finetune_keys(suite)
        for dataset in config.tasks[key.cell.task].tested_on
        if store.read_fit(key).status != "failed"
        and not store.has_predictions(
            key, dataset, "test", fingerprint(config.datasets[dataset].shards)
        )
    ]
    run_tasks(predict_one, tests, "predicted", "fine-tuned models", [1] * len(tests))
    return len(tests)


def predict_one(tested: Tested) -> None:
    """Predicts the test samples of a data set with one model."""
    import torch

    from ray_mae.benchmarking.readers import ShardBatches
    from ray_mae.data.kinds import KINDS
    from ray_mae.evaluate.finetune.classifier import load_model

    config, key, store = tested.config, tested.key, Store(tested.config.output)
    fit = store.read_fit(key)
    folder = config.output / fit.chosen["model"]
    model = load_model(folder / json.loads((folder / "result.json").read_text())["model"])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device)
    entry = config.datasets[tested.dataset]
    manifest = Manifest.read(entry.shards)
    kind = KINDS[manifest.kind]
    collator = kind.evaluation_collator(model.encoder.settings.input_size, 0, config.max_views)
    reader = ShardBatches(
        entry.shards.resolve(), collator, config.batch_size, f"{manifest.kind}_id"
    )
    splits = splits_of(config, tested.dataset) if entry.role == "external" else ["test"]
    names: list[str] = []
    logits = []
    for shard in [s for split in splits for s in manifest.of_split(split)]:
        for block in reader.read(shard):
            names += json.loads(block["samples"][0].as_py())
            with torch.inference_mode():
                logits.append(model(kind.to_batch(from_block(block)).to(device)).float().cpu())
    said = Predictions(np.array(names), torch.cat(logits).numpy())
    shards = fingerprint(entry.shards)
    store.write_predictions(key, tested.dataset, "test", fit.labels, said, shards)
