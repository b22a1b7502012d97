"""The loop that each Ray Train worker runs. It knows a Method, and no images or volumes."""

import time
from contextlib import ExitStack, suppress
from typing import Any, cast

import ray.train
import torch
import torch.distributed as dist

from ray_mae.checkpoint.format import facts_of
from ray_mae.config import AnyPretrainConfig, pretrain_config
from ray_mae.data.loading.rows import DamagedShard, read_rows
from ray_mae.data.loading.stream import to_batch
from ray_mae.data.loading.tokenizer import decode_tokens, report_text
from ray_mae.data.schema import Manifest
from ray_mae.methods.base import Method
from ray_mae.train.batches import Batches
from ray_mae.train.checkpointing import Saver, begin_with, restore
from ray_mae.train.engine import Engine
from ray_mae.train.errors import Ending
from ray_mae.train.metrics.metrics import (
    Collapse,
    Window,
    gpu_name,
    memory_taken,
    peak_of,
    utilisation,
)
from ray_mae.train.metrics.run_log import EVENTS, Lines, Tracker, check_attempt, check_shared
from ray_mae.train.optim import learning_rate
from ray_mae.train.recovery.lost_samples import Guard, Unreadable
from ray_mae.train.recovery.preemption import Preemption
from ray_mae.train.run_storage import outlast
from ray_mae.train.setup import make_plan, method_of, packing_of, text_of


def train(job: dict[str, Any], stack: ExitStack) -> None:
    """Train from the last committed checkpoint to the last step.

    job: `config` (a PretrainConfig as plain values), `tokenizer` (JSON document or None), `attempt`
    (the name of this start), `of_shards` (as `facts_of` had it in the driver) and `probe` (whether
    checkpoints can be probed). stack: of what is to be done when training ends, well or not.
    """
    context = ray.train.get_context()
    config = pretrain_config(job["config"])
    threads = config.scaling.threads_per_worker or max(1, int(config.scaling.cpus_per_worker))
    torch.set_num_threads(threads)
    rank, workers = context.get_world_rank(), context.get_world_size()
    attempt = job["attempt"]
    patience = config.scaling.storage_patience
    begun = ray.train.get_checkpoint() is not None
    # at first a folder is rather not mounted here than away, and nobody should wait to hear of it
    at_start = patience if begun else min(patience, 30.0)
    check_shared(config.output, at_start)
    check_attempt(config.output, attempt)
    events = Lines(config.output / EVENTS, patience)
    event = _events(events, rank, attempt)
    event("worker ready", workers=workers)

    of_shards = job["of_shards"]
    manifest = outlast(lambda: _manifest(config, of_shards), at_start, config.shards)
    plan = make_plan(config, manifest, workers)
    tokenizer = job["tokenizer"]
    method = method_of(config, plan, tokenizer)
    size = _size(method)
    if config.weights and not begun:
        event(begin_with(cast(torch.nn.Module, method), config.weights))
    engine = Engine(
        cast(torch.nn.Module, method),
        config.engine,
        config.optim,
        micro_batch_size=plan.micro_batch_size,
        accumulation=plan.accumulation,
    )
    _agree(engine.precision)
    first_step = restore(engine)
    outlast(lambda: check_attempt(config.output, attempt), patience, config.output)
    tracker = Tracker(config.output, first_step, patience) if rank == 0 else None
    event(
        "engine ready",
        precision=engine.precision,
        device=str(engine.device),
        gpu=gpu_name(engine.device),
        workers=workers,
        first_step=first_step,
        **size,
    )
    held_out = outlast(
        lambda: _held_out(config, manifest, tokenizer, engine.device), patience, config.shards
    )

    shard = ray.train.get_dataset_shard("train")
    batches = Batches(shard, engine.device)
    window = Window(workers)
    preemption = Preemption()
    unreadable = Unreadable(config.output, rank, patience)
    guard = Guard(config.output, config.shards, rank, config.optim.max_skipped, patience)
    collapse = Collapse()
    peak = peak_of(engine.device, engine.precision, config.tracking.peak_tflops)
    saver = Saver(engine, config, attempt, rank, workers, tokenizer, of_shards, event)
    stack.push(saver.settle)
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
        for micro in range(plan.accumulation):
            given = batches.next(step)
            unreadable.add(step, given.lost)
            losses = engine(given.batch, step, report and micro == 0)
            engine.backward(losses.total * given.weight)
            engine.step(lr)
            window.add(losses, given)
        if engine.skipped:
            event(guard.skipped(step, window.drop()))
        else:
            guard.applied()
            window.keep()
        if step == first_step:
            event("first step")
        if report:
            figures = window.figures(engine.device, batches.take_waited())
            preemption.pace(figures["samples_per_s"] / plan.batch_size)
            work = size["flops"] * figures["inputs_per_s"]
            work += size["flops_of_study"] * figures["samples_per_s"]
            left = (plan.steps - step - 1) * plan.batch_size
            figures |= {
                "lr": lr,
                **method.figures(step),
                **engine.gradient_norm(),
                **utilisation(work, workers, peak),
                **memory_taken(engine.device),
                "skipped_steps": guard.total,
                **saver.figures(),
                "samples": (step + 1) * plan.batch_size,
                "eta_s": left / max(figures["samples_per_s"], 1e-9),
            }
            if config.data.corrupt == "skip":
                figures |= unreadable.figures(engine.device, workers)
            if warning := unreadable.warning(figures):
                event(warning)
            if warning := collapse.warning(figures):
                event(warning)
            if tracker:
                with suppress(OSError):  # it is away: looked at again before an upload
                    check_attempt(config.output, attempt)
                tracker.figures(step + 1, figures)
        if (step + 1) % config.tracking.pictures_every == 0 or last:
            _show(engine, tracker, held_out, step + 1, tokenizer)
        if told := preemption.notice(step + 1):
            event(told)
        due = (step + 1) % config.checkpoint.every == 0 or last
        if due or told:
            saved = (step + 1) // config.checkpoint.every
            probed = due and bool(config.probe.every) and (last or saved % config.probe.every == 0)
            began = time.perf_counter()
            saver.save(step + 1, probed=job["probe"] and probed, wait=bool(told))
            window.leave_out(time.perf_counter() - began)
    saver.wait()
    if tracker:
        tracker.close()
    event("done")
    events.close()


