"""The numbers of a run that follow from its settings and its data."""

from dataclasses import dataclass

from ray_mae.config import PretrainConfig
from ray_mae.data.schema import Manifest


@dataclass(frozen=True)
class Plan:
    """All in studies and optimiser steps; nothing depends on how far the run has come."""

    studies: int
    """Studies in the training split."""
    batch_size: int
    """Studies per optimiser step over all workers."""
    micro_batch_size: int
    accumulation: int
    """Forward passes per worker and step."""
    steps: int
    warmup_steps: int
    peak_lr: float

    @property
    def samples(self) -> int:
        return self.steps * self.batch_size

    @property
    def epochs(self) -> float:
        return self.samples / self.studies


def make_plan(config: PretrainConfig, manifest: Manifest, workers: int | None = None) -> Plan:
    """Raises ValueError where the batch does not divide over the workers, or there is no data."""
    workers = workers or config.scaling.workers
    low, high = config.data.crop_scale
    if low > high:
        raise ValueError(f"data.crop_scale must be smallest, then largest, got {low} and {high}")
    optim = config.optim
    studies = manifest.rows("train")
    if studies == 0:
        raise ValueError(f"{config.shards} holds no study of the train split: nothing to train on")
    share = workers * optim.micro_batch_size
    if optim.batch_size % share:
        possible = [
            m for m in range(1, optim.batch_size + 1) if optim.batch_size % (m * workers) == 0
        ]
        advice = (
            f"micro_batch_size may be {', '.join(map(str, possible[-6:]))}"
            if possible
            else f"choose a batch size that is a multiple of {workers}"
        )
        raise ValueError(
            f"optim.batch_size ({optim.batch_size}) must be a multiple of workers × "
            f"optim.micro_batch_size ({workers} × {optim.micro_batch_size}); {advice}"
        )
    steps = optim.steps or max(1, round(optim.epochs * studies / optim.batch_size))
    return Plan(
        studies=studies,
        batch_size=optim.batch_size,
        micro_batch_size=optim.micro_batch_size,
        accumulation=optim.batch_size // share,
        steps=steps,
        warmup_steps=int(optim.warmup * steps),
        peak_lr=optim.base_lr * optim.batch_size / 256,
    )
