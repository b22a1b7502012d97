"""What a run takes of the cluster, and what it leaves for those who read its data."""

import os
from contextlib import AbstractContextManager, nullcontext

from ray_mae.config import AnyPretrainConfig
from ray_mae.runtime import gpus_wanted
from ray_mae.train.progress import console
from ray_mae.train.turns import turn


def check_resources(config: AnyPretrainConfig) -> None:
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


def its_turn(config: AnyPretrainConfig, probes: bool) -> AbstractContextManager[None]:
    """On a cluster that others use, too: workers without GPUs wait where they would take the last CPUs.

    Workers with GPUs are as many as there are GPUs: there it is up to scaling.cpus_per_worker.
    """
    if not os.environ.get("RAY_ADDRESS") or gpus_wanted(config.scaling.gpu):
        return nullcontext()
    held = config.scaling.least * config.scaling.cpus_per_worker
    return turn(held, beside=max(1, config.probe.cpus if probes else 0))


def spare_room(config: AnyPretrainConfig, probes: bool) -> AbstractContextManager[None]:
    """Room beside workers that may grow: for a reader of data, and for the probe."""
    if config.scaling.least == config.scaling.most:
        return nullcontext()  # `check_resources` has looked
    from ray_mae.train.spare import spare_cpus

    return spare_cpus(1 + (config.probe.cpus if probes else 0))


def reserved(config: AnyPretrainConfig) -> dict[str, float]:
    """What a training worker reserves, by name."""
    gpu = {"GPU": 1.0} if gpus_wanted(config.scaling.gpu) else {}
    return {"CPU": float(config.scaling.cpus_per_worker)} | gpu
