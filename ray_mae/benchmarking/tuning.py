"""Heads that train the encoder: the same number of trials for every start, then fresh seeds of the one that
validation chose."""

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_mae.benchmarking.draws import labelled_rows
from ray_mae.benchmarking.fits import is_done
from ray_mae.benchmarking.plan import FIT, Suite, inputs_of, labelled
from ray_mae.benchmarking.ray_tasks import run_tasks
from ray_mae.benchmarking.records import ALL, Cell, Fit, FitKey, Predictions, Trial
from ray_mae.benchmarking.sources import Source
from ray_mae.benchmarking.store import Store
from ray_mae.checkpoint.format import fingerprint
from ray_mae.cluster.runtime import gpus_wanted
from ray_mae.config.suite import FinetuneHead, SegmentHead, SuiteConfig
from ray_mae.data.shard_set import ShardSet
from ray_mae.evaluate.cohort import Cohort, read_cohort
from ray_mae.files import write_whole
from ray_mae.terminal import console

TRIALS, MODELS = "trials", "models"
"""Folders of the runs, in that of the suite."""
ENOUGH = 50
"""Validation patients of the rarer class that choose by one seed of each trial."""
VALIDATION = "validation.npz"
"""What a model says of validation patients, where it says anything of them that is kept."""


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

    @property
    def kept(self) -> bool:
        """Whether its model is one of the fits, and not a trial."""
        return self.folder.parent.name == MODELS

    @property
    def scratch(self) -> bool:
        return self.config.encoders[self.key.encoder].kind == "scratch"


@dataclass(frozen=True)
class Tuned:
    """A head that trains the encoder."""

    title: str
    """What it does, at the beginning of its line."""
    trials: Callable[[SuiteConfig, str], list[dict[str, Any]]]
    """Settings to choose from, of a suite's encoder: as many for every start."""
    settings: Callable[[SuiteConfig], FinetuneHead | SegmentHead]
    """Of the head."""
    train: Callable[[Training], float]
    """Trains once, unless that was done, in a task of Ray; the score on validation patients."""


def tuned_keys(
    suite: Suite,
    task: str,
    head: str,
    starts: Sequence[str],
    settings: FinetuneHead | SegmentHead,
) -> list[FitKey]:
    """Returns the keys of a head that trains the encoder, for one task: label counts × starts × seeds.

    With several pretrainings of a start each has one seed.
    """
    table = suite.samples[suite.config.tasks[task].dataset]
    there = int((labelled(suite, task) & (table.split == "train")).sum())
    keys = []
    for studies in [*sorted({n for n in settings.studies if n < there}), ALL]:
        cell = Cell(task, head, "all", studies)
        for encoder in starts:
            runs = suite.runs_of(encoder, task)
            for pretraining in range(runs):
                for i, seed in enumerate(settings.seeds if runs == 1 else settings.seeds[:1]):
                    draw = 0 if studies == ALL else i
                    keys.append(FitKey(cell, encoder, pretraining, draw, seed))
    return keys


def tune(suite: Suite, keys: Sequence[FitKey], head: Tuned) -> int:
    """Runs the trials, chooses, and fits the seeds; what is there stays. Returns how many were fitted."""
    store, config = Store(suite.config.output), suite.config
    waiting = [key for key in keys if not is_done(store, key, inputs_of(suite, key))]
    if not waiting:
        return 0
    gpus = gpus_per_run(config)
    groups = {(key.cell, key.encoder): key for key in reversed(waiting)}
    trials: dict[tuple[Cell, str], list[Training]] = {
        at: [
            _training(suite, _of_trials(key, seed), settings, TRIALS)
            for settings in head.trials(config, key.encoder)
            for seed in seeds_of_trials(suite, key.cell.task, head.settings(config))
        ]
        for at, key in groups.items()
    }
    flat = [t for some in trials.values() for t in some]
    console.print(f"{head.title}: {len(flat)} trials, then {len(waiting)} fits")
    run_tasks(head.train, flat, "trained", "trials", [1] * len(flat), gpus)
    chosen = {at: _choose(some) for at, some in trials.items()}
    fits = []
    for key in waiting:
        best, tried = chosen[key.cell, key.encoder]
        if best is None:
            failed = filter(None, map(_failure, trials[key.cell, key.encoder]))
            _write_failed(suite, key, tried, next(failed))
        else:
            fits.append(_training(suite, key, best.settings, MODELS))
    run_tasks(head.train, fits, "trained", "fits", [1] * len(fits), gpus)
    for training in fits:
        at = training.key.cell, training.key.encoder
        if reason := _failure(training):
            _write_failed(suite, training.key, chosen[at][1], reason)
        else:
            first = training.key == _of_trials(training.key, head.settings(config).seeds[0])
            _write_fit(suite, training, chosen[at][1], trials[at] if first else [])
    return len(waiting)


