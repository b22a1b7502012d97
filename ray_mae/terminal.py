"""What the package has to say goes to the log `ray_mae`, and from there to the terminal."""

import logging
import sys
import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console

log = logging.getLogger("ray_mae")


class _Terminal(logging.Handler):
    """Shows what is logged on standard output, as it is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stdout.write(record.getMessage())
        sys.stdout.flush()


class _LoggingConsole(Console):
    """A console of rich whose output becomes records of the log."""

    def print(self, *objects: Any, **style: Any) -> None:
        """As of rich: text and tables. What is printed is one record."""
        with self.capture() as captured:
            super().print(*objects, **style)
        log.info("%s", captured.get())


# no markup: a folder may be called [b]; no Jupyter: what is captured would leave an empty box there
console = _LoggingConsole(highlight=False, soft_wrap=True, markup=False, force_jupyter=False)


def warn(texts: Sequence[str]) -> None:
    """Prints sentences as warnings, a line each."""
    for text in texts:
        console.print(f"warning: {text}")


class ProgressLine:
    """A line every few seconds: how much is done, how fast, and how long the rest takes.

    Args:
        verb: what was done with each, such as "wrote".
        noun: plural of what is counted.
    """

    EVERY = 5.0

    def __init__(self, verb: str, noun: str) -> None:
        self.verb, self.noun = verb, noun
        self._first: tuple[float, int] | None = None
        self._last = 0.0

    def show(self, done: int, of: int) -> None:
        """Prints the line, if it is time for one. The pace is that since the first call."""
        now = time.monotonic()
        if self._first is None:
            self._first, self._last = (now, done), now
        began, before = self._first
        if now - self._last < self.EVERY or done <= before:
            return
        self._last = now
        rate = (done - before) / (now - began)
        left = (of - done) / rate
        console.print(
            f"{self.verb} {done:,} of {of:,} {self.noun}, {rate:,.3g}/s, {left:,.0f} s left"
        )


def show() -> None:
    """Shows the log in the terminal. A program that has handlers of its own for `ray_mae` leaves it out."""
    if not log.handlers:
        log.addHandler(_Terminal())
        log.propagate = False
    log.setLevel(logging.INFO)


show()
