"""`tune`: Ray Tune over whole pretrainings; what it finds is in an Optuna study."""

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import optuna
from optuna.trial import TrialState

from ray_mae.cluster.admission import check_machine
from ray_mae.cluster.interruption import Interrupted, StopSignal
from ray_mae.cluster.ray_private import dashboard_url
from ray_mae.cluster.runtime import cluster, gpus_wanted
from ray_mae.config import TuneConfig, TuneReportConfig
from ray_mae.data.paths import real_path
from ray_mae.data.shard_set import ShardSet
from ray_mae.evaluate.probe.online import probed_samples
from ray_mae.lock import hold
from ray_mae.search.capacity import trials_of_cluster, trials_of_machine
from ray_mae.search.database import database_of, storage_url
from ray_mae.search.files import REPEATS, SEARCH, dashboards
from ray_mae.search.optuna_study import (
    enqueue,
    enqueue_repeats,
    open_study,
    optuna_quiet,
    plain_settings,
)
from ray_mae.search.space import Parameter, read_space
from ray_mae.search.trial import Runs, run_trial
from ray_mae.store import require_store, storage_of
from ray_mae.summary import write_summary
from ray_mae.terminal import console
from ray_mae.train.metrics.trackers import check_trackers, mlflow_uri


def tune(config: TuneConfig) -> dict[str, Any]:
    """Searches settings, repeats the best with new seeds, and writes the report.

    Args:
        config: settings of the search. With `resume` it goes on with what its output folder holds.

    Returns:
        The summary that is also written to summary.json.

    Raises:
        ValueError: Before any trial is started, with what to do.
        RuntimeError: No trial succeeded.
        InUseError: Another search writes into the same folder.
        Interrupted: A signal ended it, once the trials under way were saved.
    """
    began = time.time()
    folders = [real_path(path) for path in config.folders]
    config = replace(config, shards=folders, output=config.output.resolve())
    parameters = read_space(config.space)
    _check(config, parameters)
    require_store(config.output)
    config.output.mkdir(parents=True, exist_ok=True)
    with (
        hold(config.output, "ray-mae tune"),
        database_of(config.output, config.storage) as storage,
    ):
        return _search(replace(config, storage=storage), parameters, began)


def _search(config: TuneConfig, parameters: list[Parameter], began: float) -> dict[str, Any]:
    """The same, of checked settings, in a folder that no other search writes to."""
    study = open_study(config, SEARCH)
    total = enqueue(config, study, parameters)
    with _cluster(config) as (at_once, joined):
        run = _Runner(config, parameters, at_once, joined)
        _print_start(config, parameters, total, at_once)
        run(study, SEARCH, total)
        if config.repeat.best and any(t.state == TrialState.COMPLETE for t in study.trials):
            repeats = open_study(config, REPEATS)
            total = enqueue_repeats(config, study, repeats)
            if any(not t.state.is_finished() for t in repeats.trials):
                console.print(f"\nThe best once more, with new seeds: {total} runs")
                run(repeats, REPEATS, total)
    summary = _finish(config, began)
    if all(t.state == TrialState.FAIL for t in study.trials if t.state.is_finished()):
        reasons = "; ".join(f"{trial}: {why}" for trial, why in summary["failures"].items())
        raise RuntimeError(
            f"no trial of the search ended well ({reasons}): each one's log.txt in "
            f"{config.output / SEARCH} has more; repair it, then --resume true --retry_failed true"
        )
    return summary


def tune_report(config: TuneReportConfig) -> dict[str, Any]:
    """Writes the report anew, of a search that ended or still goes on.

    Returns:
        The summary of the search so far.

    Raises:
        ValueError: The output folder holds no search.
    """
    from ray_mae.search.report import write_report

    output = config.output.resolve()
    with database_of(output, config.storage) as storage:
        return write_report(output, storage)


