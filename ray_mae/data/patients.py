"""Patients of several folders of shards: who is in two of them, or in two splits.

They are the same by their pseudonym, so folders must have been ingested with one key.
"""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ray_mae.data.parquet import map_files, open_parquet
from ray_mae.data.paths import resolve_path
from ray_mae.data.schema import SPLITS, Manifest, Shard
from ray_mae.data.shard_set import ShardSet

Patients = dict[str, pa.Array]
"""Pseudonyms by split, each once. Of ten million patients a set would take a gigabyte, an array a quarter."""


def read_patients(folder: Path, manifest: Manifest) -> Patients:
    """Reads the patients of a folder by split: one column of its shards.

    Those that cannot be read are left out: whoever reads their samples says so, or goes on without them.
    """

    def read(path: Path, shard: Shard) -> tuple[str, pa.Array]:
        with suppress(OSError, pa.ArrowException), open_parquet(path, shard) as file:
            return shard.split, file.read(columns=["patient_id"])["patient_id"].unique()
        return shard.split, pa.array([], pa.string())

    files = [(resolve_path(folder) / shard.file, shard) for shard in manifest.shards]
    every = [*map_files(read, files)]
    return {split: _union(of for name, of in every if name == split) for split in SPLITS}


def _union(arrays: Iterable[pa.Array]) -> pa.Array:
    """What is in any of them, once."""
    return pa.chunked_array(arrays, pa.string()).unique()


def _both(a: pa.Array, b: pa.Array) -> pa.Array:
    """What is in both."""
    return a.filter(pc.is_in(a, b))


@dataclass(frozen=True)
class SharedPatients:
    """Patients of whom both of two folders hold samples."""

    names: tuple[str, str]
    """Of the data sets."""
    paths: tuple[Path, Path]
    patients: int
    seen_and_held_out: int
    """Of them in the train split of one folder and the val or test split of the other."""

    def describe(self) -> str:
        """One line, with the command that tells more."""
        a, b = self.names
        text = f"{_patients(self.patients)} in both {a} and {b}, "
        apart = "in the train split of one and the val or test split of the other"
        if mixed := self.seen_and_held_out:
            which = "" if mixed == self.patients == 1 else f"{mixed:,} of them "
            text += f"{which}{apart}: figures on what is held out would be of patients already seen"
        else:
            text += f"{'not' if self.patients == 1 else 'none of them'} {apart}"
        return f"{text}; `ray-mae inspect --shards {self.paths[0]} --against [{self.paths[1]}]` shows them"


def _patients(number: int) -> str:
    return f"{number:,} patient is" if number == 1 else f"{number:,} patients are"


def find_shared_patients(shards: ShardSet) -> list[SharedPatients]:
    """Pairs of folders that share patients, in the folders' order. Of a single folder nothing is read."""
    if len(shards) == 1:
        return []
    patients = [read_patients(folder.path, folder.manifest) for folder in shards.folders]
    pairs = []
    for i, j in combinations(range(len(shards)), 2):
        one, other = patients[i], patients[j]
        both = _both(_union(one.values()), _union(other.values()))
        if len(both):
            mixed = _union(
                _both(a["train"], _union([b["val"], b["test"]]))
                for a, b in ((one, other), (other, one))
            )
            names, paths = (shards.names[i], shards.names[j]), (shards.paths[i], shards.paths[j])
            pairs.append(SharedPatients(names, paths, len(both), len(mixed)))
    return pairs


def summarise_shared(pairs: Iterable[SharedPatients]) -> dict[str, Any]:
    """For summary.json: by pair of data sets."""
    return {
        " and ".join(pair.names): {
            "patients": pair.patients,
            "in_train_of_one_and_val_or_test_of_the_other": pair.seen_and_held_out,
        }
        for pair in pairs
    }
