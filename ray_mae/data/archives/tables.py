"""Tables: CSV or Parquet as text, and the columns of labels and splits that archives have."""

import csv
import difflib
import gzip
import re
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from ray_mae.config import TableColumns, TableEncoding, VolumeColumns
from ray_mae.data.decoding.compressed import DAMAGE
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
_DELIMITERS = ",;\t"
_QUOTED = re.compile(r'"(?:[^"]|"")*"')
_SEP = re.compile(r"sep=(.)\s*", re.IGNORECASE)
"""First line by which Excel says the delimiter."""
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
    """A row that knows where it stands, how many cells it lacks, and the header with all its columns."""

    __slots__ = ("header", "lacks", "place")

    def __init__(self, header: Sequence[str], cells: Sequence[str], place: str) -> None:
        self.header, self.place, self.lacks = header, place, len(header) - len(cells)
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


def read_table(
    path: Path, on_damaged: OnDamaged | None = None, encoding: TableEncoding = "utf-8"
) -> list[PlacedRow]:
    """The rows of a CSV (also .tsv, .gz) or Parquet table, every cell as text, nothing as "".

    A CSV is divided by commas, semicolons or tabs: whichever gives its header the most columns. A row may
    have less cells than the header: the rest are "". A damaged one ends with a ValueError that names its
    line, or goes to `on_damaged`.

    Args:
        path: of the table.
        on_damaged: is given what cannot be read.
        encoding: windows-1252 reads lines so that are no UTF-8; else such a line ends with a ValueError.
    """
    return list(iter_table(path, on_damaged, encoding))


def iter_table(
    path: Path, on_damaged: OnDamaged | None = None, encoding: TableEncoding = "utf-8"
) -> Iterator[PlacedRow]:
    """The rows of `read_table` one by one, for tables that are wide and have 100,000s of rows."""
    with local_file(path) as file:
        rows = _parquet_rows(file) if file.suffix == ".parquet" else _csv_rows(file, encoding)
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
            columns, header = [_column(column) for column in batch.columns], batch.schema.names
            for cells in zip(*columns, strict=True):
                number += 1
                problem = _problem_of_text("".join(cells))
                if problem:
                    yield DamagedRow(f"row {number}", problem)
                else:
                    yield PlacedRow(header, cells, f"row {number}")
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is no Parquet table ({error_text(error)})") from error


def _column(column: pa.Array) -> list[str]:
    """The cells of a column as text. Bytes that are no UTF-8 become what `_problem_of_text` finds."""
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        cells = column.cast(pa.large_binary()).to_pylist()
        return [(cell or b"").decode(errors="surrogateescape") for cell in cells]
    return [_text(value) for value in column.to_pylist()]


def _csv_rows(path: Path, encoding: TableEncoding) -> Iterator[PlacedRow | DamagedRow]:
    opened = gzip.open if path.suffix == ".gz" else open
    # bytes that are no UTF-8 are looked for line by line, to say in which one they are
    with opened(path, "rt", encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        try:
            lines = _Lines(file, path, encoding)
            yield from _records(lines, _delimiter(lines, "\t" if ".tsv" in path.suffixes else ","))
        except DAMAGE as error:
            raise ValueError(f"{path} is no complete gzip file ({error_text(error)})") from error


def _delimiter(lines: "_Lines", usual: str) -> str:
    """What divides the cells of the header; the usual one where others give it no more columns.

    The header is read again after it, but for a line in which Excel says the delimiter.
    """
    lines.begin()
    first = next(lines, "")
    if told := _SEP.fullmatch(first):
        return told[1]
    lines.put_back()
    bare = _QUOTED.sub("", first)
    return max(_DELIMITERS, key=lambda d: (bare.count(d), d == usual))


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

    def __init__(self, file: IO[str], path: Path, encoding: TableEncoding) -> None:
        self.path, self._encoding = path, encoding
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
        if self._encoding != "utf-8" and _problem_of_text(line) == _NO_UTF_8:
            line = line.encode(errors="surrogateescape").decode("cp1252", "surrogateescape")
        self.read.append(line)
        self.problem = self.problem or _problem_of_text(line)
        if self.problem == _NO_UTF_8:
            remedy = (
                "save the table as UTF-8 or Parquet, or if it is of Windows set table_encoding windows-1252"
                if self._encoding == "utf-8"
                else "nor Windows-1252 (table_encoding): save the table as UTF-8 or Parquet"
            )
            raise ValueError(
                f"{self.path}, line {self.first + len(self.read) - 1}: {self.problem}: {remedy}"
            )
        return line

    def begin(self) -> None:
        """From here on a record is read."""
        self.first += len(self.read)
        self.read, self.problem = [], ""

    def put_back(self) -> None:
        """Give the lines of the record once more, and begin it anew."""
        self._again.extendleft(reversed(self.read))
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
    rows: Sequence[PlacedRow],
    columns: TableColumns | VolumeColumns,
    required: Sequence[str],
    setting: str = "columns",
) -> None:
    """Raise ValueError, with the nearest names there are, where a column needed is not there, or twice.

    Needed are the `required` settings, and all that were given another name than the default.
    """
    if not rows:
        raise ValueError(f"{path} has no rows")
    header = list(rows[0])
    for name, column, default in columns_by_setting(columns):
        if column not in header and (name in required or column != default):
            raise ValueError(
                f"{path} has no column {column!r} for the {name}; it has "
                f"{nearest(column, header)}: name the right one with {setting}.{name}"
            )
        need_one_of_each(path, rows[0].header, [column])


def columns_by_setting(columns: TableColumns | VolumeColumns) -> Iterator[tuple[str, str, str]]:
    """Name, column and default of each setting that names one column; those that name none are left out."""
    for field in fields(columns):
        column = getattr(columns, field.name)
        if field.name != "label_names" and column is not None:
            yield field.name, column, str(field.default)


def nearest(name: str, header: Sequence[str]) -> str:
    """What there is that may have been meant, in words."""
    lower = {column.lower(): column for column in reversed(header)}
    near = difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.5)
    return ", ".join(repr(lower[word]) for word in near) or ", ".join(map(repr, header[:20]))


def need_one_of_each(path: Path, header: Sequence[str], names: Iterable[str]) -> None:
    """Raise ValueError where a table has two columns of one of these names: which one is meant?"""
    for name in names:
        if (times := header.count(name)) > 1:
            raise ValueError(f"{path} has {times} columns {name!r}: keep one of them")


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
