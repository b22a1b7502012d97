"""What is kept of the person, place and scanner of a study or volume: sex, age, site, manufacturer, model and
field strength.

Only what the setting `attributes` names is ever read. Ages are whole years, and 90 for all above 89.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ray_mae.data.archives.label_reader import by_value
from ray_mae.data.archives.tables import TableRow
from ray_mae.data.privacy.years import year_of

OLDEST, PLAUSIBLE = 90, 130
"""Years: ages above 89 are told apart no further; above the other one it is no age."""
MOST_LETTERS = 64
"""Of a site, a manufacturer or a model."""
TOLD, MOST_FORM = 3, 16
"""Characters up to which a cell that is not understood is told, and of which its form is."""
_SEX = {
    **dict.fromkeys(("m", "male", "man"), "M"),
    **dict.fromkeys(("f", "female", "woman", "w"), "F"),
    **dict.fromkeys(("o", "other"), "O"),
}
_NOTHING = frozenset({"", "nan", "na", "n/a", "none", "null", "unknown", "u", "anonymous"})
TESLA = (0.2, 0.35, 0.5, 0.55, 1.0, 1.5, 3.0, 4.0, 4.7, 7.0, 9.4, 10.5, 11.7)
"""Strengths that scanners are sold with; headers give what the magnet has, such as 2.89362 for 3."""
_CLOSE, _STRONGEST, _GAUSS = 0.06, 25.0, 1e4
"""Share of a strength that it may differ by; tesla; gauss in a tesla, as old headers give it."""
_NUMBER = re.compile(r"(?P<number>\d+(?:\.\d*)?)\s*(?:t|tesla)?", re.IGNORECASE)
_AGE = re.compile(
    r"(?P<above>[>≥]?)\s*(?P<number>\d{1,3})(?:\.\d*)?\s*(?P<unit>[ymwd]?)"
    r"(?:rs?|ears?|onths?|eeks?|ays?)?\+?"
)

Attributes = dict[str, Any]
"""By name; what is not known is left out."""


def sex_of(text: str) -> str | None:
    """M, F or O (other), None for what is none of these."""
    return _SEX.get(text.strip().lower())


def age_of(text: str) -> int | None:
    """Whole years, at most OLDEST, of 57, 57.5, 057Y, 18M (months), 90+ or >89; None for what is no age."""
    match = _AGE.fullmatch(text.strip().lower())
    if not match:
        return None
    years = int(match["number"]) + (match["above"] == ">")
    years //= {"m": 12, "w": 52, "d": 365}.get(match["unit"], 1)
    return min(years, OLDEST) if years <= PLAUSIBLE else None


def age_between(born: str, then: str) -> str:
    """The whole years between two cells that begin with a year, as a cell; "" where one does not."""
    first, last = year_of(born), year_of(then)
    return "" if first is None or last is None else str(last - first)


def tesla_of(text: str) -> float | None:
    """Field strength of 3, 2.89362, 1.5T or 15000 (gauss): that which its scanner is sold with, if close."""
    match = _NUMBER.fullmatch(text.strip())
    if not match:
        return None
    tesla = float(match["number"])
    tesla = tesla / _GAUSS if tesla > _STRONGEST else tesla
    if not 0 < tesla <= _STRONGEST:
        return None
    near = min(TESLA, key=lambda sold: abs(sold - tesla))
    return near if abs(near - tesla) <= _CLOSE * near else round(tesla, 2)


@dataclass
class AttributeReader:
    """Attributes from cells; what is neither understood nor nothing is counted by its form."""

    wanted: Sequence[str]
    not_understood: dict[str, Counter[str]] = field(default_factory=dict)

    def read(self, cells: Mapping[str, str]) -> Attributes | None:
        """Those of cells by attribute; None where nothing is known."""
        found: Attributes = {}
        for name in self.wanted:
            text = " ".join(cells.get(name, "").split())
            if text.lower() in _NOTHING:
                continue
            value = _READ.get(name, _words)(text)
            if value is None:
                self.not_understood.setdefault(name, Counter())[_form(text)] += 1
            else:
                found[name] = value
        return found or None

    def columns(self, columns: Mapping[str, str]) -> list[str]:
        """Those of the columns, given by attribute, that a table must have."""
        return [columns[name] for name in self.wanted if name in columns]

    def of_row(self, row: TableRow, columns: Mapping[str, str]) -> Attributes | None:
        """Those of a table's row; columns: their names by attribute, and perhaps by other things."""
        return self.read({n: row.get(columns[n], "") for n in self.wanted if n in columns})

    def notes(self) -> dict[str, Any]:
        """For the summary; nothing where nothing is wanted."""
        if not self.wanted:
            return {}
        cells = {name: by_value(values) for name, values in self.not_understood.items()}
        return {"attribute_cells_not_understood": cells}


def _words(text: str) -> str | None:
    return text[:MOST_LETTERS]


def _form(text: str) -> str:
    """A cell as the summary and the card may show it: in place of an age there may be a date of birth."""
    if len(text) <= TOLD:
        return text
    text = re.sub(r"[^\W\d_]", "a", text[:MOST_FORM])
    return re.sub(r"\d", "9", text)


_READ: dict[str, Callable[[str], Any]] = {
    "sex": sex_of, "age": age_of, "field_strength": tesla_of
}  # fmt: skip


def first_of_each(
    wanted: Sequence[str], of_images: Sequence[Attributes | None]
) -> tuple[Attributes, list[str]]:
    """What the first image that knows it says of each attribute, and of which another one says otherwise."""
    values = {name: [a[name] for a in of_images if a and name in a] for name in wanted}
    differing = [name for name, told in values.items() if len(set(told)) > 1]
    return {name: told[0] for name, told in values.items() if told}, differing
