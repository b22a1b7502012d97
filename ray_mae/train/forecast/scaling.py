"""A step on 1 … 512 GPUs: computing and exchanging, and what must be read meanwhile. Needs no PyTorch.

A model, not a measurement: what it assumes stands in the title of its table. Left out are the optimiser's own
step (about a millisecond for 100 M parameters), workers that wait for the slowest, and a checkpoint's pause.
"""

import math
from dataclasses import dataclass

from rich.table import Table

from ray_mae.config.pretrain import RunConfig
from ray_mae.data.kinds import KINDS
from ray_mae.data.schema import NOUNS
from ray_mae.number_text import hours_text, size_text
from ray_mae.train.forecast.forecast import RECOMPUTING, Forecast, Inputs
from ray_mae.train.forecast.memory import DDP, row_of
from ray_mae.train.setup import Plan

MOST = 512
SUSTAINED = 0.8
"""Of a link's speed, by collectives within a node."""
_BACKWARD = 2 / 3
"""Of a pass: what DDP exchanges gradients behind. DeepSpeed's ZeRO 1 and 2 do it after the pass."""
_BUCKET = 25e6
"""Bytes that are exchanged at a time, by DDP's default."""


@dataclass(frozen=True)
class Network:
    """Between the GPUs of a run."""

    per_node: int
    """GPUs of a node."""
    inside: float
    """Bytes per second that a GPU exchanges with the others of its node, one way."""
    between: float
    """Bytes per second that a node exchanges with others, one way."""
    latency: float = 20e-6
    """Seconds of a message."""

    def seconds(self, size: float, gpus: int) -> float:
        """Of a reduce-scatter or an all-gather over a ring; an all-reduce is one of each.

        Each GPU sends (n − 1)/n of the bytes through the slowest link, and each bucket waits for the
        messages of a tree (Thakur et al. 2005).

        Args:
            size: bytes that all have in the end, or had before.
            gpus: n.
        """
        if gpus == 1:
            return 0.0
        speed = self.inside if gpus <= self.per_node else min(self.inside, self.between)
        waits = math.ceil(size / _BUCKET) * math.log2(gpus) * self.latency
        return size * (gpus - 1) / gpus / speed + waits


def exchanged(engine: str, precision: str) -> list[float]:
    """Returns bytes per parameter of each reduce-scatter and all-gather of a step.

    Gradients are summed in fp32 under every engine (Rajbhandari et al. 2020, section 7: twice the
    parameters in all, three times in ZeRO 3).

    Args:
        engine: a row of `Forecast.memory`.
        precision: fp32 or bf16.
    """
    weights = 2.0 if precision == "bf16" else 4.0
    if engine in (DDP, "0"):
        return [4.0, 4.0]
    return [4.0, weights] if engine in ("1", "2") else [4.0, weights, weights]


@dataclass(frozen=True)
class Point:
    """A step on so many GPUs."""

    gpus: int
    micro_batch_size: int
    passes: int
    """Forward and backward, of each GPU."""
    compute: float
    """Seconds."""
    exchange: float
    """Seconds beside computing: what is not hidden behind it."""
    efficiency: float
    """Share of the time that one GPU would need for the step, over what all spend."""
    growing: float
    """The same where the batch grows with the GPUs: one pass of a whole micro-batch each."""
    hours: float
    """Of the run."""
    read: float
    """Bytes per second that all read together."""
    cores: float
    """That read them, at the speed measured of one."""

    @property
    def seconds(self) -> float:
        return self.compute + self.exchange


