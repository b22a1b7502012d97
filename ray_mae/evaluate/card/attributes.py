"""Counts of studies or volumes by value and split, as a card shows them."""

import re
from collections import Counter

from ray_mae.data.schema import SPLITS

MOST_VALUES = 20
NUMBERS = frozenset({"age", "field_strength"})
"""Attributes whose values are shown in their own order."""
_FIRST_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def by_split(
    counts: Counter[tuple[str, str]], most: int = MOST_VALUES, *, rising: bool = False
) -> dict[str, dict[str, int]]:
    """Counts by name and split: of the most frequent names, in the order of how many have them.

    rising: in the order of their first number, as decades are; names without one at last.
    """
    total: Counter[str] = Counter()
    for (name, _), n in counts.items():
        total[name] += n
    names = [name for name, _ in total.most_common(most)]
    if rising:
        first = {name: _FIRST_NUMBER.match(name) for name in names}
        names.sort(key=lambda name: float(match[0]) if (match := first[name]) else float("inf"))
    return {name: {split: counts[name, split] for split in SPLITS} for name in names}
