"""Bytes per worker of DDP and of ZeRO 0 to 3, measured beside the theory of ray_mae.train.forecast.memory.

    python -m benchmarks.zero_memory [--workers 1,2] [--precision fp32,bf16] [--width 256]

Real DeepSpeed engines on the CPU, one process per worker. Every tensor that lives counts, each storage
once: `kept` is when a backward pass has ended and no activation is left. `peak` is the most that was
allocated at any time of a pass and the step after it, its few activations included. RSS is what the system
says of the process, PyTorch and all. Without ZeRO the theory's peak has 4 bytes more: on a GPU AdamW steps
all parameters at once, on a CPU one after another.
"""

import argparse
import gc
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

import psutil
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

os.environ["DS_ACCELERATOR"] = "cpu"
import deepspeed  # noqa: F401  once, before the processes part

from ray_mae.config import EngineConfig, OptimConfig
from ray_mae.train.engine import engine_of
from ray_mae.train.forecast.activations import LiveBytes
from ray_mae.train.forecast.memory import (
    STAGES,
    bucket,
    checkpoint_bytes,
    ddp_states,
    row_of,
    states,
)
from tests.batches import method, study_batch

STEPS = 3


def tensors_alive() -> int:
    """Bytes of all CPU tensors that Python knows."""
    gc.collect()
    storages = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for found in gc.get_objects():
            if issubclass(type(found), torch.Tensor) and found.device.type == "cpu":
                storage = found.untyped_storage()
                storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def measure(
    rank: int, workers: int, config: EngineConfig, width: int, optimizer: str, folder: str
) -> None:
    """One worker; the first writes what it found."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    os.environ |= {"WORLD_SIZE": str(workers), "LOCAL_WORLD_SIZE": str(workers)}
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=workers
    )
    torch.set_num_threads(1)
    module = method(
        beta=2.0, width=width, depth=6, heads=4, decoder_width=width, decoder_depth=2, gamma=0.0
    )
    parameters = sum(p.numel() for p in module.parameters())
    before = tensors_alive() - 4 * parameters
    engine = engine_of(
        module,
        config,
        OptimConfig(optimizer=optimizer),  # type: ignore[arg-type]
        micro_batch_size=2,
        accumulation=1,
    )
    batch = study_batch([1, 1])
    found: dict[str, Any] = {"parameters": parameters}
    for step in range(STEPS):
        loss = engine(batch, step).total
        engine.backward(loss)
        del loss
        found["kept"] = tensors_alive() - before
        engine.step(1e-3)
    found["rss"] = psutil.Process().memory_info().rss
    alive = tensors_alive() - before
    with LiveBytes() as live:
        engine.backward(engine(batch, STEPS).total)
        engine.step(1e-3)
    found["peak"] = alive + live.peak
    engine.save(Path(folder))
    weights = engine.weights()
    dist.barrier()
    if rank == 0:
        saved = sum(f.stat().st_size for f in Path(folder).rglob("*") if f.is_file())
        found["checkpoint"] = saved + sum(w.nbytes for w in weights.values())
        torch.save(found, f"{folder}/found")
    dist.destroy_process_group()


def run(workers: int, config: EngineConfig, width: int, optimizer: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(  # type: ignore[no-untyped-call]
            measure,
            (workers, config, width, optimizer, folder),
            nprocs=workers,
            start_method="fork",
        )
        return torch.load(f"{folder}/found")


def engines(precision: str) -> list[EngineConfig]:
    """DDP, and DeepSpeed by its stages."""
    stages = STAGES if precision == "fp32" else STAGES[1:]
    ddp: Any = {"name": "ddp", "precision": precision}
    return [
        EngineConfig(**ddp),
        *(EngineConfig(**{**ddp, "name": "deepspeed", "zero_stage": stage}) for stage in stages),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("--precision", default="fp32,bf16")
    parser.add_argument("--optimizer", default="adamw", choices=("adamw", "sgd"))
    parser.add_argument("--width", type=int, default=256, help="of the network; a multiple of 4")
    given = parser.parse_args()
    print("bytes per parameter and worker        kept          peak        checkpoint     RSS")
    print(
        "precision workers engine       measured theory   measured theory  measured theory    MiB"
    )
    for precision in given.precision.split(","):
        for workers in map(int, given.workers.split(",")):
            for config in engines(precision):
                found = run(workers, config, given.width, given.optimizer)
                n, stage = found["parameters"], config.zero_stage
                rest: dict[str, Any] = {"precision": precision, "optimizer": given.optimizer}
                theory = (
                    ddp_states(n, **rest)
                    if config.name == "ddp"
                    else states(n, stage=stage, workers=workers, **rest)
                )
                always = 4 * bucket(n) if stage == 3 else 0
                saved = checkpoint_bytes(n, engine=config, **rest)
                kept = (found["kept"] - always) / n
                print(
                    f"{precision:>9} {workers:>7} {row_of(config, precision):>6} {kept:>15.2f} "
                    f"{theory.kept / n:>6.2f} {found['peak'] / n:>10.2f} {theory.most(0) / n:>6.2f} "
                    f"{found['checkpoint'] / n:>9.2f} {saved / n:>6.2f} {found['rss'] / 2**20:>7.0f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
