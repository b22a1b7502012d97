"""Images that stand in more than one split, data set or patient: byte for byte, or to the eye.

Of each image 16 bytes of a digest, 256 bits of what it shows and 6 bytes of where it lies are kept, so that a
million take 66 MB. The bits say whether it gets brighter from one cell of a 16 × 16 grid to the next (dHash).
Two images that differ in MOST_BITS or fewer agree in whole in one of MOST_BITS + 1 bands of bits, so only
those that share a band are compared.
"""

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

GRID = 16
MOST_BITS = 7
# Bands take bits from all over the image: a black border alone would make a band of its own alike.
_SHUFFLED = np.random.RandomState(0).permutation(GRID * GRID)

Indices = NDArray[np.intp]


def bits_of(image: NDArray[np.uint8]) -> bytes:
    """The 256 bits of an image [H, W]; each band is 32 of them in a row."""
    small = Image.fromarray(image).resize((GRID + 1, GRID), Image.Resampling.BOX)
    cells = np.asarray(small).astype(np.int16)
    return np.packbits((np.diff(cells, axis=1) > 0).ravel()[_SHUFFLED]).tobytes()


@dataclass(frozen=True)
class Item:
    """An image or volume: where it lies."""

    dataset: str
    row: int
    """Of the data set, in the order of its files."""
    view: int
    """Of the study; 0 of a volume."""


@dataclass
class Pairs:
    """What stands twice: how often, in which data sets, and the first of them."""

    number: int = 0
    datasets: Counter[frozenset[str]] = field(default_factory=Counter)
    """How often within one data set, and across which."""
    first: list[tuple[Item, Item]] = field(default_factory=list)


class ContentIndex:
    """Of images or volumes: data set, split, patient, content."""

    def __init__(self, most: int = 0) -> None:
        """most: pairs of each kind that are named."""
        self._most = most
        self._groups = {"splits": bytearray(), "datasets": bytearray()}
        self._names: dict[str, list[str]] = {name: [] for name in self._groups}
        self._patients, self._digests, self._bits = bytearray(), bytearray(), bytearray()
        self._rows, self._views = array("I"), array("H")

    def add(
        self,
        dataset: str,
        split: str,
        patient: str,
        content: bytes,
        bits: bytes = b"",
        *,
        row: int = 0,
        view: int = 0,
    ) -> None:
        """One image or volume.

        Args:
            dataset, split, patient: what it belongs to.
            content: its bytes.
            bits: of `bits_of`, of all that are added or of none.
            row, view: where it lies, see `Item`.
        """
        for group, name in (("splits", split), ("datasets", dataset)):
            names = self._names[group]
            if name not in names:
                names.append(name)
            self._groups[group].append(names.index(name))
        self._patients += hashlib.blake2b(patient.encode(), digest_size=8).digest()
        self._digests += hashlib.blake2b(content, digest_size=16).digest()
        self._bits += bits
        self._rows.append(row)
        self._views.append(view)

    def same(self) -> dict[str, Pairs]:
        """Contents that stand byte for byte in more than one of the splits, of the datasets."""
        digests = np.frombuffer(self._digests, "V16")
        _, which, counts = np.unique(digests, return_inverse=True, return_counts=True)
        order, ends = np.argsort(which, kind="stable"), np.cumsum(counts)
        found = {}
        for name, of in self._of().items():
            lowest, highest = np.full(len(of), 255, np.uint8), np.zeros(len(of), np.uint8)
            np.minimum.at(lowest, which, of)
            np.maximum.at(highest, which, of)
            found[name] = pairs = Pairs()
            for content in np.flatnonzero(lowest < highest):
                members = order[ends[content] - counts[content] : ends[content]]
                other = members[of[members] != of[members[0]]][0]
                self._add(pairs, members[0], other, self._datasets(members))
        return found

    def alike(self) -> dict[str, Pairs]:
        """Pairs of images of different patients, in different splits or datasets, that look the same."""
        groups = self._of()
        found = {name: Pairs() for name in groups}
        for a, b in self._near(
            lambda a, b: (
                self._strangers(a, b) & np.any([of[a] != of[b] for of in groups.values()], axis=0)
            )
        ):
            for name, of in groups.items():
                for i, j in zip(*(part[of[a] != of[b]] for part in (a, b)), strict=True):
                    self._add(found[name], i, j, self._datasets(np.array([i, j])))
        return found

    def near(self) -> Iterator[tuple[Indices, Indices]]:
        """Pairs of images of different patients that look the same, by the order in which they were added.

        Each pair comes once, in parts.
        """
        return self._near(self._strangers)

    def across(self) -> Iterator[tuple[Indices, Indices]]:
        """The same of images in different datasets, whoever they are of: the first added comes first."""
        of = self._of()["datasets"]
        for a, b in self._near(lambda a, b: of[a] != of[b]):
            yield np.minimum(a, b), np.maximum(a, b)

    def _strangers(self, a: Indices, b: Indices) -> NDArray[np.bool_]:
        patient = np.frombuffer(self._patients, np.uint64)
        return np.asarray(patient[a] != patient[b])

    def _near(
        self, wanted: Callable[[Indices, Indices], NDArray[np.bool_]]
    ) -> Iterator[tuple[Indices, Indices]]:
        bits = np.frombuffer(self._bits, np.uint64).reshape(len(self._rows), -1)  # [N, 4]
        bands = bits.view(np.uint32)  # [N, MOST_BITS + 1]
        for band in range(MOST_BITS + 1):
            for a, b in _sharing(bands[:, band]):
                apart = wanted(a, b)
                a, b = a[apart], b[apart]
                near = np.bitwise_count(bits[a] ^ bits[b]).sum(1) <= MOST_BITS
                first = (bands[a] == bands[b]).argmax(1)  # a pair counts in one band
                yield a[near & (first == band)], b[near & (first == band)]

    def _add(self, pairs: Pairs, a: int, b: int, datasets: frozenset[str]) -> None:
        pairs.number += 1
        pairs.datasets[datasets] += 1
        if len(pairs.first) < self._most:
            pairs.first.append((self._item(a), self._item(b)))

    def _item(self, index: int) -> Item:
        dataset = self._names["datasets"][self._groups["datasets"][index]]
        return Item(dataset, self._rows[index], self._views[index])

    def _datasets(self, members: Indices) -> frozenset[str]:
        of = np.frombuffer(self._groups["datasets"], np.uint8)[members]
        return frozenset(self._names["datasets"][i] for i in of)

    def _of(self) -> dict[str, NDArray[np.uint8]]:
        return {name: np.frombuffer(of, np.uint8) for name, of in self._groups.items()}


def _sharing(keys: NDArray[np.uint32]) -> Iterator[tuple[Indices, Indices]]:
    """All pairs of places with the same key, in parts no longer than the keys."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    start, apart = np.arange(len(keys)), 0
    while len(start):  # those that still have a neighbour of the same key so far behind them
        apart += 1
        start = start[start + apart < len(keys)]
        start = start[ordered[start] == ordered[start + apart]]
        yield order[start], order[start + apart]
