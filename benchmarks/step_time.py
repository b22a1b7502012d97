"""The whole pipeline against a bare PyTorch loop over the same model with batches in memory.

    python -m benchmarks.step_time [--shards DIR] [--steps 60] [--workers 1] [--side 128] [--record]

The shards decide the method: MVMAE-V2T of studies, MDAE of volumes; without any, studies of phantoms are
drawn. The bare loop and a run by each engine take turns on this machine, with the same settings and as many
threads. A run streams its batches from shards by Ray Data; its figures leave out the first third, in which
streams fill. `share of bare` is the speed of a run over that of the bare loop, and wants as many idle cores
as there are workers, and one more. CPU seconds say who works, and do not depend on who else uses the machine.
"""

import argparse
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from benchmarks.record import Cell, finish, parser_of
from ray_mae.config import (
    CheckpointConfig,
    EngineConfig,
    OptimConfig,
    PretrainConfig,
    ScalingConfig,
    TrackingConfig,
)
from ray_mae.data.kinds import KINDS
from ray_mae.data.loading.stream import from_block
from ray_mae.data.shard_set import ShardSet
from ray_mae.train.metrics.jsonl import read_jsonl
from ray_mae.train.optim import optimizer_of, parameter_groups
from ray_mae.train.pretrain import pretrain
from ray_mae.train.run_folder import METRICS
from ray_mae.train.setup import make_plan, method_of, stream_of
from tests.settings import sections
from tests.shards import write_shards

ENGINES = {
    "DDP": EngineConfig(name="ddp"),
    "DeepSpeed ZeRO 1": EngineConfig(name="deepspeed", zero_stage=1),
}
BARE = "bare loop"
KINDS_OF_PROCESS = ("worker", "reading", "driver", "Ray")


def settings(shards: Path, output: Path, given: argparse.Namespace, engine: str) -> PretrainConfig:
    """Of a run on these shards."""
    micro = 16 if ShardSet.read(shards).kind == "study" else 2
    common: dict[str, Any] = {
        "shards": shards,
        "output": output,
        "optim": OptimConfig(
            batch_size=micro * given.workers, micro_batch_size=micro, steps=given.steps
        ),
        "engine": ENGINES[engine],
        "scaling": ScalingConfig(workers=given.workers),
        "checkpoint": CheckpointConfig(every=10**6),
        "tracking": TrackingConfig(every=5, pictures=0, held_out=0),
    }
    if micro == 2:
        return PretrainConfig(**sections("mdae", preset="tiny", crop_size=given.side), **common)
    values = {"mask_ratio": 0.75, "caption_heads": 3, "decoder_depth": 2, "max_tokens": 64}
    return PretrainConfig(
        **sections("mvmae", preset="tiny", image_size=given.side, **values), **common
    )


class Spent:
    """CPU seconds of this process and its children, by what they are, from the first steps to the last."""

    def __init__(self, metrics: Path, first: int) -> None:
        self._metrics, self._first = metrics, first
        self._before: dict[tuple[int, str], float] = {}
        self._after: dict[tuple[int, str], float] = {}
        self._steps = (0, 0)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Spent":
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._over.set()
        self._thread.join()

    def a_step(self) -> dict[str, float]:
        """Milliseconds of a step by kind of process."""
        steps = max(1, self._steps[1] - self._steps[0])
        found: dict[str, float] = {}
        for key, seconds in self._after.items():
            name = key[1]
            found[name] = found.get(name, 0.0) + seconds - self._before.get(key, 0.0)
        return {name: 1e3 * seconds / steps for name, seconds in found.items()}

    def _watch(self) -> None:
        while not self._over.wait(0.2):
            records = read_jsonl(self._metrics)
            step = records[-1]["step"] if records else 0
            if step < self._first:
                continue
            if not self._before:
                self._steps, self._before = (step, step), self._now()
            elif step > self._steps[1]:  # the last look is of a worker that still trains
                self._steps, self._after = (self._steps[0], step), self._now()

    @staticmethod
    def _now() -> dict[tuple[int, str], float]:
        seconds = {}
        me = psutil.Process()
        for process in (me, *me.children(recursive=True)):
            with suppress(psutil.Error):
                times = process.cpu_times()
                seconds[(process.pid, _kind(process, me))] = times.user + times.system
        return seconds


def _kind(process: psutil.Process, me: psutil.Process) -> str:
    title = " ".join(process.cmdline()[:1])
    if process.pid == me.pid:
        return "driver"
    if "RayTrainWorker" in title:
        return "worker"
    return "reading" if "ReadShards" in title or "MapWorker" in title else "Ray"


def whole(config: PretrainConfig) -> tuple[float, float, dict[str, float]]:
    """Seconds of a step of a run, the share of them that it waits for data, and CPU ms by process."""
    first = config.optim.steps // 3  # type: ignore[operator]
    with Spent(config.output / METRICS, first) as spent:
        pretrain(config)
    kept = [r for r in read_jsonl(config.output / METRICS) if r["step"] > first]
    seconds = [config.optim.batch_size / r["samples_per_s"] for r in kept]
    waited = float(np.mean([r["data_wait"] for r in kept]))
    return float(np.median(seconds)), waited, spent.a_step()


def bare(config: PretrainConfig) -> tuple[float, float, dict[str, float]]:
    """The same of a plain loop, for the share of one worker."""
    document = config.output / "tokenizer.json"
    tokenizer = document.read_text() if document.is_file() else None
    shards = ShardSet.read(config.folders)
    plan = make_plan(config, shards)
    torch.set_num_threads(config.scaling.threads)
    model = method_of(config, plan, tokenizer)
    groups = parameter_groups(model, config.optim.weight_decay)
    optimizer = optimizer_of(groups, config.optim, fused=True)
    read = stream_of(config, plan, shards, tokenizer, first_step=0).read(0, plan.steps)
    every = [KINDS[plan.kind].to_batch(from_block(block)) for block in read]
    seconds, spent = [], []
    for step, batch in enumerate(every[:: plan.workers]):
        began, cpu = time.perf_counter(), time.process_time()
        model(batch, step).total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.optim.clip)
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - began)
        spent.append(time.process_time() - cpu)
    kept = len(seconds) // 3
    cpu_ms = {"worker": 1e3 * float(np.mean(spent[kept:]))}
    return float(np.median(seconds[kept:])), 0.0, cpu_ms


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--shards", type=Path)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--side", type=int, default=128, help="of images or crops")
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    found: dict[str, list[tuple[float, float, dict[str, float]]]] = {
        name: [] for name in (BARE, *ENGINES)
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if given.shards is None:
            given.shards = folder / "shards"
            write_shards(given.shards, train=256, held_out=4, size=round(1.2 * given.side))
        for turn in range(given.rounds):
            for engine in ENGINES:
                config = settings(given.shards, folder / f"{engine}-{turn}", given, engine)
                found[engine].append(whole(config))
                found[BARE].append(bare(config))
    alone = min(seconds for seconds, *_ in found[BARE])
    rows: list[dict[str, Cell]] = []
    for engine, runs in found.items():
        seconds, waited, spent = min(runs, key=lambda run: run[0])
        rows.append(
            {
                "loop": engine,
                "ms a step": 1e3 * seconds,
                "share of bare": alone / seconds,
                "waiting for data": waited,
                **{f"CPU ms {of}": spent.get(of, 0.0) for of in KINDS_OF_PROCESS},
            }
        )
    finish(
        given,
        rows,
        f"{given.workers} workers, the best of {given.rounds} rounds each; a step is a micro-batch on each. "
        "Ray's are its raylet, controllers and agents.",
    )


if __name__ == "__main__":
    main()
