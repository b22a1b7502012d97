"""Prints as JSON what PyTorch and DeepSpeed find here: `python -m ray_mae.health.accelerators`.

A process of its own: a library that crashes or hangs takes nobody with it.
"""

import ctypes
import importlib
import json
import logging
import os
import socket
import sys
from pathlib import Path
from typing import Any

GKE_LIBRARIES = "/usr/local/nvidia/lib64"
"""Where GKE mounts the driver's libraries into a container."""


def gpus() -> list[dict[str, Any]]:
    """Returns name, memory in GiB, and whether it has bf16, of each GPU."""
    import torch

    devices = []
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        with torch.cuda.device(index):
            bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        memory = device.total_memory / 2**30
        devices.append({"name": device.name, "memory": round(memory, 1), "bf16": bf16})
    return devices


def absence(root: Path = Path("/")) -> dict[str, bool]:
    """Returns what there is of a GPU where PyTorch sees none. root: of the file system.

    Returns:
        `driver`: NVIDIA's driver runs, which a container shows, too; `devices`: this container may use
        some; `library`: the driver's library can be loaded; `gke`: it lies where GKE puts it.
    """
    try:
        ctypes.CDLL("libcuda.so.1")
        library = True
    except OSError:
        library = False
    return {
        "driver": (root / "proc/driver/nvidia/version").exists(),
        "devices": any((root / "dev").glob("nvidia[0-9]*")),
        "library": library,
        "gke": (root / GKE_LIBRARIES.lstrip("/") / "libcuda.so.1").exists(),
    }


def all_reduce(workers: int) -> str | None:
    """Sums one megabyte over so many GPUs by NCCL; returns what went wrong, if anything."""
    from torch.multiprocessing.spawn import spawn

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    try:
        spawn(_sum, (workers, port), nprocs=workers)
    except Exception as error:
        return str(error).strip().splitlines()[-1]
    return None


def _sum(rank: int, workers: int, port: int) -> None:
    import torch
    import torch.distributed as dist

    torch.cuda.set_device(rank)
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("nccl", init_method=address, rank=rank, world_size=workers)
    ones = torch.ones(2**18, device="cuda")
    dist.all_reduce(ones)
    wrong = int((ones != workers).sum())
    dist.destroy_process_group()
    if wrong:
        raise RuntimeError(f"{wrong} of {ones.numel()} sums are wrong")


def deepspeed() -> dict[str, Any]:
    """Returns `accelerator`, the one that DeepSpeed takes, or `error`."""
    logging.disable()
    try:
        module: Any = importlib.import_module("deepspeed.accelerator")
        return {"accelerator": module.get_accelerator()._name}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


def main() -> None:
    import torch

    facts: dict[str, Any] = {"gpus": gpus(), "cuda": torch.version.cuda}
    if facts["gpus"]:
        facts["nccl"] = ".".join(map(str, torch.cuda.nccl.version()))
    else:
        os.environ["DS_ACCELERATOR"] = "cpu"
        facts["absence"] = absence()
    facts["deepspeed"] = deepspeed()
    if len(facts["gpus"]) > 1:
        facts["all_reduce"] = all_reduce(len(facts["gpus"]))
    sys.stdout.write("\n" + json.dumps(facts) + "\n")


if __name__ == "__main__":
    main()
