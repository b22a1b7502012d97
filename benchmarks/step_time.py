"""What Ray and DeepSpeed cost: a whole run against a bare PyTorch loop over the same model.

    python -m benchmarks.step_time --shards DIR [--steps 60] [--workers 1] [--side 128]

The shards decide the method: MVMAE-V2T of studies, MDAE of volumes. Both run in turn on this machine,
with the same settings and as many threads. The bare loop has its batches in memory; the run streams
them from shards by Ray Data and trains with DeepSpeed. The figures of the run leave out the first
third, in which the streams fill.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

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
from ray_mae.train.optim import parameter_groups
from ray_mae.train.pretrain import pretrain
from ray_mae.train.run_folder import METRICS
from ray_mae.train.setup import make_plan, method_of, stream_of
from tests.settings import sections


def settings(shards: Path, output: Path, steps: int, workers: int, side: int) -> PretrainConfig:
    micro = 16 if ShardSet.read(shards).kind == "study" else 2
    common: dict[str, Any] = {
        "shards": shards,
        "output": output,
        "optim": OptimConfig(batch_size=micro * workers, micro_batch_size=micro, steps=steps),
        "engine": EngineConfig(zero_stage=1),
        "scaling": ScalingConfig(workers=workers),
        "checkpoint": CheckpointConfig(every=10**6),
        "tracking": TrackingConfig(every=5, pictures=0),
    }
    if micro == 2:
        return PretrainConfig(**sections("mdae", preset="tiny", crop_size=side), **common)
    values = {"mask_ratio": 0.75, "caption_heads": 3, "decoder_depth": 2, "max_tokens": 64}
    return PretrainConfig(**sections("mvmae", preset="tiny", image_size=side, **values), **common)


def bare(config: PretrainConfig, tokenizer: str | None) -> tuple[list[float], float]:
    """Seconds per step of a plain loop, for the share of one worker; samples read per second."""
    shards = ShardSet.read(config.folders)
    plan = make_plan(config, shards)
    torch.set_num_threads(1)
    model = method_of(config, plan, tokenizer)
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.05), lr=1e-4)
    read = stream_of(config, plan, shards, tokenizer, first_step=0).read(0, plan.steps)
    start = time.perf_counter()
    every = [KINDS[plan.kind].to_batch(from_block(block)) for block in read]
    rate = plan.samples / (time.perf_counter() - start)
    batches = every[:: plan.workers]
    seconds = []
    for step, batch in enumerate(batches):
        start = time.perf_counter()
        loss = model(batch, step).total
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        seconds.append(time.perf_counter() - start)
    return seconds, rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--side", type=int, default=128, help="of images or crops")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "run"
        config = settings(given.shards, output, given.steps, given.workers, given.side)
        pretrain(config)
        records = read_jsonl(output / METRICS)
        kept = [r for r in records if r["step"] > given.steps // 3]
        whole = np.median([config.optim.batch_size / r["samples_per_s"] for r in kept])
        waiting = np.mean([r["data_wait"] for r in kept])
        kept_text = output / "tokenizer.json"
        seconds, rate = bare(config, kept_text.read_text() if kept_text.is_file() else None)
        alone = np.median(seconds[given.steps // 3 :])
    print(f"\nwhole run   {1000 * whole:7.1f} ms per step, {waiting:.1%} of it waiting for data")
    print(f"bare loop   {1000 * alone:7.1f} ms per step of one worker's share")
    print(f"reading     {rate:7.1f} samples/s of one process alone")
    print(f"ratio       {whole / alone:7.2f}")


if __name__ == "__main__":
    main()
