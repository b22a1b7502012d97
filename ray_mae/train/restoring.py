"""How a worker goes on from the last committed checkpoint."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray.train
import torch.distributed as dist

from ray_mae.checkpoint import format as ckpt
from ray_mae.checkpoint.convert import make_universal
from ray_mae.train.ending import Ending
from ray_mae.train.engine import TAG, Engine


def restore(engine: Engine) -> int:
    """Load the last committed checkpoint, if any; returns the next step.

    One by another number of workers, or of another ZeRO stage, is made a universal one on the way.
    """
    saved = ray.train.get_checkpoint()
    if saved is None:
        return 0
    with saved.as_directory() as path:
        folder = Path(path)
        state = ckpt.read_state(folder)
        _require_precision(engine, state.get("precision", engine.precision))
        before = (state["workers"], state["zero_stage"])
        if engine.stage == 0 or before == (dist.get_world_size(), engine.stage):
            engine.load(folder)
            dist.barrier()  # workers of one node share the folder: nobody may remove it early
        else:
            with _universal(folder) as whole:
                engine.load(whole, universal=True)
    return int(state["step"])


def _require_precision(engine: Engine, before: str) -> None:
    """`auto` may be another one on the GPUs of today, and optimiser states are not for both."""
    if engine.precision != before:
        raise Ending(
            f"the run's checkpoints are of {before}, and this start would train in {engine.precision}: set "
            f"engine.precision to {before}, or begin another run from the weights alone with --weights"
        )


@contextmanager
def _universal(checkpoint: Path) -> Iterator[Path]:
    """The folder of a universal copy, made once on each node for all of its workers."""
    context = ray.train.get_context()
    first = context.get_local_rank() == 0
    here = (context.get_node_rank(), tempfile.mkdtemp(prefix="ray_mae_") if first else "")
    everybody: list[tuple[int, str]] = [(0, "")] * context.get_world_size()
    dist.all_gather_object(everybody, here)
    folder = Path(next(path for node, path in everybody if node == here[0] and path))
    try:
        if first:
            make_universal(checkpoint / TAG, folder / TAG)
        dist.barrier()
        yield folder
        dist.barrier()  # nobody may remove it early
    finally:
        if first:
            shutil.rmtree(folder, ignore_errors=True)
