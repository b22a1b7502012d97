"""Label states of the rows of tables, and what of a table is no label state or was not asked for.

A table is looked through before it is read: which of its columns hold states alone, and which names its
column of names has. So a setting that names none of them is an error, and what is not read is told.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from ray_mae.config import TableColumns
from ray_mae.data.archives.tables import (
    TableRow,
    columns_by_setting,
    nearest,
    need_one_of_each,
)
from ray_mae.data.labels import (
    CHEXPERT_LABELS,
    CHEXPERT_MEANINGS,
    NOT_LABELLED,
    NOT_MENTIONED,
    POSITIVE,
    label_named,
    normalised,
    state_of,
    strongest,
)

MOST_VALUES = 10
"""Cells that are told by their text, of a column."""
MOST_LETTERS = 20
"""Of such a cell."""
SETTING = "columns.label_names"

R = TypeVar("R", bound=TableRow)


class TableSurvey:
    """What the cells of a table say of its columns."""

    def __init__(self, columns: TableColumns) -> None:
        self._columns = columns
        self._open: list[str] | None = None
        self._stated: set[str] = set()
        self.names: dict[str, str] = {}
        """Names in the column of names, as first written, by what they have in common."""

    def watch(self, rows: Iterable[R]) -> Iterator[R]:
        """The same rows, looked at as they pass."""
        for row in rows:
            self._add(row)
            yield row

    def _add(self, row: TableRow) -> None:
        if self._open is None:
            used = {column for _, column, _ in columns_by_setting(self._columns)}
            self._open = [column for column in row if column.strip() and column not in used]
        for column in self._open[:]:
            state = state_of(row[column])
            if state is None:
                self._open.remove(column)
            elif state != NOT_MENTIONED:
                self._stated.add(column)
        for name in split_names(row.get(self._columns.labels or "", "")):
            self.names.setdefault(normalised(name), name)

    @property
    def columns_of_states(self) -> list[str]:
        """The columns, but for those that other settings name, in which there are states and nothing else."""
        return [column for column in self._open or () if column in self._stated]


def split_names(cell: str) -> list[str]:
    """The names in a cell that separates them by | or ;."""
    return list(filter(None, map(str.strip, cell.replace(";", "|").split("|"))))


@dataclass
class LabelReader:
    """Label states of a row, from one column of names or from one column per label.

    What it does not understand is counted, never dropped without a trace.
    """

    names: tuple[str, ...]
    """The labels, in the order of the states."""
    columns: Mapping[str, int]
    """Columns of states, and which label each is."""
    column: str | None = None
    """The column of names."""
    meanings: Mapping[str, int] = field(default_factory=dict)
    """Which label a name in it is, by what its ways to be written have in common."""
    not_read: list[str] | None = None
    """Columns that look like labels and are none of these; None where none was looked for."""
    unmapped: Counter[str] = field(default_factory=Counter)
    """Names in `column` that are none of the labels, and how often they occur."""
    invalid: dict[str, Counter[str]] = field(default_factory=dict)
    """By column the cells that are no state, and how often. They count as not labelled."""
    understood: set[str] = field(default_factory=set)
    """Columns in which at least one cell is a statement."""
    seen: dict[tuple[int, ...], tuple[int, ...]] = field(default_factory=dict)
    """Each combination of states that was read: rows that say the same share one tuple."""

    @classmethod
    def of_table(
        cls, path: Path, header: Sequence[str], columns: TableColumns, survey: TableSurvey
    ) -> "LabelReader":
        """A reader as `columns` wants it.

        Raises:
            ValueError: the table does not have what label_names names, or has it twice.
        """
        like_labels = survey.columns_of_states
        if columns.labels:
            reader = cls.of_names(columns.labels, _names_wanted(path, columns, survey))
            reader.not_read = like_labels
            return reader
        if columns.label_names is None:
            places = {name: i for i, name in enumerate(CHEXPERT_LABELS)}
            of_columns = {n: places[label] for n in header if (label := label_named(n))}
            names: tuple[str, ...] = CHEXPERT_LABELS
        else:
            names = _columns_wanted(path, header, columns, like_labels)
            of_columns = {c: i for i, name in enumerate(names) for c in _columns_of(name, header)}
        need_one_of_each(path, header, of_columns)
        return cls(names, of_columns, not_read=[c for c in like_labels if c not in of_columns])

    @classmethod
    def of_names(cls, column: str, names: Sequence[str] | None = None) -> "LabelReader":
        """A reader of a column of names. Without `names`, of those that mean one of CheXpert's 14."""
        if names is None:
            places = {name: i for i, name in enumerate(CHEXPERT_LABELS)}
            of_word = {word: places[label] for word, label in CHEXPERT_MEANINGS.items()}
            return cls(CHEXPERT_LABELS, {}, column, of_word)
        meanings = {normalised(name): i for i, name in enumerate(names)}
        return cls(tuple(names), {}, column, meanings)

    @classmethod
    def of_columns(cls, names: Sequence[str]) -> "LabelReader":
        """A reader of columns that are called as their labels are."""
        return cls(tuple(names), {name: i for i, name in enumerate(names)})

    def others(self, row: TableRow) -> tuple[str, ...]:
        """Names in a row that are none of the labels."""
        return tuple(name for name in self._named(row) if normalised(name) not in self.meanings)

    def _named(self, row: TableRow) -> list[str]:
        return split_names(row.get(self.column, "")) if self.column else []

    def read(self, row: TableRow) -> tuple[int, ...]:
        """The states of a row, one per label. A cell that is not understood counts as not labelled."""
        states = [NOT_MENTIONED] * len(self.names)
        for place in self.columns.values():
            states[place] = NOT_LABELLED
        for column, place in self.columns.items():
            text = row.get(column, "")
            state = state_of(text)
            if state is None:
                self._count_invalid(column, text)
            else:
                states[place] = strongest(states[place], state)
                if state != NOT_MENTIONED:
                    self.understood.add(column)
        for name in self._named(row):
            place_of_name = self.meanings.get(normalised(name))
            if place_of_name is None:
                self.unmapped[name] += 1
            else:
                states[place_of_name] = POSITIVE
        read = tuple(states)
        return self.seen.setdefault(read, read)

    def _count_invalid(self, column: str, text: str) -> None:
        self.invalid.setdefault(column, Counter())[shortened(text)] += 1

    def notes(self) -> dict[str, object]:
        """The counts, for the summary."""
        notes: dict[str, object] = {
            "labels_not_mapped": dict(self.unmapped.most_common()),
            "label_cells_not_understood": sum(c.total() for c in self.invalid.values()),
            "label_cells_by_text": {c: by_value(cells) for c, cells in self.invalid.items()},
        }
        if self.not_read is not None:
            notes["columns_like_labels_not_read"] = self.not_read
        return notes

    def check(self, path: Path, columns: TableColumns) -> None:
        """Raise ValueError where a column that was named holds something, and never a label state."""
        for column, cells in self.invalid.items() if columns.label_names else ():
            if column not in self.understood:
                some = ", ".join(repr(text) for text, _ in cells.most_common(3))
                raise ValueError(
                    f"{path}, column {column!r} ({SETTING}) holds no label state but {some}: write 1 or "
                    "yes, 0 or no, -1 for uncertain, or nothing"
                )

    def warnings(self, path: Path) -> list[str]:
        """A sentence for each kind of thing in the table that is not read."""
        found = []
        for column, cells in self.invalid.items():
            some = ", ".join(f"{text!r} ({n:,})" for text, n in cells.most_common(3))
            found.append(
                f"{path}, column {column!r}: {cells.total():,} cells are no label state: {some}: they "
                "count as not labelled; write 1 or yes, 0 or no, -1 for uncertain, or nothing"
            )
        if self.unmapped:
            some = ", ".join(f"{name!r} ({n:,})" for name, n in self.unmapped.most_common(3))
            found.append(
                f"{path}, column {self.column!r}: {len(self.unmapped):,} names are none of the labels: "
                f"{some}: they are kept in other_labels alone; --{SETTING} own makes labels of all "
                "names, a list of some"
            )
        if self.not_read:
            some = ", ".join(map(repr, self.not_read[:5]))
            found.append(
                f"{path}: {len(self.not_read):,} columns look like labels and are not read: {some}; "
                f"--{SETTING} own makes labels of all such columns, a list of some"
            )
        return found


