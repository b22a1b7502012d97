"""Which patches of an image, or blocks of a volume, are hidden."""

from math import prod

import torch
from torch import Tensor

from ray_mae.transforms.keyed_random import DECODE, MASK, uniforms


def visible_count(patches: int, mask_ratio: float) -> int:
    """Patches left visible: the exact count of the MAE papers, int(n · (1 − r)).

    At least one is visible and, of two or more, one hidden.
    """
    return max(1, min(patches - 1, int(patches * (1 - mask_ratio) + 1e-6)))


def random_masks(draw: Tensor, patches: int, visible: int) -> tuple[Tensor, Tensor]:
    """Independent uniform masks: visible [N, V] and hidden [N, M] patch indices, ascending.

    draw: [N] int64, one key per view.
    """
    order = uniforms(draw, patches, MASK).argsort(dim=1, stable=True)  # ties alike on any device
    return order[:, :visible].sort(dim=1).values, order[:, visible:].sort(dim=1).values


def hidden_units(draw: Tensor, grid: tuple[int, ...], ratio: float) -> Tensor:
    """[N, *grid] bool, which are hidden: as many in every input, rounded up, by the keys draw [N]."""
    units = prod(grid)
    _, index = random_masks(draw, units, visible_count(units, ratio))  # [N, M]
    hidden = torch.zeros(len(draw), units, dtype=torch.bool, device=draw.device)
    return hidden.scatter(1, index, True).view(-1, *grid)


def some_of(draw: Tensor, hidden: Tensor, count: int) -> Tensor:
    """[N, count] of the hidden patches [N, M], ascending, drawn by the keys draw [N], whatever the mask."""
    order = uniforms(draw, hidden.shape[1], DECODE).argsort(dim=1, stable=True)
    return hidden.gather(1, order[:, :count].sort(dim=1).values)


def random_blocks(draw: Tensor, blocks: int, ratio: Tensor, masking: str = "exact") -> Tensor:
    """[B, blocks] bool, which are hidden: a share ratio [B] in [0, 1] of them, by the keys draw [B].

    exact: the share of the blocks, rounded down; bernoulli: each block with that probability. At
    least one block is hidden and one visible, unless the ratio is exactly 0 or 1.
    """
    u = uniforms(draw, blocks, MASK)  # [B, blocks]
    rank = u.argsort(dim=1, stable=True).argsort(dim=1)
    expected = (ratio.double() * blocks + 1e-6).long()
    count = expected if masking == "exact" else (u < ratio[:, None]).sum(1)  # [B]
    between = (ratio > 0) & (ratio < 1)
    count = torch.where(between, count.clamp(1, blocks - 1), count)
    return rank < count[:, None]
