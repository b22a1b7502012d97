"""Reading begins while the workers still import PyTorch.

What they are to read follows from the last committed checkpoint, which is known without PyTorch. Ray Data's
processes take seconds to start, one after the other, so they are asked before anything else.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from pathlib import Path
from typing import Any

import ray.train

from ray_mae.checkpoint.format import read_state
from ray_mae.train.errors import FatalError
from ray_mae.train.metrics.jsonl import append_jsonl
from ray_mae.train.run_folder import EVENTS, RunFolder

_first: Future[tuple[list[Any], Iterator[Any]]] | None = None
"""Of this process: its first block, once it is there, and those after it."""


def saved_step() -> int:
    """Returns the step to go on with: that of the last committed checkpoint, 0 where there is none."""
    saved = ray.train.get_checkpoint()
    if saved is None:
        return 0
    with saved.as_directory() as path:
        return int(read_state(Path(path))["step"])


def announce(folder: RunFolder) -> bool:
    """Says for the first worker from which step on it reads, by an event that the driver's side looks for.

    Returns:
        Whether that is said. Where the folder is away, or is not the run's, the workers will say it
        themselves when they have waited for it, or end the run.
    """
    if ray.train.get_context().get_world_rank():
        return True
    try:
        folder.require_current()
        append_jsonl(
            folder.path / EVENTS, folder.event("workers started", reads_after=saved_step())
        )
    except (OSError, FatalError):
        return False
    return True


def begin() -> None:
    """Asks for this worker's first block, beside whatever it does next."""
    global _first
    reader = ThreadPoolExecutor(1, thread_name_prefix="first block")
    _first = reader.submit(_read)
    reader.shutdown(wait=False)


def blocks() -> Iterator[Any]:
    """Returns all blocks of this worker in turn, as `begin` asked for them.

    Errors of reading are raised where the first block is taken.
    """
    assert _first is not None
    first = _first
    return chain.from_iterable(
        part() for part in (lambda: first.result()[0], lambda: first.result()[1])
    )


def begun() -> bool:
    """Whether this worker has been asked to read."""
    return _first is not None


def _read() -> tuple[list[Any], Iterator[Any]]:
    shard = ray.train.get_dataset_shard("train")
    every = iter(shard.iter_batches(batch_size=None, batch_format="pyarrow"))
    return [*islice(every, 1)], every
