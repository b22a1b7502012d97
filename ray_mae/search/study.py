"""`tune`: Ray Tune over whole pretrainings, recorded in an Optuna study."""

import json
import logging
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from ray_mae.config import AnyTuneConfig, TuneReportConfig
from ray_mae.data.schema import Manifest
from ray_mae.runtime import cluster, gpus_wanted
from ray_mae.search.names import REPEATS, SEARCH, SUMMARY, dashboards, storage_url, study_name
from ray_mae.search.room import cpus_per_trial, trials_of_cluster, trials_of_machine
from ray_mae.search.space import Parameter, grid, label, read_space
from ray_mae.search.trial import Runs, run_trial
from ray_mae.settings import flatten, to_dict
from ray_mae.train.checkpoint import fingerprint
from ray_mae.train.progress import console

_MAY_CHANGE = (
    "trials",
    "at_once",
    "retries",
    "resume",
    "output",
    "shards",
    "storage",
    "trackers",
    "repeat",
)
"""Settings that may differ when a search goes on."""


def tune(config: AnyTuneConfig) -> dict[str, Any]:
    """Search, repeat the best, write the report; returns the summary that is also in summary.json.

    Raises ValueError with what to do before any trial is started, RuntimeError where none succeeded.
    """
    began = time.time()
    config = replace(config, shards=config.shards.resolve(), output=config.output.resolve())
    parameters = read_space(config.space)
    _check(config, parameters)
    study = _open(config, SEARCH)
    total = _enqueue(config, study, parameters)
    with _cluster(config) as at_once:
        _print_opening(config, parameters, total, at_once)
        _run(config, study, parameters, SEARCH, total, at_once)
        if config.repeat.best and any(t.state == TrialState.COMPLETE for t in study.trials):
            repeats = _open(config, REPEATS)
            total = _enqueue_repeats(config, study, repeats)
            if any(not t.state.is_finished() for t in repeats.trials):
                console.print(f"\nThe best once more, with new seeds: {total} runs")
                _run(config, repeats, parameters, REPEATS, total, at_once)
    return _close(config, began)


def tune_report(config: TuneReportConfig) -> dict[str, Any]:
    """Write the report anew, of a search that ended or still goes on; returns its summary."""
    from ray_mae.search.report import write_report

    output = config.output.resolve()
    storage = storage_url(output, config.storage)
    return {**write_report(output, storage), "dashboards": dashboards(output, storage)}


def _check(config: AnyTuneConfig, parameters: list[Parameter]) -> None:
    manifest = Manifest.read(config.shards)
    if not manifest.rows("val"):
        raise ValueError(
            f"{config.shards} has no validation samples, by which a search chooses: ingest with "
            "validation_share above 0, or with an official split that has one"
        )
    Runs(config).check(parameters, config.output)
    for tracker in config.trackers:
        try:
            __import__(tracker)
        except ImportError as error:
            raise ValueError(f"trackers: {tracker} is not installed: ray-mae[{tracker}]") from error


@contextmanager
def _optuna_quiet() -> Iterator[None]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


def _open(config: AnyTuneConfig, name: str) -> optuna.Study:
    """A study of this search: a new one, or with `resume` the one that is there."""
    config.output.mkdir(parents=True, exist_ok=True)
    url = storage_url(config.output, config.storage)
    with _optuna_quiet():
        there = {s.study_name for s in optuna.get_all_study_summaries(url)}
        full = study_name(config.output, name)
        hours = "hours" in config.objectives and name == SEARCH
        study = optuna.create_study(
            study_name=full,
            storage=url,
            directions=["maximize", "minimize"] if hours else ["maximize"],
            sampler=_sampler(config, url, full if full in there else None),
            load_if_exists=True,
        )
        study.set_metric_names(["AUROC", "hours"] if hours else ["AUROC"])
    if full in there and name == SEARCH and not config.resume:
        raise ValueError(
            f"{url} holds the search {full!r}: add --resume true to go on with it, or choose another "
            "--output"
        )
    asked = {**to_dict(config), "shards_sha256": fingerprint(config.shards)}
    before = study.user_attrs.get("search")
    if before is not None:
        changed = _changed(before, asked)
        if changed:
            raise ValueError(
                f"{config.output} holds a search with other settings ({', '.join(changed)}): choose "
                "another --output, or the same settings to go on"
            )
    study.set_user_attr("search", asked)
    return study


