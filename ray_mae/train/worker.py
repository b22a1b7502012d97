"""The loop that each Ray Train worker runs. It knows a Method, and no images or volumes."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import Any, cast

import ray.train
import torch
import torch.distributed as dist

from ray_mae.checkpoint.format import facts_of
from ray_mae.config.pretrain import PretrainConfig
from ray_mae.config.urls import opened
from ray_mae.data.kinds import KINDS
from ray_mae.data.loading.collator import Collator
from ray_mae.data.loading.integrity import DamagedShard
from ray_mae.data.loading.order import Mixture
from ray_mae.data.loading.rows import read_rows
from ray_mae.data.loading.tokenizer import decode_tokens, report_text
from ray_mae.data.shard_set import ShardSet
from ray_mae.methods.base import Method
from ray_mae.train.batches import Batches, begin_reading
from ray_mae.train.checkpointing import Checkpoints, begin_with, restore, saved_step
from ray_mae.train.engine import Engine, engine_of
from ray_mae.train.errors import FatalError
from ray_mae.train.held_out import HeldOutLosses
from ray_mae.train.metrics.jsonl import JsonLines
from ray_mae.train.metrics.metrics import (
    Collapse,
    MetricAverages,
    gpu_name,
    memory_taken,
    peak_of,
    utilisation,
)
from ray_mae.train.metrics.run_log import RunLog
from ray_mae.train.optim import learning_rate, weight_decay
from ray_mae.train.outcomes import Outcome, Outcomes
from ray_mae.train.recovery.lost_samples import LostRows, SkippedSteps
from ray_mae.train.recovery.preemption import Preemption
from ray_mae.train.recovery.pulse import Pulse
from ray_mae.train.run_folder import EVENTS, STOPPED, RunFolder
from ray_mae.train.run_storage import outlast
from ray_mae.train.setup import (
    Job,
    Plan,
    held_out_collator,
    make_plan,
    method_of,
    order_of,
    report_section,
)


def train(job: Job, stack: ExitStack) -> None:
    """Train from the last committed checkpoint to the last step.

    Args:
        job: what the driver gives.
        stack: of what is to be done when training ends, well or not.
    """
    context = ray.train.get_context()
    config = job.run
    torch.set_num_threads(config.scaling.threads)
    rank, workers = context.get_world_rank(), context.get_world_size()
    folder = RunFolder(config.output, job.attempt, config.scaling.storage_patience)
    begun = ray.train.get_checkpoint() is not None
    # at first a folder is rather not mounted here than away, and nobody should wait to hear of it
    at_start = folder.patience if begun else min(folder.patience, 30.0)
    folder.require_shared(at_start)
    events = folder.lines(EVENTS)
    event = _event_writer(events, folder, rank)
    first_step = saved_step()
    event("worker ready", workers=workers, reads_after=first_step)

    shards = outlast(lambda: _read_shards(config, job.shards), at_start, config.folders[0])
    dist.barrier()  # the driver looks into that event for what to read
    blocks = begin_reading(ray.train.get_dataset_shard("train"))
    plan = make_plan(config, shards, workers)
    method = method_of(config, plan, job.tokenizer)
    size = _size(method)
    if job.weights and not begun:
        event(begin_with(method, opened(job.weights)))
    engine = engine_of(
        method,
        config.engine,
        config.optim,
        micro_batch_size=plan.micro_batch_size,
        accumulation=plan.accumulation,
    )
    _require_one_precision(engine.precision)
    restore(engine)
    folder.outlast(folder.require_current)
    log = RunLog(folder, first_step, config.method.losses) if rank == 0 else None
    event(
        "engine ready",
        precision=engine.precision,
        device=str(engine.device),
        gpu=gpu_name(engine.device),
        workers=workers,
        first_step=first_step,
        **size,
    )
    collator = outlast(lambda: held_out_collator(job, shards), folder.patience, config.folders[0])
    pictured = outlast(
        lambda: _read_pictured(config, plan, shards, collator, engine.device),
        folder.patience,
        config.folders[0],
    )
    held_out = outlast(
        lambda: HeldOutLosses(config, plan, shards, collator, rank, workers, first_step),
        folder.patience,
        config.folders[0],
    )

    batches = Batches(blocks, KINDS[plan.kind], engine.device)
    averages = MetricAverages(workers, shards.names)
    order = order_of(config, shards)
    preemption, pulse = Preemption(), Pulse(folder.attempt, first_step)
    stack.callback(pulse.close)
    lost_rows = LostRows(folder, rank)
    skipped = SkippedSteps(folder, shards.paths, rank, config.optim.max_skipped)
    collapse = Collapse()
    peak = peak_of(engine.device, engine.precision, config.tracking.peak_tflops)
    checkpoints = Checkpoints(engine, config.checkpoint.upload, folder, job, event)
    stack.push(checkpoints.settle)
    outcomes = Outcomes()

    def settle(*, every: bool) -> None:
        """Counts steps by what came of them; every: of all so far, which waits for the device."""
        for step, outcome in outcomes.settled(every=every):
            if outcome.skipped:
                event(skipped.add(step, averages.drop()))
            else:
                skipped.applied()
                averages.keep()

    stopping = False
    for step in range(first_step, plan.steps):
        last = step + 1 == plan.steps
        report = (step + 1) % config.tracking.every == 0 or last
        lr = learning_rate(
            step,
            peak=plan.peak_lr,
            floor=config.optim.min_lr,
            warmup=plan.warmup_steps,
            steps=plan.steps,
            decay=config.optim.decay,
        )
        decay = weight_decay(
            step,
            first=config.optim.weight_decay,
            last=config.optim.final_weight_decay,
            steps=plan.steps,
        )
        outcome = take_step(
            engine,
            batches,
            averages,
            lost_rows,
            pulse,
            step,
            (lr, decay),
            plan.accumulation,
            watch=report,
        )
        outcomes.add(step, outcome)
        settle(every=report or step == first_step)
        if step == first_step:
            event("first step")
        if report:
            values = averages.take(engine.device, batches.take_waited())
            preemption.pace(values["samples_per_s"] / plan.batch_size)
            pulse.pace(values["samples_per_s"] / plan.batch_size)
            work = size["flops"] * values["inputs_per_s"]
            work += size["flops_of_study"] * values["samples_per_s"]
            samples = (step + 1) * plan.batch_size
            values |= {
                "lr": lr,
                **({} if decay is None else {"weight_decay": decay}),
                **method.metrics(step),
                **engine.gradient_norm(),
                **utilisation(work, workers, peak),
                **memory_taken(engine.device),
                "skipped_steps": skipped.total,
                **checkpoints.metrics(),
                "samples": samples,
                **_samples_by_folder(order, shards.names, samples),
                "eta_s": (plan.samples - samples) / max(values["samples_per_s"], 1e-9),
            }
            if held_out.due(step + 1) or last:
                began = time.perf_counter()
                values |= held_out.measure(engine, step + 1)
                averages.leave_out(time.perf_counter() - began)
            if config.data.corrupt == "skip":
                values |= lost_rows.metrics(engine.device, workers)
            warnings = lost_rows.warning(values), collapse.warning(values), batches.take_note()
            for warning in warnings:
                if warning:
                    event(warning)
            if log:
                with suppress(OSError):  # it is away: looked at again before an upload
                    folder.require_current()
                log.metrics(step + 1, values)
        if (step + 1) % config.tracking.pictures_every == 0 or last:
            _log_pictures(engine, log, pictured, step + 1, job.tokenizer)
        if notice := preemption.notice(step + 1):
            event(notice)
        stopping = pulse.stop_requested(step + 1) and not last
        due = (step + 1) % config.checkpoint.every == 0 or last
        if due or notice or stopping:
            settle(every=True)
            saved = (step + 1) // config.checkpoint.every
            probed = due and bool(config.probe.every) and (last or saved % config.probe.every == 0)
            began = time.perf_counter()
            pulse.step, pulse.doing = step + 1, "saving a checkpoint"
            checkpoints.save(step + 1, probed=job.probe and probed, wait=bool(notice) or stopping)
            averages.leave_out(time.perf_counter() - began)
        if stopping:
            break
    checkpoints.wait()
    if log:
        log.close()
    event(STOPPED if stopping else "done")
    events.close()


def take_step(
    engine: Engine,
    batches: Batches,
    averages: MetricAverages,
    lost_rows: LostRows,
    pulse: Pulse,
    step: int,
    rates: tuple[float, float | None],
    micro_batches: int,
    *,
    watch: bool,
) -> Outcome:
    """Takes one step of the optimiser. Nothing in it waits for the device.

    Args:
        engine: of this worker.
        batches: what it is given.
        averages: of metrics; whether this step counts is for the caller to say, when its outcome is known.
        lost_rows: of this worker.
        pulse: is told what the worker is at.
        step: steps done before.
        rates: learning rate, and the weight decay where it changes.
        micro_batches: of this worker in a step.
        watch: also record what is too costly for every step.

    Returns:
        What came of it, which is known later.
    """
    for micro in range(micro_batches):
        pulse.step, pulse.doing = step, "reading data"
        part = batches.next(step)
        pulse.doing = "training"
        lost_rows.add(step, part.lost)
        losses = engine(part.batch, step, watch and micro == 0)
        engine.backward(losses.total * part.weight)
        batches.prepare()
        engine.step(*rates)
        averages.add(losses, part)
    engine.after_step(step + 1)
    averages.end_step()
    return engine.outcome


def _read_shards(config: PretrainConfig, facts: dict[str, Any]) -> ShardSet:
    """The shards, which must be those that the driver has made the order of samples from."""
    shards = ShardSet.read(config.folders, config.shares)
    if facts_of(shards) != facts:
        raise FatalError(
            f"{', '.join(map(str, config.folders))} was ingested anew while the run went on, or is another "
            "folder on this node than on the driver's: its last checkpoint is of the shards of before"
        )
    return shards


def _require_one_precision(precision: str) -> None:
    """Raise FatalError on every worker where some have GPUs with bf16 and some have not."""
    every: list[str] = [precision] * dist.get_world_size()
    dist.all_gather_object(every, precision)
    if len({*every}) > 1:
        raise FatalError(
            f"{every.count('bf16')} of {len(every)} workers can train in bf16: set engine.precision to "
            "fp32, or keep GPUs of one kind in the pool"
        )


def _size(method: Method) -> dict[str, float]:
    """Parameters and operations, before ZeRO 3 takes the parameters apart."""
    return {
        "parameters": sum(p.numel() for p in method.parameters()),
        "encoder": sum(p.numel() for p in method.encoder.parameters()),
        "flops": method.flops(images=1, samples=0),
        "flops_of_study": method.flops(images=0, samples=1),
        "buffers": sum(b.numel() * b.element_size() for b in method.buffers()),
    }


def _samples_by_folder(order: Mixture, names: Sequence[str], samples: int) -> dict[str, int]:
    """How many of so many samples were of each folder, where there are several."""
    if len(names) == 1:
        return {}
    return {f"samples/{name}": n for name, n in zip(names, order.counts(samples), strict=True)}


def _read_pictured(
    config: PretrainConfig,
    plan: Plan,
    shards: ShardSet,
    collator: Collator,
    device: torch.device,
) -> Any:
    """A few samples for pictures, of validation patients where there are any; None for none."""
    if config.tracking.pictures == 0:
        return None
    path, shard = (shards.of_split("val") or shards.of_split("train"))[0]
    rows: list[dict[str, Any]] = []
    for group in range(len(shard.row_groups)):  # more than needed: of one patient come several
        with suppress(*([DamagedShard] if config.data.corrupt == "skip" else [])):
            rows += read_rows(path, shard, group, collator.columns)
        if len(rows) >= 4 * config.tracking.pictures:
            break
    rows = rows[:: max(1, len(rows) // config.tracking.pictures)]
    if section := report_section(config):
        rows = sorted(rows, key=lambda row: not report_text(row, section))  # with text first
    chosen = rows[: config.tracking.pictures]
    return KINDS[plan.kind].to_batch(collator.collate(chosen, [0] * len(chosen))).to(device)


def _log_pictures(
    engine: Engine, log: RunLog | None, batch: Any, step: int, tokenizer: str | None
) -> None:
    """Pictures of held-out samples; with ZeRO 3 every worker takes part."""
    if batch is None or (log is None and engine.stage < 3):
        return
    decode = (lambda ids: decode_tokens(tokenizer, ids)) if tokenizer else None
    with engine.whole() as module:
        pictures = cast(Method, module).pictures(batch, decode)
    if log:
        log.pictures(step, pictures)


def _event_writer(lines: JsonLines, folder: RunFolder, rank: int) -> Callable[..., None]:
    """What the first worker tells the driver while no metrics are there yet."""

    def event(name: str, **more: Any) -> None:
        if rank == 0:
            lines.add(folder.event(name, **more))

    return event
