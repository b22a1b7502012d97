"""Images that stand in more than one split or data set: byte for byte, or to the eye.

Of each image 16 bytes of a digest and 256 bits of what it shows are kept, so that a million take 60 MB.
The bits say whether it gets brighter from one cell of a 16 × 16 grid to the next (dHash). Two images that
differ in MOST_BITS or fewer agree in whole in one of MOST_BITS + 1 bands of bits, so only those that share
a band are compared.
"""

import hashlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

GRID = 16
MOST_BITS = 7
# Bands take bits from all over the image: a black border alone would make a band of its own alike.
_SHUFFLED = np.random.RandomState(0).permutation(GRID * GRID)


def bits_of(image: NDArray[np.uint8]) -> bytes:
    """The 256 bits of an image [H, W]; each band is 32 of them in a row."""
    small = Image.fromarray(image).resize((GRID + 1, GRID), Image.Resampling.BOX)
    cells = np.asarray(small).astype(np.int16)
    return np.packbits((np.diff(cells, axis=1) > 0).ravel()[_SHUFFLED]).tobytes()


class ContentIndex:
    """Of images or volumes: data set, split, patient, content."""

    def __init__(self) -> None:
        self.groups = {"splits": bytearray(), "datasets": bytearray()}
        self.patients = bytearray()
        self.digests, self.bits = bytearray(), bytearray()
        self._names: dict[str, int] = {}

    def add(
        self, dataset: str, split: str, patient: str, content: bytes, bits: bytes = b""
    ) -> None:
        """One image or volume; bits: of `bits_of`, of all that are added or of none."""
        for group, name in (("splits", split), ("datasets", dataset)):
            self.groups[group].append(self._names.setdefault(name, len(self._names)))
        self.patients += hashlib.blake2b(patient.encode(), digest_size=8).digest()
        self.digests += hashlib.blake2b(content, digest_size=16).digest()
        self.bits += bits

    def same(self) -> dict[str, int]:
        """Contents that stand byte for byte in more than one of the splits, of the datasets."""
        _, which = np.unique(np.frombuffer(self.digests, "V16"), return_inverse=True)
        counts = {}
        for name, of in self._of().items():
            lowest, highest = np.full(len(of), 255, np.uint8), np.zeros(len(of), np.uint8)
            np.minimum.at(lowest, which, of)
            np.maximum.at(highest, which, of)
            counts[name] = int((lowest < highest).sum())
        return counts

    def alike(self) -> dict[str, int]:
        """Pairs of images of different patients, in different splits or datasets, that look the same."""
        patient = np.frombuffer(self.patients, np.uint64)
        bits = np.frombuffer(self.bits, np.uint64).reshape(len(patient), -1)  # [N, 4]
        bands = bits.view(np.uint32)  # [N, MOST_BITS + 1]
        groups = self._of()
        pairs = dict.fromkeys(groups, 0)
        for band in range(MOST_BITS + 1):
            for a, b in _sharing(bands[:, band]):
                differ = {name: of[a] != of[b] for name, of in groups.items()}
                apart = (differ["splits"] | differ["datasets"]) & (patient[a] != patient[b])
                a, b = a[apart], b[apart]
                near = np.bitwise_count(bits[a] ^ bits[b]).sum(1) <= MOST_BITS
                first = (bands[a] == bands[b]).argmax(1)  # a pair counts in one band
                for name, differs in differ.items():
                    pairs[name] += int((near & (first == band) & differs[apart]).sum())
        return pairs

    def _of(self) -> dict[str, NDArray[np.uint8]]:
        return {name: np.frombuffer(of, np.uint8) for name, of in self.groups.items()}


def _sharing(keys: NDArray[np.uint32]) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """All pairs of places with the same key, in parts no longer than the keys."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    start, apart = np.arange(len(keys)), 0
    while len(start):  # those that still have a neighbour of the same key so far behind them
        apart += 1
        start = start[start + apart < len(keys)]
        start = start[ordered[start] == ordered[start + apart]]
        yield order[start], order[start + apart]
