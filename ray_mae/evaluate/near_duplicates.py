"""Images that stand in more than one split: byte for byte, or to the eye.

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


class Seen:
    """What was seen of images or volumes: split, patient, content."""

    def __init__(self) -> None:
        self.splits, self.patients = bytearray(), bytearray()
        self.digests, self.bits = bytearray(), bytearray()
        self._names: dict[str, int] = {}

    def add(self, split: str, patient: str, content: bytes, bits: bytes = b"") -> None:
        """One image or volume; bits: of `bits_of`, of all that are added or of none."""
        self.splits.append(self._names.setdefault(split, len(self._names)))
        self.patients += hashlib.blake2b(patient.encode(), digest_size=8).digest()
        self.digests += hashlib.blake2b(content, digest_size=16).digest()
        self.bits += bits

    def same_in_two_splits(self) -> int:
        """Contents that stand byte for byte in more than one split."""
        split = np.frombuffer(self.splits, np.uint8)
        _, which = np.unique(np.frombuffer(self.digests, "V16"), return_inverse=True)
        lowest = np.full(len(split), 255, np.uint8)
        highest = np.zeros(len(split), np.uint8)
        np.minimum.at(lowest, which, split)
        np.maximum.at(highest, which, split)
        return int((lowest < highest).sum())

    def alike_in_two_splits(self) -> int:
        """Pairs of images of different patients in different splits that look the same."""
        split = np.frombuffer(self.splits, np.uint8)
        patient = np.frombuffer(self.patients, np.uint64)
        bits = np.frombuffer(self.bits, np.uint64).reshape(len(split), -1)  # [N, 4]
        bands = bits.view(np.uint32)  # [N, MOST_BITS + 1]
        pairs = 0
        for band in range(MOST_BITS + 1):
            for a, b in _sharing(bands[:, band]):
                apart = (split[a] != split[b]) & (patient[a] != patient[b])
                a, b = a[apart], b[apart]
                near = np.bitwise_count(bits[a] ^ bits[b]).sum(1) <= MOST_BITS
                first = (bands[a[near]] == bands[b[near]]).argmax(1)  # a pair counts in one band
                pairs += int((first == band).sum())
        return pairs


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
