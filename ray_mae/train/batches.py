"""What a worker is given, step by step."""

import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from itertools import chain, islice
from typing import Any, NamedTuple

import torch

from ray_mae.data.kinds import Kind
from ray_mae.data.loading.integrity import DamagedShard
from ray_mae.data.loading.stream import from_block
from ray_mae.train.errors import FatalError

_DAMAGE = re.compile(rf"{DamagedShard.__name__}: (.+)")


class MicroBatch(NamedTuple):
    """One forward pass of a worker."""

    batch: Any
    """A StudyBatch or VolumeBatch on the worker's device."""
    weight: float
    """Factor of its loss: 0 for a copy that fills a step up, about 1 for all others."""
    folders: torch.Tensor
    """[S] which folder of shards each sample is of."""
    lost: list[dict[str, Any]]
    """Rows that could not be read, in whose place others are in the batch."""


def begin_reading(shard: Any) -> Iterator[Any]:
    """Asks for this worker's first block at once, so that it is read while the network is built.

    Args:
        shard: this worker's share of the run's dataset.

    Returns:
        Its blocks.
    """
    blocks = iter(shard.iter_batches(batch_size=None, batch_format="pyarrow"))
    reader = ThreadPoolExecutor(1, thread_name_prefix="first block")
    first = reader.submit(lambda: [*islice(blocks, 1)])
    reader.shutdown(wait=False)
    return chain.from_iterable(part() for part in (first.result, lambda: blocks))


class Batches:
    """Micro-batches of this worker in the run's order, and the time spent waiting for them.

    On a GPU they are copied from pinned memory by a stream of its own, while the one before trains.

    Args:
        blocks: of this worker, by `begin_reading`.
        kind: of its samples.
        device: of the worker.
    """

    def __init__(self, blocks: Iterator[Any], kind: Kind, device: torch.device) -> None:
        self._blocks = blocks
        self._kind, self._device = kind, device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._ahead: tuple[int, MicroBatch] | Exception | None = None
        self._waited = 0.0
        self._note = ""
        self._told: set[str] = set()

    def next(self, step: int) -> MicroBatch:
        """Returns the next micro-batch of this optimiser step.

        Raises:
            FatalError: the shards are damaged.
        """
        loaded, self._ahead = self._ahead or self._load(), None
        if isinstance(loaded, Exception):
            raise loaded
        of_step, micro = loaded
        if of_step != step:
            raise RuntimeError(
                f"step {step} was given a micro-batch of step {of_step}: Ray Data did not deal the blocks in "
                "turn; please report this with the versions in state.json"
            )
        if self._stream is not None:
            current = torch.cuda.current_stream(self._device)
            current.wait_stream(self._stream)
            for tensor in (micro.folders, *vars(micro.batch).values()):
                if isinstance(tensor, torch.Tensor) and tensor.is_cuda:
                    tensor.record_stream(current)  # or its memory could be given away too early
        return micro

    def prepare(self) -> None:
        """Begins to copy the next micro-batch to a GPU; to be called when this one has work there.

        What goes wrong is raised by `next`, since it is of a step to come.
        """
        if self._stream is None or self._ahead is not None:
            return
        try:
            self._ahead = self._load()
        except Exception as error:
            self._ahead = error

    def _load(self) -> tuple[int, MicroBatch]:
        """The next micro-batch and its step."""
        start = time.perf_counter()
        try:
            block = next(self._blocks)
        except Exception as error:  # of a task elsewhere, in Ray's wrapping
            if damage := _DAMAGE.search(f"{error}"):
                raise FatalError(damage[1]) from error
            raise
        if block.num_rows != 1:
            raise RuntimeError(f"Ray Data gave {block.num_rows} micro-batches in one block, not 1")
        pin = self._stream is not None
        batch = self._kind.to_batch(from_block(block), pin=pin)
        folders = torch.tensor(block["folders"][0].as_py(), pin_memory=pin)
        with torch.cuda.stream(self._stream) if pin else nullcontext():
            batch = batch.to(self._device)
            folders = folders.to(self._device, non_blocking=True)
        self._waited += time.perf_counter() - start
        lost = json.loads(block["lost"][0].as_py())
        self._note = self._note or block["note"][0].as_py()
        return block["step"][0].as_py(), MicroBatch(
            batch, block["weight"][0].as_py(), folders, lost
        )

    def take_note(self) -> str:
        """Returns what the readers have to say, each thing once; "" for nothing."""
        note, self._note = self._note, ""
        if note in self._told:
            return ""
        self._told.add(note)
        return note

    def take_waited(self) -> float:
        """Returns seconds waited since the last call."""
        waited, self._waited = self._waited, 0.0
        return waited
