"""The result of a check."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    check: str
    level: Level
    text: str
    remedy: str = ""
    """What to do; empty where nothing is to be done."""
