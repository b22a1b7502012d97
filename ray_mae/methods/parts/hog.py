"""Histograms of oriented gradients of images and volumes, as MaskFeat has them (Wei et al. 2022)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

BINS = 9
"""Of the angles of a cell, over half a turn (MaskFeat)."""


def hog(x: Tensor, cell: int) -> Tensor:
    """[N, planes, 9, *cells]: how much gradient there is in each direction, of length 1 per plane and cell.

    Sobel's derivatives of the input with its border reflected; in each plane of two axes the magnitude goes
    into one of 9 bins of the angle without its sign, summed over cells; no window, no blocks.

    Args:
        x: [N, 1, *sides] of 2 or 3 axes.
        cell: side of a cell, which divides all sides.
    """
    axes = range(2, x.ndim)
    pool = F.avg_pool3d if x.ndim == 5 else F.avg_pool2d
    padded = F.pad(x.float(), [1, 1] * len(axes), mode="reflect")
    slopes = [_sobel(padded, axis) for axis in axes]
    planes = []
    for i in range(len(axes)):
        for j in range(i + 1, len(axes)):
            size = (slopes[i].square() + slopes[j].square()).sqrt()
            angle = torch.atan2(slopes[j], slopes[i])
            bin_ = (BINS * angle / math.pi).floor().remainder(BINS)
            sums = [pool(torch.where(bin_ == b, size, 0), cell) for b in range(BINS)]
            planes.append(F.normalize(torch.cat(sums, dim=1), dim=1))  # [N, 9, *cells]
    return torch.stack(planes, dim=1)


def _sobel(padded: Tensor, along: int) -> Tensor:
    """Derivative along an axis, smoothed along the others, of what has a border of 1 there."""
    for axis in range(2, padded.ndim):
        weights = (1, 0, -1) if axis == along else (1, 2, 1)
        inner = padded.shape[axis] - 2
        padded = sum(w * padded.narrow(axis, k, inner) for k, w in enumerate(weights) if w)  # type: ignore[assignment]
    return padded
