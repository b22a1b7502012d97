"""`pretrain`: from settings to a finished run, on Ray Train."""

import json
import math
import os
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from dataclasses import replace
from typing import Any

import yaml

from ray_mae.config import AnyPretrainConfig, PretrainConfig
from ray_mae.data.loading import Stream
from ray_mae.data.order import Order
from ray_mae.data.schema import Manifest
from ray_mae.data.text import load_tokenizer, train_tokenizer, training_reports
from ray_mae.runtime import cluster, gpus_wanted
from ray_mae.settings import flatten, to_dict
from ray_mae.train import checkpoint as ckpt
from ray_mae.train.build import check_sizes, packing_of, text_of
from ray_mae.train.gauges import RunGauges
from ray_mae.train.listeners import Listeners
from ray_mae.train.opening import Opening, as_table, plan_rows
from ray_mae.train.plan import Plan, make_plan
from ray_mae.train.progress import Progress, console
from ray_mae.train.storage import RunStorage, outlast, replace_whole, require
from ray_mae.train.trackers import open_trackers
from ray_mae.train.tracking import (
    EVENTS,
    METRICS,
    append_jsonl,
    begin_attempt,
    read_events,
    read_jsonl,
)
from ray_mae.train.turns import turn
from ray_mae.train.universal import FAMILIES
from ray_mae.train.unreadable import unreadable_rows

CONFIG = "config.yaml"
_FREE_TO_CHANGE = {
    *("shards", "output", "weights"),
    *("scaling", "checkpoint", "tracking", "probe", "max_skipped", "corrupt"),
}
"""Settings that may differ when a run is continued."""


_START_TIMEOUT = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"
_WANTED_TIMEOUT = os.environ.get(_START_TIMEOUT)  # the user's; each run of a process has its own

Probe = Callable[..., dict[str, Any]]
"""Ray Train's validation function: a checkpoint and the run's `config` → figures."""


def pretrain(config: AnyPretrainConfig, probe: Probe | None = None) -> dict[str, Any]:
    """Train to the last step, from the last committed checkpoint if the run has one.

    probe: called for checkpoints, in tasks of its own; see `ray_mae.run`.
    Returns the summary that is also written to summary.json. Raises ValueError or
    FileNotFoundError with what to do before any worker is asked for.
    """
    began = time.time()
    config = replace(config, shards=config.shards.resolve(), output=config.output.resolve())
    manifest = Manifest.read(config.shards)
    plan = make_plan(config, manifest)
    config.output.mkdir(parents=True, exist_ok=True)
    first_step = _first_step(config)
    if not first_step:  # of a start that came to no checkpoint
        shutil.rmtree(config.output / ckpt.BEST, ignore_errors=True)
    tokenizer = _tokenizer(config, manifest, first_step)
    check_sizes(config.method)
    if config.weights and not first_step:
        config = replace(config, weights=ckpt.find_checkpoint(config.weights.resolve()))
    document = yaml.safe_dump(to_dict(config), sort_keys=False)
    replace_whole(config.output / CONFIG, document.encode())
    console.print(as_table(plan_rows(config, plan, f"in {config.shards}", first_step)))
    if first_step < plan.steps:
        from ray_mae.train.waiting import told_of_waiting

        trackers = open_trackers(config, _tracked(config))
        attempt = begin_attempt(config.output)
        # one CPU more than the workers keep, for the tasks that read data
        keep = math.ceil(config.scaling.most * config.scaling.cpus_per_worker)
        with cluster(cpus=keep + 1 + (config.probe.cpus if probe else 0)):
            _check_resources(config)
            with _turn(config, probe), _spare(config, probe):
                listeners = Listeners(
                    [RunGauges(config.output, plan.steps), *trackers], console.print
                )
                progress = Progress(
                    config.output,
                    began,
                    attempt,
                    plan.kind,
                    Opening(config, plan, manifest),
                    listeners,
                )
                with progress, told_of_waiting(_reserved(config)):
                    _fit(config, manifest, tokenizer, attempt, probe)
        events = read_events(config.output, attempt)
    else:
        events = [{"event": "nothing to do", "time": began, "first_step": first_step}]
    return _summary(config, plan, began, events)


def _first_step(config: AnyPretrainConfig) -> int:
    """The step to go on with; refuses to go on with settings that make another run of it."""
    last = ckpt.last_committed(config.output)
    if last is None:
        return 0
    state = ckpt.read_state(last)
    # through the schema, so that a setting that came later has its default in an older run, too
    before, now = (flatten(to_dict(c)) for c in (ckpt.read_config(last), config))
    changed = [
        path
        for path, value in now.items()
        if not _FREE_TO_CHANGE & {*path.split(".")} and before.get(path) != value
    ]
    stage, was = config.engine.zero_stage, state["zero_stage"]
    if "engine.zero_stage" in changed:
        if FAMILIES[stage] != FAMILIES[was]:
            raise ValueError(
                f"{last} was written with ZeRO {was}, and ZeRO {stage} cannot read its optimiser states: "
                f"continue with engine.zero_stage {FAMILIES[was]}, or begin another run from its weights "
                f"alone with --weights {last} and another --output"
            )
        changed.remove("engine.zero_stage")
    if changed:
        raise ValueError(
            f"{config.output} holds a run with other settings ({', '.join(changed)}): "
            "choose another --output, or the same settings to continue it"
        )
    if state["shards_sha256"] != ckpt.fingerprint(config.shards):
        raise ValueError(
            f"{config.output} was trained on other shards than {config.shards} holds now, so there is "
            "no next sample to go on with: choose another --output, or the shards of before"
        )
    return int(state["step"])