def _check(config: TuneConfig, parameters: list[Parameter]) -> None:
    """Raises ValueError for what would let every trial fail."""
    shards = ShardSet.read(config.folders, config.shares)
    if config.run.data.corrupt == "stop":
        shards.check_sizes()
    if not shards.rows("val"):
        raise ValueError(
            f"{', '.join(map(str, shards.paths))} has no validation samples, by which a search "
            "chooses: ingest with validation_share above 0, or with an official split that has one"
        )
    Runs(config).check(parameters, config.output)
    check_machine(config.run.scaling)
    probed_samples(shards, config.run.probe)
    check_trackers([*config.trackers], "trackers", config.output)
    check_trackers([*config.run.tracking.trackers], "run.tracking.trackers", config.output)


@contextmanager
def _cluster(config: TuneConfig) -> Iterator[tuple[int, bool]]:
    """Joins or starts Ray with its dashboard, for a block.

    Yields:
        Trials at a time, and whether the cluster was there before.
    """
    import ray

    joined = ray.is_initialized() or bool(os.environ.get("RAY_ADDRESS"))
    local = config.at_once or trials_of_machine(config.run)
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # the Optuna study has it all
    # Tune's handler would have stopped trials count as ended
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    with cluster(cpus=local * config.run.logical_cpus + 1, dashboard=True):
        if config.asha.stop and not dashboard_url():
            raise ValueError(
                "this Ray runs without its dashboard, which takes back the workers of a trial that was "
                "stopped early: start the head node with --include-dashboard=true, or set asha.stop to "
                "false"
            )
        gpus = gpus_wanted(config.run.scaling.gpu)
        # on a machine without GPUs its cores limit the trials, not Ray's logical CPUs
        by_cluster = joined or gpus
        at_once = config.at_once or (trials_of_cluster(config.run, gpus) if by_cluster else local)
        # Tune never prepares more trials than run; by default it follows the CPUs there were at first
        os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(at_once)
        yield at_once, joined


class _Runner:
    """Lets Tune run the trials that an Optuna study lacks."""

    def __init__(
        self, config: TuneConfig, parameters: list[Parameter], at_once: int, joined: bool
    ) -> None:
        self._config, self._parameters = config, parameters
        self._at_once, self._joined = at_once, joined

    def __call__(self, study: optuna.Study, kind: str, total: int) -> None:
        from ray import tune as ray_tune

        from ray_mae.search.optuna_searcher import OptunaSearcher
        from ray_mae.search.progress import ProgressCallback
        from ray_mae.search.stopping import SearchStopper

        config = self._config
        done = len([t for t in study.get_trials(deepcopy=False) if t.state.is_finished()])
        if done >= total:
            return
        folder = config.output / kind
        hours = config.objective == "auroc_and_hours" and kind == SEARCH
        objectives = ["auroc", "hours"] if hours else ["auroc"]
        searcher = OptunaSearcher(study, self._parameters, objectives, folder)
        signal = StopSignal()
        stopper = SearchStopper(searcher, signal, config.run.scaling.stop_patience)
        job = {"search": plain_settings(config), "folder": str(folder), "joined": self._joined}
        trainable = ray_tune.with_resources(
            ray_tune.with_parameters(run_trial, job=job),
            {"CPU": 0.01},  # workers reserve their own
        )
        place, file_system = storage_of(config.output / "tune")
        tuner = ray_tune.Tuner(
            trainable,
            tune_config=ray_tune.TuneConfig(
                search_alg=searcher,
                scheduler=_scheduler(config, study) if kind == SEARCH else None,
                num_samples=total - done,
                max_concurrent_trials=self._at_once,
            ),
            run_config=ray_tune.RunConfig(
                name=f"{kind}-{time.strftime('%Y%m%d-%H%M%S')}",
                storage_path=place,
                storage_filesystem=file_system,
                failure_config=ray_tune.FailureConfig(max_failures=config.retries),
                stop=stopper,
                callbacks=[ProgressCallback(study, searcher, total, folder), *_trackers(config)],
                verbose=0,
            ),
        )
        for name in ("ray.tune", "ray.train"):  # `ProgressCallback` prints what matters
            logging.getLogger(name).setLevel(logging.CRITICAL)
        with optuna_quiet(), signal:
            tuner.fit()
        remove_orphaned_placement_groups()
        if signal.signum is not None:
            raise Interrupted(signal.signum, f"{stopper.saved} trials under way are saved")


