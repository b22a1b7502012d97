"""Rows of shards as batches for training under supervision, read in the process that trains.

The order is that of pretraining: shuffled windows of row groups, so that a run touches few files
at a time and holds no more than two windows of rows, as they are stored.
"""

import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ray_mae.data.loading.collator import Collator
from ray_mae.data.loading.order import Order, RowLocation
from ray_mae.data.loading.rows import PATIENCE
from ray_mae.data.loading.sampler import WindowReader
from ray_mae.data.schema import Row

T = TypeVar("T")

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Samples:
    """Some rows of shards."""

    folders: Sequence[Path]
    """Of shards."""
    place: Sequence[RowLocation]
    """Where each row of the cohort lies."""
    batch_size: int
    shuffle_window: int

    def drawn(
        self, order: Order, rows: NDArray[np.intp], collator: Collator
    ) -> Iterator[tuple[Arrays, NDArray[np.intp]]]:
        """Packed batches and the rows [B] in them, without end: each row once per epoch.

        rows: those of the cohort that are wanted, at least one, all within the order.
        """
        index = {_at(self.place[i]): int(i) for i in rows}
        reader = WindowReader(self.folders, collator.columns, self.shuffle_window, PATIENCE)
        wanted = (place for place in order.locations(0, sys.maxsize) if _at(place) in index)
        while True:
            places = list(islice(wanted, self.batch_size))
            found = [reader.row(place) for place in places]
            epochs = [place.epoch for place in places]
            yield collator.collate(found, epochs), np.array([index[_at(p)] for p in places])

    def each(
        self, rows: NDArray[np.intp], collator: Collator
    ) -> Iterator[tuple[Arrays, NDArray[np.intp]]]:
        """Packed batches of these rows of the cohort, once each, in their order, and the rows [B]."""
        found = self.read(rows, collator.columns)
        for first in range(0, len(rows), self.batch_size):
            part = rows[first : first + self.batch_size]
            yield collator.collate(list(islice(found, len(part))), [0] * len(part)), part

    def read(self, rows: NDArray[np.intp], columns: Sequence[str]) -> Iterator[Row]:
        """Some columns of these rows of the cohort, in their order."""
        reader = WindowReader(self.folders, columns, 1, PATIENCE)
        return (reader.row(self.place[i]) for i in rows)


def _at(place: RowLocation) -> RowLocation:
    """The place in any epoch."""
    return replace(place, epoch=0)


def ahead(batches: Iterator[T]) -> Iterator[T]:
    """The same; while one is used the next is made, in a thread."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, batches, None)
        while (ready := coming.result()) is not None:
            coming = thread.submit(next, batches, None)
            yield ready
