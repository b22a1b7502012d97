"""Rows of volumes → windows that cover each volume's foreground, for who wants to see all of it."""

import itertools
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ray_mae.data.decoding.foreground import foreground
from ray_mae.data.decoding.voxels import decode_valid, decode_voxels
from ray_mae.data.loading.order import key_of
from ray_mae.data.loading.volume_collator import VolumeCollator, crop_slices
from ray_mae.data.schema import Row

Slices = tuple[tuple[slice, ...], tuple[slice, ...]]

LEAST_FOREGROUND = 0.05
"""A window with less foreground than this share of the fullest one's is left out."""


def windows_of(
    voxels: NDArray[np.floating], valid: NDArray[np.bool_] | None, size: int
) -> tuple[list[Slices], NDArray[np.float32]]:
    """Windows that cover a volume: along each axis as few as reach from end to end, evenly spaced.

    Args:
        voxels: [X, Y, Z]
        valid: [X, Y, Z], or None where every voxel is.
        size: side of a window, in voxels.

    Returns:
        Which part of the volume goes where in a cube, of each of W windows, as of `crop_slices`; and [W]
        their shares of the foreground, which sum to 1. Of a volume without any the middle alone.
    """
    inside = foreground(voxels)
    if valid is not None:
        inside = inside & valid
    source, target = crop_slices(voxels.shape, size, None)
    along = []
    for axis, length in enumerate(voxels.shape):
        count = -(-length // size)
        firsts = np.linspace(0, max(0, length - size), count).round().astype(int)
        along.append(
            [slice(int(f), int(f) + size) for f in firsts] if count > 1 else [source[axis]]
        )
    parts = list(itertools.product(*along))
    counts = np.array([inside[part].sum() for part in parts], np.float32)
    if not counts.any():
        return [(source, target)], np.ones(1, np.float32)
    kept = np.flatnonzero(counts >= LEAST_FOREGROUND * counts.max())
    weights = counts[kept] / counts[kept].sum()
    return [(parts[i], target) for i in kept], weights


def cut(
    voxels: NDArray[np.floating], valid: NDArray[np.bool_] | None, places: list[Slices], size: int
) -> tuple[NDArray[np.float16], NDArray[np.bool_]]:
    """The windows' voxels [W, 1, S, S, S] float16, and where they are valid; 0 and False around them."""
    shape = (len(places), 1, *[size] * 3)
    windows, inside = np.zeros(shape, np.float16), np.zeros(shape, bool)
    for i, (source, target) in enumerate(places):
        windows[i, 0][target] = voxels[source]
        inside[i, 0][target] = True if valid is None else valid[source]
    return windows, inside


@dataclass(frozen=True)
class VolumeWindowCollator:
    """How rows become a batch of windows."""

    crop_size: int
    """S, side of a window, in voxels."""

    kind: ClassVar[str] = "volume"
    columns: ClassVar[tuple[str, ...]] = VolumeCollator.columns

    def describe(self, rows: list[Row]) -> dict[str, list[Any]]:
        """As of the middle crops."""
        return VolumeCollator(self.crop_size).describe(rows)

    def collate(self, rows: list[Row], epochs: list[int]) -> dict[str, np.ndarray]:
        """The arrays of a WindowBatch, by name."""
        voxels, valid, volume, weights = [], [], [], []
        for index, row in enumerate(rows):
            values, mask = decode_voxels(row), decode_valid(row)
            places, weight = windows_of(values, mask, self.crop_size)
            windows, inside = cut(values, mask, places, self.crop_size)
            voxels.append(windows)
            valid.append(inside)
            weights.append(weight)
            volume += [index] * len(places)
        return {
            "voxels": np.concatenate(voxels),
            "valid": np.concatenate(valid),
            "volume": np.array(volume, np.int64),
            "weight": np.concatenate(weights),
            "key": np.array([key_of(row["volume_id"]) for row in rows], np.int64),
        }
