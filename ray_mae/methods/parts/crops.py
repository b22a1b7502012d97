"""Smaller crops of the crops that are read of volumes, and how much of the anatomy they hold."""

import torch
import torch.nn.functional as F
from torch import Tensor

AIR = 0.1
"""Air is below this share of a volume's range from the 2nd to the 98th percentile, as for `ingest`."""
POINTS = 32
"""Along each axis, from which the range of a volume's values is estimated."""


def cut(x: Tensor, start: Tensor, side: int) -> Tensor:
    """Takes K cubes of each volume: [B, 1, S, S, S] → [B · K, 1, side, side, side], a volume's together.

    Args:
        x: the volumes.
        start: [B, K, 3] int64, the first voxel along each axis; start + side ≤ S.
        side: of a cube, in voxels.
    """
    B, K, _ = start.shape
    row = torch.arange(B, device=x.device).repeat_interleave(K)[:, None, None, None]
    place = start.flatten(0, 1)[..., None] + torch.arange(side, device=x.device)  # [B·K, 3, side]
    i, j, k = place.unbind(1)
    cubes = x[:, 0][row, i[:, :, None, None], j[:, None, :, None], k[:, None, None]]
    return cubes[:, None]


def filled(mask: Tensor, start: Tensor, side: int) -> Tensor:
    """Returns the share [B, K] of each cube that lies in a mask [B, 1, S, S, S] bool; others as of `cut`."""
    sums = F.pad(mask[:, 0].int(), (1, 0) * 3)
    for axis in (1, 2, 3):
        sums = sums.cumsum(axis, dtype=torch.int32)
    row = torch.arange(len(mask), device=mask.device)[:, None]
    total = torch.zeros(start.shape[:2], dtype=torch.int32, device=mask.device)
    for corner in range(8):
        end = [corner >> axis & 1 for axis in range(3)]
        i, j, k = (start[..., axis] + side * end[axis] for axis in range(3))
        total = total + sums[row, i, j, k] * (-1) ** (3 - sum(end))
    return total / side**3


def anatomy(x: Tensor, valid: Tensor | None = None) -> Tensor:
    """[B, 1, S, S, S] bool: what is brighter than air in volumes of that shape, by its range alone.

    valid: the same shape, bool; what is not is no anatomy. None: all is.
    """
    step = max(1, x.shape[-1] // POINTS)
    points = x[..., ::step, ::step, ::step].flatten(1).sort(1).values
    low, high = (points[:, round(share * (points.shape[1] - 1))] for share in (0.02, 0.98))
    brighter = x > (low + AIR * (high - low)).view(-1, 1, 1, 1, 1)
    return brighter if valid is None else brighter & valid
