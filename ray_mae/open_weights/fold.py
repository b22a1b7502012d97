"""Rewritings that change no value of the network: pure functions of tensors."""

from collections.abc import Sequence

import torch
from timm.layers.patch_embed import resample_patch_embed
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor

from ray_mae.transforms.images import PIXEL_MEAN, PIXEL_STD


def fold_channels(
    kernel: Tensor, bias: Tensor, mean: Sequence[float], std: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Returns kernel and bias for one grey channel normalised as ours, in the place of C of theirs.

    Exact: theirs sees (g − m)/s in each channel, ours x = (g − μ)/σ, and patches have no padding.

    Args:
        kernel: [D, C, P, P] of the patch embedding.
        bias: [D].
        mean: m of each of the C channels, of grey values g in [0, 1].
        std: s of each.

    Returns:
        [D, P²] and [D].
    """
    m, s = (torch.tensor(v, dtype=torch.float64).view(1, -1, 1, 1) for v in (mean, std))
    wide = kernel.double()
    grey = (wide * (PIXEL_STD / s)).sum(1)  # [D, P, P]: the sum, since every channel sees the same
    constant = (wide * ((PIXEL_MEAN - m) / s)).sum((1, 2, 3))  # [D]
    return grey.flatten(1).float(), (bias.double() + constant).float()


def fold_layer_scale(weight: Tensor, bias: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the last layer of a branch, [D, K] and [D], with the scale [D] that follows it."""
    return weight * gamma[:, None], bias * gamma


def resample_positions(table: Tensor, side: int) -> Tensor:
    """Returns a table of positions [L, D] for side² patches, by timm's antialiased bicubic interpolation."""
    resampled: Tensor = resample_abs_pos_embed(
        table[None], new_size=[side, side], num_prefix_tokens=0
    )
    return resampled[0]


def resample_kernel(kernel: Tensor, patch: int) -> Tensor:
    """Returns kernels [D, P²] for patches of another side: FlexiViT's pseudo-inverse (Beyer et al. 2023)."""
    old = round(kernel.shape[1] ** 0.5)
    square = kernel.reshape(len(kernel), 1, old, old)
    resampled: Tensor = resample_patch_embed(square, [patch, patch])
    return resampled.reshape(len(kernel), -1)
