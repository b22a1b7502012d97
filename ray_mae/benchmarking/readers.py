"""Shards in file order as a suite reads them: as batches, with changed images, or as histograms."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa

from ray_mae.benchmarking.baselines import histogram, volume_histogram
from ray_mae.benchmarking.corruptions import corrupt_image, corrupt_volume
from ray_mae.data.decoding.stored_images import decode, encode
from ray_mae.data.decoding.voxels import decode_valid, decode_voxels, encode_voxels
from ray_mae.data.loading.rows import read_rows
from ray_mae.data.loading.stream import to_block
from ray_mae.data.schema import VIEWS, Row, Shard

LEVEL = 1
"""Of zstd, for voxels that are read again at once."""


def corrupted(row: Row, change: str) -> Row:
    """A row with changed images.

    Args:
        row: of a study or a volume.
        change: name of the change and its strength 1 to 3, with a colon between them.
    """
    name, _, strength = change.partition(":")
    level = int(strength) - 1
    if "views" in row:
        views = []
        for place, view in enumerate(row["views"]):
            key = f"{row['study_id']}/{place}"
            image = corrupt_image(decode(view["image"]), name, level, key)
            views.append({**view, "image": encode(image, "zstd"), "encoding": "zstd"})
        return {**row, "views": views}
    spacing, sample = row["spacing_mm"], row["volume_id"]
    voxels = corrupt_volume(decode_voxels(row), decode_valid(row), spacing, name, level, sample)
    return {**row, "voxels": encode_voxels(voxels, "float32", LEVEL), "dtype": "float32"}


class Packer(Protocol):
    """What is asked of a collator here."""

    @property
    def columns(self) -> Sequence[str]:
        """What is read of a row."""

    def collate(self, rows: list[Row], epochs: list[int]) -> dict[str, np.ndarray]:
        """The arrays of a batch, by name."""


@dataclass(frozen=True)
class CorruptedCollator:
    """A collator that changes the images of a row before they are packed."""

    inner: Packer
    corruption: str

    @property
    def columns(self) -> Sequence[str]:
        more = ("spacing_mm",) if "voxels" in self.inner.columns else ()
        return (*self.inner.columns, *more)

    def collate(self, rows: list[Row], epochs: list[int]) -> dict[str, np.ndarray]:
        return self.inner.collate([corrupted(row, self.corruption) for row in rows], epochs)


@dataclass(frozen=True)
class ShardBatches:
    """Reads shards in file order, and says of each batch which shard and which samples it is of."""

    shards: Path
    collator: Packer
    batch_size: int
    identifier: str

    def read(self, shard: Shard) -> Iterator[pa.Table]:
        """The batches of one shard."""
        for group in range(len(shard.row_groups)):
            path = self.shards / shard.file
            rows = read_rows(path, shard, group, self.collator.columns, wait=True)
            for first in range(0, len(rows), self.batch_size):
                part = rows[first : first + self.batch_size]
                arrays = self.collator.collate(part, [0] * len(part))
                names = [row[self.identifier] for row in part]
                yield to_block(arrays, file=shard.file, samples=json.dumps(names))


@dataclass(frozen=True)
class HistogramRows:
    """Reads shards in file order as histograms of intensities: a row per view, no network, no batch."""

    shards: Path
    kind: str
    max_views: int
    corruption: str = ""
    """As of `corrupted`."""

    def read(self, shard: Shard) -> Iterator[pa.Table]:
        """The rows of one shard, a row group at a time."""
        study = self.kind == "study"
        columns = ["study_id", "views"] if study else [*_OF_VOLUMES]
        for group in range(len(shard.row_groups)):
            names: list[str] = []
            views: list[int] = []
            vectors: list[np.ndarray] = []
            for row in read_rows(self.shards / shard.file, shard, group, columns, wait=True):
                row = corrupted(row, self.corruption) if self.corruption else row
                for view, vector in _of_views(row, self.max_views) if study else _of_volume(row):
                    names.append(row[f"{self.kind}_id"])
                    views.append(view)
                    vectors.append(vector)
            if names:
                flat = pa.array(np.concatenate(vectors).astype(np.float32))
                yield pa.table(
                    {
                        "file": [shard.file] * len(names),
                        "sample": names,
                        "view": pa.array(views, pa.int8()),
                        "0/vector:histogram": pa.FixedSizeListArray.from_arrays(
                            flat, len(vectors[0])
                        ),
                    }
                )


_OF_VOLUMES = (
    "volume_id",
    "voxels",
    "encoding",
    "dtype",
    "shape",
    "valid",
    "spacing_mm",
    "mean",
    "std",
)


def _of_views(row: Row, most: int) -> Iterator[tuple[int, np.ndarray]]:
    for view in row["views"][:most]:
        yield VIEWS.index(view["view"]), histogram(decode(view["image"]))


def _of_volume(row: Row) -> Iterator[tuple[int, np.ndarray]]:
    voxels, valid = decode_voxels(row), decode_valid(row)
    yield 0, volume_histogram(voxels, valid, row["spacing_mm"], row["mean"], row["std"])
