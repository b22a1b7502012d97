"""Superpixels on the device: regions of like grey values, of images and volumes.

SLIC (Achanta et al. 2012): k-means of grey value and place, in which a pixel chooses among the centres of its
own cell of a regular grid and of those around it. All shapes are fixed, nothing is scattered, and an input's
regions do not depend on who else is in the batch, so that they are the same on any number of workers.
"""

from collections.abc import Iterator
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from ray_mae.encoders.patches import patchify, unpatchify

ROUNDS = 5
"""Of assignment and means; regions hardly change afterwards."""


@torch.no_grad()
def superpixels(x: Tensor, cells: int, compactness: float) -> Tensor:
    """Regions of inputs.

    Args:
        x: [N, 1, *sides] normalised to a deviation of about 1; sides are equal, and multiples of `cells`.
        cells: along each of d axes, whose centres the regions begin with.
        compactness: how much a distance of one cell counts, in deviations of grey values.

    Returns:
        [N, 1, *sides] int64, below cells^d. Some regions may be empty, none is forced to hang together.
    """
    d, side = x.ndim - 2, x.shape[2] // cells
    grid = (cells,) * d
    grey = patchify(x.float(), side)  # [N, C, p]: the pixels of each cell
    place = _places(x.shape[2:], x.device) * (compactness / side)  # [d, 1, *sides]
    features = torch.stack([grey, *(patchify(p[None], side).expand_as(grey) for p in place)])
    centres = features.mean(-1)  # [1 + d, N, C]
    offsets = list(product((-1, 0, 1), repeat=d))
    chosen = torch.zeros_like(grey, dtype=torch.long)
    for _ in range(ROUNDS):
        nearest = torch.full_like(grey, torch.inf)
        for i, (there, inside) in enumerate(_neighbours(centres, grid, offsets)):
            distance = (features - there[..., None]).square().sum(0)  # [N, C, p]
            distance = distance.masked_fill(~inside[:, None], torch.inf)
            chosen = torch.where(distance < nearest, i, chosen)
            nearest = torch.minimum(distance, nearest)
        centres = _means(features, chosen, centres, grid, offsets)
    labels = torch.arange(cells**d, device=x.device)[None, :, None].expand_as(chosen)
    for axis in range(d):  # offsets count as numbers of base 3, the last axis fastest
        labels = labels + (chosen // 3 ** (d - 1 - axis) % 3 - 1) * cells ** (d - 1 - axis)
    return unpatchify(labels, side, grid)


def _places(sides: tuple[int, ...], device: torch.device) -> Tensor:
    """[d, 1, *sides] float32: where each pixel lies along each axis."""
    axes = [torch.arange(side, device=device, dtype=torch.float32) for side in sides]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))[:, None]


def _neighbours(
    centres: Tensor, grid: tuple[int, ...], offsets: list[tuple[int, ...]]
) -> Iterator[tuple[Tensor, Tensor]]:
    """For each offset the centres [F, N, C] of the cells there, and [C] whether there is one."""
    F_, N, _ = centres.shape
    maps = centres.view(F_ * N, 1, *grid)
    padded = F.pad(maps, (1, 1) * len(grid))
    there = F.pad(torch.ones(1, 1, *grid, device=centres.device), (1, 1) * len(grid)) > 0
    for offset in offsets:
        where = tuple(slice(1 + o, 1 + o + n) for o, n in zip(offset, grid, strict=True))
        yield padded[:, :, *where].reshape(F_, N, -1), there[0, 0][where].flatten()


def _means(
    features: Tensor,
    chosen: Tensor,
    before: Tensor,
    grid: tuple[int, ...],
    offsets: list[tuple[int, ...]],
) -> Tensor:
    """[F, N, C] means of what chose each centre; those that nobody chose stay.

    Args:
        features: [F, N, C, p] of the pixels.
        chosen: [N, C, p] which offset each of them chose.
        before: [F, N, C] the centres.
        grid: of the cells.
        offsets: of a cell's neighbours.
    """
    sums, counts = torch.zeros_like(before), torch.zeros_like(before[0])
    for i, offset in enumerate(offsets):
        mine = chosen == i  # [N, C, p]
        back = tuple(-o for o in offset)  # what went there came from here
        given = torch.cat([(features * mine).sum(-1), mine.sum(-1, dtype=sums.dtype)[None]])
        ((moved, _),) = _neighbours(given, grid, [back])
        sums, counts = sums + moved[:-1], counts + moved[-1]
    return torch.where(counts > 0, sums / counts.clamp(min=1), before)
