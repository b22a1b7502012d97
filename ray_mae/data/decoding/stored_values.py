"""Stored values from their cells: which of a cell's bits are the value, and what its highest one means.

HighBit, BitsStored and PixelRepresentation say so (PS3.5 8.1.1), and may be wrong. What they say holds
unless the picture itself contradicts it: a value that lost its upper bits wraps from white to black
within smooth anatomy, and the same bits read in another way do not.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

PADDING = ("PixelPaddingValue", "PixelPaddingRangeLimit")
CLEARLY = 2.0
"""Values are unsigned against the header where the picture is so many times smoother by that."""


@dataclass(frozen=True)
class Bits:
    """Where the value lies in its cell."""

    stored: int
    """Bits of the value."""
    shift: int
    """Bits below it."""
    signed: bool

    def take(self, cells: NDArray[np.integer]) -> NDArray[np.integer]:
        """The values of cells [...], without what lies above and below them."""
        size = 8 * cells.dtype.itemsize
        values = _as(cells, self.signed)
        above = size - self.shift - self.stored
        if self.shift == 0 and (
            above == 0 or (not self.signed and values.max() >> self.stored == 0)
        ):
            return values  # as in most files
        return np.right_shift(np.left_shift(values, above), above + self.shift)

    def take_number(self, number: int, allocated: int) -> int:
        """The value of a number that a tag gives as a value, or as a whole cell of so many bits."""
        beyond = not -(1 << self.stored) < number < 1 << self.stored
        cell = number % (1 << allocated) if beyond else (number << self.shift) % (1 << allocated)
        return int(self.take(np.array(cell, f"u{allocated // 8}")[None])[0])


def stored_values(
    cells: NDArray[np.integer], ds: Dataset, *, radiograph: bool
) -> NDArray[np.integer]:
    """Take the values of grey pixels from their cells, and correct the tags of `ds` that describe them.

    Args:
        cells: [..., H, W] as they lie in the file, or as a decoder gives them.
        ds: BitsStored, HighBit, PixelRepresentation, and the padding values.
        radiograph: whether negative values are unlikely, and PixelRepresentation may be wrong.

    Returns:
        The values [..., H, W].
    """
    allocated = 8 * cells.dtype.itemsize
    cells = cells.astype(cells.dtype.newbyteorder("="), copy=False)
    bits = _position(cells, ds, allocated)
    values = bits.take(cells)
    if bits.signed and radiograph and values.min() < 0:
        unsigned = Bits(bits.stored, bits.shift, signed=False)
        others = unsigned.take(cells)
        apart = _at_ends(values, bits) | np.isin(
            values, list(_padding(ds, bits, allocated).values())
        )
        if CLEARLY * _roughness(others, apart) < _roughness(values, apart):
            bits, values = unsigned, others
    for name, number in _padding(ds, bits, allocated).items():
        ds.add_new(name, "SS" if bits.signed else "US", number)
    ds.BitsStored, ds.HighBit = bits.stored, bits.stored - 1
    ds.PixelRepresentation = int(bits.signed)
    return values


def _position(cells: NDArray[np.integer], ds: Dataset, allocated: int) -> Bits:
    """Where the value lies: as the header says, unless the bits that are used say otherwise."""
    stored, signed = int(ds.BitsStored), bool(ds.get("PixelRepresentation"))
    high = int(ds.get("HighBit") or stored - 1)
    possible = stored - 1 <= high < allocated
    said = Bits(stored, high - stored + 1 if possible else 0, signed)
    right = Bits(stored, 0, signed)
    used = int(np.bitwise_or.reduce(cells.view(f"u{cells.dtype.itemsize}"), axis=None))
    if said.shift:
        # The upper bits are never used, the lower ones are: the value lies where it does in most files.
        below = used % (1 << said.shift)
        return right if below and np.array_equal(right.take(cells), _as(cells, signed)) else said
    if stored >= allocated or np.array_equal(said.take(cells), _as(cells, signed)):
        return said
    # Above the value lies an old overlay, or BitsStored is too small.
    nothing = np.zeros(cells.shape, bool)
    if _roughness(_as(cells, signed), nothing) >= _roughness(said.take(cells), nothing):
        return said
    unused = (used & -used).bit_length() - 1
    if used.bit_length() - unused <= stored:
        return Bits(stored, max(0, used.bit_length() - stored), signed)
    return Bits(allocated if signed else used.bit_length(), 0, signed)


def _as(cells: NDArray[np.integer], signed: bool) -> NDArray[np.integer]:
    return cells.view(f"{'i' if signed else 'u'}{cells.dtype.itemsize}")


def _padding(ds: Dataset, bits: Bits, allocated: int) -> dict[str, int]:
    """The values of the tags that name padding."""
    named = {name: ds[name].value for name in PADDING if ds.get(name) is not None}
    return {name: bits.take_number(int(value), allocated) for name, value in named.items()}


def _at_ends(values: NDArray[np.integer], bits: Bits) -> NDArray[np.bool_]:
    """Where a value is the least, the greatest or none at all: padding and burnt-out pixels."""
    half = 1 << (bits.stored - 1)
    return np.isin(values, (-half, -1, 0, half - 1))


def _roughness(values: NDArray[np.integer], apart: NDArray[np.bool_]) -> float:
    """Mean squared difference of neighbours along rows and columns, those apart left out."""
    total = 0.0
    for axis in (-1, -2):
        steps = np.diff(values.astype(np.float32), axis=axis) ** 2
        inside = ~(np.delete(apart, -1, axis) | np.delete(apart, 0, axis))
        total += float(steps[inside].mean()) if inside.any() else 0.0
    return total
