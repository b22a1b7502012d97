"""Small volumes with label maps, of which something can be learnt."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ray_mae.data.decoding.voxels import encode_labels, encode_voxels
from ray_mae.data.loading.order import key_of
from ray_mae.data.schema import Manifest
from tests.shards import record, write_volume_shards


def blobs(
    folder: Path,
    change: Callable[[dict], None] = lambda row: None,
    *,
    train: int = 14,
    held_out: int = 6,
) -> Path:
    """Volumes with a bright ball, 1 in the label map, and a dark one, 4; a few have no label map."""
    write_volume_shards(folder, train=train, held_out=held_out, rows_per_shard=7)
    for shard in Manifest.read(folder).shards:
        table = pq.read_table(folder / shard.file)
        rows = table.to_pylist()
        for row in rows:
            with_balls(row)
            if row["volume_id"] in ("train-3", "test-5"):
                row["segmentation"] = None
            change(row)
        made = pa.Table.from_pylist(rows, table.schema)
        pq.write_table(made, folder / shard.file, row_group_size=4)
    record(folder)
    return folder


def with_balls(row: dict) -> None:
    shape = tuple(row["shape"])
    draw = np.random.default_rng(key_of(row["volume_id"]) % 2**32)
    voxels = draw.normal(size=shape) * 0.3
    labels = np.zeros(shape, np.uint8)
    place = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"))
    for value, level in ((1, 3.0), (4, -3.0)):
        centre = [draw.integers(4, n - 4) for n in shape]
        ball = ((place - np.reshape(centre, (3, 1, 1, 1))) ** 2).sum(0) <= 3.5**2
        voxels[ball], labels[ball] = level, value
    row["voxels"] = encode_voxels(voxels, "float16", 1)
    row["segmentation"] = encode_labels(labels, 1)
