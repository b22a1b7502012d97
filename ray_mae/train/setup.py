"""What follows from the settings and the data of a run: its numbers, its method, its order of samples."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from ray_mae.config.pretrain import PretrainConfig, RunConfig
from ray_mae.config.registry import load
from ray_mae.data.kinds import KINDS
from ray_mae.data.loading.collator import Collator
from ray_mae.data.loading.findings import Findings, read_findings
from ray_mae.data.loading.node_cache import CacheSettings
from ray_mae.data.loading.order import Mixture
from ray_mae.data.loading.stream import Stream
from ray_mae.data.loading.study_collator import StudyCollator
from ray_mae.data.loading.targets import Targets, read_targets
from ray_mae.data.loading.tokenizer import special_ids
from ray_mae.data.loading.volume_collator import SegmentedVolumeCollator
from ray_mae.data.paths import is_remote
from ray_mae.data.shard_set import ShardSet
from ray_mae.encoders.registry import ENCODERS, kind_of_encoder
from ray_mae.methods.registry import METHODS, run_of

if TYPE_CHECKING:
    from ray_mae.encoders.base import Encoder
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


def make_plan(config: RunConfig, shards: ShardSet, workers: int | None = None) -> Plan:
    """Returns the numbers of a run on these shards.

    Args:
        config: its settings.
        shards: what it reads.
        workers: that share a step; by default the most that the settings allow.

    Raises:
        ValueError: where a step cannot be cut for the workers, or there is no data of the method's kind.
    """
    kind = config.kind
    places = ", ".join(map(str, shards.paths))
    if shards.kind != kind:
        others = [name for name in METHODS if shards.kind in METHODS[name].kinds]
        advice = f"--method.name {' or '.join(others)}"
        if config.method.name in others:  # its encoder is what does not fit
            of_kind = [name for name in ENCODERS if kind_of_encoder(name) == shards.kind]
            advice = f"--encoder.name {' or '.join(of_kind)}"
        raise ValueError(
            f"{places} holds shards of kind {shards.kind!r}, the method {config.method.name} with the "
            f"encoder {config.encoder.name} reads {kind!r}: give other shards, or {advice}"
        )
    available = shards.rows("train")
    if available == 0:
        raise ValueError(f"{places} holds no {kind} of the train split: nothing to train on")
    return plan_of(config, available, workers or config.scaling.most)


def plan_of(config: RunConfig, available: int, workers: int) -> Plan:
    """Returns the numbers of a run with so many training samples.

    Args:
        config: its settings.
        available: samples of the training split.
        workers: that share a step.

    Raises:
        ValueError: where a step cannot be cut for the workers.
    """
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
        kind=config.kind,
        available=available,
        batch_size=size,
        micro_batch_size=micro,
        workers=workers,
        steps=steps,
        warmup_steps=int(optim.warmup * steps),
        peak_lr=optim.lr or optim.base_lr * size / 256,
    )


def method_of(
    config: RunConfig, plan: Plan, tokenizer: str | None, vocabulary: int = 0
) -> "Method":
    """Returns the method with fresh weights, the same for the same seed. Imports PyTorch.

    Args:
        config: settings of the run.
        plan: its numbers, by which weights of the loss may change.
        tokenizer: JSON document of a method that reads reports.
        vocabulary: size of a tokenizer that is still to be trained, where it is not given.
    """
    from ray_mae.methods.base import Context, Vocabulary

    config.check_sizes()
    known = Vocabulary(*astuple(special_ids(tokenizer))) if tokenizer else Vocabulary(vocabulary)
    context = Context(
        seed=config.seed,
        steps=plan.steps,
        warmup_steps=plan.warmup_steps,
        data=config.data,
        vocabulary=known,
        recompute=config.engine.activation_checkpointing,
        frozen=_frozen_of(config),
    )
    method: Method = load(config.method.model_of(config.encoder)).build(
        config.method, config.encoder, context
    )
    method.encoder.freeze(config.optim.freeze)
    return method


def _frozen_of(config: RunConfig) -> "Encoder | None":
    """The encoder that teaches the run's, with its weights; on the meta device, where the method is there."""
    path = config.method.frozen_encoder
    if path is None:
        return None
    import torch

    from ray_mae.checkpoint.encoders import read_encoder

    return read_encoder(path)[0].to(torch.get_default_device())


def names_of_method(config: RunConfig, plan: Plan) -> list[str]:
    """Returns the names of the weights of the run's method, without making them. Imports PyTorch."""
    import torch

    with torch.device("meta"):
        method = method_of(config, plan, None, vocabulary=1)
    return list(method.state_dict())


def findings_of(config: PretrainConfig, shards: ShardSet) -> Findings | None:
    """Returns what the run knows of the findings of its training samples; None where it reads none.

    Raises:
        DamagedShard: a file cannot be read.
        ValueError: no training sample has a finding.
    """
    reads = config.data.label_uses or config.method.study_weights
    return read_findings(shards, config.data.corrupt == "skip") if reads else None


