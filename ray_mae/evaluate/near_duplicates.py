"""Images that show the same, though not byte for byte: scaled, encoded or cropped by a line otherwise.

Of each image 256 bits are kept, whether it gets brighter from one cell of a 16 × 16 grid to the next
(dHash). Two that differ in MOST_BITS or fewer agree in whole in one of MOST_BITS + 1 bands of bits, so
only those that share a band are compared.
"""

from collections import defaultdict
from collections.abc import Iterable
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

GRID = 16
MOST_BITS = 7
# Bands take bits from all over the image: a black border alone would make a band of its own alike.
_SHUFFLED = np.random.RandomState(0).permutation(GRID * GRID).reshape(MOST_BITS + 1, -1)


def bits_of(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """[256] of an image [H, W]."""
    small = Image.fromarray(image).resize((GRID + 1, GRID), Image.Resampling.BOX)
    cells = np.asarray(small).astype(np.int16)
    return np.asarray((np.diff(cells, axis=1) > 0).ravel())


def pairs_across(found: Iterable[tuple[str, str, NDArray[np.bool_]]]) -> int:
    """Pairs of alike images of different patients in different splits; found: split, patient, bits."""
    images = list(found)
    buckets: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    for number, (_, _, bits) in enumerate(images):
        for band, places in enumerate(_SHUFFLED):
            buckets[band, np.packbits(bits[places]).tobytes()].append(number)
    alike: set[tuple[int, int]] = set()
    for members in buckets.values():
        for a, b in combinations(members, 2):
            (split, patient, bits), (other_split, other, other_bits) = images[a], images[b]
            apart = split != other_split and patient != other
            if apart and (bits != other_bits).sum() <= MOST_BITS:
                alike.add((a, b))
    return len(alike)