def _manifest(config: AnyPretrainConfig, of_shards: dict[str, Any]) -> Manifest:
    """That of the shards, which must be those that the driver has made the order of samples from."""
    if facts_of(config.shards) != of_shards:
        raise Ending(
            f"{config.shards} was ingested anew while the run went on, or is another folder on this node "
            "than on the driver's: its last checkpoint is of the shards of before"
        )
    return Manifest.read(config.shards)


def _agree(precision: str) -> None:
    """Raise Ending on every worker where some have GPUs with bf16 and some have not."""
    every: list[str] = [precision] * dist.get_world_size()
    dist.all_gather_object(every, precision)
    if len({*every}) > 1:
        raise Ending(
            f"{every.count('bf16')} of {len(every)} workers can train in bf16: set engine.precision to "
            "fp32, or keep GPUs of one kind in the pool"
        )


def _size(method: Method) -> dict[str, float]:
    """Parameters and operations, before ZeRO 3 takes the parameters apart."""
    module = cast(Any, method)
    return {
        "parameters": sum(p.numel() for p in module.parameters()),
        "encoder": sum(p.numel() for p in module.encoder.parameters()),
        "flops": method.flops(images=1, samples=0),
        "flops_of_study": method.flops(images=0, samples=1),
    }


def _held_out(
    config: AnyPretrainConfig, manifest: Manifest, tokenizer: str | None, device: torch.device
) -> Any:
    """A few samples for pictures, of validation patients where there are any; None for none."""
    if config.tracking.pictures == 0:
        return None
    shard = (manifest.of_split("val") or manifest.of_split("train"))[0]
    packing = packing_of(config, tokenizer)
    rows: list[dict[str, Any]] = []
    for group in range(len(shard.row_groups)):  # some more than wanted: of one patient come several
        with suppress(*([DamagedShard] if config.data.corrupt == "skip" else [])):
            rows += read_rows(config.shards / shard.file, group, packing.columns)
        if len(rows) >= 4 * config.tracking.pictures:
            break
    rows = rows[:: max(1, len(rows) // config.tracking.pictures)]
    if text := text_of(config):
        rows = sorted(rows, key=lambda row: not report_text(row, text))  # with text first
    chosen = rows[: config.tracking.pictures]
    return to_batch(packing.pack(chosen, [0] * len(chosen))).to(device)


def _show(
    engine: Engine, tracker: Tracker | None, batch: Any, step: int, tokenizer: str | None
) -> None:
    """Pictures of held-out samples; with ZeRO 3 every worker takes part."""
    if batch is None or (tracker is None and engine.stage < 3):
        return
    decode = (lambda ids: decode_tokens(tokenizer, ids)) if tokenizer else None
    with engine.whole() as module:
        pictures = cast(Method, module).pictures(batch, decode)
    if tracker:
        tracker.pictures(step, pictures)


def _events(lines: Lines, rank: int, attempt: str) -> Any:
    """What the first worker tells the driver while no figures are there yet."""

    def event(name: str, **more: Any) -> None:
        if rank == 0:
            record = {"event": name, "time": time.time(), "attempt": attempt}
            lines.add(record | more)

    return event
