"""Encoders without a row in a task, and why: nobody is left out of a comparison unsaid."""

from collections.abc import Sequence

from ray_mae.benchmarking.plan import Suite
from ray_mae.benchmarking.records import FitKey
from ray_mae.benchmarking.segmenting import why_not


def left_out(suite: Suite, keys: Sequence[FitKey]) -> dict[str, dict[str, str]]:
    """Returns the reason of each encoder by task, of those that have no fit in it.

    Args:
        suite: that was looked at.
        keys: of all its fits.
    """
    there = {(key.cell.task, key.encoder) for key in keys}
    found: dict[str, dict[str, str]] = {}
    for task in suite.config.tasks:
        for encoder in suite.config.encoders:
            if (task, encoder) not in there:
                found.setdefault(task, {})[encoder] = _why(suite, task, encoder)
    return found


def _why(suite: Suite, task: str, encoder: str) -> str:
    entry, kind = suite.config.tasks[task], suite.kind_of(task)
    if entry.kind == "segmentation":
        return why_not(suite, task, encoder)
    if (encoder, kind) in suite.unreadable:
        return suite.unreadable[encoder, kind]
    if suite.config.encoders[encoder].kind == "scratch":
        return "scratch has rows of fine-tuning alone, of which this task has none"
    heads = ", ".join(suite.config.heads.use if entry.heads is None else entry.heads)
    return f"none of the task's heads ({heads}) takes it"
