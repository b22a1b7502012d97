"""The workers of a run, on Ray Train: started, given their data, started again, ended."""

import os
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

from ray_mae.checkpoint import format as ckpt
from ray_mae.cluster.admission import worker_resources
from ray_mae.cluster.runtime import gpus_wanted
from ray_mae.config import AnyPretrainConfig
from ray_mae.config.base import to_dict
from ray_mae.data.loading.order import Order
from ray_mae.data.loading.stream import Stream
from ray_mae.data.schema import Manifest
from ray_mae.train.metrics.run_log import EVENTS, append_jsonl, read_events
from ray_mae.train.run_storage import RunStorage, outlast, require
from ray_mae.train.setup import Plan, make_plan, packing_of

_START_TIMEOUT = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"
_WANTED_TIMEOUT = os.environ.get(_START_TIMEOUT)  # the user's; each run of a process has its own

Probe = Callable[..., dict[str, Any]]
"""Ray Train's validation function: a checkpoint and the run's `config` → figures."""


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
    from ray_mae.train.recovery.restarts import keep_trace
    from ray_mae.train.worker import train

    with ExitStack() as stack:
        try:
            train(job, stack)
        except Exception as error:
            keep_trace(error)
            raise


def fit(
    config: AnyPretrainConfig,
    manifest: Manifest,
    tokenizer: str | None,
    attempt: str,
    probe: Probe | None,
) -> None:
    """Train to the last step. attempt: of this start of the command, see `begin_attempt`.

    Raises RuntimeError with one line that says why the run ended, once its restarts are used up.
    """
    # How long the workers' places are waited for. A group that may shrink takes what there is, and should
    # not wait for those of a node that has just died.
    wait = "600" if config.scaling.least == config.scaling.most else "15"
    os.environ[_START_TIMEOUT] = _WANTED_TIMEOUT or wait
    import ray.train
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
    from ray.train.v2.api.validation_config import ValidationConfig, ValidationTaskConfig

    from ray_mae.train.ray_backend import ProcessGroup, Remaining
    from ray_mae.train.recovery.restarts import Restarts, cause_of

    patience = config.scaling.storage_patience

    def remaining(workers: int) -> Stream:
        outlast(lambda: require(config.output), patience, config.output)
        # from where the first worker has said that it goes on, and not from what is the last checkpoint
        # now: workers that a driver left behind when it was killed may have saved since
        said = [e["first_step"] for e in read_events(config.output, attempt) if "first_step" in e]
        _clear(config, attempt, said[-1])
        plan = make_plan(config, manifest, workers)
        return stream_of(config, plan, manifest, tokenizer, said[-1])

    trainer = DataParallelTrainer(
        _train,
        train_loop_config={
            "config": to_dict(config),
            "tokenizer": tokenizer,
            "attempt": attempt,
            "of_shards": ckpt.facts_of(config.shards),
            "probe": probe is not None,
        },
        backend_config=ProcessGroup(),
        scaling_config=ray.train.ScalingConfig(
            num_workers=config.scaling.workers,
            elastic_resize_monitor_interval_s=config.scaling.resize_every,
            use_gpu=gpus_wanted(config.scaling.gpu),
            resources_per_worker=worker_resources(config),
        ),
        run_config=ray.train.RunConfig(
            name=config.output.name,
            storage_path=str(config.output.parent),
            storage_filesystem=RunStorage(config.output, ckpt.SNAPSHOT, patience),
            callbacks=[Restarts(config.output, attempt, config.scaling.max_failures)],
            failure_config=ray.train.FailureConfig(max_failures=-1),  # `Restarts` counts
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


def _clear(config: AnyPretrainConfig, attempt: str, first_step: int) -> None:
    """Remove what workers that are gone left of checkpoints they did not finish."""
    if first_step and not ckpt.committed(config.output):
        return  # the record cannot be read now, and all would seem unfinished
    left = ckpt.never_committed(config.output)
    for folder in left:
        shutil.rmtree(folder, ignore_errors=True)
    if left:
        told = f"removed {len(left)} unfinished checkpoints of workers that are gone"
        record = {"event": told, "time": time.time(), "attempt": attempt}
        append_jsonl(config.output / EVENTS, record)
