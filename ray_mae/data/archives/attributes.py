"""What is kept of a study's person, place and scanner: sex, age, site, manufacturer, model.

Only what the setting `attributes` names is ever read. Ages are whole years, and 90 for all above 89.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ray_mae.data.archives.label_reader import by_value
from ray_mae.data.archives.tables import TableRow

OLDEST, PLAUSIBLE = 90, 130
"""Years: ages above 89 are told apart no further; above the other one it is no age."""
MOST_LETTERS = 64
"""Of a site, a manufacturer or a model."""
_SEX = {
    **dict.fromkeys(("m", "male", "man"), "M"),
    **dict.fromkeys(("f", "female", "woman", "w"), "F"),
    **dict.fromkeys(("o", "other"), "O"),
}
_NOTHING = frozenset({"", "nan", "na", "n/a", "none", "null", "unknown", "u", "anonymous"})
_AGE = re.compile(r"(?P<above>[>≥]?)\s*(?P<number>\d{1,3})(?:\.\d*)?\s*(?P<unit>[ymwd]?)\+?")

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


@dataclass
class AttributeReader:
    """Attributes from cells; what is neither understood nor nothing is counted."""

    wanted: Sequence[str]
    not_understood: dict[str, Counter[str]] = field(default_factory=dict)

    def read(self, cells: Mapping[str, str]) -> Attributes | None:
        """Those of cells by attribute; None where nothing is known."""
        found: Attributes = {}
        for name in self.wanted:
            text = " ".join(cells.get(name, "").split())
            if text.lower() in _NOTHING:
                continue
            value = {"sex": sex_of, "age": age_of}.get(name, _words)(text)
            if value is None:
                self.not_understood.setdefault(name, Counter())[text[:MOST_LETTERS]] += 1
            else:
                found[name] = value
        return found or None

    def of_row(self, row: TableRow, columns: Any) -> Attributes | None:
        """Those of a table's row; columns: names of the columns by attribute."""
        return self.read({name: row.get(getattr(columns, name), "") for name in self.wanted})

    def notes(self) -> dict[str, Any]:
        """For the summary; nothing where nothing is wanted."""
        if not self.wanted:
            return {}
        cells = {name: by_value(values) for name, values in self.not_understood.items()}
        return {"attribute_cells_not_understood": cells}


def _words(text: str) -> str | None:
    return text[:MOST_LETTERS]


def first_of_each(
    wanted: Sequence[str], of_images: Sequence[Attributes | None]
) -> tuple[Attributes, list[str]]:
    """What the first image that knows it says of each attribute, and of which another one says otherwise."""
    values = {name: [a[name] for a in of_images if a and name in a] for name in wanted}
    differing = [name for name, told in values.items() if len(set(told)) > 1]
    return {name: told[0] for name, told in values.items() if told}, differing
