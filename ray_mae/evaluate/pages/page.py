"""Parts of the pages that evaluations leave: one file each, nothing is loaded from anywhere."""

from base64 import b64encode
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ray_mae.number_text import significant

_TEMPLATES = Path(__file__).parent / "templates"


def environment(*folders: Path) -> Environment:
    """Returns templates, with the filters `number` and `signed` (three decimals, or three digits of what is
    small), and the macros of intervals in `numbers.html.j2`.

    Args:
        folders: of templates, beside those of this room and before them.
    """
    templates = Environment(
        loader=FileSystemLoader([*folders, _TEMPLATES]),
        autoescape=True,  # reports and names of an archive are foreign text
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["number"] = significant
    templates.filters["signed"] = _signed
    return templates


def _signed(value: float) -> str:
    text = significant(value)
    return text.replace("-", "\N{MINUS SIGN}", 1) if value < 0 else "+" + text


def generated(settings: dict[str, Any]) -> bool:
    """Whether the data set is one of phantoms.

    Args:
        settings: flat; the data set is the value of a key that ends in `dataset`.
    """
    names = [str(v) for k, v in settings.items() if k.rpartition(".")[2] == "dataset"]
    return any("phantom" in name.lower() for name in names)


def svg(content: bytes) -> str:
    """An SVG as the source of an image."""
    return _data("image/svg+xml", content)


def png(content: bytes) -> str:
    """A PNG as the source of an image."""
    return _data("image/png", content)


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{b64encode(content).decode()}"


def plain(value: Any) -> Any:
    """Dataclasses and containers as plain values for JSON; what is not finite becomes None."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
