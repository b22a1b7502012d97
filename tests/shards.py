"""Small folders of shards for tests, written without an archive."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from ray_mae.data.schema import SCHEMA_VERSION, STUDY_SCHEMA, VIEWS, Manifest, Shard


def png(rng: np.random.Generator, height: int, width: int) -> bytes:
    """A smooth random image."""
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6), dtype=np.uint8))
    file = io.BytesIO()
    coarse.resize((width, height), Image.Resampling.BILINEAR).save(file, "PNG")
    return file.getvalue()


def write_shards(
    folder: Path, train: int = 24, held_out: int = 8, size: int = 40, rows_per_shard: int = 10
) -> Manifest:
    """Studies of one to three views, most with a report; two shards or more for training."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    shards = []
    for split, count in (("train", train), ("val", held_out), ("test", held_out)):
        rows = [_row(rng, split, i, size) for i in range(count)]
        for k, first in enumerate(range(0, count, rows_per_shard)):
            part = rows[first : first + rows_per_shard]
            file = folder / f"{split}-{k:05d}.parquet"
            pq.write_table(pa.Table.from_pylist(part, STUDY_SCHEMA), file, row_group_size=4)
            groups = [min(4, len(part) - g) for g in range(0, len(part), 4)]
            images = sum(len(row["views"]) for row in part)
            shards.append(
                Shard(file.name, split, len(part), groups, images, file.stat().st_size, "")
            )
    manifest = Manifest("study", "generated", SCHEMA_VERSION, shards)
    manifest.write(folder)
    return manifest


def _row(rng: np.random.Generator, split: str, i: int, size: int) -> dict:
    views = [
        {
            "image": png(rng, size, size + 4 * (i % 3)),
            "encoding": "png",
            "height": size,
            "width": size + 4 * (i % 3),
            "view": VIEWS[(i + v) % 3],
            "position": None,
        }
        for v in range(1 + i % 3)
    ]
    return {
        "study_id": f"{split}-{i}",
        "patient_id": f"{split}-patient-{i // 2}",
        "dataset": "generated",
        "split": split,
        "views": views,
        "findings": "The heart is normal in size." if i % 4 else None,
        "impression": f"No acute process {i % 5}." if i % 3 else None,
        "labels": [int(x) for x in rng.integers(-2, 2, 14)],
    }
