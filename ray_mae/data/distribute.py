"""Plain Python work spread over the cluster by Ray Data."""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import ray.data

T = TypeVar("T")


def distribute(work: Callable[[T], Any], items: Sequence[T]) -> Iterator[Any]:
    """Results of `work` on each item, as they come, one task per item.

    Items and results travel as JSON: Arrow would guess types from nested Python values, and another
    one where a list is empty or a value is missing.
    """
    if not items:
        return
    rows = [{"item": json.dumps(item)} for item in items]
    results = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        lambda row: {"result": json.dumps(work(json.loads(row["item"])))}
    )
    for row in results.iter_rows():
        yield json.loads(row["result"])
