"""Which studies come when: a pure function of (seed, manifest, position).

Position counts samples since the start of the run, over all epochs. Nothing here depends on the
number of workers, so a run continues exactly, on any number of them.

An epoch shuffles the row groups of all shards, cuts the result into windows of about
`shuffle_window` rows and shuffles the rows within each window: every row once per epoch, and a
reader touches few files at a time.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from ray_mae.data.schema import Manifest


def key_of(name: str) -> int:
    """The stable signed 64-bit key of a sample: a hash of its identifier."""
    return int.from_bytes(
        hashlib.blake2b(name.encode(), digest_size=8).digest(), "big", signed=True
    )


def mix(*parts: NDArray[np.int64] | int) -> NDArray[np.int64]:
    """Hash integers (broadcast against each other) into int64: SplitMix64's finaliser, chained.

    Our own few lines and not numpy's generators, because those may change their streams between
    versions and an order must not.
    """
    state = np.asarray(0x243F6A8885A308D3, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for part in parts:
            x = np.asarray(part, dtype=np.int64).astype(np.uint64)
            x = (x ^ state) + np.uint64(0x9E3779B97F4A7C15)
            x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state = x ^ (x >> np.uint64(31))
    return state.astype(np.int64)


def permutation(n: int, *seed: int) -> NDArray[np.int64]:
    """A permutation of range(n), [n], fixed by the seed."""
    return np.argsort(mix(*seed, np.arange(n)), kind="stable")


@dataclass(frozen=True)
class Place:
    """Where a row lies: file, row group, row within the group; and the epoch it is drawn in."""

    file: str
    group: int
    row: int
    epoch: int


@dataclass(frozen=True)
class Window:
    """Row groups that are read together, and the order of their rows."""

    start: int
    """Position within the epoch of the window's first row."""
    groups: tuple[tuple[str, int, int], ...]
    """(file, row group, rows)"""
    seed: tuple[int, ...]

    @property
    def rows(self) -> int:
        return sum(rows for _, _, rows in self.groups)

    def places(self, epoch: int) -> list[Place]:
        flat = [
            Place(file, group, row, epoch)
            for file, group, rows in self.groups
            for row in range(rows)
        ]
        return [flat[i] for i in permutation(len(flat), *self.seed)]


@dataclass(frozen=True)
class Order:
    """The order of one split's samples."""

    groups: tuple[tuple[str, int, int], ...]
    """All (file, row group, rows) of the split."""
    seed: int
    shuffle_window: int

    @classmethod
    def of(cls, manifest: Manifest, split: str, seed: int, shuffle_window: int) -> "Order":
        groups = tuple(
            (shard.file, group, rows)
            for shard in manifest.of_split(split)
            for group, rows in enumerate(shard.row_groups)
        )
        if not groups:
            raise ValueError(f"the shards hold no study of the {split} split: nothing to read")
        return cls(groups, seed, shuffle_window)

    @property
    def samples_per_epoch(self) -> int:
        return sum(rows for _, _, rows in self.groups)

    def windows(self, epoch: int) -> tuple[Window, ...]:
        """The windows of an epoch, in order."""
        return _windows(self, epoch)

    def places(self, start: int, stop: int) -> Iterator[Place]:
        """Where the samples at positions start … stop − 1 lie."""
        position = start
        while position < stop:
            epoch, within = divmod(position, self.samples_per_epoch)
            windows = self.windows(epoch)
            window = windows[bisect_right([w.start for w in windows], within) - 1]
            first = within - window.start
            last = min(window.rows, first + stop - position)
            yield from window.places(epoch)[first:last]
            position += last - first


@lru_cache(maxsize=4)
def _windows(order: Order, epoch: int) -> tuple[Window, ...]:
    shuffled = [order.groups[i] for i in permutation(len(order.groups), order.seed, epoch)]
    ends = list(accumulate(rows for _, _, rows in shuffled))
    windows: list[Window] = []
    first = 0
    for last, end in enumerate(ends):
        start = ends[first] - shuffled[first][2]
        if end - start >= order.shuffle_window or last == len(ends) - 1:
            seed = (order.seed, epoch, len(windows))
            windows.append(Window(start, tuple(shuffled[first : last + 1]), seed))
            first = last + 1
    return tuple(windows)
