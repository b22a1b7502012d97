"""What a run will take: memory by ZeRO stage, storage and hours, before it or as it starts."""

import math
from dataclasses import dataclass, replace
from typing import Any, cast

from ray_mae.config.pretrain import RunConfig
from ray_mae.config.sections import StudyDataConfig
from ray_mae.data.kinds import KINDS
from ray_mae.data.shard_set import ShardSet
from ray_mae.train.forecast.gpus import Gpu
from ray_mae.train.forecast.memory import (
    DDP,
    STAGES,
    States,
    checkpoint_bytes,
    ddp_states,
    real_stage,
    states,
)
from ray_mae.train.setup import Plan, method_of

USABLE = 0.9
"""Share of a GPU's memory that tensors may fill: the rest is CUDA's, NCCL's, and fragments."""
RECOMPUTING = 4 / 3
"""Work with activation checkpointing: one more forward pass beside forward and backward (twice it)."""


@dataclass(frozen=True)
class Inputs:
    """How much data a sample is."""

    per_sample: float
    """Views of a study, as many as the method reads; 1 of a volume."""
    sample_bytes: float
    """Stored size of a sample."""
    stored: float
    """Bytes of all shards."""
    known: bool
    """Whether both are the shards' own, not assumed."""


@dataclass(frozen=True)
class Memory:
    """Bytes per GPU of one engine."""

    states: States
    activations: int | None
    """Of a micro-batch; None: not looked for."""
    recomputed: int | None
    """The same with activation checkpointing."""

    def total(self, recompute: bool) -> float:
        """The most at any time: in the backward pass, or in the step after it."""
        pass_ = (self.recomputed if recompute else self.activations) or 0
        return self.states.most(pass_)

    def largest(self, memory: float, micro_batch_size: int, recompute: bool) -> int:
        """The largest micro-batch that fits into so many bytes, by the activations of this one."""
        pass_ = (self.recomputed if recompute else self.activations) or 0
        room = USABLE * memory - self.states.kept
        if room < self.states.step or not pass_:
            return 0
        return max(0, math.floor((room - self.states.buffers) / (pass_ / micro_batch_size)))


@dataclass(frozen=True)
class Forecast:
    """What follows from a plan, a method and a GPU."""

    parameters: int
    encoder: int
    flops: float
    """Of forward and backward per sample, what is computed twice not counted."""
    precision: str
    gpu: Gpu | None
    memory: dict[str, Memory]
    """Of DDP, and of DeepSpeed by the ZeRO stages that it takes in this precision."""
    checkpoint: float
    """Bytes of one checkpoint."""
    checkpoints: int
    """How many there are at most at a time."""
    hours: float | None
    """At `mfu` of the peak; None where no peak is known."""
    mfu: float
    """Share of the peak that is assumed."""


def inputs_of(config: RunConfig, shards: ShardSet) -> Inputs:
    """Returns how much data a sample is, as the shards have it, by their shares."""
    inputs, each = 0.0, 0.0
    for folder in shards.folders:
        train = folder.manifest.of_split("train")
        rows = max(1, sum(s.rows for s in train))
        inputs += folder.share * sum(s.images for s in train) / rows
        each += folder.share * sum(s.bytes for s in train) / rows
    stored = sum(s.bytes for folder in shards.folders for s in folder.manifest.shards)
    per_sample = KINDS[shards.kind].inputs_per_sample(inputs, config.data)
    return Inputs(per_sample, each, stored, known=True)


@dataclass(frozen=True)
class Size:
    """Of a method."""

    parameters: int
    encoder: int
    flops: float
    """Of forward and backward per view or volume."""
    flops_of_study: float = 0.0
    """And per study, whatever its views: a captioner that reads them together."""
    buffers: int = 0
    """Bytes that are not trained, on every worker and in every checkpoint: a teacher."""


