"""Prints as JSON how the network between nodes does: one process on each sums with the others.

    python -m ray_mae.health.network BACKEND ADDRESS PORT RANK PROCESSES

A process of its own, as `ray_mae.health.accelerators`.
"""

import json
import sys
import time
from datetime import timedelta
from typing import Any

NUMBERS, TIMES = 2**23, 5
"""32 MiB of fp32, about what DeepSpeed sums at a time; the first of the times opens connections."""


def all_reduce(backend: str, address: str, port: int, rank: int, processes: int) -> dict[str, Any]:
    """Sums numbers over all processes, some times.

    Args:
        backend: nccl, with the first GPU of each node, or gloo.
        address: of the node with rank 0.
        port: of that node, free.
        rank: of this process.
        processes: how many take part.

    Returns:
        `rate`: bytes/s that each process sends, as NCCL's tests count them; `wrong`: sums that are.
    """
    import torch
    import torch.distributed as dist

    device = "cuda:0" if backend == "nccl" else "cpu"
    dist.init_process_group(
        backend,
        init_method=f"tcp://{address}:{port}",
        rank=rank,
        world_size=processes,
        timeout=timedelta(seconds=60),
    )
    seconds, wrong = float("inf"), 0
    for _ in range(TIMES):
        ones = torch.ones(NUMBERS, device=device)
        began = time.perf_counter()
        dist.all_reduce(ones)
        wrong += int((ones != processes).sum())  # waits for the sum
        seconds = min(seconds, time.perf_counter() - began)
    dist.destroy_process_group()
    sent = 2 * (processes - 1) / processes * 4 * NUMBERS
    return {"rate": sent / seconds, "wrong": wrong}


def main() -> None:
    backend, address, *numbers = sys.argv[1:]
    port, rank, processes = map(int, numbers)
    result = all_reduce(backend, address, port, rank, processes)
    sys.stdout.write("\n" + json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
