"""`pretrain`: from settings to a finished run, on Ray Train."""

import math
import time
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, cast

import yaml

from ray_mae.checkpoint import format as ckpt
from ray_mae.checkpoint import integrity
from ray_mae.checkpoint.begin import Beginning, begin, describe_beginning, drop_begun
from ray_mae.checkpoint.compatibility import require_compatible
from ray_mae.checkpoint.convert import FAMILIES
from ray_mae.cluster.admission import (
    admission,
    check_machine,
    check_resources,
    cpu_reservation,
    worker_resources,
)
from ray_mae.cluster.pending_nodes import report_pending_nodes
from ray_mae.cluster.runtime import cluster
from ray_mae.config.base import flatten, to_dict
from ray_mae.config.pretrain import EngineConfig, PretrainConfig
from ray_mae.config.sections import StudyDataConfig
from ray_mae.data.loading.findings import Findings
from ray_mae.data.loading.stream import Stream
from ray_mae.data.loading.targets import Targets
from ray_mae.data.loading.tokenizer import load_tokenizer, train_tokenizer, training_reports
from ray_mae.data.paths import real_path
from ray_mae.data.patients import SharedPatients, find_shared_patients, summarise_shared
from ray_mae.data.shard_set import ShardSet
from ray_mae.files import write_whole
from ray_mae.lock import hold
from ray_mae.store import remove_folder, require_store
from ray_mae.summary import read_summary, write_summary
from ray_mae.terminal import console, warn
from ray_mae.train.forecast.tables import StartTables, as_table, plan_rows
from ray_mae.train.metrics.jsonl import read_jsonl
from ray_mae.train.metrics.progress import Progress
from ray_mae.train.metrics.prometheus import RunMetrics
from ray_mae.train.metrics.trackers import Listeners, open_trackers
from ray_mae.train.recovery.lost_samples import unreadable_rows
from ray_mae.train.recovery.restarts import restarts_of
from ray_mae.train.run_folder import (
    CONFIG,
    EVENTS,
    METRICS,
    NOT_TO_BE_PASSED_ON,
    README,
    RunFolder,
)
from ray_mae.train.setup import (
    Job,
    Plan,
    cache_of,
    findings_of,
    make_plan,
    names_of_method,
    report_section,
    stream_of,
    targets_of,
)
from ray_mae.train.trainer import Probe, fit

_FREE_TO_CHANGE = {
    *("shards", "output", "weights", "mismatch"),
    *("scaling", "checkpoint", "tracking", "probe", "max_skipped", "corrupt"),
    *("cache", "cache_gib"),
}
"""Settings that may differ when a run is continued."""


def pretrain(config: PretrainConfig, probe: Probe | None = None) -> dict[str, Any]:
    """Trains to the last step, from the last committed checkpoint if the run has one.

    Args:
        config: settings of the run.
        probe: called for checkpoints, in tasks of its own; see `ray_mae.run`.

    Returns:
        The summary that is also written to summary.json.

    Raises:
        ValueError: with what to do, before any worker starts.
        FileNotFoundError: the same.
        InUseError: another command trains in the same folder.
        RuntimeError: with why the run ended.
        Interrupted: a signal ended it, after a last checkpoint.
    """
    began = time.time()
    config, plan, shards = ready(config)
    require_store(config.output)
    config.output.mkdir(parents=True, exist_ok=True)
    with hold(config.output, "ray-mae pretrain"):
        return _pretrain(config, plan, shards, began, probe)


def ready(config: PretrainConfig) -> tuple[PretrainConfig, Plan, ShardSet]:
    """Returns the settings with whole paths, the numbers of the run and its shards; nothing is begun.

    Raises:
        ValueError: the run cannot be, with what to do.
        FileNotFoundError: the same.
    """
    shards = ShardSet.read([real_path(path) for path in config.folders], config.shares)
    config = replace(config, shards=list(shards.paths), output=config.output.resolve())
    plan = make_plan(config, shards)
    config.check_sizes()
    if config.method.frozen_encoder:
        names_of_method(config, plan)  # refuses one that does not fit
        config = replace(config, method=config.method.resolved())
    cache_of(config, shards)
    check_machine(config.scaling)
    if config.data.corrupt == "stop":
        shards.check_sizes()
    return config, plan, shards


