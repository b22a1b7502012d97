"""The terms of the methods' losses, each one value per sample.

MVMAE: L_rec + β·L_align + γ·L_caption; MDAE: λ_m·L_masked + λ_v·L_visible, means over regions.

A mean over samples follows elsewhere, over all of them: a study that lacks something (a second
view, a report) counts as 0. So the gradient does not depend on how samples fall on workers.
"""

import torch
from torch import Tensor


def reconstruction(pixels: Tensor, target: Tensor, norm_pix: bool = False) -> Tensor:
    """L_rec: [N] mean squared error over the hidden pixels [N, M, patch²] of each view."""
    pixels, target = pixels.float(), target.float()
    if norm_pix:  # MAE, section 3: each patch by its own mean and deviation
        target = (target - target.mean(-1, keepdim=True)) / (
            target.var(-1, keepdim=True) + 1e-6
        ).sqrt()
    if pixels.shape[1] == 0:  # nothing is hidden
        return pixels.new_zeros(pixels.shape[0])
    return (pixels - target).square().mean(dim=(1, 2))


def region_mean(error: Tensor, region: Tensor) -> Tensor:
    """[B] mean of each sample's error [B, …] over its region [B, …] bool; 0 where that is empty.

    What lies outside the region has no effect, not even NaN.
    """
    total = torch.where(region, error, 0).flatten(1).sum(1)
    return total / region.flatten(1).sum(1).clamp(min=1)
