"""What Ray Train is given of ours: how the workers join one process group, and their data.

Ray's `TorchTrainer` makes a process group, too, but imports torch in the driver and in the controller
as well: two processes that never use it, each for seconds on a small machine.
"""

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import ray
import ray.train
from ray.data import DataIterator, ExecutionOptions
from ray.train.backend import Backend, BackendConfig

from ray_mae.cluster.slurm import interface_of
from ray_mae.data.loading.stream import Stream

# ------------------------------------------------------------------------------------ process group


TIMEOUT = timedelta(minutes=30)
"""After this long without an answer a collective operation fails, as in Ray's TorchConfig."""


@dataclass
class ProcessGroup(BackendConfig):
    """For `DataParallelTrainer(backend_config=…)`."""

    @property
    def backend_cls(self) -> type[Backend]:
        return _Group


class _Group(Backend):
    share_cuda_visible_devices = True  # DeepSpeed takes the device of the local rank

    def on_start(self, worker_group: Any, backend_config: BackendConfig) -> None:
        address, port = worker_group.execute(_serve)[0]
        worker_group.execute(_join, address=address, port=port)

    def on_shutdown(self, worker_group: Any, backend_config: BackendConfig) -> None:
        with suppress(ray.exceptions.GetTimeoutError):  # Ray Train ends a worker that hangs
            ray.get(worker_group.execute_async(_leave), timeout=10)


_store: Any = None
"""Where the workers find each other: rank 0's, kept as long as its process."""


def _serve() -> tuple[str, int] | None:
    """Rank 0 listens, at the node's address alone, on a port that the system gives.

    One that was only looked up could be taken since. All others import torch meanwhile.
    """
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    if ray.train.get_context().get_world_rank():
        return None
    global _store
    host = ray.util.get_node_ip_address()
    # by itself the store would listen on every interface of the node, and it asks nobody who he is
    listener = socket.create_server(
        (host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET
    )
    port = listener.getsockname()[1]
    _store = TCPStore(
        host,
        port,
        None,
        is_master=True,
        timeout=TIMEOUT,
        wait_for_workers=False,
        master_listen_fd=listener.detach(),  # the store closes it
    )
    return host, port


def _join(address: str, port: int) -> None:
    """What `torchrun` would set, and the process group: gloo, with nccl for what lies on GPUs."""
    import torch
    from ray.train.torch import get_device

    context = ray.train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    os.environ |= {
        "MASTER_ADDR": address,
        "MASTER_PORT": str(port),
        "RANK": str(rank),
        "WORLD_SIZE": str(workers),
        "LOCAL_RANK": str(context.get_local_rank()),
        "LOCAL_WORLD_SIZE": str(context.get_local_world_size()),
        "NODE_RANK": str(context.get_node_rank()),
    }
    device = get_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
        if interface := interface_of(ray.util.get_node_ip_address()):  # nccl finds one by itself
            os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    store = _store or torch.distributed.TCPStore(  # type: ignore[attr-defined]
        address, port, None, is_master=False, timeout=TIMEOUT, wait_for_workers=False
    )
    torch.distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
        store=store,
        rank=rank,
        world_size=workers,
        timeout=TIMEOUT,
    )


def _leave() -> None:
    import torch

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


# --------------------------------------------------------------------------------------------- data


class StreamConfig(ray.train.DataConfig):
    """Makes the run's dataset anew whenever Ray Train starts a group of workers, for their number.

    What is given to the trainer as `datasets` stands for a name only.
    """

    def __init__(self, stream: Callable[[int], Stream]) -> None:
        """stream: from the number of workers to the samples after the last committed checkpoint."""
        super().__init__(
            execution_options=ExecutionOptions(preserve_order=True), enable_shard_locality=False
        )
        self._stream = stream

    def configure(
        self, datasets: dict[str, Any], world_size: int, *rest: Any, **more: Any
    ) -> list[dict[str, DataIterator]]:
        """An iterator for each worker, by the dataset's name."""
        streams = {name: self._stream(world_size).dataset() for name in datasets}
        return super().configure(streams, world_size, *rest, **more)
