"""Weak scaling from one worker to two, beside the model of `ray-mae plan`.

    python -m benchmarks.scaling [--preset tiny] [--image-size 128] [--steps 20] [--rounds 3]

Each worker has one thread (on GPUs: one GPU) and the same micro-batch, in memory. The model is given what was
measured apart: the step of one worker, and the speed and latency of an all-reduce between two processes.
"""

import argparse
import json
import statistics
import tempfile
import time
from itertools import pairwise

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from benchmarks.engines import join
from benchmarks.record import finish, parser_of
from ray_mae.config import EngineConfig, OptimConfig
from ray_mae.train.forecast.scaling import Network, exchanged
from tests.batches import VOCABULARY, study_batch
from tests.settings import build_of, sections

MICRO = 8
"""Studies of two views on each worker."""
SIZES = (1 << 10, 1 << 26)
"""Bytes of the all-reduces whose times give latency and speed."""


def measure(rank: int, workers: int, given: argparse.Namespace, folder: str) -> None:
    """One worker; the first writes its seconds."""
    gpu = join(rank, workers, folder)
    torch.set_num_threads(1)
    device = torch.device("cuda", rank) if gpu else torch.device("cpu")
    found = {f"all-reduce {size}": all_reduce(size, device) for size in SIZES}
    values = {"preset": given.preset, "image_size": given.image_size, "gamma": 0.0}
    module = build_of(sections("mvmae", **values), vocabulary=VOCABULARY)
    found["parameters"] = sum(p.numel() for p in module.parameters())
    from ray_mae.train.engine import engine_of

    settings = EngineConfig(name="ddp", precision="fp32")
    engine = engine_of(module, settings, OptimConfig(), micro_batch_size=MICRO, accumulation=1)
    batch = study_batch([2] * MICRO, canvas=given.image_size).to(engine.device)
    times = []
    for step in range(given.steps + 3):
        if gpu:
            torch.cuda.synchronize()
        times.append(time.perf_counter())
        engine.backward(engine(batch, step).total)
        engine.step(1e-4)
    found["step"] = statistics.median(b - a for a, b in pairwise(times[3:]))
    dist.barrier()
    if rank == 0:
        with open(f"{folder}/found.json", "w") as file:
            json.dump(found, file)
    dist.destroy_process_group()


def all_reduce(size: int, device: torch.device) -> float:
    """Seconds for so many bytes, the median of a few."""
    tensor = torch.zeros(size // 4, device=device)
    times = []
    for _ in range(12):
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter())
        dist.all_reduce(tensor)
    return statistics.median(b - a for a, b in pairwise(times[2:]))


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    found: dict[int, list[dict[str, float]]] = {1: [], 2: []}
    for _ in range(given.rounds):
        for workers, runs in found.items():
            with tempfile.TemporaryDirectory() as folder:
                mp.start_processes(  # type: ignore[no-untyped-call]
                    measure, (workers, given, folder), nprocs=workers, start_method="spawn"
                )
                with open(f"{folder}/found.json") as file:
                    runs.append(json.load(file))

    def median(workers: int, name: str) -> float:
        return statistics.median(run[name] for run in found[workers])

    one, two = median(1, "step"), median(2, "step")
    small, large = (median(2, f"all-reduce {size}") for size in SIZES)
    speed = SIZES[1] / (large - small)  # of a ring of two: half of it, twice
    network = Network(per_node=2, inside=speed, between=speed, latency=small / 2)
    volumes = [share * median(2, "parameters") for share in exchanged("DDP", "fp32")]
    whole = sum(network.seconds(volume, 2) for volume in volumes)
    hidden = one + max(0.0, whole - one * 2 / 3)
    rows: list[dict[str, str | float]] = [
        {"workers": "1", "step, ms": 1e3 * one, "efficiency": 1.0},
        {"workers": "2, measured", "step, ms": 1e3 * two, "efficiency": one / two},
        {"workers": "2, model (DDP hides)", "step, ms": 1e3 * hidden, "efficiency": one / hidden},
        {
            "workers": "2, model (nothing hidden)",
            "step, ms": 1e3 * (one + whole),
            "efficiency": one / (one + whole),
        },
    ]
    note = (
        f"An all-reduce of {SIZES[1] >> 20} MiB between the two runs at {speed / 1e9:.2f} GB/s, a small one "
        f"takes {1e6 * small:.0f} µs; {median(2, 'parameters') / 1e6:.1f} M parameters in fp32. On a CPU the "
        "exchange needs the cores that compute, so it can hide behind nothing there."
    )
    finish(given, rows, note)


if __name__ == "__main__":
    main()
