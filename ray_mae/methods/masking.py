"""Which patches are hidden."""

import torch
from torch import Tensor

from ray_mae.methods.randomness import MASK, uniforms


def visible_count(patches: int, mask_ratio: float) -> int:
    """Patches left visible, at least one: the exact count of the MAE papers, int(n · (1 − r))."""
    return max(1, int(patches * (1 - mask_ratio) + 1e-6))


def random_masks(draw: Tensor, patches: int, visible: int) -> tuple[Tensor, Tensor]:
    """Independent uniform masks: visible [N, V] and hidden [N, M] patch indices, ascending.

    draw: [N] int64, one key per view.
    """
    order = uniforms(draw, patches, MASK).argsort(dim=1)
    return order[:, :visible].sort(dim=1).values, order[:, visible:].sort(dim=1).values


def all_patches(n: int, patches: int, device: torch.device) -> Tensor:
    """[n, L] indices of an unmasked view."""
    return torch.arange(patches, device=device).expand(n, patches)
