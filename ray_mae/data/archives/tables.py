"""Tables: CSV or Parquet as text, and the columns of labels and splits that archives have."""

import csv
import difflib
import gzip
import re
import sys
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import IO

import pyarrow as pa
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
from ray_mae.data.quarantine import error_text

TableRow = dict[str, str]
"""The cells of a row by column, as text; nothing is ""."""

MOST_CHARACTERS = 1 << 24
"""Of a cell, and of a line: reports are longer than the 128 KiB that csv allows by default."""
csv.field_size_limit(MOST_CHARACTERS)
_MOST_READ_AGAIN = 1_000_000
_KEY_CELLS = 3
_NO_UTF_8 = "it holds bytes that are not UTF-8"
_NOT_UNICODE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class DamagedRow:
    """A row that cannot be told from its neighbours, or that holds what no row can hold."""

    place: str
    """Where it begins: "line 17", of a Parquet table "row 16"."""
    problem: str

    def __str__(self) -> str:
        return f"{self.place}: {self.problem}"


class PlacedRow(TableRow):
    """A row that knows where it stands and how many cells it lacks."""

    __slots__ = ("lacks", "place")

    def __init__(self, header: Sequence[str], cells: Sequence[str], place: str) -> None:
        self.place, self.lacks = place, len(header) - len(cells)
        super().__init__(zip(header, [*cells, *[""] * self.lacks], strict=False))

    def without(self, what: str) -> str:
        """A sentence for a row that lacks a cell it needs."""
        text = f"{self.place} names no {what}"
        if self.lacks > 0:
            text += (
                f"; {self.lacks} of its cells are missing: a line break outside of double quotes?"
            )
        return text


OnDamaged = Callable[[DamagedRow], object]
"""What becomes of a damaged row; its neighbours are read as if it were not there."""


def read_table(path: Path, on_damaged: OnDamaged | None = None) -> list[PlacedRow]:
    """The rows of a CSV (also .tsv, .gz) or Parquet table, every cell as text, nothing as "".

    A row may have less cells than the header: the rest are "". A damaged one ends with a ValueError that
    names its line, or goes to `on_damaged`.
    """
    return list(iter_table(path, on_damaged))


def iter_table(path: Path, on_damaged: OnDamaged | None = None) -> Iterator[PlacedRow]:
    """The rows of `read_table` one by one, for tables that are wide and have 100,000s of rows."""
    with local_file(path) as file:
        rows = _parquet_rows(file) if file.suffix == ".parquet" else _csv_rows(file)
        for row in rows:
            if isinstance(row, PlacedRow):
                yield row
            elif on_damaged is not None:
                on_damaged(row)
            else:
                raise ValueError(f"{path}, {row}")


def _parquet_rows(path: Path) -> Iterator[PlacedRow | DamagedRow]:
    number = 0
    try:
        for batch in pq.ParquetFile(path).iter_batches():
            columns = [_column(column) for column in batch.columns]
            for cells in zip(*columns, strict=True):
                number += 1
                problem = _problem_of_text("".join(cells))
                if problem:
                    yield DamagedRow(f"row {number}", problem)
                else:
                    yield PlacedRow(batch.schema.names, cells, f"row {number}")
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is no Parquet table ({error_text(error)})") from error


def _column(column: pa.Array) -> list[str]:
    """The cells of a column as text. Bytes that are no UTF-8 become what `_problem_of_text` finds."""
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        cells = column.cast(pa.large_binary()).to_pylist()
        return [(cell or b"").decode(errors="surrogateescape") for cell in cells]
    return [_text(value) for value in column.to_pylist()]