def gpus_per_run(config: SuiteConfig) -> int:
    """A GPU for each training and each pass of its model, where the cluster has any."""
    return 1 if gpus_wanted(config.gpu) else 0


def seeds_of_trials(suite: Suite, task: str, settings: FinetuneHead | SegmentHead) -> list[int]:
    """Returns the seeds whose mean score chooses: the first alone where validation has patients enough.

    Args:
        suite: with who is in validation.
        task: what is fitted.
        settings: of the head.
    """
    table = suite.samples[suite.config.tasks[task].dataset]
    rows = table.split == "val"
    targets, patient = table.targets[task][rows], table.patient[rows]
    known = ~np.isnan(targets)
    if suite.config.tasks[task].kind == "labels":  # of the label that has most
        classes = [[len(np.unique(patient[c == one])) for one in (0, 1)] for c in targets.T]
        rarer = max(min(of) for of in classes)
    else:
        rarer = len(np.unique(patient[known.any(axis=1)]))
    if rarer >= ENOUGH:
        return settings.seeds[:1]
    fresh = itertools.count(max(settings.seeds) + 1)
    return [*settings.seeds, *itertools.islice(fresh, settings.trial_seeds)][: settings.trial_seeds]


def _of_trials(key: FitKey, seed: int) -> FitKey:
    """The key of the trials for a fit: the same whichever of the fits that they choose for are missing."""
    return replace(key, pretraining=0, draw=0, seed=seed)


def _training(suite: Suite, key: FitKey, settings: dict[str, Any], where: str) -> Training:
    found = suite.sources[key.encoder, suite.kind_of(key.cell.task)]
    source = found[key.pretraining]
    inputs = inputs_of(suite, key)[:16]
    name = f"{key.id}-{inputs}"
    if where == TRIALS:
        name += "-" + "-".join(f"{value:g}" for value in settings.values())
    labels = suite.label_sets[key.cell.task].names
    return Training(suite.config, key, labels, source, settings, suite.config.output / where / name)


def _told(training: Training) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(training.result.read_text())
    return told


def _failure(training: Training) -> str:
    """Why a run gave no model; "" where it did."""
    reason: str = _told(training).get("failed", "")
    return reason


def _choose(trials: Sequence[Training]) -> tuple[Trial | None, list[Trial]]:
    """The best on validation patients by the mean over seeds, of equals the first, None where all failed;
    and all. A setting of which a seed failed has failed."""
    scores: dict[tuple[tuple[str, float], ...], list[float]] = {}
    for training in trials:
        result = _told(training)
        score = float("nan") if "failed" in result else result["score"]
        scores.setdefault(tuple(training.settings.items()), []).append(score)
    found = [Trial(dict(settings), float(np.mean(of))) for settings, of in scores.items()]
    known = [trial for trial in found if not np.isnan(trial.score)]
    return max(known, key=lambda trial: trial.score, default=None), found


def _write_failed(suite: Suite, key: FitKey, trials: list[Trial], reason: str) -> None:
    store, labels = Store(suite.config.output), suite.label_sets[key.cell.task].names
    store.forget(key)
    store.write_fit(Fit(key, labels, "failed", reason, trials=trials, inputs=inputs_of(suite, key)))


