"""Joining a Ray cluster, or starting one on this machine."""

import logging
import os
import signal
import socket
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray_mae.cluster import ray_private
from ray_mae.cluster.interruption import Interrupted, handlers_kept
from ray_mae.terminal import log

# Ray reads these when it is imported: this module is, by `ray_mae` itself, before.
# `uv run` would have Ray build a second environment for its workers from the working folder.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
# a worker that asked for no GPU sees none, or PyTorch and DeepSpeed would use it all the same
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")
NO_USAGE_STATISTICS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_USAGE_DISABLED": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "WANDB_ERROR_REPORTING": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}
"""Nothing about an archive, a run or who trains it leaves the cluster unasked. What starts Ray before this
package is imported (the image, the batch script) sets the same."""
for _name, _value in NO_USAGE_STATISTICS.items():
    os.environ.setdefault(_name, _value)
os.environ.setdefault("RAY_raylet_start_wait_time_s", "120")  # a busy machine is slow

# Container images often forbid bytecode files. A run starts a dozen processes, and each would compile
# Ray and PyTorch from source: half of the time until the first step.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


# in a notebook Ray asks for the widgets of its own tables, once for each
logging.getLogger(ray_private.WIDGETS_LOGGER).setLevel(logging.ERROR)

_WATCHER = "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"
_WATCHER_WANTED = _WATCHER in os.environ


_started = False


def started_here() -> bool:
    """Returns whether this process started its Ray, which ends with it and with all that it holds."""
    return _started