def _csv_rows(path: Path) -> Iterator[PlacedRow | DamagedRow]:
    delimiter = "\t" if ".tsv" in path.suffixes else ","
    opened = gzip.open if path.suffix == ".gz" else open
    # bytes that are no UTF-8 are looked for line by line, to say in which one they are
    with opened(path, "rt", encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        try:
            yield from _records(_Lines(file, path), delimiter)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{path} is no complete gzip file ({error_text(error)})") from error


def _records(lines: "_Lines", delimiter: str) -> Iterator[PlacedRow | DamagedRow]:
    """The rows of a CSV file after its header.

    A quote that is never closed takes in the rows behind it, up to the next quote. So where a record is
    damaged only its first line is given up, and what follows is read again from the second.
    """
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    header: list[str] | None = None
    row_before: list[str] = []
    while True:
        lines.begin()
        try:
            cells = next(reader, None)
            problem = lines.problem
        except csv.Error as error:
            cells, problem = [], lines.problem or _csv_problem(error)
        if cells is None:
            return
        if not cells and not problem:  # an empty line
            continue
        if header is None:
            if problem:
                raise ValueError(f"{lines.path}, line {lines.first}, the header: {problem}")
            header = cells
            continue
        surplus = cells[len(header) :]
        if not problem and any(map(str.strip, surplus)):
            problem = (
                f"{len(cells)} cells, and the header has {len(header)}: a cell with {delimiter!r} in it "
                "must stand in double quotes"
            )
        if not problem and len(lines.read) > 1:
            inside = (next(csv.reader([line], delimiter=delimiter), []) for line in lines.read[1:])
            key = row_before or cells
            if any(len(row) >= len(header) and _looks_like(row, key) for row in inside):
                problem = "a double quote opens a cell here, and the rows that follow are inside it"
        if problem:
            yield DamagedRow(f"line {lines.first}", problem)
            lines.read_again()
            continue
        row_before = cells
        yield PlacedRow(header, cells[: len(header)], f"line {lines.first}")


def _csv_problem(error: csv.Error) -> str:
    words = str(error)
    if "end of data" in words:
        return "a double quote opens a cell here and none closes it"
    if "field limit" in words:
        return f"a cell of more than {MOST_CHARACTERS:,} characters"
    if "expected after" in words:
        return "a double quote within a cell that is in double quotes: write it twice"
    return words


def _looks_like(row: Sequence[str], before: Sequence[str]) -> bool:
    """Whether the cells that are keys (short, with a digit, no white space) are of one form."""
    keys = [i for i, cell in enumerate(before) if _form(cell) is not None][:_KEY_CELLS]
    return bool(keys) and all(_form(row[i]) == _form(before[i]) for i in keys)


def _form(cell: str) -> str | None:
    """s17 and 4711 are "x", p1/s2.png is "x/x.x"; None for what is no key."""
    cell = cell.strip()
    is_key = 0 < len(cell) <= 200 and any(map(str.isdigit, cell)) and not re.search(r"\s", cell)
    return re.sub(r"[^\W_]+", "x", cell) if is_key else None


def _problem_of_text(text: str) -> str:
    """What is wrong with a line as text; "" if nothing is."""
    if "\0" in text:
        return "it holds a NUL character"
    if not text.isascii() and _NOT_UNICODE.search(text):
        return _NO_UTF_8
    return ""


class _Lines:
    """The lines of a file, of which those of the last record can be read again.

    Raises ValueError where quotes match so badly that this would go on for ever.
    """

    def __init__(self, file: IO[str], path: Path) -> None:
        self.path = path
        self.read: list[str] = []
        """Of the record that is being read."""
        self.problem = ""
        """Of one of them."""
        self.first = 1
        """Number of the first of them, from 1."""
        self._file = file
        self._again: deque[str] = deque()
        self._times = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else self._file.readline(MOST_CHARACTERS + 2)
        if not line:
            raise StopIteration
        if len(line) > MOST_CHARACTERS:
            while line and not line.endswith(("\n", "\r")):
                line = self._file.readline(MOST_CHARACTERS)
            line, self.problem = "\n", f"a line of more than {MOST_CHARACTERS:,} characters"
        self.read.append(line)
        self.problem = self.problem or _problem_of_text(line)
        if self.problem == _NO_UTF_8:
            raise ValueError(
                f"{self.path}, line {self.first + len(self.read) - 1}: {self.problem}: convert the table, "
                "or save it as Parquet"
            )
        return line

    def begin(self) -> None:
        """From here on a record is read."""
        self.first += len(self.read)
        self.read, self.problem = [], ""

    def read_again(self) -> None:
        """Give the lines of the record once more, without the first."""
        self._times += len(self.read) - 1
        if self._times > _MOST_READ_AGAIN:
            raise ValueError(
                f"{self.path}, line {self.first}: the double quotes of too many rows before it do not "
                "match: write the table with all text in double quotes, or as Parquet"
            )
        self._again.extendleft(reversed(self.read[1:]))
        self.read = self.read[:1]


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
