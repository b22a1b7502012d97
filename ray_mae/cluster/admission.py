"""What a run takes of the cluster, and what it leaves for those who read its data."""

import os
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import ray
from ray.autoscaler.v2.schema import ClusterStatus, Stats
from ray.autoscaler.v2.utils import ClusterStatusParser
from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply
from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import (
    ResourceRequestPriority,
    get_or_create_autoscaling_coordinator,
)

from ray_mae.cluster.runtime import gpus_wanted
from ray_mae.config.pretrain import PretrainConfig
from ray_mae.terminal import console


def check_resources(config: PretrainConfig) -> None:
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


def its_turn(config: PretrainConfig, probes: bool) -> AbstractContextManager[None]:
    """On a cluster that others use, too: workers without GPUs wait where they would take the last CPUs.

    Workers with GPUs are as many as there are GPUs: there it is up to scaling.cpus_per_worker.
    """
    if not os.environ.get("RAY_ADDRESS") or gpus_wanted(config.scaling.gpu):
        return nullcontext()
    held = config.scaling.least * config.scaling.cpus_per_worker
    return turn(held, beside=max(1, config.probe.cpus if probes else 0))


def spare_room(config: PretrainConfig, probes: bool) -> AbstractContextManager[None]:
    """Room beside workers that may grow: for a reader of data, and for the probe."""
    if config.scaling.least == config.scaling.most:
        return nullcontext()  # `check_resources` has looked

    return spare_cpus(1 + (config.probe.cpus if probes else 0))


def reserved(config: PretrainConfig) -> dict[str, float]:
    """What a training worker reserves, by name."""
    gpu = {"GPU": 1.0} if gpus_wanted(config.scaling.gpu) else {}
    return {"CPU": float(config.scaling.cpus_per_worker)} | gpu


_PREFIX = "ray_mae"
# Every cluster has this resource on its head, where drivers run. A placement group of next to nothing of it
# takes no process and no CPU, stands in a list that all jobs see, and is gone with the job that made it.
_HEAD = "node:__internal_head__"
_NEXT_TO_NOTHING = 0.0001


@dataclass(frozen=True, order=True)
class Claim:
    """CPUs that the workers of a run hold, or will when it is their turn."""

    since: float
    held: float
    beside: float
    """CPUs that must stay free of workers while this run goes on."""
    key: str

    @property
    def name(self) -> str:
        """How the claim is written down."""
        return f"{_PREFIX} {self.since!r} {self.held:g} {self.beside:g} {self.key}"


def must_wait(own: Claim, others: list[Claim], cpus: float) -> bool:
    """Whether workers of earlier claims leave too little of the cluster's `cpus` for this one.

    A claim that does not even fit an empty cluster does not count, and does not wait: it asks the
    cluster to grow.
    """
    if own.held + own.beside > cpus:
        return False
    earlier = [c for c in others if c < own and c.held + c.beside <= cpus]
    beside = max([c.beside for c in earlier] + [own.beside])
    return sum(c.held for c in earlier) + own.held + beside > cpus


@contextmanager
def turn(held: float, beside: float) -> Iterator[None]:
    """Wait until a run's workers may take `held` CPUs; they are accounted for until the block ends."""
    from ray.util.placement_group import placement_group, remove_placement_group

    from ray_mae.cluster.runtime import within_reach
    from ray_mae.terminal import console

    own = Claim(time.time(), held, beside, uuid.uuid4().hex)
    group = placement_group([{_HEAD: _NEXT_TO_NOTHING}], name=own.name)
    try:
        waited = False
        while must_wait(own, _claims(), within_reach("CPU")):
            if not waited:
                console.print(
                    f"waiting: workers of other runs hold CPUs, and {held:g} more would leave less than "
                    f"{beside:g} for reading data"
                )
            waited = True
            time.sleep(1)
        yield
    finally:
        remove_placement_group(group)


def _claims() -> list[Claim]:
    from ray.util.placement_group import placement_group_table

    words = (g["name"].split() for g in placement_group_table().values() if g["state"] != "REMOVED")
    return [Claim(float(w[1]), float(w[2]), float(w[3]), w[4]) for w in words if w[:1] == [_PREFIX]]


