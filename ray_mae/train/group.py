"""How the workers of a run join one PyTorch process group.

Ray's `TorchTrainer` does the same, but imports torch in the driver and in the controller as well:
two processes that never use it, each for seconds on a small machine.
"""

import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import ray
import ray.train
from ray.train.backend import Backend, BackendConfig

TIMEOUT = timedelta(minutes=30)
"""After this long without an answer a collective operation fails, as in Ray's TorchConfig."""


def _address() -> tuple[str, int]:
    with socket.socket() as free:
        free.bind(("", 0))
        return ray.util.get_node_ip_address(), free.getsockname()[1]


def _join(address: str, port: int) -> None:
    """What `torchrun` would set, and the process group: nccl on GPUs, else gloo."""
    import torch
    from ray.train.torch import get_device

    context = ray.train.get_context()
    os.environ |= {
        "MASTER_ADDR": address,
        "MASTER_PORT": str(port),
        "RANK": str(context.get_world_rank()),
        "WORLD_SIZE": str(context.get_world_size()),
        "LOCAL_RANK": str(context.get_local_rank()),
        "LOCAL_WORLD_SIZE": str(context.get_local_world_size()),
        "NODE_RANK": str(context.get_node_rank()),
    }
    device = get_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    torch.distributed.init_process_group(
        "nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT
    )


def _leave() -> None:
    import torch

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


class _Group(Backend):
    share_cuda_visible_devices = True  # DeepSpeed takes the device of the local rank

    def on_start(self, worker_group: Any, backend_config: BackendConfig) -> None:
        address, port = worker_group.execute_single(0, _address)
        worker_group.execute(_join, address=address, port=port)

    def on_shutdown(self, worker_group: Any, backend_config: BackendConfig) -> None:
        with suppress(ray.exceptions.GetTimeoutError):  # Ray Train ends a worker that hangs
            ray.get(worker_group.execute_async(_leave), timeout=10)


@dataclass
class ProcessGroup(BackendConfig):
    """For `DataParallelTrainer(backend_config=…)`."""

    @property
    def backend_cls(self) -> type[Backend]:
        return _Group
