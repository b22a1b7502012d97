"""Admission of a run to a cluster: its workers must leave CPUs for the tasks that read their data.

Training workers hold their CPUs to the end. Of two runs each of which leaves a CPU free, the second could
take the last one, and then both wait for data for ever. So each run enters a queue with what its workers
will hold, and starts them when enough is left. A run whose workers may grow in number keeps a reservation
of CPUs as well, which they do not grow into.
"""

import math
import os
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

from ray_mae.cluster import ray_private
from ray_mae.cluster.runtime import gpus_wanted, within_reach
from ray_mae.config.pretrain import ScalingConfig
from ray_mae.terminal import console


def check_machine(scaling: ScalingConfig) -> None:
    """Refuses more workers than a Ray of this machine's own could run at once; no other is joined.

    Ray would start them all the same, each a process of its own that waits for a core, and give up on them
    after minutes.

    Raises:
        ValueError: with what to set.
    """
    import ray

    if os.environ.get("RAY_ADDRESS") or ray.is_initialized():
        return  # it says itself what it has
    cores, least = os.cpu_count() or 1, scaling.least
    if least * scaling.cpus_per_worker > cores:
        share = math.floor(100 * cores / least) / 100
        raise ValueError(
            f"{least} workers with {scaling.cpus_per_worker:g} CPUs each want "
            f"{least * scaling.cpus_per_worker:g}, this machine has {cores}, and nothing can grow: set "
            f"scaling.workers to {max(1, int(cores / scaling.cpus_per_worker))} or less, "
            f"scaling.cpus_per_worker to {share:g}, with which workers share cores, or RAY_ADDRESS to "
            "that of a cluster"
        )


def check_resources(scaling: ScalingConfig) -> None:
    """Refuses settings with which training workers leave no CPU for reading data: that run would hang.

    On a cluster, which may grow, it prints what the run will wait for instead.

    Raises:
        ValueError: Too few CPUs or GPUs on this machine, with the setting to lower.
    """
    import ray

    resources = ray.cluster_resources()
    least = scaling.least
    cpus = least * scaling.cpus_per_worker
    if resources.get("CPU", 0) < cpus + 1:
        problem = (
            f"{least} workers with {scaling.cpus_per_worker} CPUs each leave "
            f"none of the {resources.get('CPU', 0):g} logical CPUs for reading data"
        )
        if not os.environ.get("RAY_ADDRESS"):
            raise ValueError(f"{problem}: lower scaling.workers or scaling.cpus_per_worker")
        console.print(f"{problem}: the run waits until the cluster has grown")
    if scaling.gpu == "auto" and os.environ.get("RAY_ADDRESS") and not resources.get("GPU"):
        console.print(
            "scaling.gpu is auto and the cluster has no GPU now, so CPUs train; where GPUs come on "
            "demand, set it to true",
        )
    if (
        gpus_wanted(scaling.gpu)
        and not os.environ.get("RAY_ADDRESS")
        and resources.get("GPU", 0) < least
    ):
        raise ValueError(
            f"scaling.workers is {least}, there are {resources.get('GPU', 0):g} GPUs: "
            "lower it, or set scaling.gpu to no"
        )


def describe_no_reader(scaling: ScalingConfig, workers: int, cpus: float) -> str | None:
    """Returns a line where workers that start now leave no CPU for reading data, as after a lost node.

    Args:
        scaling: the run's workers.
        workers: how many start.
        cpus: logical CPUs of the cluster now.
    """
    if workers * scaling.cpus_per_worker + 1 <= cpus:
        return None
    return (
        f"{workers} workers hold all of the cluster's {cpus:g} CPUs, so nothing reads data until a node "
        "joins; with scaling.workers as [fewest, most] a run goes on with fewer"
    )


def worker_resources(scaling: ScalingConfig) -> dict[str, float]:
    """Returns what one training worker reserves, by Ray's names: CPU, and GPU where they are used."""
    gpu = {"GPU": 1.0} if gpus_wanted(scaling.gpu) else {}
    return {"CPU": float(scaling.cpus_per_worker)} | gpu


# ------------------------------------------------------------------------------------------- queue


def admission(scaling: ScalingConfig, probe_cpus: int) -> AbstractContextManager[None]:
    """Waits in the cluster's queue for the workers' CPUs, and holds the run's place during a block.

    Does nothing on a Ray of this machine's own. Nor for workers with GPUs: they are as many as there are
    GPUs, and it is up to scaling.cpus_per_worker to leave CPUs beside them.

    Args:
        scaling: the run's workers.
        probe_cpus: of the task that probes checkpoints while the run goes on; 0 without one.
    """
    if not os.environ.get("RAY_ADDRESS") or gpus_wanted(scaling.gpu):
        return nullcontext()
    cpus = scaling.least * scaling.cpus_per_worker
    return _queue(cpus, free=max(1, probe_cpus))


