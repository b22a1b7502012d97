"""The numbers of a run that follow from its settings and its data."""

from dataclasses import dataclass

from ray_mae.config import AnyPretrainConfig, PretrainConfig
from ray_mae.data.schema import Manifest


@dataclass(frozen=True)
class Plan:
    """All in samples and optimiser steps; nothing depends on how far the run has come."""

    kind: str
    """What a sample is: study or volume."""
    available: int
    """Samples in the training split."""
    batch_size: int
    """Samples per optimiser step over all workers."""
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
        return self.samples / self.available


def make_plan(config: AnyPretrainConfig, manifest: Manifest, workers: int | None = None) -> Plan:
    """Raises ValueError where the batch does not divide over the workers, or there is no data."""
    workers = workers or config.scaling.workers
    wanted = "study" if isinstance(config, PretrainConfig) else "volume"
    if manifest.kind != wanted:
        other = "mdae" if manifest.kind == "volume" else "mvmae"
        raise ValueError(
            f"{config.shards} holds shards of kind {manifest.kind!r}, the method "
            f"{config.method.name} reads {wanted!r}: give other shards, or --method.name {other}"
        )
    optim = config.optim
    available = manifest.rows("train")
    if available == 0:
        raise ValueError(
            f"{config.shards} holds no {wanted} of the train split: nothing to train on"
        )
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
    steps = optim.steps or max(1, round(optim.epochs * available / optim.batch_size))
    return Plan(
        kind=wanted,
        available=available,
        batch_size=optim.batch_size,
        micro_batch_size=optim.micro_batch_size,
        accumulation=optim.batch_size // share,
        steps=steps,
        warmup_steps=int(optim.warmup * steps),
        peak_lr=optim.lr or optim.base_lr * optim.batch_size / 256,
    )