def curve(
    config: RunConfig, plan: Plan, inputs: Inputs, estimate: Forecast, network: Network
) -> list[Point]:
    """Returns a step on 1, 2, 4 … GPUs, at most MOST and as many as a step has samples, and on the plan's.

    Args:
        config: settings of the run.
        plan: its numbers; the batch stays.
        inputs: how much data a sample is.
        estimate: with a GPU.
        network: between the GPUs.
    """
    assert estimate.gpu is not None
    numbers = {2**i for i in range(MOST.bit_length()) if 2**i <= min(MOST, plan.batch_size)}
    engine = row_of(config.engine, estimate.precision)
    work = estimate.flops * (RECOMPUTING if config.engine.activation_checkpointing else 1)
    each = work / (estimate.gpu.peak(estimate.precision) * 1e12 * estimate.mfu)
    kind = KINDS[plan.kind]
    volumes = [share * estimate.parameters for share in exchanged(engine, estimate.precision)]

    def beside(gpus: int, micro: int) -> float:
        whole = sum(network.seconds(size, gpus) for size in volumes)
        if engine != DDP or not whole:
            return whole
        # the last bucket has nothing to hide behind
        return max(whole - _BACKWARD * micro * each, whole * min(1.0, _BUCKET / max(volumes)))

    points = []
    for gpus in sorted(numbers | {plan.workers}):
        micro = _fitting(plan, gpus)
        passes = math.ceil(plan.batch_size / micro / gpus)
        compute, exchange = passes * micro * each, beside(gpus, micro)
        seconds = compute + exchange
        own = plan.micro_batch_size * each
        rate = plan.batch_size / seconds
        views = rate * inputs.per_sample
        points.append(
            Point(
                gpus,
                micro,
                passes,
                compute,
                exchange,
                efficiency=plan.batch_size * each / (gpus * seconds),
                growing=own / (own + beside(gpus, plan.micro_batch_size)),
                hours=plan.steps * seconds / 3600,
                read=rate * inputs.sample_bytes,
                cores=views / kind.read_per_core(config.encoder.input_size),
            )
        )
    return points


def _fitting(plan: Plan, gpus: int) -> int:
    """The largest micro-batch, up to the run's, of which a step has one for every GPU."""
    most = min(plan.micro_batch_size, max(1, plan.batch_size // gpus))
    return next(size for size in range(most, 0, -1) if plan.batch_size % size == 0)


def scaling_table(
    config: RunConfig, plan: Plan, estimate: Forecast, network: Network, points: list[Point]
) -> Table:
    """Returns the curve as a table; its title says what is assumed."""
    noun = NOUNS[plan.kind]
    speed = KINDS[plan.kind].read_per_core(config.encoder.input_size)
    engine = row_of(config.engine, estimate.precision)
    name = engine if engine == DDP else f"ZeRO {engine}"
    hidden = "behind the backward pass" if engine == DDP else "after the backward pass"
    title = (
        f"Steps of {plan.batch_size:,} {noun} on more GPUs, a model. It assumes {estimate.mfu:.0%} of the "
        f"peak; {name}, whose gradients travel {hidden}; {size_text(network.inside)}/s within a node of "
        f"{network.per_node}, {size_text(network.between)}/s between nodes; {speed:,.0f} "
        f"{KINDS[plan.kind].inputs}/s read by a core"
    )
    table = Table(box=None, pad_edge=False, title=title, title_justify="left")
    columns = ("GPUs", "micro-\nbatch", "compute\nms", "exchange\nms", "effi-\nciency")
    for column in (*columns, "if batch\ngrows", "time", "to read", "cores"):
        table.add_column(column, justify="right", no_wrap=True, vertical="bottom")
    for p in points:
        table.add_row(
            f"{'› ' if p.gpus == plan.workers else ''}{p.gpus}",
            f"{p.passes} × {p.micro_batch_size}" if p.passes > 1 else f"{p.micro_batch_size}",
            f"{1e3 * p.compute:,.0f}",
            f"{1e3 * p.exchange:,.1f}",
            f"{p.efficiency:.0%}",
            f"{p.growing:.0%}",
            hours_text(p.hours),
            f"{size_text(p.read)}/s",
            f"{p.cores:,.1f}",
        )
    return table