_PREFIX = "ray_mae"
# Every cluster has this resource on its head, where drivers run. A placement group of next to nothing of it
# takes no process and no CPU, stands in a list that all jobs see, and is gone with the job that made it.
_HEAD = "node:__internal_head__"
_NEXT_TO_NOTHING = 0.0001


@dataclass(frozen=True, order=True)
class QueueEntry:
    """A run in the cluster's queue. Entries are ordered by their time."""

    since: float
    """Unix time."""
    cpus: float
    """CPUs that the run's workers hold, or will hold when they are admitted."""
    free: float
    """CPUs that must stay free of workers while the run goes on."""
    key: str

    @property
    def name(self) -> str:
        """Name of the placement group that stands for the entry: other drivers read it."""
        return f"{_PREFIX} {self.since!r} {self.cpus:g} {self.free:g} {self.key}"


def must_wait(entry: QueueEntry, queue: list[QueueEntry], cpus: float) -> bool:
    """Returns whether workers of earlier entries leave too little of the cluster for this one.

    An entry that does not even fit an empty cluster does not count, and does not wait: it asks the
    cluster to grow.

    Args:
        entry: the run in question.
        queue: all entries; it may hold `entry` itself.
        cpus: CPUs of the cluster, or those it can grow to.
    """
    if entry.cpus + entry.free > cpus:
        return False
    earlier = [e for e in queue if e < entry and e.cpus + e.free <= cpus]
    free = max([e.free for e in earlier] + [entry.free])
    return sum(e.cpus for e in earlier) + entry.cpus + free > cpus


@contextmanager
def _queue(cpus: float, free: float) -> Iterator[None]:
    """Waits until a run's workers may take CPUs; its entry stays in the queue until the block ends."""
    from ray.util.placement_group import placement_group, remove_placement_group

    entry = QueueEntry(time.time(), cpus, free, uuid.uuid4().hex)
    group = placement_group([{_HEAD: _NEXT_TO_NOTHING}], name=entry.name)
    try:
        waited = False
        while must_wait(entry, _entries(), within_reach("CPU")):
            if not waited:
                console.print(
                    f"waiting: workers of other runs hold CPUs, and {cpus:g} more would leave less than "
                    f"{free:g} for reading data"
                )
            waited = True
            time.sleep(1)
        yield
    finally:
        remove_placement_group(group)


def _entries() -> list[QueueEntry]:
    from ray.util.placement_group import placement_group_table

    words = (g["name"].split() for g in placement_group_table().values() if g["state"] != "REMOVED")
    return [
        QueueEntry(float(w[1]), float(w[2]), float(w[3]), w[4]) for w in words if w[:1] == [_PREFIX]
    ]


# ------------------------------------------------------------------------------------- reservation

_RENEW_S, _EXPIRES_S = 1.0, 90.0


def cpu_reservation(scaling: ScalingConfig, probe_cpus: int) -> AbstractContextManager[None]:
    """Reserves CPUs during a block beside workers that may grow: for a reader of data, and the probe.

    Does nothing where the number of workers is fixed: `check_resources` has counted those.
    """
    if scaling.least == scaling.most:
        return nullcontext()
    return _reserve_cpus(1 + probe_cpus)


@contextmanager
def _reserve_cpus(count: int) -> Iterator[None]:
    """Has Ray's autoscaling coordinator count CPUs as taken, during a block.

    An elastic group of workers grows into whatever the coordinator has left; on CPUs it would take all of
    them, and wait for ever for data that no CPU is left to read. The reservation is renewed each second,
    since that has the coordinator look at the nodes anew: the group would try to start again with a node
    that died since its last look, up to 20 s ago, and wait minutes for that.
    """
    ended, reserved = threading.Event(), threading.Event()
    requester = f"ray-mae-{uuid.uuid4().hex[:8]}"

    def renew() -> None:
        coordinator = ray_private.autoscaling_coordinator()
        while True:
            ray_private.reserve_cpus(coordinator, requester, count, _EXPIRES_S)
            reserved.set()
            if ended.wait(_RENEW_S):
                break
        ray_private.release_cpus(coordinator, requester)

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    reserved.wait(_EXPIRES_S)
    try:
        yield
    finally:
        ended.set()
        thread.join(_EXPIRES_S)
