"""The workers of a run, on Ray Train: started, given their data, started again, ended."""

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import asdict
from typing import Any

from ray_mae.checkpoint import format as ckpt
from ray_mae.checkpoint.integrity import SNAPSHOT
from ray_mae.cluster import ray_private
from ray_mae.cluster.admission import describe_no_reader, worker_resources
from ray_mae.cluster.interruption import Interrupted, StopSignal
from ray_mae.cluster.runtime import cause_of_loss, gpus_wanted, started_here
from ray_mae.config.pretrain import ScalingConfig
from ray_mae.data.loading.stream import Stream
from ray_mae.store import remove_folder
from ray_mae.terminal import console
from ray_mae.train.recovery.pulse import key_of
from ray_mae.train.run_folder import STOPPED, RunFolder
from ray_mae.train.run_storage import require, storage_of
from ray_mae.train.setup import Job

_START_TIMEOUT = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"
_WANTED_TIMEOUT = os.environ.get(_START_TIMEOUT)  # the user's; each run of a process has its own

Probe = Callable[..., dict[str, Any]]
"""Ray Train's validation function: a checkpoint and the run's settings as `config` → metrics."""


def _train(values: dict[str, Any]) -> None:
    """What a worker runs. The driver and the controller know it by name, and import no torch."""
    from ray_mae.train.recovery.restarts import keep_trace
    from ray_mae.train.worker import train

    with ExitStack() as stack:
        try:
            train(Job(**values), stack)
        except Exception as error:
            keep_trace(error)
            raise


def fit(
    job: Job,
    samples: Callable[[int, int], Stream],
    folder: RunFolder,
    scaling: ScalingConfig,
    *,
    keep: int | None,
    probe: Probe | None,
    probe_cpus: int,
) -> None:
    """Trains to the last step, or until a signal: then to the next step, after which it saves.

    Args:
        job: what each worker is started with.
        samples: number of workers, first step → what they read from that step on.
        folder: of the run, for this start of the command.
        scaling: the workers.
        keep: latest checkpoints that stay; None keeps all.
        probe: called for checkpoints; None for none.
        probe_cpus: of the task that calls it.

    Raises:
        RuntimeError: one line that says why the run ended, once its restarts are used up.
        Interrupted: a signal ended it; the text says what is saved.
    """
    # How long the workers' places are waited for. A group that may shrink takes what there is, and should
    # not wait for those of a node that has just died.
    wait = "600" if scaling.least == scaling.most else "15"
    os.environ[_START_TIMEOUT] = _WANTED_TIMEOUT or wait
    if not folder.path.name.isascii():  # Ray Train's own metrics carry the name, and tags are ASCII
        os.environ["RAY_TRAIN_METRICS_ENABLED"] = "0"
    import ray.exceptions
    import ray.train
    from ray.train.v2.api.validation_config import ValidationConfig, ValidationTaskConfig

    from ray_mae.train.ray_backend import ProcessGroup, StreamConfig
    from ray_mae.train.recovery.restarts import Restarts, cause_of

    def stream(workers: int) -> Stream:
        folder.outlast(lambda: require(folder.path))
        # the step that the first worker has announced, and not from what is the last checkpoint
        # now: workers that a driver left behind when it was killed may have saved since
        first_step = folder.first_step()
        _clear(folder, first_step)
        cpus = ray.cluster_resources().get("CPU", 0)
        if line := describe_no_reader(scaling, workers, cpus):
            folder.note(line)
        return samples(workers, first_step)

    place, storage = storage_of(folder.path, SNAPSHOT, folder.patience)
    trainer = ray_private.trainer(
        _train,
        cleaner=not started_here(),
        train_loop_config=asdict(job),
        backend_config=ProcessGroup(),
        scaling_config=ray.train.ScalingConfig(
            num_workers=scaling.workers,
            elastic_resize_monitor_interval_s=scaling.resize_every,
            use_gpu=gpus_wanted(scaling.gpu),
            resources_per_worker=worker_resources(scaling),
        ),
        run_config=ray.train.RunConfig(
            name=folder.path.name,
            storage_path=place,
            storage_filesystem=storage,
            callbacks=[Restarts(folder, scaling.max_failures)],
            failure_config=ray.train.FailureConfig(max_failures=-1),  # `Restarts` counts
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=keep),
        ),
        validation_config=probe
        and ValidationConfig(
            fn=probe,
            task_config=ValidationTaskConfig(fn_kwargs={"config": job.config}),
            # in a search the driver has a placement group of its own, which the probe must not join
            ray_remote_kwargs={"num_cpus": probe_cpus, "scheduling_strategy": "DEFAULT"},
        ),
        datasets={"train": lambda: None},
        dataset_config=StreamConfig(stream),
    )
    try:
        _until_stopped(trainer.fit, folder, scaling.stop_patience)
    except (ray.train.WorkerGroupError, ray.train.ControllerError) as error:
        line, full = cause_of(error)
        with suppress(OSError):  # it may have been the disk
            file = folder.path / "error.txt"
            file.write_text(full + "\n")
            line += f" (in full: {file})"
        raise RuntimeError(line) from error
    except ray.exceptions.RayError as error:  # of its own processes: the controller, a node
        gone = "Ray Train's controller or the node of this command is gone"
        raise RuntimeError(
            f"{gone} ({cause_of_loss(error)}); {_kept(folder)}: start the same command again"
        ) from error
    finally:
        with suppress(ray.exceptions.RayError, RuntimeError):
            ray_private.forget(key_of(folder.attempt))


def _until_stopped(work: Callable[[], Any], folder: RunFolder, patience: float) -> None:
    """Runs `work` to its end, or to that of the workers after a signal.

    It runs in a thread: signals come to this one, and Ray Train would handle SIGINT itself and save nothing.

    Args:
        work: trains.
        folder: of the run.
        patience: seconds that workers have after a signal.

    Raises:
        Interrupted: the workers have stopped before the last step, or a signal was not answered in time.
    """
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    with StopSignal() as stop:
        thread.start()
        while thread.is_alive() and stop.signum is None:
            thread.join(0.2)
        if stop.signum is not None and folder.happened("first step"):
            console.print(
                f"{stop.signum.name}: saving a checkpoint after this step; a second signal ends at once"
            )
            ray_private.request_stop()
            deadline = time.monotonic() + patience
            while thread.is_alive() and time.monotonic() < deadline:
                thread.join(0.2)
            ray_private.withdraw_stop()
    if errors:
        raise errors[0]
    if thread.is_alive() or folder.happened(STOPPED):
        # in a search it is the search's driver that had the signal
        raise Interrupted(stop.signum or signal.SIGTERM, _kept(folder))


def _kept(folder: RunFolder) -> str:
    """What there is of a run that was stopped."""
    last = ckpt.last_committed(folder.path)
    if last is None:
        return f"{folder.path} has no checkpoint yet, so it begins anew"
    return f"{last} holds the run up to step {ckpt.read_state(last)['step']}, and it goes on from there"


def _clear(folder: RunFolder, first_step: int) -> None:
    """Removes what workers that are gone left of checkpoints they did not finish."""
    if first_step and not ckpt.committed(folder.path):
        return  # the record cannot be read now, and all would seem unfinished
    left = ckpt.never_committed(folder.path)
    for path in left:
        remove_folder(path)
    if left:
        folder.note(f"removed {len(left)} unfinished checkpoints of workers that are gone")
