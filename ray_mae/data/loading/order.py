"""Which samples come when: a pure function of (seed, manifest, position).

Position counts samples since the start of the run, over all epochs. Nothing here depends on the
number of workers, so a run continues exactly, on any number of them.

An epoch shuffles the row groups of all shards, cuts the result into windows of about
`shuffle_window` rows and shuffles the rows within each window: every row once per epoch, and a
reader touches few files at a time. With `Extra` some rows come several times, all within their window.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_mae.data.schema import Manifest
from ray_mae.data.shard_set import ShardSet
from ray_mae.random_streams import Draw


def key_of(name: str) -> int:
    """Returns the stable signed 64-bit key of a sample: a hash of its identifier."""
    return int.from_bytes(
        hashlib.blake2b(name.encode(), digest_size=8).digest(), "big", signed=True
    )


def mix(*parts: NDArray[np.int64] | int) -> NDArray[np.int64]:
    """Hashes integers to int64: SplitMix64's finaliser, chained.

    Our own few lines and not numpy's generators, because those may change their streams between
    versions and an order must not.

    Args:
        parts: int64 arrays or integers, broadcast against each other.
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
class RowLocation:
    """Where a row lies: folder, file, row group, row within the group; and the epoch it is drawn in."""

    file: str
    group: int
    row: int
    epoch: int
    folder: int = 0
    """Index among the folders of shards that the run reads."""
    copy: int = 0
    """Which of the epoch's drawings of the row."""

    @property
    def draw(self) -> int:
        """Number of the drawing among all of the row: what is random of a sample follows from it."""
        return self.epoch + (self.copy << 32)


