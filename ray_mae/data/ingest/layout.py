"""Which sample goes into which shard, so that an archive that grew changes as few shards as it can.

Without an earlier run the samples are cut in order. After one, each stays in its shard; the new ones fill
the last shard of their split and then new shards. The layout is written before the shards are: a job that
was stopped goes on with it, and two runs over the same archive give the same shards.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ray_mae.data.disk_list import DiskList
from ray_mae.data.paths import atomic_write, local_file
from ray_mae.data.schema import SPLITS

S = TypeVar("S")

FILE = "layout.parquet"
_PER_SHARD = b"samples_per_shard"
_PSEUDONYMS = b"pseudonyms"
_SCHEMA = pa.schema([("shard", pa.string()), ("sample", pa.string())])
_NEW = "~"  # after the names of all files


@dataclass(frozen=True, eq=False)
class Layout:
    """Where samples were in an earlier run: some 30 bytes for each."""

    per_shard: int
    """Samples of a full shard."""
    samples: NDArray[np.bytes_]
    """Pseudonyms, sorted."""
    shards: NDArray[np.int32]
    """For each, which of the files."""
    positions: NDArray[np.int32]
    """For each, its position in the file."""
    files: list[str]

    @classmethod
    def of(cls, per_shard: int, shards: Iterable[tuple[str, Sequence[str]]] = ()) -> "Layout":
        """The layout of shards, as file and samples."""
        files: list[str] = []
        parts: list[tuple[NDArray[np.bytes_], NDArray[np.int32], NDArray[np.int32]]] = []
        for number, (file, samples) in enumerate(shards):
            files.append(file)
            names = np.array([sample.encode() for sample in samples], np.bytes_)
            count = len(samples)
            parts.append((names, np.full(count, number, np.int32), np.arange(count, dtype="i4")))
        names, codes, positions = (
            np.concatenate([part[column] for part in parts]) if parts else np.empty(0, kind)
            for column, kind in enumerate(("S1", "i4", "i4"))
        )
        order = np.argsort(names, kind="stable")
        return cls(per_shard, names[order], codes[order], positions[order], files)

    def find(self, sample: str) -> tuple[str, int] | None:
        """File and position of a sample; None if it was not there."""
        name = np.bytes_(sample.encode())
        index = int(np.searchsorted(self.samples, name))
        if index == len(self.samples) or self.samples[index] != name:
            return None
        return self.files[self.shards[index]], int(self.positions[index])

    @classmethod
    def read(cls, folder: Path, per_shard: int) -> "Layout":
        """What an earlier run left; empty where there was none, or one with shards of another size."""
        try:
            with local_file(folder / FILE) as path, pq.ParquetFile(path) as file:
                if file.schema_arrow.metadata.get(_PER_SHARD) != str(per_shard).encode():
                    return cls.of(per_shard)
                return cls.of(per_shard, _shards_in(file))
        except (FileNotFoundError, pa.ArrowInvalid):
            return cls.of(per_shard)


def _shards_in(file: pq.ParquetFile) -> Iterator[tuple[str, list[str]]]:
    rows = (
        row
        for batch in file.iter_batches()
        for row in zip(*(column.to_pylist() for column in batch.columns), strict=True)
    )
    for shard, group in groupby(rows, key=itemgetter(0)):
        yield shard, [sample for _, sample in group]


def earlier_pseudonyms(folder: Path) -> str | None:
    """How the pseudonyms of an earlier run were made; None where there was none.

    "public" where it does not say: what was ingested before data sets had keys of their own.
    """
    try:
        with local_file(folder / FILE) as path, pq.ParquetFile(path) as file:
            return file.schema_arrow.metadata.get(_PSEUDONYMS, b"public").decode()
    except (FileNotFoundError, pa.ArrowInvalid):
        return None


def write_layout(
    folder: Path, per_shard: int, pseudonyms: str, shards: Iterable[tuple[str, Sequence[str]]]
) -> None:
    """Write the layout of shards, given as file and samples."""
    schema = _SCHEMA.with_metadata({_PER_SHARD: str(per_shard), _PSEUDONYMS: pseudonyms})
    rows = ((file, sample) for file, samples in shards for sample in samples)
    with (
        atomic_write(folder / FILE, folder, private=True) as path,
        pq.ParquetWriter(path, schema, compression="zstd") as writer,
    ):
        while part := list(islice(rows, 1 << 16)):
            columns = [list(column) for column in zip(*part, strict=True)]
            writer.write_table(pa.table(columns, schema=schema))


def cut_into_shards(
    samples: Iterable[S],
    split_of: Callable[[S], str],
    id_of: Callable[[S], str],
    earlier: Layout,
) -> Iterator[tuple[str, str, list[S]]]:
    """Deal samples to shards: file name, split and samples of each, in order, split by split.

    Args:
        samples: studies or volumes, in the order in which new ones are dealt.
        split_of: the split of a sample.
        id_of: the pseudonym of a sample.
        earlier: where samples were in an earlier run.
    """
    assigned: DiskList[tuple[str, str, S]] = DiskList()
    for sample in samples:
        split = split_of(sample)
        file, position = earlier.find(id_of(sample)) or (_NEW, 0)
        if not file.startswith(f"{split}-"):  # new, or its split is another one now
            file, position = _NEW, 0
        assigned.add((split, file, sample), str(SPLITS.index(split)), file, f"{position:09d}")
    for split, of_split in groupby(assigned, key=itemgetter(0)):
        last: tuple[str, list[S]] | None = None
        number = 0
        for file, members in groupby(of_split, key=itemgetter(1)):
            inside = (sample for *_, sample in members)
            if file != _NEW:
                if last:
                    yield last[0], split, last[1]
                last = file, list(inside)
                number = int(file.removeprefix(f"{split}-").removesuffix(".parquet")) + 1
                continue
            if last:
                room = max(0, earlier.per_shard - len(last[1]))
                yield last[0], split, [*last[1], *islice(inside, room)]
                last = None
            while part := list(islice(inside, earlier.per_shard)):
                yield f"{split}-{number:05d}.parquet", split, part
                number += 1
        if last:
            yield last[0], split, last[1]