def _scheduler(config: TuneConfig, study: optuna.Study) -> Any:
    """Returns ASHA that knows the probes of trials that ended before; None where none is to be stopped."""
    from ray.tune.schedulers import AsyncHyperBandScheduler

    if not config.asha.stop:
        return None
    scheduler = AsyncHyperBandScheduler(
        time_attr="percent",
        max_t=99,  # no decision at 100 %: the last probe ends a trial by itself
        grace_period=min(99, max(1, int(100 * config.asha.grace))),
        reduction_factor=config.asha.reduction,
        stop_last_trials=False,
    )
    scheduler.set_search_properties("auroc", "max")
    for trial in study.get_trials(deepcopy=False):
        if not trial.state.is_finished():
            continue
        stub: Any = SimpleNamespace(trial_id=f"before-{trial.number}")
        scheduler.on_trial_add(None, stub)
        for auroc, _, _, percent in trial.user_attrs.get("probes", {}).values():
            scheduler.on_trial_result(None, stub, {"percent": percent, "auroc": auroc})
    return scheduler


def _trackers(config: TuneConfig) -> list[Any]:
    """Returns Tune's callbacks for MLflow and W&B, which read their own environment variables."""
    callbacks: list[Any] = []
    name = f"ray_mae {config.output.name}"
    if "mlflow" in config.trackers:
        from ray.air.integrations.mlflow import MLflowLoggerCallback

        uri = mlflow_uri(config.output)
        callbacks.append(MLflowLoggerCallback(tracking_uri=uri, experiment_name=name))
    if "wandb" in config.trackers:
        from ray.air.integrations.wandb import WandbLoggerCallback

        callbacks.append(WandbLoggerCallback(project=name.replace(" ", "-")))
    return callbacks


def _print_start(config: TuneConfig, parameters: list[Parameter], total: int, at_once: int) -> None:

    for parameter in parameters:
        values = ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in parameter.values)
        when = " and ".join(
            f"{other} is {' or '.join(map(str, choices))}" for other, choices in parameter.when
        )
        console.print(
            f"  {parameter.name:<28} {parameter.kind} {values}"
            + (f", where {when}" if when else ""),
        )
    gridded = all(p.kind == "grid" for p in parameters)
    method = "every point of the grids" if gridded else config.sampler
    console.print(f"{total} trials, {at_once} at a time; {method}")
    url = dashboard_url()
    commands = dashboards(
        config.output, storage_url(config.output, config.storage), config.trackers
    )
    if url:
        commands["Ray"] = f"http://{url} (its token: ray get-auth-token)"
    for name, how in commands.items():
        console.print(f"  {name:<12} {how}")


def _finish(config: TuneConfig, began: float) -> dict[str, Any]:
    from ray_mae.search.report import write_report

    summary = {
        "command": "tune",
        **write_report(config.output, storage_url(config.output, config.storage)),
        "seconds": round(time.time() - began, 1),
    }
    return write_summary(config.output, summary)


def remove_orphaned_placement_groups() -> None:
    """Removes the placement groups of this job, when none of its trials goes on any more.

    Ray Train removes those of a stopped trial by an actor of the trial, which on a busy machine can die
    before it has heard of the group.
    """
    import ray
    from ray.util.placement_group import PlacementGroup, remove_placement_group
    from ray.util.state import list_placement_groups
    from ray.util.state.exception import RayStateApiException

    context = ray.get_runtime_context()
    ours = [("creator_job_id", "=", context.get_job_id()), ("state", "!=", "REMOVED")]
    try:
        groups = list_placement_groups(
            context.gcs_address,  # of several clusters on a machine, ours
            filters=ours,
            detail=True,
            limit=10_000,
        )
    except (RayStateApiException, ConnectionError) as error:
        # no reason to end a search of days
        console.print(f"what stopped trials may still hold could not be looked at: {error}")
        return
    for group in groups:
        identity = ray.PlacementGroupID(bytes.fromhex(group.placement_group_id))
        remove_placement_group(PlacementGroup(identity))
