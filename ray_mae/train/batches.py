"""What a worker is given, step by step."""

import json
import re
import time
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


class Batches:
    """Micro-batches of this worker in the run's order, and the time spent waiting for them."""

    def __init__(self, shard: Any, kind: Kind, device: torch.device) -> None:
        self._blocks = iter(shard.iter_batches(batch_size=None, batch_format="pyarrow"))
        self._kind, self._device = kind, device
        self._waited = 0.0
        self._note = ""
        self._told: set[str] = set()

    def next(self, step: int) -> MicroBatch:
        """Returns the next micro-batch of this optimiser step.

        Raises:
            FatalError: the shards are damaged.
        """
        start = time.perf_counter()
        try:
            block = next(self._blocks)
        except Exception as error:  # of a task elsewhere, in Ray's wrapping
            if damage := _DAMAGE.search(f"{error}"):
                raise FatalError(damage[1]) from error
            raise
        if block.num_rows != 1 or block["step"][0].as_py() != step:
            raise RuntimeError(
                f"step {step} was given a micro-batch of step {block['step'].to_pylist()}: Ray Data "
                "did not deal the blocks in turn; please report this with the versions in state.json"
            )
        batch = self._kind.to_batch(from_block(block)).to(self._device)
        self._waited += time.perf_counter() - start
        lost = json.loads(block["lost"][0].as_py())
        self._note = self._note or block["note"][0].as_py()
        folders = torch.tensor(block["folders"][0].as_py(), device=self._device)
        return MicroBatch(batch, block["weight"][0].as_py(), folders, lost)

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
