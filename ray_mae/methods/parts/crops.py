"""Smaller crops of the crops that are read of volumes."""

import torch
import torch.nn.functional as F
from torch import Tensor


def cut(x: Tensor, start: Tensor, side: int) -> Tensor:
    """Takes K cubes of each volume: [B, 1, S, S, S] → [B · K, 1, side, side, side], a volume's together.

    Args:
        x: the volumes.
        start: [B, K, 3] int64, the first voxel along each axis; start + side ≤ S.
        side: of a cube, in voxels.
    """
    B, K, _ = start.shape
    row = torch.arange(B, device=x.device).repeat_interleave(K)
    place = start.flatten(0, 1)[..., None] + torch.arange(side, device=x.device)  # [B·K, 3, side]
    i, j, k = place.unbind(1)
    cubes = x[:, 0][
        row[:, None, None, None], i[:, :, None, None], j[:, None, :, None], k[:, None, None]
    ]
    return cubes[:, None]


def filled(x: Tensor, start: Tensor, side: int) -> Tensor:
    """Returns the share [B, K] of voxels that are not 0 in each cube that `cut` would take."""
    sums = F.pad((x[:, 0] != 0).int(), (1, 0) * 3)
    for axis in (1, 2, 3):
        sums = sums.cumsum(axis, dtype=torch.int32)
    row = torch.arange(len(x), device=x.device)[:, None]
    total = torch.zeros(start.shape[:2], dtype=torch.int32, device=x.device)
    for corner in range(8):
        upper = [corner >> axis & 1 for axis in range(3)]
        i, j, k = (start[..., axis] + side * upper[axis] for axis in range(3))
        total = total + sums[row, i, j, k] * (-1) ** (3 - sum(upper))
    return total / side**3
