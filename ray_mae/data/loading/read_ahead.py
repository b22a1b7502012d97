"""Row groups of shards in a store, fetched before their rows are asked for."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from ray_mae.data.parquet import AT_A_TIME, Fetch, GroupPieces, fetch_group
from ray_mae.data.schema import Shard

K = TypeVar("K", bound=Hashable)
AHEAD = 128 << 20
"""Bytes that are fetched ahead of their use, at most; one row group may be."""


class Group(NamedTuple):
    """A row group that will be read."""

    path: Path
    shard: Shard
    group: int

    @property
    def bytes(self) -> int:
        """About how many it has."""
        return self.shard.bytes * self.shard.row_groups[self.group] // max(self.shard.rows, 1)


def groups_in_turn(groups: Iterable[K], rows_of: Callable[[K], int], rows: int) -> Iterator[K]:
    """Yields the row groups that a reader fetches, in turn.

    Args:
        groups: of one sample after the other.
        rows_of: a row group.
        rows: that the reader holds; it forgets its oldest row groups beyond that.
    """
    held: OrderedDict[K, int] = OrderedDict()
    total = 0
    for group in groups:
        if group in held:
            continue
        total += (size := rows_of(group))
        while held and total > rows:
            total -= held.popitem(last=False)[1]
        held[group] = size
        yield group


class ReadAhead:
    """Fetches row groups in the order in which they will be asked for.

    Args:
        groups: in that order.
        columns: to read.
        how: ranges are fetched.
    """

    def __init__(self, groups: Iterator[Group], columns: Sequence[str], how: Fetch) -> None:
        self._groups, self._columns, self._how = groups, columns, how
        self._next = next(groups, None)
        self._bytes = 0
        self._fetched: OrderedDict[tuple[Path, int], tuple[Group, Future[GroupPieces]]] = (
            OrderedDict()
        )
        self._threads = ThreadPoolExecutor(AT_A_TIME, thread_name_prefix="fetch")

    def __call__(self, path: Path, shard: Shard, group: int, columns: Sequence[str]) -> GroupPieces:
        """As `fetch_group`: what was fetched ahead, or else is fetched now."""
        self._fill()
        at, future = (path, group), None
        if at in self._fetched:
            while future is None:
                first, (of, pending) = self._fetched.popitem(last=False)
                self._bytes -= of.bytes
                if first == at:
                    future = pending
                else:  # it was to be read before, and was not
                    pending.cancel()
            self._fill()
        if future is not None and columns == self._columns:
            try:
                return future.result()
            except OSError:  # the reader knows what to wait for
                pass
        return fetch_group(path, shard, group, columns, self._how)

    def close(self) -> None:
        """Ends what is being fetched."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _fill(self) -> None:
        while self._next and (not self._fetched or self._bytes + self._next.bytes <= AHEAD):
            of = self._next
            work = partial(fetch_group, of.path, of.shard, of.group, self._columns, self._how)
            self._fetched[of.path, of.group] = of, self._threads.submit(work)
            self._bytes += of.bytes
            self._next = next(self._groups, None)