def finished(config: PretrainConfig) -> dict[str, Any] | None:
    """Returns the summary of a run that has taken its last step; None of one that has not.

    Raises:
        ValueError: it was made with other settings or of other shards, with their names.
    """
    config, plan, shards = ready(config)
    if ckpt.last_committed(config.output) is None:
        return None
    step = _first_step(replace(config, engine=_engine_of(config)), shards)
    summary = read_summary(config.output)
    return summary if step >= plan.steps else None


def _pretrain(
    config: PretrainConfig, plan: Plan, shards: ShardSet, began: float, probe: Probe | None
) -> dict[str, Any]:
    """The same, of checked settings, in a folder that nobody else writes to."""
    shared = find_shared_patients(shards)
    integrity.drop_damaged(config.output, console.print)
    config = replace(config, engine=_engine_of(config))
    first_step = _first_step(config, shards)
    if not first_step:  # of a start that came to no checkpoint
        remove_folder(config.output / ckpt.BEST)
    findings, targets = findings_of(config, shards), targets_of(config, shards)
    cautions = findings.cautions(shards, config.data.repeat_below) if findings else []
    cautions += targets.cautions if targets else ()
    beginning = None
    if config.weights:  # a run that goes on has its own, and those of before may be gone
        weights = config.weights.resolve()
        config = replace(config, weights=weights)
        if not first_step:
            settings = config
            beginning = begin(
                weights, config.encoder, config.output, lambda: names_of_method(settings, plan)
            )
            if weights.exists():
                cautions += require_compatible(weights, shards, config.mismatch)
    tokenizer = _tokenizer(config, shards, first_step, beginning)
    document = yaml.safe_dump(to_dict(config), sort_keys=False)
    write_whole(config.output / CONFIG, document)
    write_whole(config.output / README, NOT_TO_BE_PASSED_ON)
    console.print(as_table(plan_rows(config, plan, shards.describe(), first_step)))
    if beginning:
        console.print(as_table(describe_beginning(beginning.table)))
    warn(cautions)
    for pair in shared:
        console.print(pair.describe())
    if first_step < plan.steps:
        events = _train(config, plan, shards, tokenizer, findings, targets, beginning, began, probe)
    else:
        events = [{"event": "nothing to do", "time": began, "first_step": first_step}]
    drop_begun(config.output)
    summary = _summary(config.output, plan, began, events, shared)
    if config.label_uses:
        summary["labels_read"] = _labels_read(config, shards, findings, targets)
    return write_summary(config.output, summary | ({"cautions": cautions} if cautions else {}))


def _train(
    config: PretrainConfig,
    plan: Plan,
    shards: ShardSet,
    tokenizer: str | None,
    findings: Findings | None,
    targets: Targets | None,
    beginning: Beginning | None,
    began: float,
    probe: Probe | None,
) -> list[dict[str, Any]]:
    """Trains on the cluster and shows how far it is; returns the events of this start."""
    settings, scaling = to_dict(config), config.scaling
    probe_cpus = config.probe.cpus if probe else 0
    trackers = open_trackers(
        config.output, config.tracking.trackers, settings, _tracker_ids(config.output)
    )
    folder = RunFolder.begin(config.output, scaling.storage_patience)
    folder.gather()
    job = Job(
        settings,
        tokenizer,
        folder.attempt,
        ckpt.facts_of(shards),
        probe is not None,
        weights=str(beginning.weights) if beginning else None,
        positive_weight=targets.positive_weight.tolist() if targets else None,
        begun_with=beginning.table if beginning else _of_last(config.output).get("begun_with"),
    )

    def samples(workers: int, first_step: int) -> Stream:
        plan = make_plan(config, shards, workers)
        return stream_of(config, plan, shards, tokenizer, first_step, findings, targets)

    # one CPU more than the workers keep, for the tasks that read data
    worker_cpus = math.ceil(scaling.most * scaling.cpus_per_worker)
    with cluster(cpus=worker_cpus + 1 + probe_cpus):
        check_resources(scaling)
        with admission(scaling, probe_cpus), cpu_reservation(scaling, probe_cpus):
            metrics = RunMetrics(folder.path, plan.steps, config.method.losses)
            listeners = Listeners([metrics, *trackers], console.print)
            tables = StartTables(config, plan, shards)
            progress = Progress(folder, began, config, tables, listeners)
            with progress, report_pending_nodes(worker_resources(scaling)):
                fit(
                    job,
                    samples,
                    folder,
                    scaling,
                    keep=config.checkpoint.keep,
                    probe=probe,
                    probe_cpus=probe_cpus,
                )
    folder.gather()
    return folder.events()


