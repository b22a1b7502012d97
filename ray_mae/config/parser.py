"""Settings from flags, files and plain values: checked against their types, with the nearest right name."""

import dataclasses
import difflib
import re
from typing import Any, TypeVar, get_type_hints

from jsonargparse import ArgumentParser, set_parsing_settings

from ray_mae.config.base import describe_bounds

T = TypeVar("T")


class _Parser(ArgumentParser):
    """Says in one line what is wrong, with the nearest right name, and in its help each setting once."""

    def format_usage(self) -> str:
        return f"usage: {self.prog} [--config FILE] [--SETTING VALUE …]\n"

    def format_help(self) -> str:  # type: ignore[override]
        """Each setting with its text, bounds, type and default; `Path` without Python's words around it."""
        whole = super().format_help()
        usage, rest = self.format_usage(), whole[whole.index("\n\n") :]
        return usage.rstrip() + re.sub(r"<class\s+'(?:\w+\.)*(\w+)'>", r"\1", rest)

    def error(self, message: str, ex: Exception | None = None) -> None:  # type: ignore[override]
        known = [
            name for action in self._actions for name in (action.option_strings or [action.dest])
        ]
        raise ValueError(_nearest(" ".join(message.split()), known))


def _nearest(message: str, known: list[str]) -> str:
    if "Expected" in message:  # a value is wrong, not a name
        return message
    for word in re.findall(r"--[\w.]+|'[\w.]+'", message):
        bare = word.strip("'")
        names = {name.lstrip("-") for name in known}
        tails = {name.split(".")[-1]: name for name in names}
        close = difflib.get_close_matches(bare.lstrip("-"), names, 1, 0.6) or [
            tails[t]
            for t in difflib.get_close_matches(bare.lstrip("-").split(".")[-1], tails, 1, 0.6)
        ]
        if close and close[0] != bare.lstrip("-"):
            return f"{message}; did you mean {close[0]}?"
    return message


def parser_for(cls: type, prog: str | None = None) -> ArgumentParser:
    """Returns a parser of --config FILE and every setting by its dotted name.

    Args:
        cls: class of the settings.
        prog: name of the command in its help.
    """
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = _Parser(prog=prog, description=cls.__doc__, allow_abbrev=False)
    parser.add_argument(
        "--config", action="config", help="YAML file with settings; flags after it override it."
    )
    parser.add_class_arguments(cls, None)
    bounds = _bounds(cls)
    for action in parser._actions:
        if words := bounds.get(action.dest):
            action.help = f"{action.help} [{words}]"
    return parser


def _bounds(cls: type, prefix: str = "") -> dict[str, str]:
    """Those of each setting that has any, in words, by its dotted name."""
    hints = get_type_hints(cls)
    found: dict[str, str] = {}
    for field in dataclasses.fields(cls):
        path = f"{prefix}{field.name}"
        if dataclasses.is_dataclass(hints[field.name]):
            found |= _bounds(hints[field.name], f"{path}.")
        elif words := describe_bounds(field.metadata):
            found[path] = words
    return found


def parse(parser: ArgumentParser, cls: type[T], values: dict[str, Any]) -> T:
    """Returns settings from nested plain values.

    Args:
        parser: by `parser_for`.
        cls: class of the settings, the same.
        values: plain values.

    Raises:
        ValueError: as the command line does, with the nearest right name.
    """
    settings = parser.instantiate(parser.parse_object(values)).as_dict()
    settings.pop("config", None)
    return cls(**settings)
