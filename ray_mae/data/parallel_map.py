"""A map over plain Python items, spread over the cluster by Ray Data."""

import json
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import ray.data

_AT_LEAST, _PER_CPU = 64, 8
"""Items under way at a time. They lie in Ray's memory, where those of a large archive have no room."""


def to_json(value: Any, *, sort_keys: bool = False) -> str:
    """JSON of plain values and of dataclasses of them, as of `asdict`, without the copies that makes."""
    return json.dumps(value, default=vars, sort_keys=sort_keys)


def parallel_map(work: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """Apply a function to each item, in one Ray Data task per item.

    Items and results travel as JSON: Arrow would guess types from nested Python values, and another
    one where a list is empty or a value is missing.

    Args:
        work: the function. What it names travels to the workers.
        items: what `to_json` takes. Only some hundred at a time are under way, so there may be any number.

    Yields:
        The results, in the order in which they are ready.
    """
    remaining = iter(items)
    at_a_time = max(_AT_LEAST, int(_PER_CPU * ray.cluster_resources().get("CPU", 0)))
    while rows := [{"item": to_json(item)} for item in islice(remaining, at_a_time)]:
        results = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            lambda row: {"result": json.dumps(work(json.loads(row["item"])))}
        )
        for row in results.iter_rows():
            yield json.loads(row["result"])
