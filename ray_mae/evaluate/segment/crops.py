"""Rows of volumes with label maps → crops for training, whole volumes for scoring."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ray_mae.data.decoding.voxels import decode_labels, decode_valid, decode_voxels
from ray_mae.data.loading.order import key_of, mix
from ray_mae.data.loading.rows import read_rows
from ray_mae.data.loading.volume_collator import VolumeCollator, crop_slices
from ray_mae.data.paths import resolve_path
from ray_mae.data.schema import Row, Shard
from ray_mae.random_streams import Draw

Slices = tuple[tuple[slice, ...], tuple[slice, ...]]


class Whole(NamedTuple):
    """One volume."""

    voxels: NDArray[np.float32]
    """[X, Y, Z], 0 where not valid."""
    classes: NDArray[np.uint8]
    """[X, Y, Z]"""
    spacing_mm: tuple[float, ...]


@dataclass(frozen=True)
class LabelledCrops:
    """How rows become a batch of crops with classes."""

    crop_size: int
    """S"""
    values: tuple[int, ...]
    """What the classes are called in the label maps; other values are background."""
    foreground_share: float
    """Share of the crops around a voxel of a random class."""
    seed: int

    kind: ClassVar[str] = "volume"
    columns: ClassVar[tuple[str, ...]] = (*VolumeCollator.columns, "segmentation", "spacing_mm")

    def describe(self, rows: list[Row]) -> dict[str, list[Any]]:
        """As without label maps."""
        return VolumeCollator(self.crop_size, self.seed).describe(rows)

    def collate(self, rows: list[Row], epochs: list[int]) -> dict[str, np.ndarray]:
        """The arrays of a VolumeBatch, and classes [B, 1, S, S, S] uint8, 0 around the volume."""
        keys = np.array([key_of(row["volume_id"]) for row in rows], dtype=np.int64)
        draws = mix(self.seed, np.array(epochs, dtype=np.int64), keys)
        side = (len(rows), 1, *[self.crop_size] * 3)
        voxels, valid = np.zeros(side, np.float16), np.zeros(side, bool)
        classes = np.zeros(side, np.uint8)
        for index, row in enumerate(rows):
            labels = classes_of(row, self.values)
            source, target = self._place(labels, int(draws[index]))
            voxels[index, 0][target] = decode_voxels(row, source)
            mask = decode_valid(row)
            valid[index, 0][target] = True if mask is None else mask[source]
            classes[index, 0][target] = labels[source]
        return {"voxels": voxels, "valid": valid, "key": keys, "draw": draws, "classes": classes}

    def _place(self, classes: NDArray[np.uint8], draw: int) -> Slices:
        share = _below(2**24, draw, Draw.FOREGROUND) / 2**24
        present = np.flatnonzero(np.bincount(classes.ravel(), minlength=2)[1:]) + 1
        if share >= self.foreground_share or not len(present):
            return crop_slices(classes.shape, self.crop_size, draw)
        foreground = present[_below(len(present), draw, Draw.CLASS)]
        voxels = np.flatnonzero(classes == foreground)
        centre = np.unravel_index(voxels[_below(len(voxels), draw, Draw.VOXEL)], classes.shape)
        return around([int(c) for c in centre], classes.shape, self.crop_size)


def around(centre: Sequence[int], shape: tuple[int, ...], size: int) -> Slices:
    """Like `crop_slices`, with a voxel in the middle, or as near to it as the border allows."""
    source, target = crop_slices(shape, size, None)
    for axis, (c, length) in enumerate(zip(centre, shape, strict=True)):
        if length > size:
            first = min(max(c - size // 2, 0), length - size)
            source = (*source[:axis], slice(first, first + size), *source[axis + 1 :])
    return source, target


def _below(limit: int, draw: int, stream: int) -> int:
    """A whole number from 0 to limit − 1, by the draw."""
    return int(mix(draw, stream).astype(np.uint64) % np.uint64(limit))


def classes_of(row: Row, values: tuple[int, ...]) -> NDArray[np.uint8]:
    """The classes [X, Y, Z] of a row's label map."""
    labels = decode_labels(row)
    assert labels is not None, "only volumes with label maps are read"
    index = np.zeros(256, np.uint8)
    index[list(values)] = np.arange(len(values))
    return index[labels]


def whole_of(row: Row, values: tuple[int, ...]) -> Whole:
    """A row as one volume."""
    voxels = decode_voxels(row).astype(np.float32)
    valid = decode_valid(row)
    if valid is not None:
        voxels = np.where(valid, voxels, np.float32(0))
    return Whole(voxels, classes_of(row, values), tuple(row["spacing_mm"]))


def values_in(item: dict[str, Any]) -> list[list[int] | None]:
    """The values of each label map in a shard, None of a volume without one.

    item: shards (folder), and shard (the manifest's entry, by `asdict`).
    """
    columns = ("volume_id", "segmentation", "encoding", "shape")
    shard = Shard(**item["shard"])
    path = resolve_path(item["shards"]) / shard.file
    values: list[list[int] | None] = []
    for group in range(len(shard.row_groups)):
        for row in read_rows(path, shard, group, columns):
            labels = decode_labels(row)
            values.append(None if labels is None else np.unique(labels).tolist())
    return values
