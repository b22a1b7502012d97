"""Work that leaves files, as tasks of Ray: as many at a time as there are CPUs, lost ones run again."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import ray
from ray.exceptions import RayTaskError

from ray_mae.terminal import ProgressLine

T = TypeVar("T")
IN_FLIGHT = 2
"""Tasks under way for each CPU."""


def run_tasks(
    work: Callable[[Any], T],
    items: Sequence[Any],
    verb: str,
    noun: str,
    weights: Sequence[int],
    gpus: int = 0,
) -> list[T]:
    """Runs a task of Ray for each item, as many at a time as there are CPUs and some that wait.

    Args:
        work: the function, which leaves files, so that a task that is lost can be run again.
        items: its arguments.
        verb, noun: of the progress line.
        weights: of each item in it.
        gpus: that each of them has to itself; without, Ray shows a task none.

    Raises:
        RuntimeError: with the first error.
    """
    task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=2)(work)
    most = max(1, int(IN_FLIGHT * ray.cluster_resources().get("CPU", 1)))
    progress, done, total = ProgressLine(verb, noun), 0, sum(weights)
    results: list[Any] = [None] * len(items)
    pending: dict[Any, int] = {}
    waiting = iter(range(len(items)))
    while True:
        while len(pending) < most and (i := next(waiting, None)) is not None:
            pending[task.remote(items[i])] = i
        if not pending:
            return results
        ready, _ = ray.wait(list(pending), num_returns=1, timeout=1.0)
        for ref in ready:
            i = pending.pop(ref)
            try:
                results[i] = ray.get(ref)
            except RayTaskError as error:
                for other in pending:
                    ray.cancel(other, force=True)
                raise RuntimeError(f"{noun}: {error.cause}") from error.cause
            done += weights[i]
        progress.show(done, total)
