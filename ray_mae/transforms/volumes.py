"""Crops of volumes → what is corrupted: turned, scaled and mirrored in batch, on the device."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ray_mae.batch import VolumeBatch, WindowBatch
from ray_mae.config.sections import VolumeDataConfig
from ray_mae.random_streams import Stream
from ray_mae.transforms.keyed_random import uniforms

LARGEST_ANGLE = math.radians(30)
"""About each axis, as nnssl turns its volumes."""


@dataclass(frozen=True)
class VolumeAugmentation:
    """Rotation, isotropic scaling and mirroring, each for a share of the crops."""

    mirror: bool = True
    rotate_share: float = 0.2
    scale_share: float = 0.2
    scale_range: tuple[float, float] = (0.7, 1.4)

    @classmethod
    def of(cls, data: VolumeDataConfig) -> "VolumeAugmentation":
        """That of the settings."""
        return cls(data.mirror, data.rotate_share, data.scale_share, data.scale_range)

    def __call__(self, batch: VolumeBatch) -> tuple[Tensor, Tensor]:
        """Voxels x [B, 1, S, S, S] float32 and where they are valid [B, 1, S, S, S] bool.

        x is 0 where it is not valid: outside the volume, anonymised, turned in from outside.
        """
        x, valid = clean(batch)
        warp, rows = self._turned(batch.draw, batch.known_draw)
        if len(rows):
            x, valid = x.clone(), valid.clone()
            x[rows], valid[rows] = resample(x[rows], valid[rows], warp[rows])
        return self._mirrored(x, batch.draw), self._mirrored(valid, batch.draw)

    def labels(self, labels: Tensor, draw: Tensor, known: Tensor | None = None) -> Tensor:
        """Label maps [B, 1, S, S, S] uint8, moved as the voxels of the same draws [B] are.

        Each voxel takes the nearest label; 0 is turned in from outside. known: the draws on the CPU, so that
        nobody waits for the device.
        """
        warp, rows = self._turned(draw, known)
        if len(rows):
            grid = _grid(warp[rows], len(rows), labels.shape[-1])
            moved = F.grid_sample(labels[rows].float(), grid, mode="nearest", align_corners=False)
            labels = labels.clone()
            labels[rows] = moved.to(labels.dtype)
        return self._mirrored(labels, draw)

    def _turned(self, draw: Tensor, known: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """[B, 3, 3] as of `_warps`; [T] rows that are turned or scaled, beside the draws [B].

        known: the draws on the CPU, which say how many rows they are without a wait for the device.
        """
        warp, chosen = self._warps(draw)
        number = int(self._warps(draw if known is None else known)[1].sum())
        return warp, chosen.int().argsort(descending=True, stable=True)[:number]

    def _mirrored(self, x: Tensor, draw: Tensor) -> Tensor:
        return mirrored(x, draw) if self.mirror else x

    def _warps(self, draw: Tensor) -> tuple[Tensor, Tensor]:
        """[B, 3, 3] from a place in the result to one in the crop; [B] bool, which need it."""
        u = uniforms(draw, 6, Stream.WARP)
        turned, scaled = u[:, 0] < self.rotate_share, u[:, 1] < self.scale_share
        angles = (2 * u[:, 2:5] - 1) * LARGEST_ANGLE * turned[:, None]  # [B, 3]
        low, high = (math.log(bound) for bound in self.scale_range)
        # even in the logarithm, or most crops would be enlarged
        scale = torch.exp((low + (high - low) * u[:, 5]) * scaled)  # [B]
        return rotations(angles) / scale[:, None, None], turned | scaled


def mirrored(x: Tensor, draw: Tensor, stream: int = Stream.FLIP) -> Tensor:
    """Volumes x [B, 1, S, S, S], half of them mirrored along each axis, by the keys draw [B]."""
    chosen = uniforms(draw, 3, stream) < 0.5  # [B, 3]
    for i, axis in enumerate((2, 3, 4)):
        x = torch.where(chosen[:, i].view(-1, 1, 1, 1, 1), x.flip(axis), x)
    return x


def clean(batch: VolumeBatch | WindowBatch) -> tuple[Tensor, Tensor]:
    """Voxels as they are [B, 1, S, S, S] float32, 0 where not valid; and `valid`."""
    return torch.where(batch.valid, batch.voxels.float(), 0.0), batch.valid


def rotations(angles: Tensor) -> Tensor:
    """[B, 3, 3]: turn about each axis in succession, by angles [B, 3] in radians."""
    cos, sin = angles.cos(), angles.sin()
    turn = torch.eye(3, device=angles.device).repeat(len(angles), 1, 1)
    for axis in range(3):
        a, b = (axis + 1) % 3, (axis + 2) % 3
        step = torch.eye(3, device=angles.device).repeat(len(angles), 1, 1)
        step[:, a, a] = step[:, b, b] = cos[:, axis]
        step[:, a, b], step[:, b, a] = -sin[:, axis], sin[:, axis]
        turn = turn @ step
    return turn


def resample(x: Tensor, valid: Tensor, warp: Tensor) -> tuple[Tensor, Tensor]:
    """Volumes [B, 1, S, S, S] seen through warps [B, 3, 3] about their centre, trilinearly.

    A voxel is valid if all it was made of is valid; the others are 0.
    """
    grid = _grid(warp, len(x), x.shape[-1])
    both = torch.cat([x, valid.float()], dim=1)
    moved, share = F.grid_sample(both, grid, align_corners=False).split(1, dim=1)
    inside = share > 0.999  # of weights that are rounded
    return torch.where(inside, moved, 0.0), inside


def _grid(warp: Tensor, samples: int, side: int) -> Tensor:
    """[B, S, S, S, 3]: where each voxel of the result lies in the crop, by warps [B, 3, 3]."""
    theta = F.pad(warp, (0, 1))  # [B, 3, 4], no shift
    return F.affine_grid(theta, [samples, 1, side, side, side], align_corners=False)
