"""Rows of shards as batches for training under supervision, read in the process that trains.

The order is that of pretraining: shuffled windows of row groups, so that a run touches few files
at a time and holds no more than two windows of rows, as they are stored.
"""

import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ray_mae.data.loading.collator import Collator
from ray_mae.data.loading.order import Order, RowLocation
from ray_mae.data.loading.rows import PATIENCE
from ray_mae.data.loading.sampler import WindowReader
from ray_mae.data.schema import Row
from ray_mae.data.shard_set import ShardSet

T = TypeVar("T")

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Samples:
    """Some rows of shards."""

    shards: ShardSet
    locations: Sequence[RowLocation]
    """Of each row of the cohort."""
    batch_size: int
    shuffle_window: int
    wait: bool = True
    """For the checksum of each file, so that no figure is of files that were exchanged."""

    def draw(
        self, order: Order, rows: NDArray[np.intp], collator: Collator
    ) -> Iterator[tuple[Arrays, NDArray[np.intp]]]:
        """Packed batches and the rows [B] in them, without end: each row once per epoch.

        Args:
            order: of the split.
            rows: of the cohort, one or more, all within the order.
            collator: packs them.
        """
        index = {_in_any_epoch(self.locations[i]): int(i) for i in rows}
        reader = self._reader(collator.columns, self.shuffle_window)
        endless = (at for at in order.locations(0, sys.maxsize) if _in_any_epoch(at) in index)
        while True:
            locations = list(islice(endless, self.batch_size))
            batch = collator.collate(
                [reader.row(at) for at in locations], [at.epoch for at in locations]
            )
            yield batch, np.array([index[_in_any_epoch(at)] for at in locations])

    def each(
        self, rows: NDArray[np.intp], collator: Collator
    ) -> Iterator[tuple[Arrays, NDArray[np.intp]]]:
        """Packed batches of these rows of the cohort, once each, in their order, and the rows [B]."""
        rest = self.read(rows, collator.columns)
        for first in range(0, len(rows), self.batch_size):
            part = rows[first : first + self.batch_size]
            yield collator.collate(list(islice(rest, len(part))), [0] * len(part)), part

    def read(self, rows: NDArray[np.intp], columns: Sequence[str]) -> Iterator[Row]:
        """Some columns of these rows of the cohort, in their order."""
        reader = self._reader(columns, 1)
        return (reader.row(self.locations[i]) for i in rows)

    def _reader(self, columns: Sequence[str], window: int) -> WindowReader:
        return WindowReader(self.shards, columns, window, PATIENCE, self.wait)


def _in_any_epoch(location: RowLocation) -> RowLocation:
    return replace(location, epoch=0)


def ahead(batches: Iterator[T]) -> Iterator[T]:
    """The same batches; while one is used a thread prepares the next."""
    with ThreadPoolExecutor(1) as thread:
        future = thread.submit(next, batches, None)
        while (batch := future.result()) is not None:
            future = thread.submit(next, batches, None)
            yield batch
