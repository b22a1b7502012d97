"""`plan`: what a run will be and take, before it."""

from dataclasses import asdict, replace
from typing import Any

from rich.table import Table

from ray_mae.checkpoint.begin import describe_beginning, preview
from ray_mae.checkpoint.compatibility import require_compatible
from ray_mae.config.pretrain import PlanConfig, as_list
from ray_mae.config.stages import PlanStagesConfig
from ray_mae.data.kinds import KINDS
from ray_mae.data.patients import SharedPatients, find_shared_patients, summarise_shared
from ray_mae.data.shard_set import ShardSet
from ray_mae.number_text import hours_text
from ray_mae.summary import write_summary
from ray_mae.terminal import console, warn
from ray_mae.train.forecast.forecast import Forecast, Inputs, forecast, inputs_of, measure_on_meta
from ray_mae.train.forecast.gpus import Gpu, named_gpu
from ray_mae.train.forecast.memory import DDP
from ray_mae.train.forecast.scaling import SUSTAINED, Network, curve, scaling_table
from ray_mae.train.forecast.tables import (
    as_table,
    forecast_rows,
    largest_micro_batch,
    memory_table,
    plan_rows,
)
from ray_mae.train.run_folder import CONFIG
from ray_mae.train.setup import Plan, make_plan, names_of_method, plan_of


def plan(config: PlanConfig | PlanStagesConfig) -> dict[str, Any]:
    """Prints the forecast of a run, or of each stage; returns the summary, which goes to summary.json of
    `output`.

    Raises:
        ValueError: as `pretrain` would, before it takes any resources.
        FileNotFoundError: the same.
    """
    if isinstance(config, PlanStagesConfig):
        return _plan_stages(config)
    if config.output and (config.output / CONFIG).exists():
        raise ValueError(
            f"{config.output} is the folder of a run: choose another --output, or none"
        )
    if config.gpus:
        config = replace(config, scaling=replace(config.scaling, workers=config.gpus))
    config.check_sizes()
    run_plan, inputs, where, shared = _of_data(config)
    gpu = _gpu(config)
    setting = config.engine.precision
    precision = gpu.precision(setting) if gpu else "bf16" if setting == "auto" else setting
    size, activations, recomputed = measure_on_meta(config, run_plan, inputs, precision)
    estimate = forecast(
        config,
        run_plan,
        inputs,
        gpu,
        size,
        precision=precision,
        activations=activations,
        recomputed=recomputed,
        mfu=config.mfu,
    )

    rows = plan_rows(config, run_plan, where) | forecast_rows(config, run_plan, inputs, estimate)
    if estimate.gpu:
        rows["micro-batch"] = largest_micro_batch(config, run_plan, estimate)
    cost = None
    if config.price_per_gpu_hour is not None and estimate.hours is not None:
        cost = estimate.hours * run_plan.workers * config.price_per_gpu_hour
        rows["cost"] = f"{cost:,.0f} at {config.price_per_gpu_hour:g} per GPU and hour"
    console.print(as_table(rows))
    if config.weights and (
        table := preview(config.weights, config.encoder, lambda: names_of_method(config, run_plan))
    ):
        console.print(as_table(describe_beginning(table)))
    console.print(memory_table(config, run_plan, estimate))
    points = []
    if estimate.gpu:
        network = Network(
            config.gpus_per_node, SUSTAINED * 1e9 * estimate.gpu.link, config.node_gbps * 1e9 / 8
        )
        points = curve(config, run_plan, inputs, estimate, network)
        console.print(scaling_table(config, run_plan, estimate, network, points))
    for pair in shared:
        console.print(pair.describe())
    summary = _summary(run_plan, inputs, estimate, config.engine.activation_checkpointing) | {
        "cost": cost,
        "scaling": [asdict(point) for point in points],
    }
    if shared:
        summary["shared_patients"] = summarise_shared(shared)
    if config.output:
        write_summary(config.output, summary)
    return summary


def _plan_stages(config: PlanStagesConfig) -> dict[str, Any]:
    """The forecast of each stage, then a table with a row of each."""
    summaries = {}
    table = Table(box=None, pad_edge=False)
    for title in ("stage", "method", "steps", "samples", "parameters", "time", "cost"):
        table.add_column(title, justify="left" if title in ("stage", "method") else "right")
    for stage in config.runs:
        console.print(f"\nstage {stage.place} of {len(config.runs)}, {stage.name}")
        summary = plan(stage.run)
        summaries[stage.folder] = summary
        numbers, estimate, cost = summary["plan"], summary["forecast"], summary["cost"]
        table.add_row(
            f"{stage.place}, {stage.name}",
            stage.run.method.name,
            f"{numbers['steps']:,}",
            f"{numbers['samples']:,}",
            f"{estimate['parameters'] / 1e6:.1f} M",
            "–" if estimate["hours"] is None else hours_text(estimate["hours"]),
            "–" if cost is None else f"{cost:,.0f}",
        )
    console.print()
    console.print(table)
    summary = {"command": "plan", "stages": summaries}
    return write_summary(config.output, summary) if config.output else summary


def _of_data(config: PlanConfig) -> tuple[Plan, Inputs, str, list[SharedPatients]]:
    """The numbers of the run, what a sample is, where they lie, and patients of several folders."""
    if config.shards is not None and config.samples is None:
        shards = ShardSet.read(as_list(config.shards), config.shares)
        if config.weights:
            warn(require_compatible(config.weights, shards, config.mismatch))
        run_plan, inputs = make_plan(config, shards), inputs_of(config, shards)
        return run_plan, inputs, shards.describe(), find_shared_patients(shards)
    assert config.samples is not None
    kind = KINDS[config.kind]
    per_sample = kind.inputs_per_sample(config.views_per_sample, config.data)
    stored = config.bytes_per_view or kind.stored_bytes
    if kind.most_inputs(config.data) > 1:
        stored *= config.views_per_sample
    inputs = Inputs(per_sample, stored, stored * config.samples, known=False)
    return plan_of(config, config.samples, config.scaling.most), inputs, "(assumed)", []


def _gpu(config: PlanConfig) -> Gpu | None:
    """The named one, the settings' own, or a mix; None where too little is known."""
    named = named_gpu(config.gpu) if config.gpu and not _own(config) else None
    if named is None and not _own(config):
        if config.peak_tflops or config.gpu_memory:
            raise ValueError(
                "peak_tflops and gpu_memory describe a GPU together: give both, or --gpu"
            )
        return None
    if named is None:
        peak = config.peak_tflops
        assert peak is not None
        assert config.gpu_memory is not None
        return Gpu(config.gpu or "GPU", config.gpu_memory, peak, peak)
    peak = config.peak_tflops
    return replace(
        named,
        memory=config.gpu_memory or named.memory,
        bf16=named.bf16 and (peak or named.bf16),
        fp32=peak or named.fp32,
    )


def _own(config: PlanConfig) -> bool:
    return config.peak_tflops is not None and config.gpu_memory is not None


def _summary(run_plan: Plan, inputs: Inputs, estimate: Forecast, recompute: bool) -> dict[str, Any]:
    return {
        "command": "plan",
        "plan": asdict(run_plan)
        | {"samples": run_plan.samples, "accumulation": run_plan.accumulation},
        "inputs": asdict(inputs),
        "forecast": asdict(estimate),
        "bytes_per_gpu": {
            "ddp" if engine == DDP else f"zero_{engine}": round(row.total(recompute))
            for engine, row in estimate.memory.items()
        },
    }