def targets_of(
    config: PretrainConfig,
    shards: ShardSet,
    split: str = "train",
    positive_weight: Sequence[float] | None = None,
) -> Targets | None:
    """Returns the labels that batches bring along; None where they bring none.

    Args:
        config: settings of the run.
        shards: what it reads.
        split: whose labels.
        positive_weight: of the training split, for the others.

    Raises:
        DamagedShard: a file cannot be read.
        ValueError: there is no such label, or it cannot be learnt.
    """
    wanted, skip = config.method.targets, config.data.corrupt == "skip"
    if wanted is None:
        return None
    return read_targets(shards, wanted, split, positive_weight=positive_weight, skip=skip)


def stream_of(
    config: PretrainConfig,
    plan: Plan,
    shards: ShardSet,
    tokenizer: str | None,
    first_step: int,
    findings: Findings | None = None,
    targets: Targets | None = None,
) -> Stream:
    """Returns the run's samples from a step on.

    Args:
        config: settings of the run.
        plan: its numbers, for the workers that read.
        shards: what it reads.
        tokenizer: JSON document, of a method that reads reports.
        first_step: steps done before.
        findings: by `findings_of`.
        targets: by `targets_of`.
    """
    collator = collator_of(config, tokenizer, targets)
    if findings and (weights := config.method.study_weights):
        collator = replace(cast(StudyCollator, collator), weights=findings.weights(*weights))
    return Stream(
        shards=shards,
        order=order_of(config, shards, findings),
        collator=collator,
        batch_size=plan.batch_size,
        micro_batch_size=plan.micro_batch_size,
        workers=plan.workers,
        first_step=first_step,
        steps=plan.steps,
        corrupt=config.data.corrupt,
        patience=config.scaling.storage_patience,
        cache=cache_of(config, shards),
    )


def cache_of(config: RunConfig, shards: ShardSet) -> CacheSettings | None:
    """Returns the cache on the nodes' disks; None where there is none.

    Args:
        config: settings of the run.
        shards: what it reads.

    Raises:
        ValueError: there is to be one, and no shards that it could hold.
    """
    if config.data.cache is None:
        return None
    if not any(map(is_remote, shards.paths)):
        raise ValueError(
            f"data.cache is for shards in an object store, and {shards.paths[0]} is on a disk: leave it out"
        )
    return CacheSettings(config.data.cache.absolute(), round(config.data.cache_gib * 2**30))


def collator_of(
    config: RunConfig, tokenizer: str | None, targets: Targets | None = None
) -> Collator:
    """Returns how rows become the batches of the run, all studies having one weight.

    Args:
        config: settings of the run.
        tokenizer: JSON document, of a method that reads reports.
        targets: by `targets_of`.
    """
    collator: Any = KINDS[config.kind].training_collator(
        config.encoder.input_size, config.data, seed=config.seed, tokenizer=tokenizer
    )
    if config.method.reads_segmentations:
        collator = SegmentedVolumeCollator(config.encoder.input_size, config.seed)
    return cast(Collator, replace(collator, targets=targets) if targets else collator)


def held_out_collator(job: "Job", shards: ShardSet) -> Collator:
    """Returns the same for samples of validation patients, which are looked at and not learnt from.

    Args:
        job: of the worker.
        shards: what the run reads.
    """
    targets = targets_of(job.run, shards, "val", job.positive_weight)
    return collator_of(job.run, job.tokenizer, targets)


def order_of(config: PretrainConfig, shards: ShardSet, findings: Findings | None = None) -> Mixture:
    """Returns the order of the run's training samples.

    Args:
        config: settings of the run.
        shards: what it reads.
        findings: by `findings_of`. How many samples are of each folder does not depend on them.
    """
    data, extra = config.data, None
    if findings and data.repeat_below:
        extra = findings.extra_draws(data.repeat_below, data.repeat_most)
    return Mixture.of(shards, "train", config.seed, data.shuffle_window, extra)


def report_section(config: RunConfig) -> str | None:
    """Returns which section of reports the method reads; None for a method without text."""
    return getattr(config.data, "text", None) if config.method.reads_reports else None


@dataclass(frozen=True)
class Job:
    """What the driver gives to each worker of a start. It travels as plain values."""

    config: dict[str, Any]
    """Settings of the run as plain values, by `to_dict`."""
    tokenizer: str | None
    """JSON document, of a method that reads reports."""
    attempt: str
    """Name of this start: workers of an earlier one end when they read another in the run's folder."""
    shards: dict[str, Any]
    """Facts of the shards that the order of samples was made from, by `checkpoint.format.facts_of`."""
    probe: bool
    """Whether checkpoints can be probed."""
    weights: str | None = None
    """Folder of the weights that a new run begins with, by `checkpoint.begin`."""
    positive_weight: list[float] | None = None
    """[L] factors of positive targets, where the method learns labels."""
    begun_with: dict[str, Any] | None = None
    """Table of them, which each checkpoint carries on."""

    @property
    def run(self) -> PretrainConfig:
        """The settings."""
        return run_of(self.config)
