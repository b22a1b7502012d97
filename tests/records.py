"""Runs that were never trained, as their folders would be."""

import json
from pathlib import Path

from ray_mae.checkpoint.format import SNAPSHOT


def write_record(run: Path, step: int) -> Path:
    """Ray Train's record of one checkpoint; returns the folder that it names."""
    folder = run / f"checkpoint_{step}"
    folder.mkdir(exist_ok=True)
    result = {"checkpoint_dir_name": folder.name, "metrics": {"step": step}}
    record = {"checkpoint_results": [result], "latest_checkpoint_result": result}
    (run / SNAPSHOT).write_text(json.dumps(record))
    return folder
