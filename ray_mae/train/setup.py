"""What follows from the settings and the data of a run: its numbers, its method, its batches."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ray_mae.config import (
    AnyPlanConfig,
    AnyPretrainConfig,
    AnyRun,
    MdaeConfig,
    MvmaeConfig,
    MvmaeRun,
    PretrainConfig,
)
from ray_mae.data.loading.collator import Packing
from ray_mae.data.loading.study_collator import StudyPacking
from ray_mae.data.loading.tokenizer import special_ids
from ray_mae.data.loading.volume_collator import VolumePacking
from ray_mae.data.schema import Manifest
from ray_mae.encoders.resenc_settings import stages_of
from ray_mae.encoders.vit_settings import shapes

if TYPE_CHECKING:
    from ray_mae.methods.base import Method


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
    workers: int
    """How many share a step; a run may go on with another number of them."""
    steps: int
    warmup_steps: int
    peak_lr: float

    @property
    def samples(self) -> int:
        return self.steps * self.batch_size

    @property
    def epochs(self) -> float:
        return self.samples / self.available

    @property
    def micro_batches(self) -> int:
        """Of a step, over all workers: the same whatever their number."""
        return self.batch_size // self.micro_batch_size

    @property
    def accumulation(self) -> int:
        """Forward passes per worker and step."""
        return -(-self.micro_batches // self.workers)

    @property
    def idle(self) -> int:
        """Forward passes of a step that count nothing: some workers' last, where they do not divide it."""
        return self.accumulation * self.workers - self.micro_batches


def make_plan(
    config: AnyPretrainConfig | AnyPlanConfig, manifest: Manifest, workers: int | None = None
) -> Plan:
    """The numbers with so many workers; by default the most that the settings allow.

    Raises ValueError where a step cannot be cut for the workers, or there is no data.
    """
    wanted = kind_of(config)
    if manifest.kind != wanted:
        other = "mdae" if manifest.kind == "volume" else "mvmae"
        raise ValueError(
            f"{config.shards} holds shards of kind {manifest.kind!r}, the method "
            f"{config.method.name} reads {wanted!r}: give other shards, or --method.name {other}"
        )
    available = manifest.rows("train")
    if available == 0:
        raise ValueError(
            f"{config.shards} holds no {wanted} of the train split: nothing to train on"
        )
    return plan_of(config, available, workers or config.scaling.most)


def kind_of(config: AnyRun) -> str:
    """What the method reads: study or volume."""
    return "study" if isinstance(config, MvmaeRun) else "volume"


def plan_of(config: AnyRun, available: int, workers: int) -> Plan:
    """The numbers with so many training samples. Raises ValueError as `make_plan` does."""
    optim = config.optim
    size, micro = optim.batch_size, optim.micro_batch_size
    if size % micro or size // micro < workers:
        possible = [m for m in range(1, size + 1) if size % m == 0 and size // m >= workers]
        advice = (
            f"it may be {', '.join(map(str, possible[-6:]))}"
            if possible
            else f"take {size} workers at most, or a larger batch"
        )
        raise ValueError(
            f"optim.batch_size ({size}) must be a multiple of optim.micro_batch_size ({micro}) and give "
            f"each of {workers} workers a micro-batch: {advice}"
        )
    steps = optim.steps or max(1, round(optim.epochs * available / size))
    return Plan(
        kind=kind_of(config),
        available=available,
        batch_size=size,
        micro_batch_size=micro,
        workers=workers,
        steps=steps,
        warmup_steps=int(optim.warmup * steps),
        peak_lr=optim.lr or optim.base_lr * size / 256,
    )


def method_of(config: AnyRun, plan: Plan, tokenizer: str | None, vocabulary: int = 0) -> "Method":
    """With fresh weights, the same for the same seed. Imports PyTorch.

    vocabulary: size of a tokenizer that is still to be trained, where it is not given.
    """
    recompute = config.engine.activation_checkpointing
    if isinstance(config.method, MdaeConfig):
        from ray_mae.methods.mdae.model import build_mdae

        return build_mdae(config.method, seed=config.seed, recompute=recompute)
    from ray_mae.methods.mvmae.model import build_method

    assert isinstance(config, MvmaeRun)
    text = special_ids(tokenizer) if tokenizer else None
    return build_method(
        config.method,
        config.data,
        seed=config.seed,
        warmup_steps=plan.warmup_steps,
        steps=plan.steps,
        vocabulary=text.size if text else vocabulary,
        special_ids=(text.pad, text.first, text.last, text.mask) if text else (0, 2, 3, 4),
        recompute=recompute,
    )


def check_sizes(config: MvmaeConfig | MdaeConfig) -> None:
    """Raise ValueError, naming settings, where the sizes of a network do not fit together."""
    if isinstance(config, MdaeConfig):
        stages_of(config)
    else:
        shapes(config)


def packing_of(config: AnyPretrainConfig, tokenizer: str | None) -> Packing:
    """How rows of the shards become the method's batches."""
    if isinstance(config, PretrainConfig):
        data = config.data
        return StudyPacking(data.max_views, data.text, tokenizer, data.max_tokens, config.seed)
    return VolumePacking(config.method.crop_size, config.seed)


def text_of(config: AnyPretrainConfig) -> str | None:
    """Which report section the method reads; None for a method without text."""
    with_text = isinstance(config, PretrainConfig) and config.method.gamma > 0
    return config.data.text if with_text else None  # type: ignore[union-attr]
