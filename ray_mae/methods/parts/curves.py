"""Curves that pass every cell of a grid once, of 2 or 3 axes and any lengths."""

from collections.abc import Callable
from functools import lru_cache
from itertools import permutations, product

import numpy as np

Grid = tuple[int, ...]
Cells = np.ndarray
"""[L, d] int64, the cells of a grid in the order in which a curve passes them."""


def cells_of(grid: Grid) -> Cells:
    """Returns the cells of a grid, the last axis fastest."""
    return np.stack(np.unravel_index(np.arange(np.prod(grid)), grid), axis=1)


def zigzag(grid: Grid) -> Cells:
    """As JPEG reads its coefficients: diagonal by diagonal (of three axes plane by plane), to and fro."""
    cells = cells_of(grid)
    diagonal, index = cells.sum(1), np.arange(len(cells))
    return cells[np.lexsort([np.where(diagonal % 2, index, -index), diagonal])]


def snake(grid: Grid) -> Cells:
    """Line by line, to and fro, so that every step leads to a neighbour: the plainest curve."""
    cells = cells_of(grid)
    back = (np.cumsum(cells, axis=1) - cells) % 2 == 1  # by the sum of the axes before
    turned = np.where(back, np.array(grid) - 1 - cells, cells)
    return cells[np.argsort(np.ravel_multi_index(tuple(turned.T), grid))]


def hilbert(grid: Grid) -> Cells:
    """Hilbert's curve, generalised to any lengths: a box is cut into two, three or five that hang together.

    On grids with a power of 2 a side it is Hilbert's own. Of two axes every step leads to a neighbour, but
    for one diagonal step where the longer side is odd and the shorter even; of three axes with odd sides a
    few steps are as long as two. The rule is that of gilbert (J. Červený, BSD-2-Clause).
    """
    sides = np.array([*grid, *[1] * (3 - len(grid))])
    longest = int(sides.argmax())
    axes = [longest, *(k for k in range(3) if k != longest)]
    a, b, c = np.diag(sides)[axes]
    return np.array(list(_through(np.zeros(3, np.int64), a, b, c)))[:, : len(grid)]


def _through(p: np.ndarray, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> list[np.ndarray]:
    """The cells of a box with corner p and sides a, b, c, entered at p and left at the other end of a."""
    w, h, d = (int(np.abs(side).sum()) for side in (a, b, c))
    if sorted((w, h, d))[1] == 1:
        side = max((a, b, c), key=lambda side: np.abs(side).sum())
        return [p + i * np.sign(side) for i in range(max(w, h, d))]
    a2, b2, c2 = _half(a), _half(b), _half(c)
    last = p + a - np.sign(a)  # beside which the curve comes back
    b1, c1 = b2 - np.sign(b), c2 - np.sign(c)
    if 2 * w > 3 * h and 2 * w > 3 * d:
        boxes = [(p, a2, b, c), (p + a2, a - a2, b, c)]
    elif 3 * h > 4 * d:
        boxes = [(p, b2, c, a2), (p + b2, a, b - b2, c), (last + b1, -b2, c, a2 - a)]
    elif 3 * d > 4 * h:
        boxes = [(p, c2, a2, b), (p + c2, a, b, c - c2), (last + c1, -c2, a2 - a, b)]
    else:
        far = c - np.sign(c)
        boxes = [
            (p, b2, c2, a2),
            (p + b2, c, a2, b - b2),
            (p + b1 + far, a, -b2, c2 - c),
            (last + b2 + far, -c, a2 - a, b - b2),
            (last + b1, -b2, c2, a2 - a),
        ]
    return [cell for box in boxes for cell in _through(*box)]


def _half(side: np.ndarray) -> np.ndarray:
    """Half of a side, even where it can be: boxes with even sides hang together best."""
    length = int(np.abs(side).sum())
    half = length // 2
    return np.sign(side) * (half + (half % 2 if length > 2 else 0))


def peano(grid: Grid) -> Cells:
    """Peano's curve on the cube of 3^n a side around the grid, without the cells that the grid has not.

    Every step leads to a neighbour where a side is 3^n, else there are a few jumps.
    """
    cells, levels = cells_of(grid), 1
    while 3**levels < max(grid):
        levels += 1
    inside = cells + (3**levels - np.array(grid)) // 2
    index = np.zeros(len(cells), np.int64)
    walked = np.zeros_like(cells)  # sums of digits, by axis
    for level in reversed(range(levels)):
        for axis in range(len(grid)):
            digit = inside[:, axis] // 3**level % 3
            back = (walked.sum(1) - walked[:, axis]) % 2 == 1
            index = 3 * index + np.where(back, 2 - digit, digit)
            walked[:, axis] += digit
    return cells[np.argsort(index)]


def spiral(grid: Grid) -> Cells:
    """From the middle out. Of three axes, which have no spiral, shell by shell, along Hilbert's curve."""
    if len(grid) == 3:
        cells = hilbert(grid)
        shell = np.abs(2 * cells - (np.array(grid) - 1)).max(1)
        return cells[np.argsort(shell, kind="stable")]
    cell, step = (np.array(grid) - 1) // 2, np.array([0, 1])
    found, run = [cell], 0
    while len(found) < np.prod(grid):
        for _ in range(run // 2 + 1):  # runs of 1, 1, 2, 2, 3, 3 …
            cell = cell + step
            if (cell >= 0).all() and (cell < grid).all():
                found.append(cell)
        step, run = np.array([step[1], -step[0]]), run + 1
    return np.array(found)


CURVES: dict[str, Callable[[Grid], Cells]] = {
    "zigzag": zigzag,
    "hilbert": hilbert,
    "peano": peano,
    "spiral": spiral,
    "snake": snake,
}


@lru_cache(maxsize=16)
def places(curve: str, grid: Grid) -> np.ndarray:
    """Returns where each cell lies along a curve, for every way to lay the curve into the grid.

    Args:
        curve: of CURVES.
        grid: lengths of 2 or 3 axes.

    Returns:
        [K, L] int32, cells with the last axis fastest: the curve itself first, then reflected along axes,
        and with axes of one length exchanged; a square has K = 8, a cube 48.
    """
    cells, sides = CURVES[curve](grid), np.array(grid)
    axes = [p for p in permutations(range(len(grid))) if tuple(sides[list(p)]) == grid]
    made = []
    for order, flips in product(axes, product((False, True), repeat=len(grid))):
        turned = np.where(flips, sides - 1 - cells[:, order], cells[:, order])
        place = np.empty(len(cells), np.int32)
        place[np.ravel_multi_index(tuple(turned.T), grid)] = np.arange(len(cells))
        made.append(place)
    return np.stack(made)
