"""Labels by name: those that shards have, of several folders together, and those that were asked for.

A finding that a folder of shards does not have, or of which not one of its studies says anything, is not
labelled in it. So its studies become nobody's negatives, whatever counts as negative elsewhere.
"""

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_mae.data.labels import NOT_LABELLED, NOT_MENTIONED, POSITIVE, normalised
from ray_mae.data.schema import NOUNS, Row
from ray_mae.data.shard_set import ShardSet

MOST_NAMES = 20
"""That an error lists."""


def pooled_names(shards: ShardSet) -> list[str]:
    """The labels of studies of all folders, each once, as the first folder that has it spells it."""
    names: dict[str, str] = {}
    for folder in shards.folders:
        for name in folder.manifest.label_names:
            names.setdefault(normalised(name), name)
    return list(names.values())


def states_by_name(
    rows: Sequence[Row], own: Sequence[str], names: Sequence[str]
) -> NDArray[np.int8]:
    """The states [S, L] of the studies of one folder.

    Args:
        rows: [S] with `labels` and, if there, `other_labels`.
        own: labels of the folder.
        names: [L] that are wanted.
    """
    states = np.array([row["labels"] for row in rows], np.int8).reshape(-1, len(own))
    places = {normalised(name): i for i, name in enumerate(own)}
    wanted = np.full((len(rows), len(names)), NOT_LABELLED, np.int8)
    others: list[set[str]] | None = None
    for column, name in enumerate(names):
        place = places.get(normalised(name))
        if place is None and others is None:
            others = [_others(row) for row in rows]
        found = states[:, place] if place is not None else _named(states, others or [], name)
        if (found > NOT_MENTIONED).any():
            wanted[:, column] = found
    return wanted


def _others(row: Row) -> set[str]:
    return set(map(normalised, row.get("other_labels") or ()))


def _named(states: NDArray[np.int8], others: list[set[str]], name: str) -> NDArray[np.int8]:
    """[S] of a finding in `other_labels`: positive where it is, not mentioned in other labelled studies."""
    labelled = (states != NOT_LABELLED).any(axis=1) | np.array([bool(names) for names in others])
    found = np.where(labelled, NOT_MENTIONED, NOT_LABELLED).astype(np.int8)
    found[[normalised(name) in names for names in others]] = POSITIVE
    return found


def check_there(shards: ShardSet, rows: Iterable[Row], wanted: Sequence[str]) -> None:
    """Raise ValueError, with the nearest names there are, for a label that no study or volume has."""
    studies = shards.kind == "study"
    there = {normalised(name): name for name in pooled_names(shards)} if studies else {}
    for row in rows:
        more: Any = (row.get("other_labels") or ()) if studies else dict(row["labels"])
        there.update((normalised(name), name) for name in more if normalised(name) not in there)
    for name in wanted:
        if normalised(name) not in there:
            keys = difflib.get_close_matches(normalised(name), there, cutoff=0.5)
            near = [there[key] for key in keys or list(there)[:MOST_NAMES]]
            raise ValueError(
                f"none of the {NOUNS[shards.kind]} in {', '.join(map(str, shards.paths))} has a label "
                f"{name!r} (labels); of {len(there)} there are {', '.join(map(repr, near))}"
            )


def of_volumes(rows: Iterable[Row], wanted: Sequence[str] | None) -> list[dict[str, float]]:
    """The labels of each volume by name: all, or those that are wanted."""
    names = None if wanted is None else set(map(normalised, wanted))
    return [
        {name: value for name, value in row["labels"] if names is None or normalised(name) in names}
        for row in rows
    ]