@dataclass(frozen=True, eq=False)  # by identity: orders are keys of a cache
class Extra:
    """How much oftener than once each row of an order is drawn in an epoch, on average."""

    rows: NDArray[np.float64]
    """[n] of all rows of the split, in file order; they sum to a whole number."""

    @cached_property
    def total(self) -> int:
        return round(float(self.rows.sum()))

    def times(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """[n] how often each row is drawn in an epoch: 1 + its extra, rounded down or up.

        Systematic sampling: all are rounded by one random number of the epoch, so that their sum is the
        same in every epoch, and each is rounded up as often as its fraction says.
        """
        u = float(mix(seed, Draw.REPEATS, epoch).view(np.uint64) >> np.uint64(11)) / 2.0**53
        ends = np.concatenate([[0.0], self.rows.cumsum()])
        ends[ends > self.total - 1e-6] = self.total  # whatever the sum was rounded to
        whole = np.floor(ends + u).astype(np.int64)
        return 1 + whole[1:] - whole[:-1]


@dataclass(frozen=True)
class Window:
    """Row groups that are read together, and the order of their rows."""

    start: int
    """Position within the epoch of the window's first row."""
    groups: tuple[tuple[str, int, int], ...]
    """(file, row group, rows)"""
    draws: int
    """Samples, with those that are drawn again."""
    seed: tuple[int, ...]
    times: tuple[NDArray[np.int64], ...] | None = field(default=None, compare=False)
    """How often each row of each group is drawn; None: once."""

    def locations(self, epoch: int, folder: int) -> list[RowLocation]:
        sizes = np.array([rows for _, _, rows in self.groups])
        times = np.ones(sizes.sum(), np.int64) if self.times is None else np.hstack(self.times)
        row, copy = _count_up(sizes), _count_up(times)
        group = np.repeat(np.repeat(np.arange(len(sizes)), sizes), times)
        chosen = permutation(len(group), *self.seed)
        columns = (group[chosen], np.repeat(row, times)[chosen], copy[chosen])
        return [
            RowLocation(self.groups[of][0], self.groups[of][1], index, epoch, folder, number)
            for of, index, number in zip(*(column.tolist() for column in columns), strict=True)
        ]


@dataclass(
    frozen=True, eq=False
)  # by identity: orders are keys of caches, and may be of many groups
class Order:
    """The order of one split's samples in one folder of shards."""

    groups: tuple[tuple[str, int, int], ...]
    """All (file, row group, rows) of the split."""
    seed: int
    shuffle_window: int
    folder: int = 0
    """See `RowLocation`."""
    extra: Extra | None = None
    """Of the rows that come oftener than once in an epoch."""

    @classmethod
    def of(
        cls,
        manifest: Manifest,
        split: str,
        seed: int,
        shuffle_window: int,
        folder: int = 0,
        extra: Extra | None = None,
    ) -> "Order":
        groups = tuple(
            (shard.file, group, rows)
            for shard in manifest.of_split(split)
            for group, rows in enumerate(shard.row_groups)
        )
        if not groups:
            raise ValueError(f"the shards hold no study of the {split} split: nothing to read")
        return cls(groups, seed, shuffle_window, folder, extra)

    @property
    def samples_per_epoch(self) -> int:
        return int(_first_rows(self)[-1]) + (self.extra.total if self.extra else 0)

    def windows(self, epoch: int) -> "Windows":
        """The windows of an epoch, in order."""
        return _windows(self, epoch)

    def locations(self, start: int, stop: int) -> Iterator[RowLocation]:
        """Where the samples at positions start … stop − 1 lie."""
        position = start
        while position < stop:
            epoch, within = divmod(position, self.samples_per_epoch)
            start, drawn = _drawn(self, epoch, self.windows(epoch).index_at(within))
            first = within - start
            last = min(len(drawn), first + stop - position)
            yield from drawn[first:last]
            position += last - first


@dataclass(frozen=True, eq=False)
class Windows(Sequence[Window]):
    """The windows of an epoch. They are made when they are asked for: an archive has thousands."""

    order: Order
    epoch: int
    sequence: NDArray[np.intp]
    """[G] row groups, shuffled."""
    ends: NDArray[np.int64]
    """[G] samples of the epoch up to the end of each of them."""
    borders: NDArray[np.intp]
    """[W + 1] where in the sequence windows begin; the last one is its length."""
    times: NDArray[np.int64] | None
    """[n] how often each row of the split is drawn, in file order; None: once."""

    def __len__(self) -> int:
        return len(self.borders) - 1

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        first, last = self.borders[number], self.borders[number + 1]
        members = self.sequence[first:last]
        times = None
        if self.times is not None:
            rows = _first_rows(self.order)
            times = tuple(self.times[rows[i] : rows[i + 1]] for i in members)
        start = int(self.ends[first - 1]) if first else 0
        return Window(
            start,
            tuple(self.order.groups[i] for i in members),
            int(self.ends[last - 1]) - start,
            (self.order.seed, self.epoch, number),
            times,
        )

    def index_at(self, position: int) -> int:
        """Which window a position within the epoch lies in."""
        group = np.searchsorted(self.ends, position, side="right")
        return int(np.searchsorted(self.borders, group, side="right")) - 1


@lru_cache(maxsize=16)
def _first_rows(order: Order) -> NDArray[np.int64]:
    """[G + 1] rows of the split before each row group; the last one is of all."""
    return np.concatenate([[0], np.cumsum([rows for _, _, rows in order.groups], dtype=np.int64)])


@lru_cache(maxsize=8)  # the steps of a window follow each other
def _drawn(order: Order, epoch: int, index: int) -> tuple[int, list[RowLocation]]:
    """Where a window begins within its epoch, and its samples in turn."""
    window = order.windows(epoch)[index]
    return window.start, window.locations(epoch, order.folder)


def _count_up(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """From 0 to each of the sizes − 1, one after the other."""
    return np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)


@lru_cache(maxsize=4)
def _windows(order: Order, epoch: int) -> Windows:
    first_rows, times = _first_rows(order), None
    before = first_rows
    if order.extra:
        times = order.extra.times(order.seed, epoch)
        before = np.concatenate([[0], times.cumsum()])[first_rows]
    sequence = permutation(len(order.groups), order.seed, epoch)
    ends = np.cumsum(np.diff(before)[sequence])
    borders = [0]
    while borders[-1] < len(ends):
        start = ends[borders[-1] - 1] if borders[-1] else 0
        last = int(np.searchsorted(ends, start + order.shuffle_window))
        borders.append(min(last + 1, len(ends)))
    return Windows(order, epoch, sequence, ends, np.array(borders), times)


@dataclass(frozen=True)
class Mixture:
    """The order of the samples of several folders, each with its share of the draws.

    At the end of each block of positions each folder has its share of all samples until there, to
    within one; within a block the folders are shuffled. Each folder goes through its own epochs: of
    one that is small and has a large share, samples come more often. With one folder it is that
    folder's own order.
    """

    orders: tuple[Order, ...]
    shares: tuple[float, ...]
    """They sum to 1."""
    seed: int

    @classmethod
    def of(
        cls,
        shards: ShardSet,
        split: str,
        seed: int,
        shuffle_window: int,
        extra: Sequence[NDArray[np.float64]] | None = None,
    ) -> "Mixture":
        """The order of a split.

        Args:
            shards: the folders and their shares.
            split: which rows of them.
            seed: another one gives another order.
            shuffle_window: samples of all folders together that are shuffled among themselves.
            extra: of each folder [n], how much oftener than once rows are drawn in an epoch; see `Extra`.
        """
        orders = [
            Order.of(
                f.manifest,
                split,
                seed,
                max(1, round(shuffle_window * f.share)),
                i,
                Extra(extra[i]) if extra else None,
            )
            for i, f in enumerate(shards.folders)
        ]
        return cls(tuple(orders), tuple(f.share for f in shards.folders), seed)

    @property
    def samples_per_epoch(self) -> int:
        """Samples of all folders."""
        return sum(order.samples_per_epoch for order in self.orders)

    @property
    def shuffle_window(self) -> int:
        return sum(order.shuffle_window for order in self.orders)

    def counts(self, n: int) -> list[int]:
        """How many of the first n samples are of each folder."""
        block, within = divmod(n, self.block)
        before, folder = self._dealt(block)
        return (before + self._count(folder[:within])).tolist()

    @property
    def block(self) -> int:
        """Positions of a block: so many that the largest remainders take nothing back of a folder."""
        return max(1024, math.ceil(2 / min(self.shares)))

    def locations(self, start: int, stop: int) -> Iterator[RowLocation]:
        """Where the samples at positions start … stop − 1 lie."""
        if len(self.orders) == 1:
            yield from self.orders[0].locations(start, stop)
            return
        size = self.block
        for block in range(start // size, -(-stop // size)):
            first = block * size
            before, folder = self._dealt(block)
            low, high = max(start - first, 0), min(stop - first, size)
            begin = before + self._count(folder[:low])
            end = begin + self._count(folder[low:high])
            streams = [
                order.locations(int(a), int(b))
                for order, a, b in zip(self.orders, begin, end, strict=True)
            ]
            for i in folder[low:high]:
                yield next(streams[i])

    def _dealt(self, block: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """[F] samples of each folder before a block, and [block] the folder of each position in it."""
        size = self.block
        before = np.array(self._by_share(block * size))
        number = np.array(self._by_share((block + 1) * size)) - before
        folder = np.repeat(np.arange(len(self.orders)), number)
        return before, folder[permutation(size, self.seed, Draw.FOLDERS, block)]

    def _by_share(self, n: int) -> list[int]:
        """n samples by the folders' shares and largest remainders."""
        exact = [share * n for share in self.shares]
        whole = [int(count) for count in exact]
        left = n - sum(whole)
        by_remainder = sorted(range(len(exact)), key=lambda i: (whole[i] - exact[i], i))
        for i in by_remainder[:left]:
            whole[i] += 1
        return whole

    def _count(self, folder: NDArray[np.intp]) -> NDArray[np.intp]:
        """[F] how often each folder is there."""
        return np.bincount(folder, minlength=len(self.orders))
