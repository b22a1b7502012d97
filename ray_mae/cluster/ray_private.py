"""Every private name of Ray that this project uses: look at each when Ray is upgraded.

Ray 2.60 has no public way to what these do. Nothing of Ray is imported before it is asked for.
"""

import importlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray_mae.cluster.interruption import handlers_kept, signals_blocked

AUTHENTICATION_LOGGER = "ray._private.authentication"
"""Announces the token of a local cluster at each start. A changed name shows as that line."""
WIDGETS_LOGGER = "ray.widgets.util"
"""Asks notebooks for ipywidgets. A changed name shows as that line."""
PROGRESS_LOGGER = "ray.data._internal.progress"
"""Warns where progress bars are off. A changed name shows as that warning."""

_NAMES = {
    # told of each step of a dataset's execution; its hooks must keep their names (data/loading/stream)
    "ExecutionCallback": "ray.data._internal.execution.execution_callback:ExecutionCallback",
    # the base of what Ray Train raises when a worker is lost (train/recovery/restarts)
    "RayTrainError": "ray.train.v2._internal.exceptions:RayTrainError",
    # Ray Train does not count failures of preempted nodes, nor may we (train/recovery/restarts)
    "is_preempted_actor": "ray.train.v2._internal.execution.worker_group.poll:_is_preempted_actor",
}


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _NAMES[name].split(":")
    return getattr(importlib.import_module(module), attribute)


def dashboard_url() -> str | None:
    """Returns HOST:PORT of the dashboard of the cluster that was joined; None where it has none."""
    import ray

    url: str | None = ray._private.worker.get_dashboard_url()
    return url


def dashboard_version(client: Any) -> dict[str, Any]:
    """Returns what the dashboard says of its cluster: `ray_version`, `session_name`.

    Args:
        client: `JobSubmissionClient`, whose public methods do not tell these.
    """
    version: dict[str, Any] = client._do_request("GET", "/api/version").json()
    return version


def max_resources() -> dict[str, float]:
    """Returns what the cluster can grow to, by resource; empty where its autoscaler does not say so."""
    from ray._private.state import state

    return state.get_max_resources_from_cluster_config() or {}


def metrics_interval() -> float:
    """Returns seconds between two reports of a process' metrics to its node; from Ray's own settings."""
    import ray

    milliseconds: int = ray._config.metrics_report_interval_ms()
    return milliseconds / 1000


def trainer(*arguments: Any, cleaner: bool, **options: Any) -> Any:
    """Returns Ray Train's `DataParallelTrainer`.

    Args:
        arguments: of the trainer.
        cleaner: whether an actor takes back the workers' places should the controller be killed. It
            costs seconds of start-up.
        options: of the trainer.
    """
    from ray.train.v2._internal.callbacks.placement_group_callback import (
        PlacementGroupCleanerCallback,
    )
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    class Trainer(DataParallelTrainer):
        def _create_default_callbacks(self) -> list[Any]:
            every = super()._create_default_callbacks()
            return [c for c in every if cleaner or not isinstance(c, PlacementGroupCleanerCallback)]

    return Trainer(*arguments, **options)


def cluster_status() -> tuple[Any, bool]:
    """Returns the autoscaler's `ClusterStatus`, and whether a request fits no type of node that may start.

    Parsed as `ray status` does; see `ray.autoscaler.v2.sdk.get_cluster_status`, which lacks the second.
    """
    import ray
    from ray.autoscaler.v2.schema import Stats
    from ray.autoscaler.v2.utils import ClusterStatusParser
    from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply

    reply = GetClusterStatusReply.FromString(
        ray._private.worker.global_worker.gcs_client.get_cluster_status()
    )
    state = reply.autoscaling_state
    infeasible = [
        *state.infeasible_gang_resource_requests,
        *state.infeasible_cluster_resource_constraints,
    ]
    return ClusterStatusParser.from_get_cluster_status_reply(reply, stats=Stats()), bool(infeasible)


def autoscaling_coordinator() -> Any:
    """Returns the actor that shares the cluster out among Ray Data and Ray Train."""
    from ray.data._internal.cluster_autoscaler import default_autoscaling_coordinator as default

    return default.get_or_create_autoscaling_coordinator()