def forecast(
    config: RunConfig,
    plan: Plan,
    inputs: Inputs,
    gpu: Gpu | None,
    size: Size,
    *,
    precision: str,
    activations: int | None = None,
    recomputed: int | None = None,
    mfu: float | None = None,
) -> Forecast:
    """Returns what follows from a plan, a method and a GPU: arithmetic alone.

    Args:
        config: settings of the run.
        plan: its numbers.
        inputs: how much data a sample is.
        gpu: of each worker; None for a CPU, or an unknown one.
        size: of the method.
        precision: fp32 or bf16.
        activations: bytes of a micro-batch; None where they were not measured.
        recomputed: the same with activation checkpointing.
        mfu: share of the peak that is used; None takes the kind's guess.
    """
    optimizer, flops = config.optim.optimizer, size.flops * inputs.per_sample + size.flops_of_study
    shares = {DDP: ddp_states(size.parameters, precision=precision, optimizer=optimizer)}
    shares |= {
        str(stage): states(
            size.parameters,
            stage=stage,
            workers=plan.workers,
            precision=precision,
            optimizer=optimizer,
        )
        for stage in STAGES
        if stage == real_stage(stage, precision)
    }
    share = mfu or KINDS[plan.kind].utilisation
    return Forecast(
        parameters=size.parameters,
        encoder=size.encoder,
        flops=flops,
        precision=precision,
        gpu=gpu,
        memory={
            name: Memory(replace(of, weights=of.weights + size.buffers), activations, recomputed)
            for name, of in shares.items()
        },
        checkpoint=size.buffers
        + checkpoint_bytes(
            size.parameters,
            engine=config.engine,
            precision=precision,
            optimizer=optimizer,
        ),
        checkpoints=most_checkpoints(config, plan),
        hours=None if gpu is None else hours(config, plan, flops, gpu.peak(precision) * share),
        mfu=share,
    )


def measure_on_meta(
    config: RunConfig, plan: Plan, inputs: Inputs, precision: str
) -> tuple[Size, int, int]:
    """Returns size, and bytes of activations without and with checkpointing, by PyTorch's meta device.

    Neither memory nor data is needed; it takes some seconds.
    """
    import torch

    with torch.device("meta"):
        method: Any = method_of(config, plan, None, vocabulary=_vocabulary(config))
    size = Size(
        sum(p.numel() for p in method.parameters()),
        sum(p.numel() for p in method.encoder.parameters()),
        method.flops(images=1, samples=0),
        method.flops(images=0, samples=1),
        sum(b.numel() * b.element_size() for b in method.buffers()),
    )
    passes = [_activations(config, plan, inputs, precision, r) for r in (False, True)]
    return size, passes[0], passes[1]


def hours(config: RunConfig, plan: Plan, flops: float, tflops: float) -> float:
    """Returns the hours of a run.

    Passes that some workers make for nothing take their time, too.

    Args:
        config: settings of the run.
        plan: its numbers.
        flops: of forward and backward per sample.
        tflops: TFLOP/s per GPU.
    """
    passes = plan.steps * plan.accumulation * plan.micro_batch_size
    work = flops * (RECOMPUTING if config.engine.activation_checkpointing else 1)
    return passes * work / (tflops * 1e12) / 3600


def most_checkpoints(config: RunConfig, plan: Plan) -> int:
    """Returns how many checkpoints there are at most at a time: those that stay and the one being written."""
    written = math.ceil(plan.steps / config.checkpoint.every)
    keep = config.checkpoint.keep
    return written if keep is None else min(written, keep + 1 + config.checkpoint.keep_best)


def _vocabulary(config: RunConfig) -> int:
    """Of the tokenizer that the run has or will train, at most."""
    if not config.method.reads_reports:
        return 0
    data = cast(StudyDataConfig, config.data)
    if data.tokenizer is None:
        return data.vocabulary
    from ray_mae.data.loading.tokenizer import load_tokenizer, special_ids

    return special_ids(load_tokenizer(data.tokenizer)).size


def _activations(
    config: RunConfig, plan: Plan, inputs: Inputs, precision: str, recompute: bool
) -> int:
    import torch

    from ray_mae.train.forecast.activations import activation_bytes

    config = replace(config, engine=replace(config.engine, activation_checkpointing=recompute))
    with torch.device("meta"):
        method = method_of(config, plan, None, vocabulary=_vocabulary(config))
    kind = KINDS[plan.kind]
    number = math.ceil(plan.micro_batch_size * inputs.per_sample)
    reports = config.method.reads_reports
    tokens = cast(StudyDataConfig, config.data).max_tokens if reports else None
    batch = kind.empty_batch(
        config.encoder.input_size,
        plan.micro_batch_size,
        number,
        most=kind.most_inputs(config.data),
        tokens=tokens,
    )
    return activation_bytes(method, batch, precision)
