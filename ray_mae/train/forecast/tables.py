"""The table that opens a run, and that `plan` prints before it."""

from dataclasses import replace
from typing import Any

from rich.table import Table

from ray_mae.config.pretrain import PretrainConfig, RunConfig
from ray_mae.data.kinds import KINDS
from ray_mae.data.schema import NOUNS
from ray_mae.data.shard_set import ShardSet
from ray_mae.number_text import hours_text, size_text
from ray_mae.train.forecast.forecast import USABLE, Forecast, Inputs, Size, forecast, inputs_of
from ray_mae.train.forecast.gpus import Gpu, find_gpu
from ray_mae.train.forecast.memory import row_of
from ray_mae.train.setup import Plan

GIB = 2.0**30


def as_table(rows: dict[str, str]) -> Table:
    """Returns a table with a name and its text in each row."""
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def plan_rows(config: RunConfig, plan: Plan, where: str, first_step: int = 0) -> dict[str, str]:
    """Returns what follows from the settings and the number of samples, as names and texts.

    Args:
        config: settings of the run.
        plan: its numbers.
        where: the samples lie.
        first_step: steps done before.
    """
    scaling, optim = config.scaling, config.optim
    noun = NOUNS[plan.kind]
    scale = "" if optim.lr else f" = {optim.base_lr:.1e} × {plan.batch_size}/256"
    return {
        "training data": f"{plan.available:,} {noun} {where}",
        "effective batch": f"{plan.batch_size:,} {noun} = {_sharing(plan)}"
        + (f" (with {scaling.described}: the same batch)" if scaling.least < scaling.most else ""),
        "learning rate": f"{plan.peak_lr:.2e}{scale}, {plan.warmup_steps} warm-up steps, "
        f"{optim.optimizer}, {optim.decay} decay",
        "steps": f"{plan.steps:,}" + (f", continuing after {first_step:,}" if first_step else ""),
        "samples": f"{plan.samples:,} ({plan.epochs:.1f} epochs)",
        "method": f"{config.method.name}, {config.method.described}",
        "encoder": config.encoder.described,
        **({"labels read for": "; ".join(config.label_uses)} if config.label_uses else {}),
        "engine": f"{config.engine.described}, precision {config.engine.precision}",
    }


def _sharing(plan: Plan) -> str:
    """How a step is cut for the workers."""
    if not plan.idle:
        return f"{plan.workers} workers × {plan.micro_batch_size} × {plan.accumulation} accumulated"
    return (
        f"{plan.micro_batches} × {plan.micro_batch_size} on {plan.workers} workers, which leave "
        f"{plan.idle} of {plan.accumulation * plan.workers} passes of a step unused"
    )


def forecast_rows(
    config: RunConfig, plan: Plan, inputs: Inputs, estimate: Forecast
) -> dict[str, str]:
    """Returns what follows from the method and the GPU, as names and texts."""
    kind = KINDS[plan.kind]
    one = kind.name
    guess = "" if inputs.known else " (assumed)"
    views = (
        f" of {inputs.per_sample:.2g} {kind.inputs}{guess}"
        if kind.most_inputs(config.data) > 1
        else ""
    )
    each = (
        f"{estimate.checkpoints} checkpoints of "
        if estimate.checkpoints > 1
        else "a checkpoint of "
    )
    rows = {
        "parameters": f"{estimate.parameters / 1e6:.1f} M (encoder {estimate.encoder / 1e6:.1f} M)",
        "work": f"{estimate.flops / 1e9:.4g} GFLOP per {one}{views}, forward and backward",
        "storage": f"{size_text(inputs.stored)} of shards{guess}, {each}{size_text(estimate.checkpoint)}",
    }
    gpu = estimate.gpu
    if gpu is None:
        return rows
    rows["GPU"] = (
        f"{plan.workers} × {gpu.name}, {gpu.peak(estimate.precision):g} TFLOP/s in {estimate.precision}, "
        f"{gpu.memory:g} GiB"
    )
    if estimate.hours is not None:
        rate = plan.samples / estimate.hours / 3600
        rows["time"] = (
            f"{hours_text(estimate.hours)} at {estimate.mfu:.0%} of the peak (assumed), {rate:,.0f} "
            f"{NOUNS[plan.kind]}/s, {size_text(rate * inputs.sample_bytes)}/s to read"
        )
    return rows


