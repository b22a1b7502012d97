"""What a person sees while a run waits for nodes that an autoscaling cluster is to start."""

import os
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray_mae.cluster import ray_private
from ray_mae.terminal import console

_LOOK_S = 3.0


@contextmanager
def report_pending_nodes(worker: dict[str, float]) -> Iterator[None]:
    """Prints a line whenever it changes what training workers wait for, during a block.

    Does nothing on a Ray of this machine's own, where nothing grows.

    Args:
        worker: what one training worker reserves, by Ray's names of resources.
    """
    worker = {name: amount for name, amount in worker.items() if amount}
    if not os.environ.get("RAY_ADDRESS"):
        yield
        return
    ended = threading.Event()
    thread = threading.Thread(target=_watch, args=(worker, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _watch(worker: dict[str, float], ended: threading.Event) -> None:
    import ray

    last = None
    while not ended.wait(_LOOK_S):
        try:
            status, infeasible = ray_private.cluster_status()
        except (ray.exceptions.RpcError, RuntimeError):  # a busy head may answer the next time
            continue
        text = describe_pending(worker, status, infeasible)
        if text and text != last:
            console.print(text)
        last = text


def describe_pending(worker: dict[str, float], status: Any, infeasible: bool) -> str | None:
    """Returns a line on the nodes that are asked for, starting or failed; None where no worker waits.

    Ray Train asks for room first, and keeps asking when it has it; then it takes the room as a group.

    Args:
        worker: what one training worker reserves, by Ray's names of resources.
        status: Ray's `ClusterStatus`.
        infeasible: whether something is asked for that fits no type of node which may still start.
    """
    total = status.total_resources()
    workers, demands = 0, status.resource_demands
    for demand in (*demands.placement_group_demand, *demands.cluster_constraint_demand):
        for bundles in demand.bundles_by_count:
            if {k: v for k, v in bundles.bundle.items() if v} == worker:
                workers = max(workers, bundles.count)
    if all(workers * amount <= total.get(name, 0) for name, amount in worker.items()):
        return None
    one = ", ".join(f"{amount:g} {name}" for name, amount in worker.items())
    text = (
        f"waiting for nodes: {workers} × ({one}) are asked for, the cluster has {total.get('CPU', 0):g} "
        f"CPUs and {total.get('GPU', 0):g} GPUs"
    )
    starting = Counter(n.ray_node_type_name for n in status.pending_nodes)
    for launch in status.pending_launches:
        starting[launch.ray_node_type_name] += launch.count
    if starting:
        text += "; starting: " + ", ".join(f"{n} {name}" for name, n in starting.items())
    failures = {launch.ray_node_type_name: launch.details for launch in status.failed_launches}
    for name, details in failures.items():
        text += f"; could not be started: {name} ({details})"
    if infeasible:
        text += "; no type of node that may still be started can hold what is asked for"
    return text
