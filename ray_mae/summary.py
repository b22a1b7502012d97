"""summary.json: what every command leaves in its output folder."""

import json
from pathlib import Path
from typing import Any

from ray_mae.files import write_whole

FILE = "summary.json"


def write_summary(output: Path, summary: dict[str, Any]) -> dict[str, Any]:
    """Writes it, and returns it as it is.

    Args:
        output: folder of the command; it is made where it is not there.
        summary: figures as plain values of JSON, with the command's name under `command`.
    """
    output.mkdir(parents=True, exist_ok=True)
    write_whole(output / FILE, json.dumps(summary, indent=1) + "\n")
    return summary


def read_summary(output: Path) -> dict[str, Any] | None:
    """Returns what a command has left in its output folder; None where it has not."""
    file = output / FILE
    summary: dict[str, Any] | None = json.loads(file.read_text()) if file.is_file() else None
    return summary


def print_summary(summary: dict[str, Any], indent: int = 0) -> None:
    """A summary as indented lines; a group of plain values takes one."""
    for name, value in summary.items():
        if name == "command" or value in ({}, [], None):
            continue
        lead = f"{' ' * indent}{name}: "
        if isinstance(value, dict) and any(isinstance(v, (dict, list)) for v in value.values()):
            print(lead)
            print_summary(value, indent + 2)
        elif isinstance(value, dict):
            print(lead + ", ".join(f"{k} {_text(v)}" for k, v in value.items()))
        elif isinstance(value, list):
            print(lead + ", ".join(map(str, value)))
        else:
            print(lead + _text(value))


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