def _write_fit(
    suite: Suite, training: Training, trials: list[Trial], ran: Sequence[Training]
) -> None:
    """Writes a fit. ran: the trials, where their cost is counted with it and no other that they chose for."""
    store, key = Store(suite.config.output), training.key
    result = _told(training)
    store.forget(key)
    if (training.folder / VALIDATION).is_file():
        dataset = suite.config.tasks[key.cell.task].dataset
        with np.load(training.folder / VALIDATION) as file:
            said = Predictions(file["sample"], file["values"])
        store.write_predictions(key, dataset, "val", training.labels, said)
    folder = training.folder.relative_to(suite.config.output)
    for cost in ("samples_seen", "seconds"):
        result[cost] += sum(_told(trial).get(cost, 0) for trial in ran)
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


@dataclass(frozen=True)
class Shown:
    """What a training may see of a data set."""

    cohort: Cohort
    """Of training and validation patients."""
    targets: NDArray[np.float64]
    """[S, L] in the cohort's order; NaN of the samples that it does not see."""
    counts: dict[str, int] = field(default_factory=dict)
    """train_studies, train_patients, val_studies."""


def shown_to(training: Training) -> Shown:
    """Reads the samples that a training is to see: those of its draw."""
    config, key = training.config, training.key
    dataset = config.tasks[key.cell.task].dataset
    cohort = read_cohort(ShardSet.read(config.datasets[dataset].shards), FIT)
    table = Store(config.output).samples(dataset, opened=False)
    place = {name: i for i, name in enumerate(table.sample.tolist())}
    order = [place[name] for name in cohort.name.tolist()]
    targets = table.targets[key.cell.task]
    known = np.asarray(~np.isnan(targets).all(axis=1))
    train, val = labelled_rows(
        table.patient, table.split, known, key.cell.studies, key.cell.validation, key.draw
    )
    seen = np.zeros(len(targets), bool)
    seen[[*train, *val]] = True
    counts = {
        "train_studies": len(train),
        "train_patients": len(np.unique(table.patient[train])),
        "val_studies": len(val),
    }
    return Shown(cohort, np.where(seen[:, None], targets, np.nan)[order], counts)


def earlier(training: Training) -> float | None:
    """The score of a training that was done, NaN where it failed; None where it is to be done."""
    if not training.result.is_file():
        return None
    told = _told(training)
    return float("nan") if "failed" in told else float(told["score"])


def note_failed(training: Training, error: Exception) -> float:
    """Keeps why there is no model, for the failed row that it will be; returns NaN."""
    write_whole(training.result, json.dumps({"failed": f"{error}"}) + "\n")
    return float("nan")


# ----------------------------------------------------------------------------------------- the opening


@dataclass(frozen=True)
class Tested:
    """A trained model and the data set that it is tested on."""

    config: SuiteConfig
    key: FitKey
    dataset: str
    shards: str
    """What its predictions are marked with: they are of these very shards, scored in this way."""


def predict_tuned(
    suite: Suite, keys: Sequence[FitKey], one: Callable[[Tested], None], also: str = ""
) -> int:
    """Predicts test samples with every trained model; returns how many did it now.

    Args:
        suite: with the test data sets.
        keys: of the models.
        one: predicts with one of them.
        also: how predictions are scored, where that is stored with them: scored otherwise they are made anew.
    """
    store, config = Store(suite.config.output), suite.config
    tests = []
    for key in keys:
        if store.read_fit(key).status == "failed":
            continue
        for dataset in config.tasks[key.cell.task].tested_on:
            shards = fingerprint(config.datasets[dataset].shards) + also
            if not store.has_predictions(key, dataset, "test", shards):
                tests.append(Tested(config, key, dataset, shards))
    run_tasks(one, tests, "predicted", "trained models", [1] * len(tests), gpus_per_run(config))
    return len(tests)
