"""Dates of studies, of which nothing finer than a bucket of years is ever kept."""

import re

FIRST, LAST = 1895, 2300
"""Years that a date can be of: none is before the first X-ray, and MIMIC's are shifted into the 2100s."""


def year_of(date: str | None) -> int | None:
    """The year of a date that begins with it (2014, 20140305, 2014-03-05); None for what is none."""
    match = re.match(r"\s*(\d{4})(?!\d(?!\d))", date or "")
    year = int(match[1]) if match else 0
    return year if FIRST <= year <= LAST else None


def bucket_of(year: int | None, size: int) -> str | None:
    """The bucket of `size` years that a year is in, such as 2010-2014; None for size 0 or no year."""
    if not size or year is None:
        return None
    first = year - year % size
    return f"{first}-{first + size - 1}" if size > 1 else str(first)
