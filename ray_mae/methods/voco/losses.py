"""Where crops lie among the base crops of a volume, and what is asked of their likeness."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ray_mae.methods.parts.losses import region_mean


def base_starts(grid: int, side: int, device: torch.device) -> Tensor:
    """[K, 3] int64: where the K = grid³ base crops begin, the last axis fastest."""
    places = torch.arange(grid, device=device) * side
    return torch.cartesian_prod(places, places, places)


def overlaps(target: Tensor, base: Tensor, side: int) -> Tensor:
    """y [B, T, K]: the share of each target crop that lies in each base crop.

    Args:
        target: [B, T, 3] where the targets begin, in voxels.
        base: [K, 3] where the base crops begin.
        side: of all crops.
    """
    apart = (target[:, :, None] - base).abs()  # [B, T, K, 3]
    return ((side - apart).clamp(min=0) / side).prod(-1)


def placement(
    target: Tensor, base: Tensor, y: Tensor, there: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The three terms of VoCo's loss [B] each: overlap, apart, regularisation.

    With l = max(0, cos(target, base)), the base without gradient: overlap is the mean of −log(1 − |y − l|)
    by the weights y, apart that of l² where y is 0; regularisation is the mean of max(0, cos)² over pairs of
    base crops.

    Args:
        target: [B, T, D] vectors.
        base: [B, K, D] vectors.
        y: [B, T, K], as of `overlaps`.
        there: [B, K] bool, base crops that hold anatomy: others do not count.
    """
    target, base = F.normalize(target, dim=-1), F.normalize(base, dim=-1)
    likeness = (target @ base.detach().transpose(1, 2)).relu()  # [B, T, K]
    y = y * there[:, None]
    missed = -torch.log(1 - (y - likeness).abs() + 1e-6)
    overlap = (y * missed).sum((1, 2)) / y.sum((1, 2)).clamp(min=1e-6)
    apart = region_mean(likeness.square(), (y == 0) & there[:, None])
    among = (base @ base.transpose(1, 2)).relu().square()  # [B, K, K]
    pairs = there[:, :, None] & there[:, None] & torch.ones_like(among, dtype=torch.bool).triu(1)
    return overlap, apart, region_mean(among, pairs)
