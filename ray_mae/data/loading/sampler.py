"""The samples of a step, and what takes the place of rows that cannot be read."""

from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from ray_mae.data.loading.collator import Collator
from ray_mae.data.loading.integrity import DamagedShard, check_content
from ray_mae.data.loading.node_cache import NodeCache
from ray_mae.data.loading.order import Mixture, RowLocation, permutation
from ray_mae.data.loading.read_ahead import Group, ReadAhead, groups_in_turn
from ray_mae.data.loading.rows import describe_damage, is_damaged, read_rows
from ray_mae.data.parquet import GroupSource, fetch, fetch_group
from ray_mae.data.paths import is_remote
from ray_mae.data.schema import Row, Shard
from ray_mae.data.shard_set import ShardSet


class WindowReader:
    """Rows of shards by location; row groups stay in memory while their window is being drawn."""

    def __init__(
        self,
        shards: ShardSet,
        columns: Sequence[str],
        window: int,
        patience: float,
        wait: bool = False,
        cache: NodeCache | None = None,
    ) -> None:
        """
        Args:
            shards: what is read, as their manifests said when the reader's work began.
            columns: to read.
            window: rows that are shuffled among themselves; two are kept.
            patience: seconds that a shard may be away.
            wait: for the checksum of each file, before its rows are used.
            cache: on the node's disk, of what lies in a store.
        """
        self.folders = shards.paths
        self._shards = [
            {shard.file: shard for shard in folder.manifest.shards} for folder in shards.folders
        ]
        self._columns, self._patience, self._wait = columns, patience, wait
        self._limit = 2 * window
        self._groups: dict[tuple[int, str, int], list[Row]] = {}
        self._held = 0
        self._read: dict[Path, Shard] = {}
        self._damaged: dict[tuple[int, str, int], DamagedShard] = {}
        self._cache = cache
        self._fetch = cache.fetch if cache else fetch
        self._ahead: ReadAhead | None = None

    def look_ahead(self, locations: Iterator[RowLocation]) -> None:
        """Begins to fetch what lies in a store, before its rows are asked for.

        Args:
            locations: of all samples that will be, in order.
        """
        if not any(map(is_remote, self.folders)):
            return

        def shard(group: tuple[int, str, int]) -> Shard:
            return self._shards[group[0]][group[1]]

        turns = groups_in_turn(
            ((at.folder, at.file, at.group) for at in locations),
            lambda group: shard(group).row_groups[group[2]],
            self._limit,
        )
        remote = (
            Group(self.folders[of[0]] / of[1], shard(of), of[2])
            for of in turns
            if is_remote(self.folders[of[0]])
        )
        self._ahead = ReadAhead(remote, self._columns, self._fetch)

    def close(self) -> None:
        """Ends what is still being fetched."""
        if self._ahead:
            self._ahead.close()

    def path(self, location: RowLocation) -> Path:
        """The file that a row lies in."""
        return self.folders[location.folder] / location.file

    def finish(self) -> None:
        """Waits for the checksums of all files that were read. Raises DamagedShard."""
        for path, shard in self._read.items():
            if not is_remote(path):
                check_content(path, shard, wait=True)

    def shard(self, location: RowLocation) -> Shard:
        """The manifest's entry of that file."""
        return self._shards[location.folder][location.file]

    def row(self, location: RowLocation) -> Row:
        """Raises DamagedShard."""
        at = (location.folder, location.file, location.group)
        if at in self._damaged:
            raise self._damaged[at]
        if at not in self._groups:
            try:
                rows = self._rows(location)
            except DamagedShard as error:
                self._damaged[at] = error
                raise
            self._read[self.path(location)] = self.shard(location)
            self._held += len(rows)
            while self._groups and self._held > self._limit:  # oldest first: its window is over
                self._held -= len(self._groups.pop(next(iter(self._groups))))
            self._groups[at] = rows
        return self._groups[at][location.row]

    def _rows(self, location: RowLocation) -> list[Row]:
        path, shard = self.path(location), self.shard(location)
        fetched_now = partial(fetch_group, how=self._fetch)

        def read(source: GroupSource) -> list[Row]:
            return read_rows(
                *(path, shard, location.group, self._columns),
                *(self._patience, self._wait, source),
            )

        try:
            return read(self._ahead or fetched_now)
        except DamagedShard:
            if not self._cache or not is_remote(path):
                raise
            self._cache.forget(path, shard)  # the file may have been restored since then
            return read(fetched_now)


