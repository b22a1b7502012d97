"""How a setting carries its bounds, and how a whole tree of settings is checked."""

import dataclasses
from typing import Any, TypeVar

from ray_mae.config.urls import as_url, is_path, refuse_urls
from ray_mae.config.values import convert_fields, section

T = TypeVar("T")


def setting(
    default: Any = dataclasses.MISSING,
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    rising: bool = False,
) -> Any:
    """Returns a dataclass field whose value, or each of whose values, must lie within bounds.

    None is within all of them.

    Args:
        default: of the setting; without one it must be given.
        ge: smallest value.
        gt: what every value must exceed.
        le: largest value.
        lt: what every value must fall short of.
        rising: the values of a pair must not fall: smallest, then largest.
    """
    bounds: dict[str, Any] = {"ge": ge, "gt": gt, "le": le, "lt": lt, "rising": rising or None}
    return dataclasses.field(
        default=default, metadata={k: v for k, v in bounds.items() if v is not None}
    )


REPEATED = {"repeated": True}
"""Metadata of a list whose flag may come several times."""

_WORDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
_HOLDS = {
    "ge": lambda value, bound: value >= bound,
    "gt": lambda value, bound: value > bound,
    "le": lambda value, bound: value <= bound,
    "lt": lambda value, bound: value < bound,
}


def describe_bounds(metadata: Any) -> str:
    """ "at least 0 and less than 1", or "" for a setting without bounds."""
    return " and ".join(f"{_WORDS[k]} {metadata[k]}" for k in _WORDS if k in metadata)


def check(settings: Any, prefix: str = "") -> None:
    """Raises ValueError, naming the setting by its dotted path, if any value is out of bounds.

    Args:
        settings: a dataclass, with others inside.
        prefix: of the names, with its dot.
    """
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        path = f"{prefix}{field.name}"
        if dataclasses.is_dataclass(value):
            check(value, f"{path}.")
        elif isinstance(value, dict):
            for name, one in value.items():
                if dataclasses.is_dataclass(one):
                    check(one, f"{path}.{name}.")
        elif value is not None and not isinstance(value, str):
            values = value if isinstance(value, (tuple, list)) else (value,)
            if field.metadata.get("some") and not values:
                raise ValueError(f"{path} must hold at least one value")
            if field.metadata.get("rising") and list(values) != sorted(values):
                raise ValueError(f"{path} must be smallest, then largest, got {value}")
            for each in values:
                if any(
                    k in field.metadata and not _HOLDS[k](each, field.metadata[k]) for k in _HOLDS
                ):
                    raise ValueError(
                        f"{path} must be {describe_bounds(field.metadata)}, got {value}"
                    )


class ValidatedConfig:
    """A command's settings: types and bounds are checked when they are made, and which take a URL.

    From Python strings do for paths, and dictionaries for sections.
    """

    def __post_init__(self) -> None:
        convert_fields(self)
        check(self)
        refuse_urls(self)


def to_dict(settings: Any) -> dict[str, Any]:
    """Returns settings as plain JSON values, nested as they are."""
    out: dict[str, Any] = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            value = to_dict(value)
        elif isinstance(value, dict):
            value = {n: to_dict(v) if dataclasses.is_dataclass(v) else v for n, v in value.items()}
        elif is_path(value):
            value = as_url(value)
        elif isinstance(value, (tuple, list)):
            value = [as_url(v) if is_path(v) else v for v in value]
        out[field.name] = value
    return out


def from_dict(cls: type[T], values: dict[str, Any]) -> T:
    """Returns settings from plain values: the inverse of `to_dict`.

    Args:
        cls: class of the settings.
        values: as `to_dict` wrote them.
    """
    return section(cls, values)


def flatten(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested settings by dotted name, each value as it is.

    Args:
        settings: as `to_dict` gives them.
        prefix: of the names, with its dot.
    """
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
