"""Tables: CSV or Parquet as text, and the columns of labels and splits that archives have."""

import csv
import difflib
import gzip
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

import pyarrow.parquet as pq

from ray_mae.config import TableColumns, VolumeColumns
from ray_mae.data.labels import (
    CHEXPERT_LABELS,
    NOT_MENTIONED,
    POSITIVE,
    label_named,
    state_of,
    strongest,
)
from ray_mae.data.paths import local_file
from ray_mae.data.privacy.pseudonyms import split_named

TableRow = dict[str, str]
"""The cells of a row by column, as text; nothing is ""."""

csv.field_size_limit(1 << 24)  # reports are longer than the 128 KiB that csv allows by default


def read_table(path: Path) -> list[TableRow]:
    """The rows of a CSV (also .tsv, .gz) or Parquet table, every cell as text, nothing as ""."""
    return list(iter_table(path))


def iter_table(path: Path) -> Iterator[TableRow]:
    """The rows of `read_table` one by one, for tables that are wide and have 100,000s of rows."""
    with local_file(path) as file:
        yield from _rows(file)


def _rows(path: Path) -> Iterator[TableRow]:
    if path.suffix == ".parquet":
        for batch in pq.ParquetFile(path).iter_batches():
            columns = [[_text(v) for v in column.to_pylist()] for column in batch.columns]
            for cells in zip(*columns, strict=True):
                yield dict(zip(batch.schema.names, cells, strict=True))
        return
    delimiter = "\t" if ".tsv" in path.suffixes else ","
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
        try:
            for row in csv.DictReader(file, delimiter=delimiter):
                yield {k: v or "" for k, v in row.items() if k is not None}
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{path} is not UTF-8 ({error}): convert it, or save it as Parquet"
            ) from error


def _text(value: object) -> str:
    return "" if value is None or value != value else str(value)  # NaN is what pandas calls nothing


def cell(row: TableRow, column: str | None) -> str | None:
    """A row's cell, None where it is empty or there is no such column."""
    return (row.get(column, "").strip() or None) if column else None


def need_columns(
    path: Path,
    rows: Sequence[TableRow],
    columns: TableColumns | VolumeColumns,
    required: Sequence[str],
    setting: str = "columns",
) -> None:
    """Raise ValueError, with the nearest names there are, where a column needed is not there.

    Needed are the `required` settings, and all that were given another name than the default.
    """
    if not rows:
        raise ValueError(f"{path} has no rows")
    header = list(rows[0])
    for name, default in ((f.name, f.default) for f in fields(columns)):
        column = getattr(columns, name)
        if column is None or column in header or (name not in required and column == default):
            continue
        near = difflib.get_close_matches(column, header, n=3, cutoff=0.5) or header[:20]
        raise ValueError(
            f"{path} has no column {column!r} for the {name}; it has {', '.join(map(repr, near))}: "
            f"name the right one with {setting}.{name}"
        )


@dataclass
class LabelReader:
    """Label states of a row, from one column of names or from one column per label.

    What it does not understand is counted, never dropped without a trace.
    """

    column: str | None
    """The column of names separated by | or ;, or None for one column per label."""
    columns: dict[str, str]
    """Without `column`: the columns that are labels, and which of the 14 they are."""
    unmapped: Counter[str]
    """Names in `column` that are none of the 14, and how often they occur."""
    invalid: Counter[str]
    """Columns with cells that are no state, and how many. They count as not mentioned."""
    seen: dict[tuple[int, ...], tuple[int, ...]] = field(default_factory=dict)
    """Each combination of states that was read: rows that say the same share one tuple."""

    @classmethod
    def of(cls, column: str | None, header: Iterable[str]) -> "LabelReader":
        """A reader for a table with these columns."""
        named = {} if column else {n: label for n in header if (label := label_named(n))}
        return cls(column, named, Counter(), Counter())

    def others(self, row: TableRow) -> tuple[str, ...]:
        """Names in a row that are none of the 14."""
        return tuple(name for name in self._names(row) if label_named(name) is None)

    def _names(self, row: TableRow) -> list[str]:
        names = row.get(self.column, "").replace(";", "|").split("|") if self.column else []
        return list(filter(None, map(str.strip, names)))

    def read(self, row: TableRow) -> tuple[int, ...]:
        """The 14 states of a row."""
        states = dict.fromkeys(CHEXPERT_LABELS, NOT_MENTIONED)
        for name, label in self.columns.items():
            try:
                states[label] = strongest(states[label], state_of(row.get(name, "")))
            except ValueError:
                self.invalid[name] += 1
        for name in self._names(row):
            mapped = label_named(name)
            if mapped is None:
                self.unmapped[name] += 1
            else:
                states[mapped] = POSITIVE
        read = tuple(states.values())
        return self.seen.setdefault(read, read)

    def notes(self) -> dict[str, dict[str, int]]:
        """The counts, for the summary."""
        return {
            "labels_not_mapped": dict(self.unmapped.most_common()),
            "label_cells_not_understood": dict(self.invalid.most_common()),
        }


def given_splits(
    path: Path, rows: Iterable[TableRow], column: str | None, setting: str = "columns"
) -> list[str | None]:
    """The split of each row, None where the table leaves it open. ValueError for other words."""
    words = [sys.intern(row.get(column, "").strip()) if column else "" for row in rows]
    unknown = Counter(word for word in words if word and split_named(word) is None)
    if unknown:
        word, times = unknown.most_common(1)[0]
        raise ValueError(
            f"{path}, column {column!r}: {word!r} ({times} rows) is no split: use train, val and "
            f"test, or set {setting}.split to null to split the patients by hash"
        )
    return [split_named(word) for word in words]
