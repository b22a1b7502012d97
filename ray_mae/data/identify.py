"""From the keys of samples back to their names."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ray_mae.data.order import key_of
from ray_mae.data.schema import Manifest


def names_of(shards: Path, keys: Sequence[int]) -> dict[int, str]:
    """Identifiers of training samples by their keys; reads the column of names alone, of all shards."""
    manifest, wanted = Manifest.read(shards), set(keys)
    found: dict[int, str] = {}
    for shard in manifest.of_split("train"):
        if len(found) == len(wanted):
            break
        column = f"{manifest.kind}_id"
        try:
            names = pq.read_table(shards / shard.file, columns=[column])[column].to_pylist()
        except (OSError, pa.ArrowException):  # damaged: its samples keep their keys
            continue
        for name in names:
            if (key := key_of(name)) in wanted:
                found[key] = name
    return found
