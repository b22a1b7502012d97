"""The samples of a step, and what takes the place of rows that cannot be read."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from ray_mae.data.loading.collator import Collator
from ray_mae.data.loading.order import Mixture, RowLocation, permutation
from ray_mae.data.loading.rows import DamagedShard, description, is_damaged, read_rows
from ray_mae.data.schema import Row


class WindowReader:
    """Rows of shards by place; row groups stay in memory while their window is being drawn."""

    def __init__(
        self, folders: Sequence[Path], columns: Sequence[str], window: int, patience: float
    ) -> None:
        self.folders = folders
        self._columns, self._patience = columns, patience
        self._limit = 2 * window
        self._groups: dict[tuple[int, str, int], list[Row]] = {}
        self._held = 0
        self._damaged: dict[tuple[int, str, int], DamagedShard] = {}

    def path(self, place: RowLocation) -> Path:
        """The file that a row lies in."""
        return self.folders[place.folder] / place.file

    def row(self, place: RowLocation) -> Row:
        """Raises DamagedShard."""
        at = (place.folder, place.file, place.group)
        if at in self._damaged:
            raise self._damaged[at]
        if at not in self._groups:
            try:
                rows = read_rows(self.path(place), place.group, self._columns, self._patience)
            except DamagedShard as error:
                self._damaged[at] = error
                raise
            self._held += len(rows)
            while self._groups and self._held > self._limit:  # oldest first: its window is over
                self._held -= len(self._groups.pop(next(iter(self._groups))))
            self._groups[at] = rows
        return self._groups[at][place.row]


class Draw(NamedTuple):
    """Samples of a part of a step."""

    arrays: dict[str, np.ndarray]
    """Of the batch, by name."""
    folders: list[int]
    """[S] which folder of shards each sample is of."""
    lost: list[dict[str, Any]]
    """Rows that could not be read, in whose place others are."""


class Sampler:
    """Packs the samples of steps, in the run's order.

    Where a row cannot be read and corrupt is "skip", another sample of its step is drawn a second time,
    or one of a later step where the whole step is lost. Which one follows from the order and from what is
    damaged alone: it is the same for any number of workers and after a restart.
    """

    def __init__(
        self,
        order: Mixture,
        collator: Collator,
        reader: WindowReader,
        batch_size: int,
        corrupt: Literal["stop", "skip"],
    ) -> None:
        self._order, self._collator, self._reader = order, collator, reader
        self._batch_size, self._skip = batch_size, corrupt == "skip"
        self._unpackable: set[RowLocation] = set()
        self._places = lru_cache(maxsize=1)(self._places_of)

    def draw(self, step: int, wanted: range) -> Draw:
        """A part of a step.

        wanted: indices within the step. A lost row is told as `file`, `group` and `row`, and as `problem`
        in words. Raises DamagedShard where corrupt is "stop", or no row can be read.
        """
        while True:
            lost: list[dict[str, Any]] = []
            drawn = [self._row(step, index, lost) for index in wanted]
            rows, epochs = [row for row, _ in drawn], [place.epoch for _, place in drawn]
            try:
                arrays = self._collator.collate(rows, epochs)
                return Draw(arrays, [place.folder for _, place in drawn], lost)
            except Exception as error:
                self._condemn(drawn, error)

    def _row(self, step: int, index: int, lost: list[dict[str, Any]]) -> tuple[Row, RowLocation]:
        first: DamagedShard | None = None
        for place in self._candidates(step, index):
            try:
                if place in self._unpackable:
                    raise DamagedShard(self._unpackable_text(place, "its content"))
                row = self._reader.row(place)
            except DamagedShard as error:
                if not self._skip:
                    raise
                if first is None:
                    first = error
                    file = (
                        place.file
                        if len(self._reader.folders) == 1
                        else str(self._reader.path(place))
                    )
                    named = {"file": file, "group": place.group, "row": place.row}
                    lost.append({**named, "problem": f"{error}"})
                continue
            return row, place
        assert first is not None
        raise DamagedShard(f"nothing that could take its place can be read, either: {first}")

    def _candidates(self, step: int, index: int) -> Iterator[RowLocation]:
        """The place itself, then those of its step in random order, then one of each later step."""
        places = self._places(step)
        yield places[index]
        position = step * self._batch_size + index
        for other in permutation(self._batch_size, self._order.seed, position):
            yield places[other]
        for _ in range(self._order.samples_per_epoch):
            position += self._batch_size
            yield from self._order.locations(position, position + 1)

    def _places_of(self, step: int) -> list[RowLocation]:
        start = step * self._batch_size
        return list(self._order.locations(start, start + self._batch_size))

    def _condemn(self, drawn: list[tuple[Row, RowLocation]], error: Exception) -> None:
        """Note which rows could be read and not packed, if their shards are damaged; else raise."""
        found = {place for row, place in drawn if not self._packs(row, place)}
        damaged = {p for p in found if is_damaged(self._reader.path(p))}
        if not damaged:
            raise error
        if not self._skip:
            raise DamagedShard(self._unpackable_text(damaged.pop(), f"{error}")) from error
        self._unpackable |= damaged

    def _packs(self, row: Row, place: RowLocation) -> bool:
        try:
            self._collator.collate([row], [place.epoch])
        except Exception:
            return False
        return True

    def _unpackable_text(self, place: RowLocation, problem: str) -> str:
        where = f"row {place.row} of row group {place.group}: {problem}"
        return description(self._reader.path(place), where)