def memory_table(config: RunConfig, plan: Plan, estimate: Forecast) -> Table:
    """Returns memory per worker by engine; what the run's settings choose is marked."""
    own = row_of(config.engine, estimate.precision)
    measured = estimate.memory[own].activations is not None
    whole = estimate.gpu is not None or estimate.memory[own].total(False) > GIB
    unit, name = (GIB, "GiB") if whole else (2.0**20, "MiB")
    table = Table(box=None, pad_edge=False, title_justify="left", title=_title(estimate.gpu, name))
    columns = ["ZeRO", "weights", "gradients", "optimiser", "buffers"]
    columns += ["activations", "total", "recomputed"] if measured else ["total"]
    if measured:
        run = -1 if config.engine.activation_checkpointing else -2
        columns[run] = f"› {columns[run]}"
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for engine, row in estimate.memory.items():
        s = row.states
        parts = [s.weights, s.gradients, s.optimizer, s.buffers]
        parts += [row.activations] if row.activations is not None else []
        totals = [row.total(recompute) for recompute in ((False, True) if measured else (False,))]
        shown = [f"{total / unit:.2f}{_misfit(total, estimate.gpu)}" for total in totals]
        mark = "› " if engine == own else ""
        table.add_row(f"{mark}{engine}", *(f"{part / unit:.2f}" for part in parts), *shown)
    return table


def largest_micro_batch(config: RunConfig, plan: Plan, estimate: Forecast) -> str:
    """Returns in words which micro-batch would fit under the run's own engine."""
    assert estimate.gpu is not None
    row = estimate.memory[row_of(config.engine, estimate.precision)]
    sizes = [
        row.largest(estimate.gpu.memory * GIB, plan.micro_batch_size, r) for r in (False, True)
    ]
    return f"{sizes[0]:,} would fit, {sizes[1]:,} with activations recomputed"


def _title(gpu: Gpu | None, unit: str) -> str:
    room = f" (more than {USABLE * gpu.memory:.3g} does not fit: ✗)" if gpu else ""
    return f"Memory per worker, {unit}{room}"


def _misfit(size: float, gpu: Gpu | None) -> str:
    return " ✗" if gpu and size > USABLE * gpu.memory * GIB else ""


class StartTables:
    """Makes the forecast of a run when its workers are up, and another after the second report."""

    _REPORTS = 2
    """The first report has the start in it."""

    def __init__(self, config: PretrainConfig, plan: Plan, shards: ShardSet) -> None:
        self._config, self._plan = config, plan
        self._inputs = inputs_of(config, shards)
        self._forecast: Forecast | None = None
        self._reports = 0

    def started(self, event: dict[str, Any]) -> list[Table]:
        """Returns the tables of the first engine of the command; nothing for those of later restarts.

        Activations are not in it: the metric `gpu_gib` is what was really taken.

        Args:
            event: of the first worker that has its engine.
        """
        if self._forecast is not None:
            return []
        config, plan = self._config, replace(self._plan, workers=event["workers"])
        names = ("parameters", "encoder", "flops", "flops_of_study", "buffers")
        size = Size(*(event[name] for name in names))
        gpu = find_gpu(event["gpu"]) if event["gpu"] else None
        estimate = forecast(config, plan, self._inputs, gpu, size, precision=event["precision"])
        self._forecast = estimate
        rows = forecast_rows(config, plan, self._inputs, estimate)
        rows.pop("parameters")  # the event says them
        return [as_table(rows), memory_table(config, plan, estimate)]

    def measured(self, record: dict[str, Any]) -> str | None:
        """Returns the hours anew, at the second report; None at others.

        Args:
            record: metrics of the report.
        """
        self._reports += 1
        if self._forecast is None or self._reports != self._REPORTS:
            return None
        whole = self._plan.samples / max(record["samples_per_s"], 1e-9) / 3600
        text = f"at this speed the whole run takes {hours_text(whole)}"
        if self._forecast.hours is not None:
            text += f" (forecast {hours_text(self._forecast.hours)})"
        if "mfu" in record:
            text += f"; {record['mfu']:.1%} of the peak are used"
        if "gpu_gib" in record:
            text += f"; {record['gpu_gib']:.1f} GiB of a GPU were taken at most"
        return text
