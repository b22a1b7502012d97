"""What a person sees of a reconstruction: images side by side, in grey values of [0, 1]."""

import numpy as np
import torch
from torch import Tensor

from ray_mae.encoders.vit import unpatchify
from ray_mae.transforms import slices
from ray_mae.transforms.images import denormalise

STUDY_TITLE = "masked, reconstructed, original"
LEAST_SIDE = 96
"""Pixels of a slice of a volume."""


def study_rows(patches: Tensor, hidden: Tensor, pixels: Tensor, patch_size: int) -> Tensor:
    """What was shown, what was reconstructed, the original: a row per view, under each other.

    Args:
        patches: [N, L, patch²] normalised, of the originals.
        hidden: [N, L] bool.
        pixels: [N, L, patch²] reconstructed patches; those that were not hidden are not looked at.
        patch_size: side of a patch, in pixels.

    Returns:
        [N · H, 3 W].
    """
    masked = torch.where(hidden[..., None], 0.0, patches)
    filled = torch.where(hidden[..., None], pixels, patches)
    row = [denormalise(unpatchify(p, patch_size)) for p in (masked, filled, patches)]
    return torch.cat(row, dim=-1)[:, 0].flatten(0, 1)


def volume_rows(*volumes: Tensor) -> Tensor:
    """The middle axial slices of volumes side by side, a row per sample, in radiological convention.

    Args:
        volumes: [B, 1, D, H, W] each; grey values go from the 1st to the 99th percentile of the first.

    Returns:
        [B · z H, n z W], each slice with the letters of its sides; z is 1, or so large that a small slice
        has a side of LEAST_SIDE pixels, and room for them.
    """
    columns = [axial(v) for v in volumes]
    edges = torch.tensor([0.01, 0.99], device=columns[0].device)
    low, high = columns[0].flatten(1).quantile(edges, dim=1)[..., None, None]  # [B, 1, 1]
    grey = (torch.stack(columns) - low) / (high - low).clamp(min=1e-6)  # [n, B, H, W]
    zoom = max(1, -(-LEAST_SIDE // grey.shape[2]))
    shown = (grey.clamp(0, 1) * 255).byte().cpu().numpy().repeat(zoom, 2).repeat(zoom, 3)
    rows = [
        np.concatenate([slices.lettered(s) for s in row], axis=1) for row in shown.swapaxes(0, 1)
    ]
    return torch.from_numpy(np.concatenate(rows)) / 255


def axial(volumes: Tensor) -> Tensor:
    """The middle slice [B, H, W] of volumes [B, 1, D, H, W] in RAS order: front up, right on the left."""
    middle = volumes[:, 0, :, :, volumes.shape[4] // 2]  # [B, right, anterior]
    return middle.transpose(1, 2).flip(1, 2)