def _engine_of(config: PretrainConfig) -> EngineConfig:
    """The run's engine by its own name: what it was begun with, unless the settings name one."""
    engine, last = config.engine, ckpt.last_committed(config.output)
    if last is not None and engine.name == "auto" and engine.zero_stage is None:
        begun = ckpt.read_config(last).engine.chosen
        return replace(engine, name=begun.name, zero_stage=begun.zero_stage)
    return engine.chosen


def _first_step(config: PretrainConfig, shards: ShardSet) -> int:
    """The step to go on with; refuses to go on with settings that make another run of it."""
    last = ckpt.last_committed(config.output)
    if last is None:
        _require_no_lost(config.output, config.checkpoint.every)
        return 0
    state = ckpt.read_state(last)
    # through the schema, so that a setting that came later has its default in an older run, too
    begun = ckpt.read_config(last)
    begun = replace(begun, engine=begun.engine.chosen)
    before, now = (flatten(to_dict(c)) for c in (begun, config))
    changed = [
        path
        for path, value in now.items()
        if not _FREE_TO_CHANGE & {*path.split(".")} and before.get(path) != value
    ]
    stage, was = config.engine.zero_stage, state["zero_stage"]
    fresh = (
        f"or begin another run from its weights alone with --weights {last} and another --output"
    )
    if "engine.name" in changed:
        raise ValueError(
            f"{last} was written by {begun.engine.described}, and {config.engine.described} cannot read its "
            f"optimiser states: continue with engine.name {begun.engine.name}, {fresh}"
        )
    if "engine.zero_stage" in changed:
        assert stage is not None  # DDP has none, and the names are the same
        if FAMILIES[stage] != FAMILIES[was]:
            raise ValueError(
                f"{last} was written with ZeRO {was}, and ZeRO {stage} cannot read its optimiser states: "
                f"continue with engine.zero_stage {FAMILIES[was]}, {fresh}"
            )
        changed.remove("engine.zero_stage")
    if config.engine.precision in ("auto", state.get("precision")):  # the workers look what auto is
        changed = [path for path in changed if path != "engine.precision"]
    if changed:
        raise ValueError(
            f"{config.output} holds a run with other settings ({', '.join(changed)}): "
            "choose another --output, or the same settings to continue it"
        )
    if ckpt.trained_on(state) != [ckpt.fingerprint(path) for path in shards.paths]:
        raise ValueError(
            f"{config.output} was trained on other shards than {', '.join(map(str, shards.paths))} "
            + ("holds" if len(shards) == 1 else "hold")
            + " now, so there is no next sample to go on with: choose another --output, or the shards "
            "of before"
        )
    return int(state["step"])


def _require_no_lost(run: Path, every: int) -> None:
    """Raise where there are checkpoints that no record names: a new start would write over that run."""
    for folder in ckpt.never_committed(run):
        if (folder / ckpt.STATE).is_file():
            step = ckpt.read_state(folder)["step"]
            if step > every:  # the first may have been interrupted as it was committed
                raise ValueError(
                    f"{run} holds a checkpoint of step {step}, and not Ray Train's record of them: "
                    f"put {integrity.SNAPSHOT} back to go on, or begin another run from its weights with "
                    f"--weights {folder} and another --output"
                )


