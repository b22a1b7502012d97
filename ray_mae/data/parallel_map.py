"""Plain Python work spread over the cluster by Ray Data."""

import json
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

import ray.data

T = TypeVar("T")

_AT_LEAST, _PER_CPU = 64, 8
"""Items under way at a time: they lie in Ray's memory, so that all of a large archive must not."""


def parallel_map(work: Callable[[T], Any], items: Iterable[T]) -> Iterator[Any]:
    """Results of `work` on each item, as they come, one task per item.

    Items and results travel as JSON: Arrow would guess types from nested Python values, and another
    one where a list is empty or a value is missing.
    """
    left = iter(items)
    many = max(_AT_LEAST, int(_PER_CPU * ray.cluster_resources().get("CPU", 0)))
    while rows := [{"item": json.dumps(item)} for item in islice(left, many)]:
        results = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            lambda row: {"result": json.dumps(work(json.loads(row["item"])))}
        )
        for row in results.iter_rows():
            yield json.loads(row["result"])
