"""Rows of volumes → the arrays of a VolumeBatch: one cubic crop of each."""

import json
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ray_mae.data.decoding.voxels import decode_labels, decode_valid, decode_voxels
from ray_mae.data.loading.order import key_of, mix
from ray_mae.data.loading.targets import Targets
from ray_mae.data.schema import Row
from ray_mae.random_streams import Draw


@dataclass(frozen=True)
class VolumeCollator:
    """How rows become a batch of crops."""

    crop_size: int
    """S, side of the crop, in voxels."""
    seed: int = 0
    centre: bool = False
    """The middle of every volume instead of a random place: for evaluation."""
    targets: Targets | None = None
    """Labels of training volumes; None: a batch brings none along."""

    kind: ClassVar[str] = "volume"
    columns: ClassVar[tuple[str, ...]] = (
        *("volume_id", "patient_id", "session_id", "site", "split", "modality", "labels"),
        *("voxels", "encoding", "dtype", "shape", "valid"),
    )
    """What is read of a row."""

    def describe(self, rows: list[Row]) -> dict[str, list[Any]]:
        """What an evaluation wants to know of the rows, by name; labels as JSON."""
        names = self.columns[:6]
        return {name: [row[name] or "" for row in rows] for name in names} | {
            "labels": [json.dumps(dict(row["labels"])) for row in rows]
        }

    def collate(self, rows: list[Row], epochs: list[int]) -> dict[str, np.ndarray]:
        """The arrays of a VolumeBatch, by name; epochs: which drawing of each row it is.

        voxels [B, 1, S, S, S] float16 and valid [B, 1, S, S, S] bool: 0 and False around a volume
        that is smaller than the crop; key and draw [B] int64.
        """
        keys = np.array([key_of(row["volume_id"]) for row in rows], dtype=np.int64)
        draws = mix(self.seed, np.array(epochs, dtype=np.int64), keys)
        side = (len(rows), 1, *[self.crop_size] * 3)
        voxels, valid = np.zeros(side, np.float16), np.zeros(side, bool)
        for index, row in enumerate(rows):
            draw = None if self.centre else int(draws[index])
            source, target = crop_slices(tuple(row["shape"]), self.crop_size, draw)
            voxels[index, 0][target] = decode_voxels(row, source)
            mask = decode_valid(row)
            valid[index, 0][target] = True if mask is None else mask[source]
        targets = self.targets.of(keys) if self.targets else {}
        return {"voxels": voxels, "valid": valid, "key": keys, "draw": draws, **targets}


@dataclass(frozen=True)
class SegmentedVolumeCollator(VolumeCollator):
    """The same, with the label map of each crop."""

    columns: ClassVar[tuple[str, ...]] = (*VolumeCollator.columns, "segmentation")

    def collate(self, rows: list[Row], epochs: list[int]) -> dict[str, np.ndarray]:
        """Those arrays, and regions [B, 1, S, S, S] uint8: 0 where there is no label, or no map."""
        arrays = super().collate(rows, epochs)
        regions = np.zeros(arrays["valid"].shape, np.uint8)
        for index, row in enumerate(rows):
            labels = decode_labels(row)
            if labels is not None:
                draw = None if self.centre else int(arrays["draw"][index])
                source, target = crop_slices(labels.shape, self.crop_size, draw)
                regions[index, 0][target] = labels[source]
        return {**arrays, "regions": regions}


def crop_slices(
    shape: tuple[int, ...], size: int, draw: int | None
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Returns which part of a volume goes where in a cube, as slices of both.

    Along each axis: a random place by the draw (the middle without one) where the volume is longer
    than the cube, the middle of the cube where it is shorter.

    Args:
        shape: of the volume, in voxels.
        size: side of the cube, in voxels.
        draw: random number of the sample, or None.
    """
    source, target = [], []
    for axis, length in enumerate(shape):
        room = length - size
        if room > 0:
            first = room // 2 if draw is None else int(_below(room + 1, draw, axis))
            source.append(slice(first, first + size))
            target.append(slice(0, size))
        else:
            source.append(slice(0, length))
            target.append(slice(-room // 2, -room // 2 + length))
    return tuple(source), tuple(target)


def _below(limit: int, draw: int, axis: int) -> NDArray[np.uint64]:
    """A whole number from 0 to limit − 1, by the draw."""
    # + 1: the draw itself, unmixed, is the method's
    return mix(draw, Draw.PLACE + axis).astype(np.uint64) % np.uint64(limit)
