"""How a setting carries its bounds, and how a whole tree of settings is checked."""

import dataclasses
from typing import Any


def setting(
    default: Any = dataclasses.MISSING,
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
) -> Any:
    """A dataclass field whose value must lie within the bounds given (`None` values are exempt)."""
    bounds = {"ge": ge, "gt": gt, "le": le, "lt": lt}
    return dataclasses.field(
        default=default, metadata={k: v for k, v in bounds.items() if v is not None}
    )


_WORDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
_HOLDS = {
    "ge": lambda value, bound: value >= bound,
    "gt": lambda value, bound: value > bound,
    "le": lambda value, bound: value <= bound,
    "lt": lambda value, bound: value < bound,
}


def bounds_in_words(metadata: Any) -> str:
    """"at least 0 and less than 1", or "" for a setting without bounds."""
    return " and ".join(f"{_WORDS[k]} {metadata[k]}" for k in _WORDS if k in metadata)


def check(settings: Any, prefix: str = "") -> None:
    """Raise ValueError, naming the setting by its dotted path, if any value is out of bounds."""
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        path = f"{prefix}{field.name}"
        if dataclasses.is_dataclass(value):
            check(value, f"{path}.")
        elif value is not None and not isinstance(value, str):
            values = value if isinstance(value, (tuple, list)) else (value,)
            for each in values:
                if any(k in field.metadata and not _HOLDS[k](each, field.metadata[k]) for k in _HOLDS):
                    raise ValueError(
                        f"{path} must be {bounds_in_words(field.metadata)}, got {value}"
                    )
