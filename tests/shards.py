"""Small folders of shards for tests, written without an archive."""

import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from scipy.ndimage import gaussian_filter

from ray_mae.data.decoding.voxels import ENCODING, encode_valid, encode_voxels
from ray_mae.data.loading.rows import read_rows
from ray_mae.data.schema import (
    SCHEMA_VERSION,
    STUDY_SCHEMA,
    VIEWS,
    VOLUME_SCHEMA,
    Manifest,
    Shard,
)


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
    return _write(folder, "study", STUDY_SCHEMA, _study, train, held_out, size, rows_per_shard)


def write_volume_shards(
    folder: Path, train: int = 24, held_out: int = 8, size: int = 20, rows_per_shard: int = 10
) -> Manifest:
    """Smooth volumes of two classes; two shards or more for training."""
    return _write(folder, "volume", VOLUME_SCHEMA, _volume, train, held_out, size, rows_per_shard)


def _write(
    folder: Path,
    kind: str,
    schema: pa.Schema,
    make: Callable[[np.random.Generator, str, int, int], dict],
    train: int,
    held_out: int,
    size: int,
    rows_per_shard: int,
) -> Manifest:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    shards = []
    for split, count in (("train", train), ("val", held_out), ("test", held_out)):
        rows = [make(rng, split, i, size) for i in range(count)]
        for k, first in enumerate(range(0, count, rows_per_shard)):
            part = rows[first : first + rows_per_shard]
            file = folder / f"{split}-{k:05d}.parquet"
            table = pa.Table.from_pylist(part, schema)
            # Parquet has no checksums of dictionaries; those of ingest are of small columns alone
            pq.write_table(
                table, file, row_group_size=4, write_page_checksum=True, use_dictionary=False
            )
            groups = [min(4, len(part) - g) for g in range(0, len(part), 4)]
            images = sum(len(row.get("views", [None])) for row in part)
            shards.append(
                Shard(
                    file.name, split, len(part), groups, images, file.stat().st_size, sha256(file)
                )
            )
    spacing = 4.0 if kind == "volume" else None
    manifest = Manifest(kind, "generated", SCHEMA_VERSION, shards, spacing)
    manifest.write(folder)
    return manifest


def _study(rng: np.random.Generator, split: str, i: int, size: int) -> dict:
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
        "years": ("2010-2014", None)[i % 2],
    }


def _volume(rng: np.random.Generator, split: str, i: int, size: int) -> dict:
    """Noise smoothed by its class; every other volume is larger than the crop along one axis."""
    shape = (size, size, size + 8 * (i % 2))
    smooth = gaussian_filter(rng.normal(size=shape), 1 + i % 2)
    voxels = (smooth - smooth.mean()) / smooth.std()
    return {
        "volume_id": f"{split}-{i}",
        "patient_id": f"{split}-patient-{i // 2}",
        "session_id": None,
        "dataset": "generated",
        "site": None,
        "split": split,
        "modality": "T1w",
        "voxels": encode_voxels(voxels, "float16", 1),
        "encoding": ENCODING,
        "dtype": "float16",
        "shape": shape,
        "spacing_mm": [4.0] * 3,
        "affine": np.eye(4).ravel().tolist(),
        "mean": 0.0,
        "std": 1.0,
        "valid": encode_valid(rng.random(shape) < 0.9) if i % 3 else None,
        "segmentation": None,
        "labels": {"rough": float(1 - i % 2), "age": 50.0 + i},
    }


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def damage(file: Path, size: int = 64) -> None:
    """Other bytes in the middle of a shard."""
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle : middle + size] = bytes(b ^ 0x55 for b in content[middle : middle + size])
    file.write_bytes(content)


def rewrite(folder: Path, change: Callable[[dict], None]) -> None:
    """Change every row of the shards, in place, without checksums of pages."""
    for shard in Manifest.read(folder).shards:
        table = pq.read_table(folder / shard.file)
        rows = table.to_pylist()
        for row in rows:
            change(row)
        pq.write_table(
            pa.Table.from_pylist(rows, table.schema), folder / shard.file, row_group_size=4
        )
    record(folder)


def record(folder: Path) -> None:
    """Have the manifest say what the shards are now, as if ingest had written them so."""
    manifest = Manifest.read(folder)
    shards = [
        replace(s, bytes=(folder / s.file).stat().st_size, sha256=sha256(folder / s.file))
        for s in manifest.shards
    ]
    replace(manifest, shards=shards).write(folder)


def rows_of(
    folder: Path, file: str, group: int, columns: Sequence[str], **more: Any
) -> list[dict[str, Any]]:
    """Rows of a shard, as product code reads them."""
    shard = next(shard for shard in Manifest.read(folder).shards if shard.file == file)
    return read_rows(folder / file, shard, group, columns, **more)
