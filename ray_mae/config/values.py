"""Plain values as those of settings: strings become paths, lists pairs, dictionaries sections."""

import dataclasses
import difflib
import functools
import os
import types
from collections.abc import Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from ray_mae.config.urls import opened

T = TypeVar("T")


@functools.cache
def _hints(cls: Any) -> dict[str, Any]:
    return get_type_hints(cls)


def converted(value: Any, kind: Any, path: str) -> Any:
    """Returns a value as one of a setting's type.

    Args:
        value: of that type, or what stands for it in YAML, JSON or a notebook.
        kind: the type, as annotated.
        path: dotted name of the setting.

    Raises:
        ValueError: it is none, with the name of the setting.
    """
    if kind is Any or isinstance(kind, TypeVar):
        return value
    for option in _options(kind):
        try:
            return _as(value, option, path)
        except _OtherTypeError:
            continue
    raise ValueError(f"{path} must be {_describe(kind)}, got {value!r}{_close(value, kind)}")


def section(cls: type[T], values: Mapping[str, Any], path: str = "") -> T:
    """Returns settings from plain values by name.

    Args:
        cls: dataclass of the settings.
        values: of some or all of its fields.
        path: dotted name of the section, "" for the settings of a command.

    Raises:
        ValueError: with the name of the setting, and the nearest right one where there is none of that name.
    """
    hints = _hints(cls)  # type: ignore[arg-type]
    names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    lead = f"{path}." if path else ""
    for name in values:
        if name not in names:
            close = difflib.get_close_matches(str(name), names, 1)
            hint = f"; did you mean {lead}{close[0]}?" if close else ""
            raise ValueError(f"{lead}{name} is no setting{hint}")
    own = getattr(cls, "COMPLETES", ())  # what the class makes of plain values itself
    return cls(
        **{n: v if n in own else converted(v, hints[n], f"{lead}{n}") for n, v in values.items()}
    )


def convert_fields(settings: Any, path: str = "", only: str | None = None) -> None:
    """Converts the fields of settings in place, those of the sections in them too.

    Args:
        settings: a dataclass that was made from Python, perhaps of plain values.
        path: dotted name of the section.
        only: name of the one field that is converted; None for all.

    Raises:
        ValueError: with the name of the setting.
    """
    hints = _hints(type(settings))  # type: ignore[arg-type]
    lead = f"{path}." if path else ""
    for field in dataclasses.fields(settings):
        if only not in (None, field.name):
            continue
        before = getattr(settings, field.name)
        after = converted(before, hints[field.name], f"{lead}{field.name}")
        if after is not before:
            object.__setattr__(settings, field.name, after)
        sections = after.items() if isinstance(after, dict) else [("", after)]
        for name, one in sections:
            if dataclasses.is_dataclass(one):
                convert_fields(one, f"{lead}{field.name}{name and '.'}{name}")


class _OtherTypeError(Exception):
    """A value is not of a type."""


def _options(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def _as(value: Any, kind: Any, path: str) -> Any:
    """The value as one of a type that is no union. Raises _OtherTypeError."""
    origin = get_origin(kind)
    if origin is Literal:
        for choice in get_args(kind):
            if value == choice and isinstance(value, bool) == isinstance(choice, bool):
                return choice
    elif dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if isinstance(value, kind):
            return value
        if isinstance(value, Mapping):
            return section(kind, value, path)
    elif origin in (list, tuple):
        if isinstance(value, (list, tuple)):
            return _sequence(value, kind, path)
    elif origin is dict or kind is dict:
        if isinstance(value, Mapping):
            return _by_name(value, kind, path)
    elif kind is type(None):
        if value is None:
            return None
    elif kind is Path:
        if isinstance(value, (str, os.PathLike)):
            return opened(value if isinstance(value, (str, Path)) else Path(value))
        if hasattr(value, "protocol"):  # a path over fsspec
            return value
    elif kind in (int, float, bool):
        return _number(value, kind)
    elif isinstance(kind, type) and isinstance(value, kind):
        return value
    raise _OtherTypeError


def _number(value: Any, kind: type) -> Any:
    """A bool, int or float, of NumPy too; a whole number is a float as well, and nothing else another."""
    if type(value) is kind:
        return value
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        return _number(value.item(), kind)
    wanted = {bool: bool, int: Integral, float: Real}[kind]
    if not isinstance(value, wanted) or (kind is not bool and isinstance(value, bool)):
        raise _OtherTypeError
    return kind(value)


def _sequence(values: Any, kind: Any, path: str) -> Any:
    """A list or a tuple of a fixed length. Raises _OtherTypeError where the length is another one."""
    origin, kinds = get_origin(kind), get_args(kind)
    if origin is list:
        kinds = kinds * len(values)
    elif len(kinds) != len(values):
        raise _OtherTypeError
    members = [
        converted(v, k, f"{path}[{i}]") for i, (v, k) in enumerate(zip(values, kinds, strict=True))
    ]
    same = type(values) is origin and all(a is b for a, b in zip(members, values, strict=True))
    return values if same else origin(members)


def _by_name(values: Mapping[str, Any], kind: Any, path: str) -> dict[str, Any]:
    """A dictionary whose values are of the type that it is annotated with, if any."""
    members = get_args(kind)
    if not members:
        return values if isinstance(values, dict) else dict(values)
    found = {name: converted(v, members[1], f"{path}.{name}") for name, v in values.items()}
    same = isinstance(values, dict) and all(found[n] is v for n, v in values.items())
    return values if same else found  # type: ignore[return-value]


_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    Path: "a path",
}


def _describe(kind: Any) -> str:
    """A type in words."""
    if len(options := _options(kind)) > 1:
        return ", or ".join(_describe(option) for option in options)
    origin = get_origin(kind)
    if origin is Literal:
        return "one of " + ", ".join(map(str, get_args(kind)))
    if origin is list:
        return f"a list, each {_describe(get_args(kind)[0])}"
    if origin is tuple:
        return f"{len(get_args(kind))} values, each {_describe(get_args(kind)[0])}"
    if kind is type(None):
        return "None"
    if dataclasses.is_dataclass(kind):
        return f"a section ({getattr(kind, '__name__', kind)}) or a dictionary of its settings"
    return _WORDS.get(kind, getattr(kind, "__name__", str(kind)))


def _close(value: Any, kind: Any) -> str:
    """The nearest right word of a choice."""
    words = [str(w) for o in _options(kind) if get_origin(o) is Literal for w in get_args(o)]
    close = difflib.get_close_matches(str(value), words, 1)
    return f"; did you mean {close[0]}?" if close else ""