def shortened(cell: str) -> str:
    """As much of a cell as is told: more could be a text about a patient."""
    word = " ".join(cell.split())
    return word if len(word) <= MOST_LETTERS else word[:MOST_LETTERS] + "…"


def by_value(cells: Counter[str]) -> dict[str, int]:
    """The most frequent cells; the others, which may be anything, together."""
    told = dict(cells.most_common(MOST_VALUES))
    others = cells.total() - sum(told.values())
    return told | ({"others": others} if others else {})


def published_names(columns: TableColumns, archive: str, own: Sequence[str]) -> list[str] | None:
    """The labels that are wanted of an archive with these; None for what means one of CheXpert's 14.

    Raises:
        ValueError: label_names names one that the archive does not have.
    """
    wanted = columns.label_names
    if wanted is None or wanted == "own":
        return list(own) if wanted else None
    spelled = {normalised(name): name for name in own}
    _check_unlike(wanted)
    for name in wanted:
        if normalised(name) not in spelled:
            raise ValueError(
                f"{archive} has no label {name!r}, it has {nearest(name, own)}: correct {SETTING}"
            )
    return [spelled[normalised(name)] for name in wanted]


def _check_unlike(names: Sequence[str]) -> None:
    for name, times in Counter(map(normalised, names)).items():
        if times > 1:
            raise ValueError(f"{SETTING} names {name!r} {times} times, got {', '.join(names)}")