class DrawnSamples(NamedTuple):
    """Samples of a part of a step."""

    arrays: dict[str, np.ndarray]
    """Of the batch, by name."""
    folders: list[int]
    """[S] which folder of shards each sample is of."""
    lost: list[dict[str, Any]]
    """Rows that could not be read, in whose place others are."""


class Sampler:
    """Draws the samples of steps, in the run's order, and makes batches of them.

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
        self._locations = lru_cache(maxsize=1)(self._locations_of)

    def draw(self, step: int, indices: range) -> DrawnSamples:
        """A part of a step.

        indices: of the samples within the step. A lost row has `file`, `group`, `row` and, in words, its
        `problem`. Raises DamagedShard where corrupt is "stop", or no row can be read.
        """
        while True:
            lost: list[dict[str, Any]] = []
            drawn = [self._row(step, index, lost) for index in indices]
            rows, draws = [row for row, _ in drawn], [location.draw for _, location in drawn]
            try:
                arrays = self._collator.collate(rows, draws)
                return DrawnSamples(arrays, [location.folder for _, location in drawn], lost)
            except Exception as error:
                self._condemn(drawn, error)

    def _row(self, step: int, index: int, lost: list[dict[str, Any]]) -> tuple[Row, RowLocation]:
        first: DamagedShard | None = None
        for location in self._candidates(step, index):
            try:
                if location in self._unpackable:
                    raise DamagedShard(self._unpackable_text(location, "its content"))
                row = self._reader.row(location)
            except DamagedShard as error:
                if not self._skip:
                    raise
                if first is None:
                    first = error
                    file = (
                        location.file
                        if len(self._reader.folders) == 1
                        else str(self._reader.path(location))
                    )
                    lost_row = {"file": file, "group": location.group, "row": location.row}
                    lost.append({**lost_row, "problem": f"{error}"})
                continue
            return row, location
        assert first is not None
        raise DamagedShard(f"nothing that could take its place can be read, either: {first}")

    def _candidates(self, step: int, index: int) -> Iterator[RowLocation]:
        """The place itself, then those of its step in random order, then one of each later step."""
        locations = self._locations(step)
        yield locations[index]
        position = step * self._batch_size + index
        for other in permutation(self._batch_size, self._order.seed, position):
            yield locations[other]
        for _ in range(self._order.samples_per_epoch):
            position += self._batch_size
            yield from self._order.locations(position, position + 1)

    def _locations_of(self, step: int) -> list[RowLocation]:
        start = step * self._batch_size
        return list(self._order.locations(start, start + self._batch_size))

    def _condemn(self, drawn: list[tuple[Row, RowLocation]], error: Exception) -> None:
        """Notes which rows could be read and make no batch, if their shards are damaged; else raises."""
        unpackable = {location for row, location in drawn if not self._collates(row, location)}
        damaged = {p for p in unpackable if is_damaged(self._reader.path(p), self._reader.shard(p))}
        if not damaged:
            raise error
        if not self._skip:
            raise DamagedShard(self._unpackable_text(damaged.pop(), f"{error}")) from error
        self._unpackable |= damaged

    def _collates(self, row: Row, location: RowLocation) -> bool:
        try:
            self._collator.collate([row], [location.draw])
        except Exception:
            return False
        return True

    def _unpackable_text(self, location: RowLocation, problem: str) -> str:
        where = f"row {location.row} of row group {location.group}: {problem}"
        return describe_damage(self._reader.path(location), self._reader.shard(location), where)