def _tracked(config: AnyPretrainConfig) -> dict[str, str]:
    """The run's id by tracker, as its last checkpoint knows it."""
    last = ckpt.last_committed(config.output)
    return ckpt.read_state(last).get("trackers", {}) if last else {}


def _tokenizer(config: AnyPretrainConfig, manifest: Manifest, first_step: int) -> str | None:
    """The run's tokenizer, kept with it: the given one, the run's own, or a new one."""
    text = text_of(config)
    if text is None:
        return None
    assert isinstance(config, PretrainConfig)
    kept = config.output / ckpt.TOKENIZER
    if first_step and kept.is_file():  # without a checkpoint it may be of other settings
        return kept.read_text()
    given = config.weights and ckpt.find_checkpoint(config.weights) / ckpt.TOKENIZER
    if given and given.is_file():  # the captioner's embeddings are of its words
        document = given.read_text()
    elif config.data.tokenizer:
        document = load_tokenizer(config.data.tokenizer)
    else:
        texts = list(training_reports(config.shards, manifest, text))
        if not texts:
            raise ValueError(
                f"no study of {config.shards} has a report to train the captioner on: "
                "ingest with reports, or set method.gamma to 0 (MVMAE without text)"
            )
        document = train_tokenizer(texts, config.data.vocabulary)
    replace_whole(kept, document.encode())
    return document


def _check_resources(config: AnyPretrainConfig) -> None:
    """Raise where training workers would leave no CPU for reading data: that run would hang."""
    import ray

    have = ray.cluster_resources()
    least = config.scaling.least
    keep = least * config.scaling.cpus_per_worker
    if have.get("CPU", 0) < keep + 1:
        problem = (
            f"{least} workers with {config.scaling.cpus_per_worker} CPUs each leave "
            f"none of the {have.get('CPU', 0):g} logical CPUs for reading data"
        )
        if not os.environ.get("RAY_ADDRESS"):
            raise ValueError(f"{problem}: lower scaling.workers or scaling.cpus_per_worker")
        console.print(f"{problem}: the run waits until the cluster has grown")
    if config.scaling.gpu == "auto" and os.environ.get("RAY_ADDRESS") and not have.get("GPU"):
        console.print(
            "scaling.gpu is auto and the cluster has no GPU now, so CPUs train; where GPUs come on "
            "demand, set it to true",
            markup=False,
        )
    if (
        gpus_wanted(config.scaling.gpu)
        and not os.environ.get("RAY_ADDRESS")
        and have.get("GPU", 0) < least
    ):
        raise ValueError(
            f"scaling.workers is {least}, there are {have.get('GPU', 0):g} GPUs: "
            "lower it, or set scaling.gpu to no"
        )


def _turn(config: AnyPretrainConfig, probe: Probe | None) -> AbstractContextManager[None]:
    """On a cluster that others use, too: workers without GPUs wait where they would take the last CPUs.

    Workers with GPUs are as many as there are GPUs: there it is up to scaling.cpus_per_worker.
    """
    if not os.environ.get("RAY_ADDRESS") or gpus_wanted(config.scaling.gpu):
        return nullcontext()
    held = config.scaling.least * config.scaling.cpus_per_worker
    return turn(held, beside=max(1, config.probe.cpus if probe else 0))


def _spare(config: AnyPretrainConfig, probe: Probe | None) -> AbstractContextManager[None]:
    """Room beside workers that may grow: for a reader of data, and for the probe."""
    if config.scaling.least == config.scaling.most:
        return nullcontext()  # `_check_resources` has looked
    from ray_mae.train.spare import spare_cpus

    return spare_cpus(1 + (config.probe.cpus if probe else 0))


def _reserved(config: AnyPretrainConfig) -> dict[str, float]:
    """What a training worker reserves, by name."""
    gpu = {"GPU": 1.0} if gpus_wanted(config.scaling.gpu) else {}
    return {"CPU": float(config.scaling.cpus_per_worker)} | gpu


