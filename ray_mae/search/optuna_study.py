"""The two Optuna studies that hold a search: created or continued, and filled with what to try."""

import json
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from ray_mae.checkpoint.format import fingerprint
from ray_mae.config import TuneConfig
from ray_mae.config.base import flatten, to_dict
from ray_mae.methods.registry import search_of
from ray_mae.search.database import open_storage, storage_url
from ray_mae.search.files import SEARCH, name_studies, study_name
from ray_mae.search.space import Parameter, category, grid

_MAY_CHANGE = (
    "trials",
    "at_once",
    "retries",
    "retry_failed",
    "resume",
    "output",
    "shards",
    "trackers",
    "repeat",
)
"""Settings that may differ when a search goes on."""
_AGAIN, _POINT = "again", "point"
"""Attributes of a trial: the number of the failed one that it tries once more, the point of the grids."""


@contextmanager
def optuna_quiet() -> Iterator[None]:
    """Silences Optuna's line per study and trial, during a block: `progress` prints what matters."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        try:
            yield
        finally:
            optuna.logging.set_verbosity(before)


def plain_settings(config: TuneConfig) -> dict[str, Any]:
    """Returns the settings as plain values, without the database: its URL may hold a password."""
    return {k: v for k, v in to_dict(config).items() if k != "storage"}


def open_study(config: TuneConfig, kind: str) -> optuna.Study:
    """Returns one of the two Optuna studies: a new one, or with `resume` the one that is there.

    Args:
        config: settings of the search.
        kind: SEARCH or REPEATS.

    Raises:
        ValueError: It is there without `resume`, or had other settings, or the database cannot be opened.
    """
    config.output.mkdir(parents=True, exist_ok=True)
    name_studies(config.output)
    name = study_name(config.output, kind)
    with optuna_quiet():
        storage = open_storage(storage_url(config.output, config.storage))
        exists = name in {s.study_name for s in optuna.get_all_study_summaries(storage)}
        if exists and kind == SEARCH and not config.resume:
            raise ValueError(
                f"{config.output} holds a search: add --resume true to go on with it, or choose "
                "another --output"
            )
        hours = config.objective == "auroc_and_hours" and kind == SEARCH
        study = optuna.create_study(
            study_name=name,
            storage=storage,
            directions=["maximize", "minimize"] if hours else ["maximize"],
            load_if_exists=True,
        )
        study.sampler = _sampler(config, len(study.get_trials(deepcopy=False)))
        if not exists:
            study.set_metric_names(["AUROC", "hours"] if hours else ["AUROC"])
    settings = {
        **plain_settings(config),
        "shards_sha256": " ".join(map(fingerprint, config.folders)),
    }
    before = study.user_attrs.get("search")
    if before is not None and (changed := _changed(before, settings)):
        raise ValueError(
            f"{config.output} holds a search with other settings ({', '.join(changed)}): choose "
            "another --output, or the same settings to go on"
        )
    study.set_user_attr("search", settings)
    return study


def _changed(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Returns names of settings that must stay as they were when a search goes on, and did not."""
    # through the schema, so that a setting that came later has its default in an older search, too
    old = {**plain_settings(stored_config(before)), "shards_sha256": before["shards_sha256"]}
    first, second = (
        flatten({k: v for k, v in json.loads(json.dumps(values)).items() if k not in _MAY_CHANGE})
        for values in (old, now)
    )
    return sorted(k for k in {**first, **second} if first.get(k) != second.get(k))


def stored_config(settings: dict[str, Any]) -> TuneConfig:
    """Returns the settings that an Optuna study holds."""
    values = {k: v for k, v in settings.items() if k != "shards_sha256"}
    return search_of(values)


def _sampler(config: TuneConfig, done: int) -> optuna.samplers.BaseSampler:
    """Returns the sampler, seeded by finished trials as well, or a resumed one would repeat its draws."""
    seed = config.seed + 7919 * done
    if config.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(
        seed=seed,
        n_startup_trials=config.startup_trials,
        multivariate=True,
        group=True,  # parameters that depend on others are modelled where they matter
        constant_liar=True,  # of trials that run at the same time no two try the same
    )


def enqueue(config: TuneConfig, study: optuna.Study, parameters: list[Parameter]) -> int:
    """Enqueues the points of the grids, and failed trials once more where that is asked for.

    What is there already is not enqueued again.

    Returns:
        The number of trials in all.
    """
    if config.retry_failed:
        repeated = {t.user_attrs.get(_AGAIN) for t in study.get_trials(deepcopy=False)}
        for trial in study.get_trials(deepcopy=False):
            if trial.state == TrialState.FAIL and trial.number not in repeated:
                study.enqueue_trial(trial.params, user_attrs={_AGAIN: trial.number})
    trials = study.get_trials(deepcopy=False)
    retries = sum(_AGAIN in t.user_attrs for t in trials)
    points = [{n: category(v) for n, v in point.items()} for point in grid(parameters)]
    if not points:
        return config.trials + retries
    times = 1 if all(p.kind == "grid" for p in parameters) else config.trials
    counts = Counter(t.user_attrs.get(_POINT) for t in trials)
    for count in range(times):
        for point in points:
            key = json.dumps(point)
            if counts[key] <= count:
                study.enqueue_trial(point, user_attrs={_POINT: key})
    return len(points) * times + retries


def enqueue_repeats(config: TuneConfig, study: optuna.Study, repeats: optuna.Study) -> int:
    """Enqueues the best settings with new seeds.

    They have an Optuna study of their own: they must not guide the sampler of the search.

    Returns:
        The number of trials in it.
    """
    present = [
        t.user_attrs["values"]
        for t in repeats.trials
        if t.state != TrialState.FAIL or not config.retry_failed
    ]
    for trial in best_trials(study, config.repeat.best):
        values = dict(trial.user_attrs["values"])
        first = values.get("seed", config.run.seed)
        for k in range(1, config.repeat.seeds + 1):
            again = {**values, "seed": first + 1000 * k}
            if again not in present:
                repeats.enqueue_trial({}, user_attrs={"values": again, "of": trial.number})
    return len(repeats.trials)


def best_trials(study: optuna.Study, count: int) -> list[FrozenTrial]:
    """Returns trials that went to their end, best AUROC first; of each setting its best seed alone."""
    complete = [t for t in study.get_trials(deepcopy=False) if t.state == TrialState.COMPLETE]
    whole = [t for t in complete if t.user_attrs.get("percent") == 100]
    by_setting: dict[str, FrozenTrial] = {}
    for trial in sorted(whole, key=lambda t: -t.values[0]):
        key = {k: v for k, v in trial.user_attrs["values"].items() if k != "seed"}
        by_setting.setdefault(json.dumps(key), trial)
    return list(by_setting.values())[:count]
