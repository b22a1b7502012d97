"""What a job refuses, on disk, however much: counted by reason, written as the quarantine table."""

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
    """QuarantineTable by kind, path and sample."""

    def __init__(self, refusals: Iterable[QuarantineRow] = ()) -> None:
        self._all: DiskList[QuarantineRow] = DiskList()
        self._reasons: Counter[tuple[str, str]] = Counter()
        self._samples: dict[str, array[int]] = {}
        for refusal in refusals:
            self.add(refusal)

    def add(self, refusal: QuarantineRow) -> None:
        """One more."""
        self._all.add(refusal, refusal.kind, refusal.path or "", refusal.sample_id or "")
        self._reasons[refusal.kind, refusal.reason] += 1
        if refusal.sample_id:
            self._samples.setdefault(refusal.kind, array("Q")).append(short(refusal.sample_id))

    def __iter__(self) -> Iterator[QuarantineRow]:
        return iter(self._all)

    def reasons(self, kind: str) -> dict[str, int]:
        """Reasons for which entries of a kind were refused, the most frequent first."""
        found = Counter({r: n for (of, r), n in self._reasons.items() if of == kind})
        return dict(found.most_common())

    def of(self, kind: str) -> int:
        """How many entries of a kind were refused."""
        return sum(self.reasons(kind).values())

    def samples(self, kind: str) -> NDArray[np.uint64]:
        """`short` of those refused that have a pseudonym."""
        return np.array(self._samples.get(kind, array("Q")), np.uint64)

    def write(self, path: Path, beside: Path) -> None:
        """The quarantine table."""
        rows = map(_row, self)
        with (
            atomic_write(path, beside) as file,
            pq.ParquetWriter(file, QUARANTINE_SCHEMA) as writer,
        ):
            while part := list(islice(rows, _ROWS)):
                writer.write_table(pa.Table.from_pylist(part, schema=QUARANTINE_SCHEMA))


def _row(refusal: QuarantineRow) -> dict[str, Any]:
    row = asdict(refusal)
    for name in ("path", "detail"):  # names of files need not be valid text
        row[name] = row[name] and row[name].encode(errors="replace").decode()
    return row
