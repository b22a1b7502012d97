"""Curves through grids."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_mae.methods.parts.curves import CURVES, cells_of, hilbert, peano, places, spiral, zigzag

GRIDS = st.one_of(
    st.tuples(st.integers(1, 17), st.integers(1, 17)),
    st.tuples(st.integers(1, 7), st.integers(1, 7), st.integers(1, 7)),
)


def steps(cells: np.ndarray) -> np.ndarray:
    """How far apart neighbours along a curve are, in the L1 norm."""
    return np.abs(np.diff(cells, axis=0)).sum(1)


@pytest.mark.parametrize("curve", CURVES)
@given(grid=GRIDS)
@settings(max_examples=12, deadline=None)
def test_a_curve_passes_every_cell_once(curve: str, grid: tuple[int, ...]) -> None:
    cells = CURVES[curve](grid)
    assert sorted(map(tuple, cells)) == sorted(map(tuple, cells_of(grid)))


@pytest.mark.parametrize(
    ("grid", "sha256"),
    [
        ((14, 14), "bf3ac2b4cfb8"),
        ((16, 16), "045ad6ef1409"),
        ((7, 7), "a11e4eae2179"),
        ((10, 10, 10), "ec134b105d96"),
        ((20, 20, 20), "ef9509cdb765"),
        ((6, 6, 6), "4bc0230e6844"),
        ((12, 12, 12), "2aa165e65a5f"),
        ((8, 10, 12), "f679d91ea74a"),
        ((5, 5, 5), "d6ef55028f16"),
    ],
    ids=str,
)
def test_hilbert_s_curve_is_the_published_one(grid: tuple[int, ...], sha256: str) -> None:
    cells = np.zeros((np.prod(grid), 3), np.uint8)
    cells[:, : len(grid)] = hilbert(grid)
    assert hashlib.sha256(cells.tobytes()).hexdigest()[:12] == sha256


def test_small_curves_are_as_drawn_in_books() -> None:
    assert ["".join(map(str, cell)) for cell in hilbert((2, 2, 2))] == [
        *("000", "010", "011", "001", "101", "111", "110", "100")
    ]
    assert zigzag((3, 3)).tolist() == [
        *([0, 0], [0, 1], [1, 0], [2, 0], [1, 1], [0, 2], [1, 2], [2, 1], [2, 2])
    ]
    assert peano((3, 3)).tolist() == [
        *([0, 0], [0, 1], [0, 2], [1, 2], [1, 1], [1, 0], [2, 0], [2, 1], [2, 2])
    ]
    assert spiral((4, 4))[:6].tolist() == [[1, 1], [1, 2], [2, 2], [2, 1], [2, 0], [1, 0]]


@given(grid=GRIDS)
@settings(max_examples=25, deadline=None)
def test_a_snake_and_a_spiral_go_from_neighbour_to_neighbour(grid: tuple[int, ...]) -> None:
    assert (steps(CURVES["snake"](grid)) == 1).all()
    if len(grid) == 2 and grid[0] == grid[1]:
        assert (steps(spiral(grid)) == 1).all()


@given(grid=GRIDS)
@settings(max_examples=25, deadline=None)
def test_hilbert_s_curve_has_no_jump(grid: tuple[int, ...]) -> None:
    found = steps(hilbert(grid))
    long, short = max(grid), min(grid)
    if len(grid) == 2:
        assert (found > 1).sum() <= (long % 2 == 1 and short % 2 == 0)
    elif not any(n % 2 for n in grid):
        assert (found == 1).all()
    assert (found <= 2).all()


def test_peano_s_curve_jumps_only_where_its_cube_is_cut() -> None:
    jumps = {
        grid: int((steps(peano(grid)) > 1).sum())
        for grid in ((9, 9), (27, 27), (9, 9, 9), (14, 14), (8, 8, 8), (10, 10, 10))
    }
    assert list(jumps.values()) == [0, 0, 0, 2, 6, 3]


def test_shells_of_a_cube_are_passed_from_the_inside_out() -> None:
    shell = np.abs(2 * spiral((5, 6, 7)) - np.array([4, 5, 6])).max(1)
    assert (np.diff(shell) >= 0).all()


@pytest.mark.parametrize(
    ("grid", "ways"), [((4, 4), 8), ((3, 5), 4), ((3, 3, 3), 48), ((2, 3, 3), 16)]
)
def test_a_curve_is_laid_in_every_way_that_the_grid_allows(
    grid: tuple[int, ...], ways: int
) -> None:
    table = places("hilbert", grid)
    assert table.shape == (ways, np.prod(grid))
    assert (np.sort(table, axis=1) == np.arange(np.prod(grid))).all()
    cells = cells_of(grid)
    for place in table:  # of each, what was next to each other along the curve still is
        assert (steps(cells[np.argsort(place)]) <= 2).all()
