"""The quarantine table of an ingest: collected on disk, counted by reason, written as Parquet."""

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ray_mae.data.disk_list import DiskList
from ray_mae.data.paths import atomic_write
from ray_mae.data.quarantine import QUARANTINE_SCHEMA, QuarantineRow

_ROWS = 1 << 16


def short(pseudonym: str) -> int:
    """The first 64 bits of a pseudonym: enough to count with."""
    return int(pseudonym[:16], 16)


class QuarantineTable:
    """Rows by kind, path and sample."""

    def __init__(self, rows: Iterable[QuarantineRow] = ()) -> None:
        self._all: DiskList[QuarantineRow] = DiskList()
        self._reasons: Counter[tuple[str, str]] = Counter()
        self._samples: dict[str, array[int]] = {}
        for row in rows:
            self.add(row)

    def add(self, row: QuarantineRow) -> None:
        """Add a row."""
        self._all.add(row, row.kind, row.path or "", row.sample_id or "")
        self._reasons[row.kind, row.reason] += 1
        if row.sample_id:
            self._samples.setdefault(row.kind, array("Q")).append(short(row.sample_id))

    def __iter__(self) -> Iterator[QuarantineRow]:
        return iter(self._all)

    def reasons(self, kind: str) -> dict[str, int]:
        """How many entries of a kind there are by reason, the most frequent first."""
        counts = Counter({r: n for (of, r), n in self._reasons.items() if of == kind})
        return dict(counts.most_common())

    def count(self, kind: str) -> int:
        """How many entries of a kind there are."""
        return sum(self.reasons(kind).values())

    def samples(self, kind: str) -> NDArray[np.uint64]:
        """`short` of the entries of a kind that have a pseudonym."""
        return np.array(self._samples.get(kind, array("Q")), np.uint64)

    def write(self, path: Path, beside: Path) -> None:
        """Write the table as Parquet. beside: a folder on the same disk for what is not finished."""
        rows = map(_fields, self)
        with (
            atomic_write(path, beside, private=True) as file,
            pq.ParquetWriter(file, QUARANTINE_SCHEMA) as writer,
        ):
            while part := list(islice(rows, _ROWS)):
                writer.write_table(pa.Table.from_pylist(part, schema=QUARANTINE_SCHEMA))


def _fields(row: QuarantineRow) -> dict[str, Any]:
    fields = asdict(row)
    for name in ("path", "detail"):  # names of files need not be valid text
        fields[name] = fields[name] and fields[name].encode(errors="replace").decode()
    return fields