def _tracker_ids(run: Path) -> dict[str, str]:
    """The run's id by tracker, as its last checkpoint knows it."""
    trackers: dict[str, str] = _of_last(run).get("trackers", {})
    return trackers


def _of_last(run: Path) -> dict[str, Any]:
    """The state of the last checkpoint; empty where there is none."""
    last = ckpt.last_committed(run)
    return ckpt.read_state(last) if last else {}


def _tokenizer(
    config: PretrainConfig, shards: ShardSet, first_step: int, beginning: Beginning | None
) -> str | None:
    """Returns the run's own tokenizer, that of its weights or settings, or a new one, which it keeps."""
    section = report_section(config)
    if section is None:
        return None
    data = cast(StudyDataConfig, config.data)
    file = config.output / ckpt.TOKENIZER
    if first_step and file.is_file():  # without a checkpoint it may be of other settings
        return file.read_text()
    earlier = beginning and beginning.weights / ckpt.TOKENIZER
    if earlier and earlier.is_file():  # the captioner's embeddings are of its words
        document = earlier.read_text()
    elif data.tokenizer:
        document = load_tokenizer(data.tokenizer)
    else:
        reports = training_reports(shards, section)
        first = next(reports, None)
        if first is None:
            raise ValueError(
                f"no study of {', '.join(map(str, shards.paths))} has a report to train the captioner on: "
                "ingest with reports, or set method.gamma to 0 (MVMAE without text)"
            )
        document = train_tokenizer(chain([first], reports), data.vocabulary)
    write_whole(file, document)
    return document


def _labels_read(
    config: PretrainConfig, shards: ShardSet, findings: Findings | None, targets: Targets | None
) -> dict[str, Any]:
    """For summary.json: which labels of training samples the run was steered by, and what for."""
    data = config.data
    draws = (data.repeat_below, data.repeat_most) if data.repeat_below else None
    read: dict[str, Any] = {
        "for": [*config.label_uses],
        "train_splits_of": [*shards.names],
        "samples": findings.samples if findings else shards.rows("train"),
    }
    if findings:
        read["findings"] = findings.table(config.method.study_weights, draws)
    if targets:
        read["targets"] = targets.table()
    return read


def _summary(
    run: Path,
    plan: Plan,
    began: float,
    events: list[dict[str, Any]],
    shared: list[SharedPatients],
) -> dict[str, Any]:
    metrics = read_jsonl(run / METRICS)
    last = ckpt.last_committed(run)
    assert last is not None
    summary: dict[str, Any] = {
        "command": "pretrain",
        "steps": plan.steps,
        "continued_from_step": next(e["first_step"] for e in events if "first_step" in e),
        "samples": plan.samples,
        "epochs": round(plan.epochs, 2),
        "last": metrics[-1] if metrics else {},
        "seconds": round(time.time() - began, 1),
        "start_up_seconds": {
            e["event"]: round(e["time"] - began, 1) for e in events if not e.get("restart")
        },
        "checkpoint": str(last),
    }
    if damaged := sorted(path.name for path in run.glob(f"{integrity.DAMAGED}*")):
        summary["damaged_checkpoints"] = damaged
    if shared:
        summary["shared_patients"] = summarise_shared(shared)
    if lost := unreadable_rows(run):
        summary["unreadable_rows"] = lost
    if restarts := restarts_of(run):
        summary["worker_restarts"] = len(restarts)
        times = "once" if len(restarts) == 1 else f"{len(restarts)} times"
        warn([f"workers were lost or failed and all began again, {times}: see {run / EVENTS}"])
    if begun_with := ckpt.read_state(last).get("begun_with"):
        summary["begun_with"] = begun_with
    if best := ckpt.best_by_probe(run):
        summary["best_by_probe"] = best
    return summary
