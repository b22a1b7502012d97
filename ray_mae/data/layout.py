"""Which sample goes into which shard, so that an archive that grew changes as few shards as it can.

Without an earlier run the samples are cut in order. After one, each stays in its shard; the new ones fill
the last shard of their split and then new shards. The layout is written before the shards are: a job that
was stopped goes on with it, and two runs over the same archive give the same shards.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from ray_mae.data.places import appearing, on_disk
from ray_mae.data.schema import SPLITS

S = TypeVar("S")

FILE = "layout.parquet"
_PER_SHARD = b"samples_per_shard"


@dataclass(frozen=True)
class Layout:
    """Pseudonyms of samples by the shard they are in."""

    per_shard: int
    """Samples of a full shard."""
    shards: dict[str, list[str]]

    @classmethod
    def read(cls, folder: Path, per_shard: int) -> "Layout":
        """What an earlier run left; empty where there was none, or one with shards of another size."""
        try:
            with on_disk(folder / FILE) as file:
                table = pq.read_table(file)
        except (FileNotFoundError, pa.ArrowInvalid):
            return cls(per_shard, {})
        if table.schema.metadata.get(_PER_SHARD) != str(per_shard).encode():
            return cls(per_shard, {})
        shards: dict[str, list[str]] = defaultdict(list)
        for shard, sample in zip(*(column.to_pylist() for column in table.columns), strict=True):
            shards[shard].append(sample)
        return cls(per_shard, dict(shards))

    def write(self, folder: Path) -> None:
        rows = [(shard, sample) for shard, samples in self.shards.items() for sample in samples]
        table = pa.table(
            {"shard": [shard for shard, _ in rows], "sample": [sample for _, sample in rows]},
            pa.schema([("shard", pa.string()), ("sample", pa.string())]),
        ).replace_schema_metadata({_PER_SHARD: str(self.per_shard)})
        with appearing(folder / FILE, folder) as file:
            pq.write_table(table, file, compression="zstd")


def cut(
    samples: Sequence[S],
    split_of: Callable[[S], str],
    id_of: Callable[[S], str],
    earlier: Layout,
) -> Iterator[tuple[str, str, list[S]]]:
    """File name, split and samples of each shard, in order, split by split."""
    for split in SPLITS:
        waiting: dict[str, list[S]] = defaultdict(list)  # a list, should two share a pseudonym
        for sample in samples:
            if split_of(sample) == split:
                waiting[id_of(sample)].append(sample)
        shards: dict[str, list[S]] = {}
        for file, names in sorted(earlier.shards.items()):
            if file.startswith(f"{split}-"):
                kept = [waiting[name].pop(0) for name in names if waiting.get(name)]
                if kept:
                    shards[file] = kept
        new = [sample for found in waiting.values() for sample in found]
        number = 0
        if shards:
            last = max(shards)
            number = int(last.removeprefix(f"{split}-").removesuffix(".parquet")) + 1
            room = max(0, earlier.per_shard - len(shards[last]))
            shards[last] += new[:room]
            new = new[room:]
        for start in range(0, len(new), earlier.per_shard):
            file = f"{split}-{number + start // earlier.per_shard:05d}.parquet"
            shards[file] = new[start : start + earlier.per_shard]
        yield from ((file, split, found) for file, found in shards.items())
