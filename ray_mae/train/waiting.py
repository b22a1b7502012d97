"""What a person sees while a run waits for nodes that an autoscaling cluster is to start."""

import os
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray.autoscaler.v2.schema import ClusterStatus, Stats
from ray.autoscaler.v2.utils import ClusterStatusParser
from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply

from ray_mae.train.progress import console

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
