"""How many trials may run at a time, so that they and their workers never wait for each other."""

import os

from ray_mae.config import RunConfig

DRIVER = 0.01
"""Logical CPUs of a trial's own process, which only waits."""


def trials_of_machine(run: RunConfig) -> int:
    """Returns trials at a time on this machine alone: as many as have real cores for their workers."""
    threads = run.scaling.threads_per_worker or max(1, int(run.scaling.cpus_per_worker))
    return max(1, (os.cpu_count() or 1) // (run.scaling.most * threads))


def trials_of_cluster(run: RunConfig, gpus: bool) -> int:
    """Returns trials at a time on the cluster as it is now.

    Each worker group is reserved as a whole, so a trial either has all its workers or none; a worker
    must fit a node. What a trial needs beside them (readers, the probe) is counted, too: were all CPUs
    given to workers, none would be left to feed them.

    Args:
        run: settings that all trials have.
        gpus: whether training workers take a GPU each.

    Raises:
        ValueError: Not even one trial fits.
    """
    import ray

    nodes = [n["Resources"] for n in ray.nodes() if n["Alive"]]
    cpus, trial_cpus = run.scaling.cpus_per_worker, run.logical_cpus + DRIVER
    workers = sum(
        min(
            [
                *([int(n.get("CPU", 0) // cpus)] if cpus else []),
                *([int(n.get("GPU", 0))] if gpus else []),
            ],
            default=run.scaling.most,
        )
        for n in nodes
    )
    totals = {name: sum(n.get(name, 0) for n in nodes) for name in ("CPU", "GPU")}
    capacity = min(int(totals["CPU"] // trial_cpus), workers // run.scaling.most)
    if capacity >= 1:
        return capacity
    raise ValueError(
        f"a trial takes {run.logical_cpus} CPUs"
        + (f" and {run.scaling.most} GPUs" if gpus else "")
        + f" and its driver a little, the cluster has {totals['CPU']:g} CPUs and {totals['GPU']:g} GPUs on "
        f"{len(nodes)} nodes now: lower run.scaling, or give at_once where the cluster grows on demand"
    )