def reserve_cpus(coordinator: Any, requester: str, count: int, expires_s: float) -> None:
    """Has the coordinator count CPUs as taken, ahead of all other requests, and look at the nodes anew.

    Args:
        coordinator: of `autoscaling_coordinator`.
        requester: name of the request; a second one of that name replaces the first.
        count: CPUs.
        expires_s: seconds after which the coordinator forgets the request.
    """
    import ray
    from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import (
        ResourceRequestPriority,
    )

    coordinator.request_resources.remote(
        requester_id=requester,
        resources=[{"CPU": 1.0}] * count,
        expire_after_s=expires_s,
        priority=ResourceRequestPriority.HIGH,
    )
    ray.get(coordinator.get_reserved_resources.remote(requester, recompute=True))


def release_cpus(coordinator: Any, requester: str) -> None:
    """Ends what `reserve_cpus` reserved."""
    coordinator.cancel_request.remote(requester)


_NAMESPACE = "ray_mae"
"""In the cluster's key-value store; keys begin with the job."""


def request_stop() -> None:
    """Asks the training workers of this job to save a checkpoint and end; see `stop_requested`."""
    tell("stop", "1")


def withdraw_stop() -> None:
    """Ends the request."""
    _kv("del", _key("stop"))


def stop_requested() -> bool:
    """Returns whether this job's driver was asked to end."""
    return bool(_kv("get", _key("stop")))


def tell(name: str, value: str) -> None:
    """Puts something for others of this job into the control store, in the place of what was there."""
    _kv("put", _key(name), value.encode())


def told(prefix: str) -> list[str]:
    """Returns what was put under names that begin so, in their order."""
    values = [_kv("get", key) for key in sorted(_kv("list", _key(prefix)))]
    return [value.decode() for value in values if value is not None]


def forget(prefix: str) -> None:
    """Removes what was put under names that begin so."""
    _kv("del", _key(prefix), del_by_prefix=True)


def _key(name: str) -> str:
    import ray

    return f"{ray.get_runtime_context().get_job_id()}/{name}"


def _kv(verb: str, *arguments: Any, **options: Any) -> Any:
    from ray.experimental import internal_kv

    return getattr(internal_kv, f"_internal_kv_{verb}")(*arguments, namespace=_NAMESPACE, **options)


def health_check_timeout() -> float:
    """Returns seconds after which Ray Train gives up a worker that does not answer."""
    from ray.train.v2._internal.constants import (
        DEFAULT_WORKER_HEALTH_CHECK_TIMEOUT_S,
        WORKER_HEALTH_CHECK_TIMEOUT_S_ENV_VAR,
    )

    return float(
        os.environ.get(WORKER_HEALTH_CHECK_TIMEOUT_S_ENV_VAR, DEFAULT_WORKER_HEALTH_CHECK_TIMEOUT_S)
    )


_SAID_BY_US = (
    "A worker died or was killed while executing",
    "Raylet is terminated",
    "The node with node id",
)
"""How messages of Ray begin whose matter the package tells in a line of its own."""


_LEVEL = "RAY_BACKEND_LOG_LEVEL"


def quieten() -> None:
    """Keeps from the terminal what Ray tells of its processes and the package tells itself.

    To be called before `ray.init`.

    The driver's own part in C++ writes its errors to the terminal, such as that an actor of Ray Data, which
    lives no longer than the driver, would not outlive it. It reads its level when the driver connects; the
    processes of a local Ray are started before, and keep theirs. A level that is set stays.
    """
    import ray

    worker = ray._private.worker
    show, connect = worker.print_to_stdstream, worker.connect
    if getattr(show, "quiet", False):
        return

    def print_to_stdstream(data: Any, *arguments: Any, **options: Any) -> None:
        lines = data.get("lines") or [""]
        if not (data.get("pid") == "raylet" and str(lines[0]).lstrip().startswith(_SAID_BY_US)):
            show(data, *arguments, **options)

    def connect_quietly(*arguments: Any, **options: Any) -> Any:
        # the C++ part handles SIGTERM by a dump of the stack
        with signals_blocked(), handlers_kept():
            return connect_at_level(*arguments, **options)

    def connect_at_level(*arguments: Any, **options: Any) -> Any:
        if _LEVEL in os.environ:
            return connect(*arguments, **options)
        os.environ[_LEVEL] = "fatal"
        try:
            with _stderr_without(_LEVEL):  # Ray says that it has read it
                return connect(*arguments, **options)
        finally:
            del os.environ[_LEVEL]

    print_to_stdstream.quiet = True  # type: ignore[attr-defined]
    worker.print_to_stdstream, worker.connect = print_to_stdstream, connect_quietly


@contextmanager
def _stderr_without(word: str) -> Iterator[None]:
    """Shows what is written to standard error, by C++ too, after a block, less lines with a word."""
    before = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(before, 2)
            held.seek(0)
            for line in held:
                if word.encode() not in line:
                    os.write(before, line)
            os.close(before)
