"""Trying again what may go well a moment later."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def retry(
    work: Callable[[], T],
    is_transient: Callable[[Exception], bool],
    give_up: Callable[[Exception, float], Exception],
    waits: Iterable[float],
    patience: float = math.inf,
    in_time: bool = False,
    on_recovery: Callable[[Exception, float], None] | None = None,
) -> T:
    """Return the result of `work`, tried again while its errors are transient.

    Args:
        work: what to do.
        is_transient: whether an error may be gone at the next attempt; any other is raised at once.
        give_up: makes what is raised in the end from the last error and the seconds since the start.
        waits: seconds before each further attempt. There is none after the last of them.
        patience: seconds after which no further attempt is made.
        in_time: whether the last wait is cut so that the last attempt falls within `patience`.
        on_recovery: called with the last error and the seconds since the start, where an attempt
            succeeds after others have failed.
    """
    start, pauses = time.monotonic(), iter(waits)
    problem: Exception | None = None
    while True:
        try:
            result = work()
        except Exception as error:
            if not is_transient(error):
                raise
            problem, elapsed = error, time.monotonic() - start
            wait = next(pauses, None) if elapsed < patience else None
            if wait is None:
                failure = give_up(error, elapsed)
                if failure is error:
                    raise
                raise failure from error
        else:
            if problem and on_recovery:
                on_recovery(problem, time.monotonic() - start)
            return result
        time.sleep(min(wait, max(patience - elapsed, 0.05)) if in_time else wait)


def doubling_waits(longest: float) -> Iterator[float]:
    """Half a second, then twice as long each time, up to `longest` seconds, for ever."""
    wait = 0.25
    while True:
        wait = min(2 * wait, longest)
        yield wait
