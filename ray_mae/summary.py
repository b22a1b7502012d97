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
