"""Which settings of a suite the plan fixes, and which may be others when it is opened and reported."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

FREE = (
    "output",
    "dry_run",
    "workers",
    "gpu",
    "batch_size",
    "title",
    "notes",
    "statistics.resamples",
)
"""They change no comparison: what belongs to a machine, words of the page, and how finely intervals are
computed. All others are in the plan's hash, subgroups and margin included: who chooses these after the test
labels are read can choose the result."""
MOVED = ("paths", "shards")
"""Settings of encoders and data sets that a report does not ask for: it does not read what lay there."""


_NAMED = ("encoders.", "datasets.", "tasks.")
"""Sections whose names are the suite's own."""


def fixed_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a suite, as `to_dict` gives them, without the free ones."""
    kept = {name: value for name, value in values.items() if name not in FREE}
    for name in FREE:
        section, _, key = name.partition(".")
        if key and section in kept:
            kept[section] = {k: v for k, v in kept[section].items() if k != key}
    return kept


def require_fixed(
    mine: Mapping[str, Any], planned: Mapping[str, Any], plan: Path, *, moved: bool = False
) -> None:
    """Raises ValueError, with the names of the settings, where they are not those of the plan.

    Args:
        mine: settings of the suite.
        planned: those that the plan holds.
        plan: its file.
        moved: whether shards and weights may lie elsewhere, as where there is only a report to be made.
    """
    a, b = (fixed_settings(json.loads(json.dumps(v, default=str))) for v in (mine, planned))
    changed = list(_changed(a, b, "", MOVED if moved else ()))
    if changed:
        raise ValueError(
            f"{', '.join(changed)} of the suite: not as {plan} has it, and fixed before test labels are "
            "opened. Set it back, or run `ray-mae benchmark fit` again, which is another plan"
        )


def _changed(
    mine: Mapping[str, Any], planned: Mapping[str, Any], prefix: str, ignored: tuple[str, ...]
) -> Iterator[str]:
    """Names of what differs; a setting that one version alone knows is as it is by default."""
    for name in dict.fromkeys([*mine, *planned]):
        if name in ignored:
            continue
        path = f"{prefix}{name}"
        if name not in planned or name not in mine:
            if prefix in _NAMED:
                yield path
        elif isinstance(mine[name], dict) and isinstance(planned[name], dict):
            yield from _changed(mine[name], planned[name], f"{path}.", ignored)
        elif mine[name] != planned[name]:
            yield path
