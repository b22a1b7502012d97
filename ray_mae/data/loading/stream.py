"""Shards → packed batches, in the order of `order.py`, streamed by Ray Data.

A row of the streamed dataset is one whole micro-batch for one worker, in a block of its own.
Ray Data then deals whole blocks to the workers in turn, so that every worker gets the same number
of them, of exact size, and the micro-batches of one optimiser step are the same samples whatever
the number of workers. Where that does not divide a step, copies of weight 0 fill it up. Nothing of
torch is imported where data is read: that costs seconds in every process.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa
import ray
from ray.data import Dataset, read_datasource
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from ray_mae.cluster.ray_private import ExecutionCallback
from ray_mae.data.loading.collator import Collator
from ray_mae.data.loading.node_cache import CacheSettings, NodeCache
from ray_mae.data.loading.order import Mixture
from ray_mae.data.loading.rows import PATIENCE, read_rows
from ray_mae.data.loading.sampler import Sampler, WindowReader
from ray_mae.data.schema import Manifest, Shard
from ray_mae.data.shard_set import ShardSet

_WINDOWS_PER_TASK = 4
_MOST_TASKS = 10_000


# ----------------------------------------------------------------------- one batch as an Arrow row


def to_block(arrays: dict[str, np.ndarray], **scalars: Any) -> pa.Table:
    """Returns an Arrow block with one row. Bytes and a header: Ray's tensor columns want equal shapes.

    Args:
        arrays: of a batch, by name.
        scalars: columns of their own, by name.
    """
    header = {name: [array.dtype.str, array.shape] for name, array in arrays.items()}
    columns = {name: _bytes_of(array) for name, array in arrays.items()}
    plain = {name: pa.array([value]) for name, value in scalars.items()}
    return pa.table({**plain, "header": [json.dumps(header)], **columns})


def _bytes_of(array: np.ndarray) -> pa.Array:
    """A column of one cell with the bytes of an array, which are not copied."""
    content = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    ends = np.array([0, content.nbytes], np.int64)
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(content)]
    return pa.Array.from_buffers(pa.large_binary(), 1, buffers)


def from_block(block: pa.Table) -> dict[str, np.ndarray]:
    """Returns the arrays of `to_block`, without a copy (read-only)."""
    header = json.loads(block["header"][0].as_py())
    return {
        name: np.frombuffer(block[name][0].as_buffer(), np.dtype(dtype)).reshape(shape)
        for name, (dtype, shape) in header.items()
    }


# --------------------------------------------------------------------------------------- streaming


@dataclass(frozen=True)
class Stream:
    """The micro-batches of steps `first_step` … `steps` − 1 of a run."""

    shards: ShardSet
    """In the order's order."""
    order: Mixture
    collator: Collator
    batch_size: int
    micro_batch_size: int
    workers: int
    first_step: int
    steps: int
    corrupt: Literal["stop", "skip"] = "stop"
    """What is done about rows that cannot be read; see `Sampler`."""
    patience: float = PATIENCE
    """Seconds that the shards may be away."""
    cache: CacheSettings | None = None
    """On the disks of the nodes, of shards in a store."""

    def dataset(self) -> Dataset:
        """A lazy dataset: one row per micro-batch; `step` counts optimiser steps, `weight` is its loss's.

        The weights of a step have the mean 1 over all its rows. `folders` and
        `lost` (as JSON): see `DrawnSamples`. `note`: what is to be said of the cache, once.
        """
        # Tasks of a few windows: those at their borders are read twice. Not too many tasks: Ray Data
        # makes all of them at the start.
        per_task = max(
            1,
            _WINDOWS_PER_TASK * self.order.shuffle_window // self.batch_size,
            (self.steps - self.first_step) // _MOST_TASKS,
        )
        spans = [
            (first, min(first + per_task, self.steps))
            for first in range(self.first_step, self.steps, per_task)
        ]
        rows = per_task * self._dealt
        dataset = read_datasource(_Tasks(self, spans, rows), override_num_blocks=len(spans))
        dataset.context.target_max_block_size = 1  # bytes: each row closes its block
        return _in_order(dataset)

    @property
    def _dealt(self) -> int:
        """Blocks of a step: a multiple of the workers."""
        return -(-self.batch_size // (self.micro_batch_size * self.workers)) * self.workers

    def read(self, first: int, last: int) -> Iterator[pa.Table]:
        """The micro-batches of steps first … last − 1, one block each."""
        cache = self.cache.open(self.shards.paths, self.collator.columns) if self.cache else None
        reader = WindowReader(
            self.shards,
            self.collator.columns,
            self.order.shuffle_window,
            self.patience,
            wait=self.corrupt == "skip",  # what takes its place must not depend on time
            cache=cache,
        )
        reader.look_ahead(self.order.locations(first * self.batch_size, last * self.batch_size))
        try:
            yield from self._read(reader, first, last, cache)
        finally:
            reader.close()
            if cache:
                cache.close()

    def _read(
        self, reader: WindowReader, first: int, last: int, cache: NodeCache | None
    ) -> Iterator[pa.Table]:
        weight = self._dealt * self.micro_batch_size / self.batch_size
        sampler = Sampler(self.order, self.collator, reader, self.batch_size, self.corrupt)
        for step in range(first, last):
            for start in range(0, self.batch_size, self.micro_batch_size):
                draw = sampler.draw(step, range(start, start + self.micro_batch_size))
                if step == self.steps - 1:
                    reader.finish()  # no run ends on files that it has not compared
                yield to_block(
                    draw.arrays,
                    step=step,
                    weight=weight,
                    folders=draw.folders,
                    lost=json.dumps(draw.lost),
                    note=cache.take_problem() if cache else "",
                )
            for _ in range(self._dealt - self.batch_size // self.micro_batch_size):
                yield to_block(
                    draw.arrays, step=step, weight=0.0, folders=draw.folders, lost="[]", note=""
                )


@dataclass(frozen=True)
class FileOrder:
    """Every row of some splits once, in file order."""

    shards: Path
    collator: Collator
    batch_size: int

    def dataset(self, manifest: Manifest, splits: list[str]) -> Dataset:
        """A lazy dataset: one row per batch, with its rows' identities and labels."""
        files = [(shard,) for split in splits for shard in manifest.of_split(split)]
        if not files:
            raise ValueError(f"{self.shards} holds nothing of the splits {', '.join(splits)}")
        return dataset_of(self, files, 8)

    def read(self, shard: Shard) -> Iterator[pa.Table]:
        """The batches of one shard."""
        for group in range(len(shard.row_groups)):
            # the whole file is read here and only here, so its checksum costs no second reading
            rows = read_rows(
                self.shards / shard.file, shard, group, self.collator.columns, wait=True
            )
            for first in range(0, len(rows), self.batch_size):
                part = rows[first : first + self.batch_size]
                arrays = self.collator.collate(part, [0] * len(part))
                yield to_block(arrays, **self.collator.describe(part))


class Reader(Protocol):
    """Makes blocks of one row, a batch, in tasks."""

    @property
    def read(self) -> Callable[..., Iterator[pa.Table]]:
        """Returns the blocks of a task, from its arguments."""


def dataset_of(reader: Reader, calls: list[tuple], rows: int) -> Dataset:
    """Returns a lazy dataset of what a reader yields, in order.

    Args:
        reader: it travels to the tasks.
        calls: arguments of `read`, one task each.
        rows: about how many blocks a task yields.
    """
    return _in_order(read_datasource(_Tasks(reader, calls, rows), override_num_blocks=len(calls)))


class _Tasks(Datasource):
    """Ray Data's view of a reader and the arguments of its calls, one task each."""

    def __init__(self, reader: Reader, calls: list[tuple], rows: int) -> None:
        super().__init__()
        self._reader, self._calls, self._rows = reader, calls, rows

    def get_name(self) -> str:
        return "ReadShards"

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:
        reader = ray.put(self._reader)  # once: it holds the whole order and the tokenizer
        meta = BlockMetadata(
            num_rows=self._rows, size_bytes=None, input_files=None, exec_stats=None
        )
        return [ReadTask(partial(_call, reader, call), meta) for call in self._calls]


def _call(reader: Any, arguments: tuple) -> Iterator[pa.Table]:
    yield from _reader_of(reader).read(*arguments)


@lru_cache(maxsize=2)
def _reader_of(reader: Any) -> Reader:
    """What a reference stands for, unpacked once in a process: an order of a large archive takes long."""
    unpacked: Reader = ray.get(reader)
    return unpacked


class _Pace(ExecutionCallback):
    """At most 50 rounds of Ray Data's control loop a second.

    While readers are ahead of the training, as they should be, its `ray.wait` returns at once and the
    loop spins: on two cores it took as much CPU as a training worker.
    """

    ROUND = 0.02  # seconds

    def __init__(self) -> None:
        self._last = 0.0

    def on_execution_step(self, executor: Any) -> None:
        time.sleep(max(0.0, self._last + self.ROUND - time.monotonic()))
        self._last = time.monotonic()


def _in_order(dataset: Dataset) -> Dataset:
    dataset.context.execution_options.preserve_order = True
    dataset.context.custom_execution_callback_classes.append(_Pace)
    dataset.context.enable_progress_bars = False
    return dataset