_LOOK, _EXPIRES = 1.0, 90.0  # seconds


@contextmanager
def spare_cpus(count: int) -> Iterator[None]:
    """Have Ray's autoscaling coordinator count so many CPUs as taken, in the time of a block.

    An elastic group of workers grows into whatever the coordinator has left; on CPUs it would take all of
    them, and wait for ever for data that nobody has room to read. And it would try to start again with a
    node that died since the coordinator's last look, up to 20 s ago, and wait minutes for its place.
    """
    ended, asked = threading.Event(), threading.Event()
    name = f"ray-mae-{uuid.uuid4().hex[:8]}"

    def ask() -> None:
        coordinator = get_or_create_autoscaling_coordinator()
        while True:
            coordinator.request_resources.remote(
                requester_id=name,
                resources=[{"CPU": 1.0}] * count,
                expire_after_s=_EXPIRES,
                priority=ResourceRequestPriority.HIGH,
            )
            ray.get(coordinator.get_reserved_resources.remote(name, recompute=True))
            asked.set()
            if ended.wait(_LOOK):
                break
        coordinator.cancel_request.remote(name)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    asked.wait(_EXPIRES)
    try:
        yield
    finally:
        ended.set()
        thread.join(_EXPIRES)


_LOOK_S = 3.0


@contextmanager
def told_of_waiting(worker: dict[str, float]) -> Iterator[None]:
    """For the time of a block, print a line whenever it changes what training workers wait for.

    worker: what one reserves.
    """
    worker = {name: each for name, each in worker.items() if each}
    if not os.environ.get("RAY_ADDRESS"):  # nothing grows on a machine of its own
        yield
        return
    ended = threading.Event()
    thread = threading.Thread(target=_look, args=(worker, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _look(worker: dict[str, float], ended: threading.Event) -> None:
    said = None
    while not ended.wait(_LOOK_S):
        try:
            status, impossible = _status()
        except (ray.exceptions.RpcError, RuntimeError):  # a busy head may answer the next time
            continue
        text = waiting_for(worker, status, impossible)
        if text and text != said:
            console.print(text, markup=False)
        said = text


def _status() -> tuple[ClusterStatus, bool]:
    """What the autoscaler says, and whether some request fits no type of node that it may start."""
    reply = GetClusterStatusReply.FromString(
        ray._private.worker.global_worker.gcs_client.get_cluster_status()
    )
    state = reply.autoscaling_state
    impossible = [
        *state.infeasible_gang_resource_requests,
        *state.infeasible_cluster_resource_constraints,
    ]
    status = ClusterStatusParser.from_get_cluster_status_reply(reply, stats=Stats())
    return status, bool(impossible)


def waiting_for(worker: dict[str, float], status: ClusterStatus, impossible: bool) -> str | None:
    """In words; None where no worker waits.

    Ray Train asks for room first, and keeps asking when it has it; then it takes the room as a group.
    """
    total = status.total_resources()
    asked, demands = 0, status.resource_demands
    for demand in (*demands.placement_group_demand, *demands.cluster_constraint_demand):
        for some in demand.bundles_by_count:
            if {k: v for k, v in some.bundle.items() if v} == worker:
                asked = max(asked, some.count)
    if all(asked * each <= total.get(name, 0) for name, each in worker.items()):
        return None
    one = ", ".join(f"{each:g} {name}" for name, each in worker.items())
    text = (
        f"waiting for nodes: {asked} × ({one}) are asked for, the cluster has {total.get('CPU', 0):g} "
        f"CPUs and {total.get('GPU', 0):g} GPUs"
    )
    starting = Counter(n.ray_node_type_name for n in status.pending_nodes)
    for launch in status.pending_launches:
        starting[launch.ray_node_type_name] += launch.count
    if starting:
        text += "; starting: " + ", ".join(f"{n} {name}" for name, n in starting.items())
    failed = {launch.ray_node_type_name: launch.details for launch in status.failed_launches}
    for name, details in failed.items():
        text += f"; could not be started: {name} ({details})"
    if impossible:
        text += "; no type of node that may still be started can hold what is asked for"
    return text