def _names_wanted(path: Path, columns: TableColumns, survey: TableSurvey) -> list[str] | None:
    """Of a column of names; None for those that mean one of CheXpert's 14."""
    if columns.label_names is None:
        return None
    if not survey.names:
        raise ValueError(
            f"{path}, column {columns.labels!r}: no row names a label (columns.labels)"
        )
    if columns.label_names == "own":
        return sorted(survey.names.values())
    _check_unlike(columns.label_names)
    for name in columns.label_names:
        if normalised(name) not in survey.names:
            there = nearest(name, sorted(survey.names.values()))
            raise ValueError(
                f"{path}, column {columns.labels!r}: no row names the label {name!r}; it has {there}: "
                f"correct {SETTING}"
            )
    return columns.label_names


def _columns_wanted(
    path: Path, header: Sequence[str], columns: TableColumns, like_labels: list[str]
) -> tuple[str, ...]:
    if columns.label_names == "own":
        if not like_labels:
            raise ValueError(
                f"{path} has no column with label states alone (1 or yes, 0 or no, -1, nothing): name "
                f"columns with {SETTING}, or the column of names with columns.labels"
            )
        return tuple(like_labels)
    assert columns.label_names is not None
    _check_unlike(columns.label_names)
    for name in columns.label_names:
        if not _columns_of(name, header):
            raise ValueError(
                f"{path} has no column {name!r} ({SETTING}); it has {nearest(name, header)}"
            )
    return tuple(columns.label_names)


def _columns_of(name: str, header: Collection[str]) -> list[str]:
    """The column of this very name, else those whose names differ in case, _ and white space alone."""
    if name in header:
        return [name]
    return [column for column in dict.fromkeys(header) if normalised(column) == normalised(name)]