def connect(cpus: int = 1, dashboard: bool = False) -> None:
    """Joins the cluster of RAY_ADDRESS or of this job; without one, starts Ray on this machine.

    Args:
        cpus: logical CPUs that a local Ray must offer at least. Training workers keep theirs all the
            time, so on a small machine the tasks that read data need some beyond the real ones.
        dashboard: start Ray's dashboard, too, on loopback; a search needs it to take back what a
            stopped trial held.

    Raises:
        ConnectionError: Nothing answers at RAY_ADDRESS.
        RuntimeError: Ray could not be started or joined, with the cause.
    """
    import ray

    if dashboard or os.environ.get("RAY_ADDRESS"):
        # the dashboard's page of runs; without one it is an actor that costs seconds of start-up
        os.environ.setdefault("RAY_TRAIN_ENABLE_STATE_TRACKING", "1")
    if ray.is_initialized():
        return
    logging.getLogger(ray_private.AUTHENTICATION_LOGGER).setLevel(logging.ERROR)
    if address := os.environ.get("RAY_ADDRESS"):
        _require(address)
        if not _WATCHER_WANTED:
            os.environ.pop(_WATCHER, None)
        _init(f"the cluster at {address} could not be joined", address="auto")
    else:
        # by default Ray warns of more processes than cores, and here most of them wait all the time
        os.environ.setdefault(
            "RAY_worker_maximum_startup_concurrency", str(4 * (os.cpu_count() or 1))
        )
        # a process for each core, which Ray Train's and Ray Data's actors could not use
        os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
        # nobody takes this machine away, and an actor that watches for it costs seconds of start-up
        os.environ.setdefault(_WATCHER, "0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            folder = _temporary_folder()
            _init(
                "Ray could not be started on this machine",
                address="local",
                num_cpus=max(cpus, os.cpu_count() or 1),
                include_dashboard=dashboard,
                _temp_dir=folder,
            )
        global _started
        _started = True
    from ray.data import DataContext

    DataContext.get_current().enable_progress_bars = False
    for name in ("ray.data", "ray.train"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger(ray_private.PROGRESS_LOGGER).setLevel(logging.ERROR)


_SOON_S = 5.0
"""A start of Ray that takes longer is spoken of."""
_CAUSE = 400
"""Characters that are shown of an error of Ray's, which may hold a log."""


def _init(failure: str, **options: Any) -> None:
    """`ray.init`, which leaves the signals alone. Raises RuntimeError with one line that begins so."""
    import ray

    what = "Ray on this machine" if options["address"] == "local" else "its cluster"
    waiting = threading.Timer(_SOON_S, log.info, [f"waiting for {what} …\n"])
    waiting.daemon = True
    waiting.start()
    ray_private.quieten()
    try:
        with handlers_kept():
            ray.init(log_to_driver=False, logging_level=logging.WARNING, **options)
    except SystemExit as error:  # what Ray makes of SIGTERM while it starts
        raise Interrupted(signal.SIGTERM, "Ray had not started yet") from error
    except Exception as error:  # Ray raises all kinds, and Exception itself
        cause = " ".join(str(error).split()) or type(error).__name__
        cause = cause if len(cause) <= _CAUSE else f"{cause[:_CAUSE]} …"
        temporary = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
        logs = f"{options.get('_temp_dir') or temporary + '/ray'}/session_latest/logs"
        hint = "" if options["address"] == "auto" else f" (its logs: {logs})"
        raise RuntimeError(f"{failure}: {cause}{hint}") from error
    finally:
        waiting.cancel()


# Below its temporary folder Ray's sockets lie in ray/session_DATE_PID/sockets/plasma_store, and the path
# of a socket has 107 bytes at most.
_LONGEST_TEMPORARY = 107 - len(
    "/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
)


def _temporary_folder() -> str | None:
    """Returns a folder for a local Ray where TMPDIR is too long for its sockets, None where it is not.

    Raises:
        ValueError: RAY_TMPDIR is too long, or /tmp cannot be written to.
    """
    wanted = os.environ.get("RAY_TMPDIR")
    temporary = wanted or tempfile.gettempdir()
    if len(os.fsencode(temporary)) <= _LONGEST_TEMPORARY:
        return None
    short = f"/tmp/ray-{os.getuid()}"
    if not wanted and os.access("/tmp", os.W_OK):
        log.info("%s is too long a path for Ray's sockets: Ray uses %s\n", temporary, short)
        return short
    name = "RAY_TMPDIR" if wanted else "TMPDIR"
    raise ValueError(
        f"{name} is {temporary}: too long a path for Ray's sockets; set RAY_TMPDIR to a folder with at "
        f"most {_LONGEST_TEMPORARY} bytes in its path"
    )


def _require(address: str) -> None:
    """Raises ConnectionError where nothing listens: Ray itself would go on trying for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        return  # auto, or a name that is for Ray to read
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise ConnectionError(
            f"no Ray cluster answers at {address} ({error}): correct RAY_ADDRESS, unset it to use this "
            "machine, or send the command as a job by `ray-mae submit`"
        ) from error


@contextmanager
def cluster(cpus: int = 1, dashboard: bool = False) -> Iterator[None]:
    """Joins or starts Ray as `connect` does, for a block; a Ray that it started ends with the block."""
    import ray

    joined = ray.is_initialized()
    connect(cpus, dashboard)
    ended = threading.Event()
    threading.Thread(target=_watch_control_store, args=(ended,), daemon=True).start()
    try:
        yield
    except ray.exceptions.RayTaskError:
        raise  # an error of the work itself
    except ray.exceptions.RayError as error:
        raise RuntimeError(
            f"Ray lost a process or node that this command needs ({cause_of_loss(error)}): start the same "
            "command again"
        ) from error
    finally:
        ended.set()
        if not joined:
            global _started
            ray.shutdown()
            _started = False


def cause_of_loss(error: Exception) -> str:
    """Returns in a few words why Ray lost a process, from an error of many lines."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    because = [line for line in lines if line.startswith("The actor is dead because")]
    text = (because or lines or [type(error).__name__])[-1 if because else 0]
    text = text.partition(" Some common causes")[0].removesuffix(".")
    return text if len(text) <= _CAUSE else f"{text[:_CAUSE]} …"


_LOOK_S, _SILENT_S = 2.0, 10.0


def _watch_control_store(ended: threading.Event) -> None:
    """Says when Ray's control store does not answer: a minute later Ray ends this process without a word."""
    import ray

    address = ray.get_runtime_context().gcs_address
    host, _, port = address.rpartition(":")
    answered, told = time.monotonic(), False
    while not ended.wait(_LOOK_S):
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_LOOK_S).close()
        except OSError:
            silent = time.monotonic() - answered
            if silent > _SILENT_S and not told:
                told = True
                log.info(
                    "Ray's control store at %s has not answered for %.0f s. Unless it comes back, Ray ends "
                    "this command a minute after it went: start the same command again, which goes on where "
                    "it can\n",
                    address,
                    silent,
                )
            continue
        if told:
            log.info("Ray's control store answers again\n")
        answered, told = time.monotonic(), False


def within_reach(resource: str) -> float:
    """Returns how much of a resource the cluster has, or can grow to, where its autoscaler says so.

    Ray's own autoscaler does not: what it may still start shows when it is asked for.

    Args:
        resource: "CPU" or "GPU".
    """
    import ray

    limits = ray_private.max_resources()
    return float(max(ray.cluster_resources().get(resource, 0), limits.get(resource, 0)))


def gpus_wanted(setting: bool | str) -> bool:
    """Returns whether to use GPUs.

    Args:
        setting: true, false, or "auto", which looks at what the cluster has or can grow to.

    Raises:
        ValueError: "auto" where the cluster has no node to look at yet, or true on a machine without.
    """
    available = within_reach("GPU") > 0
    if setting == "auto" and not available and not within_reach("CPU"):
        raise ValueError(
            "gpu is auto, and the cluster has no node yet to look at: set it to true or false"
        )
    if setting is True and not available and not os.environ.get("RAY_ADDRESS"):
        raise ValueError(
            "gpu is true, and Ray sees no GPU on this machine: set it to auto or false"
        )
    return available if setting == "auto" else bool(setting)
