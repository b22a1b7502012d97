"""How many trials there is room for, so that they and their workers never wait for each other."""

import math
import os

from ray_mae.config import RunSettings


def cpus_per_trial(run: RunSettings) -> int:
    """Logical CPUs that a trial may hold at one time: training workers, a reader of data, a probe."""
    return math.ceil(run.scaling.workers * run.scaling.cpus_per_worker) + 1 + run.probe.cpus


def trials_of_machine(run: RunSettings) -> int:
    """Trials at a time on this machine alone: as many as have real cores for their workers."""
    threads = run.scaling.threads_per_worker or max(1, int(run.scaling.cpus_per_worker))
    return max(1, (os.cpu_count() or 1) // (run.scaling.workers * threads))


def trials_of_cluster(run: RunSettings, gpus: bool) -> int:
    """Trials at a time on the cluster as it is now. Raises ValueError where none fits.

    Each worker group is reserved as a whole, so a trial either has all its workers or none. What a
    trial needs beside them (readers, the probe) is counted, too: were all CPUs given to workers, none
    would be left to feed them.
    """
    import ray

    have = ray.cluster_resources()
    room = {"CPU": have.get("CPU", 0) // cpus_per_trial(run)}
    if gpus:
        room["GPU"] = have.get("GPU", 0) // run.scaling.workers
    if min(room.values()) >= 1:
        return int(min(room.values()))
    raise ValueError(
        f"a trial takes {cpus_per_trial(run)} CPUs"
        + (f" and {run.scaling.workers} GPUs" if gpus else "")
        + f", the cluster has {have.get('CPU', 0):g} CPUs and {have.get('GPU', 0):g} GPUs now: lower "
        "run.scaling, or give at_once where the cluster grows on demand"
    )
