"""What is installed besides the light package, and what to install where something is missing."""

import re
from importlib.metadata import requires

_IMPORTED_AS = {"scikit-learn": "sklearn"}
"""Packages whose modules have other names than they."""


def extra_of(module: str) -> str | None:
    """Returns the extra of ray-mae that brings a module; None where none does.

    Args:
        module: its dotted name.
    """
    name = module.partition(".")[0]
    for requirement in requires("ray-mae") or ():
        package = re.match(r"[\w.-]+", requirement)
        extra = re.search(r"extra == ['\"]([\w-]+)", requirement)
        if package and extra and name == _IMPORTED_AS.get(package[0], package[0].replace("-", "_")):
            return extra[1]
    return None


def explain(error: ModuleNotFoundError) -> str | None:
    """Returns what to install where a module of an extra is missing, in a line; None of other modules."""
    if extra := extra_of(error.name or ""):
        return f"{error.name} is not installed, which this needs: pip install 'ray-mae[{extra}]'"
    return None
