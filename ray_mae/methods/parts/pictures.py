"""What a person sees of a reconstruction: images side by side, in grey values of [0, 1]."""

import numpy as np
import torch
from torch import Tensor

from ray_mae.encoders.base import TokenEncoder
from ray_mae.encoders.patches import patchify, unpatchify
from ray_mae.methods.base import Pictures
from ray_mae.transforms import slices
from ray_mae.transforms.images import denormalise

STUDY_TITLE = "masked, reconstructed, original"
VOLUME_TITLE = "original, masked, reconstructed"
LEAST_SIDE = 96
"""Pixels of a slice of a volume."""


def reconstruction_of(x: Tensor, masked: Tensor, filled: Tensor) -> Pictures:
    """What was shown, what was reconstructed and the original, of images or volumes: a row per input.

    Args:
        x: [N, 1, *sides] the originals, normalised.
        masked: the same with what was hidden replaced.
        filled: the same with what was hidden reconstructed.
    """
    if x.ndim == 5:
        return Pictures({VOLUME_TITLE: side_by_side(x, masked, filled)})
    return Pictures({STUDY_TITLE: side_by_side(masked, filled, x)})


def side_by_side(*columns: Tensor) -> Tensor:
    """Images or volumes beside one another, a row per input: [rows, columns] grey values.

    Args:
        columns: [N, 1, *sides] normalised, of volumes as `volume_rows` takes them.
    """
    if columns[0].ndim == 5:
        return volume_rows(*columns)
    row = [denormalise(part) for part in columns]  # [N, 1, H, W] each
    return torch.cat(row, dim=-1)[:, 0].flatten(0, 1)


def reconstruction_of_patches(
    x: Tensor, hidden: Tensor, pixels: Tensor, encoder: TokenEncoder
) -> Pictures:
    """The same of patches.

    Args:
        x: [N, 1, *sides] the originals, normalised.
        hidden: [N, L] bool.
        pixels: [N, L, P] reconstructed patches; those that were not hidden are not looked at.
        encoder: whose patches they are.
    """
    patches, where = patchify(x, encoder.stride), hidden[..., None]
    masked, filled = (
        unpatchify(torch.where(where, p, patches), encoder.stride, encoder.grid)
        for p in (torch.zeros_like(patches), pixels)
    )
    return reconstruction_of(x, masked, filled)


def errors_of_patches(x: Tensor, hidden: Tensor, errors: Tensor, encoder: TokenEncoder) -> Pictures:
    """What was shown, the error of each hidden patch (the largest of an input is white) and the original.

    Args:
        x: [N, 1, *sides] the originals, normalised.
        hidden: [N, L] bool.
        errors: [N, L] of what was predicted; of others 0.
        encoder: whose patches they are.
    """
    patches, where = patchify(x, encoder.stride), hidden[..., None]
    share = errors / errors.amax(1, keepdim=True).clamp(min=1e-12)
    low, high = patches.flatten(1).amin(1), patches.flatten(1).amax(1)
    grey = low[:, None] + share * (high - low)[:, None]
    masked, filled = (
        unpatchify(p, encoder.stride, encoder.grid)
        for p in (
            torch.where(where, torch.zeros_like(patches), patches),
            grey[..., None].expand_as(patches),
        )
    )
    shown = reconstruction_of(x, masked, filled)
    return Pictures({n.replace("reconstructed", "errors"): i for n, i in shown.images.items()})


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