def _changed(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Names of the settings that must stay as they were when a search goes on, and did not."""
    old, new = (
        flatten({k: v for k, v in json.loads(json.dumps(values)).items() if k not in _MAY_CHANGE})
        for values in (before, now)
    )
    return sorted(k for k in {**old, **new} if old.get(k) != new.get(k))


def _sampler(config: AnyTuneConfig, url: str, study: str | None) -> optuna.samplers.BaseSampler:
    """Seeded by how far the study is as well: started again, it would repeat its first draws."""
    done = len(optuna.load_study(study_name=study, storage=url).trials) if study else 0
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


def _enqueue(config: AnyTuneConfig, study: optuna.Study, parameters: list[Parameter]) -> int:
    """Put the points of the grids into the study, once; returns the number of trials in all."""
    points = grid(parameters)
    if not points:
        return config.trials
    times = 1 if all(p.kind == "grid" for p in parameters) else config.trials
    if not study.trials:
        for _ in range(times):
            for point in points:
                study.enqueue_trial({name: label(value) for name, value in point.items()})
    return len(points) * times


def _enqueue_repeats(config: AnyTuneConfig, study: optuna.Study, repeats: optuna.Study) -> int:
    """The best settings with new seeds, into a study of their own: they must not guide the sampler."""
    there = [t.user_attrs["values"] for t in repeats.trials]
    for trial in best_trials(study, config.repeat.best):
        values = dict(trial.user_attrs["values"])
        first = values.get("seed", config.run.seed)
        for k in range(1, config.repeat.seeds + 1):
            again = {**values, "seed": first + 1000 * k}
            if again not in there:
                repeats.enqueue_trial({}, user_attrs={"values": again, "of": trial.number})
    return len(repeats.trials)


def best_trials(study: optuna.Study, count: int) -> list[FrozenTrial]:
    """Trials that went to their end, by AUROC; of equal settings but the seed the first alone."""
    ended = [t for t in study.get_trials(deepcopy=False) if t.state == TrialState.COMPLETE]
    ended = [t for t in ended if t.user_attrs.get("percent") == 100]
    found: dict[str, FrozenTrial] = {}
    for trial in sorted(ended, key=lambda t: -t.values[0]):
        key = {k: v for k, v in trial.user_attrs["values"].items() if k != "seed"}
        found.setdefault(json.dumps(key), trial)
    return list(found.values())[:count]


@contextmanager
def _cluster(config: AnyTuneConfig) -> Iterator[int]:
    """Ray with its dashboard for the time of a block; gives the number of trials at a time."""
    import ray

    given = ray.is_initialized() or os.environ.get("RAY_ADDRESS")
    here = config.at_once or trials_of_machine(config.run)
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # the study has it all
    os.environ.setdefault(
        "TUNE_DISABLE_SIGINT_HANDLER", "1"
    )  # it would count stopped trials as ended
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    with cluster(cpus=here * cpus_per_trial(config.run), dashboard=True):
        gpus = gpus_wanted(config.run.scaling.gpu)
        counted = given or gpus  # of a machine without GPUs the cores count, not Ray's logical CPUs
        at_once = config.at_once or (trials_of_cluster(config.run, gpus) if counted else here)
        # Tune asks for no more at a time; its own default follows the CPUs there were at its start
        os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(at_once)
        yield at_once


def _run(
    config: AnyTuneConfig,
    study: optuna.Study,
    parameters: list[Parameter],
    name: str,
    total: int,
    at_once: int,
) -> None:
    """Let Tune run what the study lacks of its trials."""
    from ray import tune as ray_tune

    from ray_mae.search.narrator import Narrator
    from ray_mae.search.searcher import StudySearcher

    done = len([t for t in study.get_trials(deepcopy=False) if t.state.is_finished()])
    if done >= total:
        return
    folder = config.output / name
    objectives = config.objectives if name == SEARCH else ["auroc"]
    searcher = StudySearcher(study, parameters, list(objectives), folder)
    job = {"search": to_dict(config), "folder": str(folder)}
    tuner = ray_tune.Tuner(
        ray_tune.with_resources(
            ray_tune.with_parameters(run_trial, job=job), {"CPU": 0.01}
        ),  # workers reserve their own
        tune_config=ray_tune.TuneConfig(
            search_alg=searcher,
            scheduler=_scheduler(config, study) if name == SEARCH else None,
            num_samples=total - done,
            max_concurrent_trials=at_once,
        ),
        run_config=ray_tune.RunConfig(
            name=f"{name}-{time.strftime('%Y%m%d-%H%M%S')}",
            storage_path=str(config.output / "tune"),
            failure_config=ray_tune.FailureConfig(max_failures=config.retries),
            callbacks=[Narrator(study, searcher, total), *_trackers(config)],
            verbose=0,
        ),
    )
    for name in ("ray.tune", "ray.train"):  # what matters of it the narrator says in a line
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with _optuna_quiet():
        tuner.fit()


def _scheduler(config: AnyTuneConfig, study: optuna.Study) -> Any:
    """ASHA that knows the probes of the trials that the study has finished; None stops nothing."""
    from ray.tune.schedulers import AsyncHyperBandScheduler

    if not config.asha.stop:
        return None
    made = AsyncHyperBandScheduler(
        time_attr="percent",
        max_t=100,
        grace_period=max(1, int(100 * config.asha.grace)),
        reduction_factor=config.asha.reduction,
        stop_last_trials=False,  # the last probe ends a trial by itself
    )
    made.set_search_properties("auroc", "max")
    for trial in study.get_trials(deepcopy=False):
        if not trial.state.is_finished():
            continue
        stub: Any = SimpleNamespace(trial_id=f"before-{trial.number}")
        made.on_trial_add(None, stub)
        for auroc, _, _, percent in trial.user_attrs.get("probes", {}).values():
            made.on_trial_result(None, stub, {"percent": percent, "auroc": auroc})
    return made


def _trackers(config: AnyTuneConfig) -> list[Any]:
    """Tune's own callbacks for other people's dashboards; settings come from their environment."""
    found: list[Any] = []
    name = f"ray_mae {config.output.name}"
    if "mlflow" in config.trackers:
        from ray.air.integrations.mlflow import MLflowLoggerCallback

        uri = os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{config.output / 'mlflow.db'}")
        found.append(MLflowLoggerCallback(tracking_uri=uri, experiment_name=name))
    if "wandb" in config.trackers:
        from ray.air.integrations.wandb import WandbLoggerCallback

        found.append(WandbLoggerCallback(project=name.replace(" ", "-")))
    return found


def _print_opening(
    config: AnyTuneConfig, parameters: list[Parameter], total: int, at_once: int
) -> None:
    import ray

    for parameter in parameters:
        values = ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in parameter.values)
        when = " and ".join(
            f"{other} is {' or '.join(map(str, wanted))}" for other, wanted in parameter.when
        )
        console.print(
            f"  {parameter.name:<28} {parameter.kind} {values}"
            + (f", where {when}" if when else ""),
            markup=False,
        )
    console.print(f"{total} trials, {at_once} at a time; {config.sampler}", markup=False)
    url = ray._private.worker.global_worker.node.webui_url
    for name, how in {
        **dashboards(config.output, storage_url(config.output, config.storage)),
        "Ray": f"http://{url} (its token: ray get-auth-token)" if url else "",
    }.items():
        if how:
            console.print(f"  {name:<12} {how}", markup=False)


def _close(config: AnyTuneConfig, began: float) -> dict[str, Any]:
    from ray_mae.search.report import write_report

    summary = write_report(config.output, storage_url(config.output, config.storage))
    summary = {
        "command": "tune",
        **summary,
        "seconds": round(time.time() - began, 1),
        "dashboards": dashboards(config.output, storage_url(config.output, config.storage)),
    }
    (config.output / SUMMARY).write_text(json.dumps(summary, indent=1) + "\n")
    return summary
