"""Tables of the page: cells with what the template needs to show them."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from ray_mae.benchmarking.report.words import signed
from ray_mae.benchmarking.statistics.uncertainty import Score
from ray_mae.evaluate.metrics import Estimate
from ray_mae.number_text import significant

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class Shown:
    """A cell: text, what stands smaller below it, and how it looks."""

    text: str
    below: str = ""
    encoder: str = ""
    """Whose mark stands before it."""
    right: bool = False
    shade: str = ""
    """Background."""
    wide: bool = False
    """Long text that may take several lines."""


@dataclass(frozen=True)
class Table:
    """A table with its title and a note."""

    columns: list[str]
    rows: list[list[Shown]]
    title: str = ""
    note: str = ""


@dataclass(frozen=True)
class Picture:
    """An SVG as the source of an image, its title, and its text for who does not see it."""

    title: str
    source: str
    alt: str


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    title: str
    text: list[str] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    panel: str = "26rem"
    """Least width of a picture, beside which another one has room."""
    tables: list[Table] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    """Encoders that its pictures mark without naming them."""
    folded: bool = False
    """Whether its tables are folded away at first."""


def by_panel(found: Iterable[T], panel: Callable[[T], K]) -> dict[K, list[T]]:
    """What belongs together, in the order in which it first occurs."""
    panels: dict[K, list[T]] = {}
    for one in found:
        panels.setdefault(panel(one), []).append(one)
    return panels


def words(text: object, below: str = "") -> Shown:
    return Shown(str(text), below)


def long(text: object) -> Shown:
    return Shown(str(text), wide=True)


def encoder(name: str) -> Shown:
    return Shown(name, encoder=name)


def number(value: float | None, *, sign: bool = False) -> Shown:
    """Three decimals; a dash where there is none."""
    if value is None or np.isnan(value):
        return Shown("–", right=True)
    return Shown(signed(value) if sign else significant(value), right=True)


def count(value: float) -> Shown:
    return Shown(f"{value:,.0f}", right=True)


def interval(score: Score | Estimate | None, *, sign: bool = False, shade: str = "") -> Shown:
    """A value with its interval below it."""
    if score is None or np.isnan(score.value):
        return Shown("–", right=True)
    show = signed if sign else significant
    why = score.interval if isinstance(score, Score) else "no interval"
    below = f"[{show(score.low)}, {show(score.high)}]" if score.known else why.partition(":")[0]
    return Shown(show(score.value), below, right=True, shade=shade)


def heat(value: float, low: float, high: float) -> str:
    """A background between white and blue."""
    if np.isnan(value) or high <= low:
        return ""
    share = float(np.clip((value - low) / (high - low), 0, 1))
    return f"rgba(0, 114, 178, {0.04 + 0.36 * share:.2f})"


def records(title: str, rows: Sequence[dict[str, Any]], show: Callable[[Any], str]) -> Table:
    """A table of records as they were stored, columns in the order in which they first occur."""
    columns = list(dict.fromkeys(k for row in rows for k in row))
    return Table(
        [c.replace("_", " ") for c in columns],
        [[Shown(show(row.get(c)), right=_is_number(row.get(c))) for c in columns] for row in rows],
        title,
    )


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
