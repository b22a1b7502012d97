"""The terms of the methods' losses, each one value per sample.

MVMAE: L_rec + β·L_align + γ·L_caption; MDAE: λ_m·L_masked + λ_v·L_visible, means over regions.

A mean over samples follows elsewhere, over all of them: a study that lacks something (a second
view, a report) counts as 0. So the gradient does not depend on how samples fall on workers.
"""

import torch
from torch import Tensor

FEWEST_VALID = 0.01
"""Share of a patch's voxels that must be valid for it to count."""


def normalised(target: Tensor) -> Tensor:
    """Patches [N, M, P] by their own mean and deviation (MAE, section 3)."""
    return (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6).sqrt()


def unnormalised(pixels: Tensor, target: Tensor) -> Tensor:
    """The inverse of `normalised` for patches [N, M, P] that stand for those of target [N, M, P]."""
    return pixels * (target.var(-1, keepdim=True) + 1e-6).sqrt() + target.mean(-1, keepdim=True)


def reconstruction(
    pixels: Tensor, target: Tensor, norm_pix: bool = False, valid: Tensor | None = None
) -> Tensor:
    """L_rec: [N] mean squared error over the hidden pixels [N, M, P] of each input.

    valid: [N, M, P] bool, which voxels count; those of a patch with hardly any do not. None: all do.
    """
    pixels, target = pixels.float(), target.float()
    if norm_pix:
        target = normalised(target)
    if pixels.shape[1] == 0:  # nothing is hidden
        return pixels.new_zeros(pixels.shape[0])
    error = (pixels - target).square()
    if valid is None:
        return error.mean(dim=(1, 2))
    return region_mean(error, countable(valid))


def countable(valid: Tensor) -> Tensor:
    """Valid voxels [N, M, P] bool of patches, without those of patches that have hardly any."""
    return valid & (valid.float().mean(-1, keepdim=True) >= FEWEST_VALID)


def region_mean(error: Tensor, region: Tensor) -> Tensor:
    """[B] mean of each sample's error [B, …] over its region [B, …] bool; 0 where that is empty.

    What lies outside the region has no effect, not even NaN.
    """
    total = torch.where(region, error, 0).flatten(1).sum(1)
    return total / region.flatten(1).sum(1).clamp(min=1)
