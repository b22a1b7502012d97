"""DDP beside DeepSpeed's ZeRO: a step and a start of each, in turn on this machine.

    python -m benchmarks.engines [--workers 1,2] [--preset tiny] [--image-size 128] [--steps 12] [--record]

The same method, batch in memory and settings; every measure is a group of processes of its own, and both
engines take turns. CPU seconds are those of the first worker. On a CPU they talk by gloo, on GPUs by nccl,
one process for each GPU.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from benchmarks.record import Cell, finish, parser_of
from ray_mae.config import EngineConfig, OptimConfig
from tests.batches import VOCABULARY, study_batch
from tests.settings import build_of, sections

ENGINES: dict[str, dict[str, Any]] = {
    "ddp": {"name": "ddp"},
    **{f"zero {stage}": {"name": "deepspeed", "zero_stage": stage} for stage in (0, 1, 2)},
}
MICRO = 8
"""Studies of two views on each worker."""


def join(rank: int, workers: int, folder: str) -> bool:
    """The process group of a measurement, one process for each GPU; returns whether there are any."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    os.environ |= {"WORLD_SIZE": str(workers), "LOCAL_WORLD_SIZE": str(workers)}
    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.set_device(rank)
    dist.init_process_group(
        "nccl" if gpu else "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=workers,
    )
    return gpu


def measure(rank: int, workers: int, engine: str, given: argparse.Namespace, folder: str) -> None:
    """One worker; the first writes seconds of the start and of each step."""
    gpu = join(rank, workers, folder)
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))
    values = {"preset": given.preset, "image_size": given.image_size, "gamma": 0.0}
    module = build_of(sections("mvmae", **values), vocabulary=VOCABULARY)
    batch = study_batch([2] * MICRO, canvas=given.image_size)
    began = time.perf_counter()
    from ray_mae.train.engine import engine_of

    settings = EngineConfig(**ENGINES[engine], precision=given.precision)
    made = engine_of(module, settings, OptimConfig(), micro_batch_size=MICRO, accumulation=1)
    batch = batch.to(made.device)
    seconds, spent = [], []
    for step in range(given.steps + 2):
        if gpu:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter())
        spent.append(time.process_time())
        made.backward(made(batch, step).total)
        made.step(1e-4)
    start = seconds[1] - began
    steps = [b - a for a, b in pairwise(seconds[2:])]
    dist.barrier()
    if rank == 0:
        cpu = statistics.median(b - a for a, b in pairwise(spent[2:]))
        found = {"start": start, "step": statistics.median(steps), "cpu": cpu}
        with open(f"{folder}/found.json", "w") as file:
            json.dump(found, file)
    dist.destroy_process_group()


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    rows: list[dict[str, Cell]] = []
    for workers in map(int, given.workers.split(",")):
        found: dict[str, list[dict[str, float]]] = {name: [] for name in ENGINES}
        for _ in range(given.rounds):
            for name in ENGINES:
                with tempfile.TemporaryDirectory() as folder:
                    mp.start_processes(  # type: ignore[no-untyped-call]
                        measure,
                        (workers, name, given, folder),
                        nprocs=workers,
                        start_method="spawn",
                    )
                    with open(f"{folder}/found.json") as file:
                        found[name].append(json.load(file))
        found_of = {
            name: {key: statistics.median(run[key] for run in runs) for key in runs[0]}
            for name, runs in found.items()
        }
        for name, of in found_of.items():
            rows.append(
                {
                    "workers": workers,
                    "engine": name,
                    "ms a step": 1e3 * of["step"],
                    "of DDP": of["step"] / found_of["ddp"]["step"],
                    "CPU ms a step": 1e3 * of["cpu"],
                    "CPU of DDP": of["cpu"] / found_of["ddp"]["cpu"],
                    "first step after s": of["start"],
                }
            )
    finish(
        given,
        rows,
        f"MVMAE, ViT of preset {given.preset} at {given.image_size} px, {2 * MICRO} views a worker, "
        f"{given.precision}; the median of {given.rounds} rounds of {given.steps} steps. The start is from a "
        "network to its first step, the import of DeepSpeed included.",
    )


if __name__ == "__main__":
    main()