def stream_of(
    config: AnyPretrainConfig,
    plan: Plan,
    manifest: Manifest,
    tokenizer: str | None,
    first_step: int,
) -> Stream:
    """The run's samples from `first_step` on."""
    return Stream(
        shards=config.shards,
        order=Order.of(manifest, "train", config.seed, config.data.shuffle_window),
        packing=packing_of(config, tokenizer),
        batch_size=plan.batch_size,
        micro_batch_size=plan.micro_batch_size,
        workers=plan.workers,
        first_step=first_step,
        steps=plan.steps,
        corrupt=config.data.corrupt,
        patience=config.scaling.storage_patience,
    )


def _train(job: dict[str, Any]) -> None:
    """What a worker runs. The driver and the controller know it by name, and import no torch."""
    from ray_mae.train.worker import train

    with ExitStack() as stack:
        train(job, stack)


def _fit(
    config: AnyPretrainConfig,
    manifest: Manifest,
    tokenizer: str | None,
    attempt: str,
    probe: Probe | None,
) -> None:
    # How long the workers' places are waited for. A group that may shrink takes what there is, and should
    # not wait for those of a node that has just died.
    wait = "600" if config.scaling.least == config.scaling.most else "15"
    os.environ[_START_TIMEOUT] = _WANTED_TIMEOUT or wait
    import ray.train
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
    from ray.train.v2.api.validation_config import ValidationConfig, ValidationTaskConfig

    from ray_mae.train.group import ProcessGroup
    from ray_mae.train.remaining import Remaining
    from ray_mae.train.restarts import NoRestart, cause_of

    patience = config.scaling.storage_patience

    def remaining(workers: int) -> Stream:
        outlast(lambda: require(config.output), patience, config.output)
        _clear(config, attempt)
        # from where the first worker has said that it goes on, and not from what is the last checkpoint
        # now: workers that a driver left behind when it was killed may have saved since
        said = [e["first_step"] for e in read_events(config.output, attempt) if "first_step" in e]
        plan = make_plan(config, manifest, workers)
        return stream_of(config, plan, manifest, tokenizer, said[-1])

    trainer = DataParallelTrainer(
        _train,
        train_loop_config={
            "config": to_dict(config),
            "tokenizer": tokenizer,
            "attempt": attempt,
            "probe": probe is not None,
        },
        backend_config=ProcessGroup(),
        scaling_config=ray.train.ScalingConfig(
            num_workers=config.scaling.workers,
            elastic_resize_monitor_interval_s=config.scaling.resize_every,
            use_gpu=gpus_wanted(config.scaling.gpu),
            resources_per_worker=_reserved(config),
        ),
        run_config=ray.train.RunConfig(
            name=config.output.name,
            storage_path=str(config.output.parent),
            storage_filesystem=RunStorage(config.output, ckpt.SNAPSHOT, patience),
            callbacks=[NoRestart()],
            failure_config=ray.train.FailureConfig(max_failures=config.scaling.max_failures),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=config.checkpoint.keep),
        ),
        validation_config=probe
        and ValidationConfig(
            fn=probe,
            task_config=ValidationTaskConfig(fn_kwargs={"config": to_dict(config)}),
            # in a search the driver has a placement group of its own, which the probe must not join
            ray_remote_kwargs={"num_cpus": config.probe.cpus, "scheduling_strategy": "DEFAULT"},
        ),
        datasets={"train": lambda: None},
        dataset_config=Remaining(remaining),
    )
    try:
        trainer.fit()
    except (ray.train.WorkerGroupError, ray.train.ControllerError) as error:
        line, full = cause_of(error)
        with suppress(OSError):  # it may have been the disk
            (config.output / "error.txt").write_text(full + "\n")
            line += f" (in full: {config.output / 'error.txt'})"
        raise RuntimeError(line) from error


def _clear(config: AnyPretrainConfig, attempt: str) -> None:
    """Remove what workers that are gone left of checkpoints they did not finish."""
    left = ckpt.never_committed(config.output)
    for folder in left:
        shutil.rmtree(folder, ignore_errors=True)
    if left:
        told = f"removed {len(left)} unfinished checkpoints of workers that are gone"
        record = {"event": told, "time": time.time(), "attempt": attempt}
        append_jsonl(config.output / EVENTS, record)


def _summary(
    config: AnyPretrainConfig, plan: Plan, began: float, events: list[dict[str, Any]]
) -> dict[str, Any]:
    figures = read_jsonl(config.output / METRICS)
    last = ckpt.last_committed(config.output)
    assert last is not None
    summary: dict[str, Any] = {
        "command": "pretrain",
        "steps": plan.steps,
        "continued_from_step": next(e["first_step"] for e in events if "first_step" in e),
        "samples": plan.samples,
        "epochs": round(plan.epochs, 2),
        "last": figures[-1] if figures else {},
        "seconds": round(time.time() - began, 1),
        "start_up_seconds": {e["event"]: round(e["time"] - began, 1) for e in events},
        "checkpoint": str(last),
    }
    if lost := unreadable_rows(config.output):
        summary["unreadable_rows"] = lost
    if best := ckpt.best_by_probe(config.output):
        summary["best_by_probe"] = best
    (config.output / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    return summary
