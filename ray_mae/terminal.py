"""What the package has to say goes to the log `ray_mae`, and from there to the terminal."""

import logging
import sys
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


# no markup: a folder may be called [b]
console = _LoggingConsole(highlight=False, soft_wrap=True, markup=False)


def warn(texts: Sequence[str]) -> None:
    """Prints sentences as warnings, a line each."""
    for text in texts:
        console.print(f"warning: {text}", markup=False)


def show() -> None:
    """Shows the log in the terminal. A program that has handlers of its own for `ray_mae` leaves it out."""
    if not log.handlers:
        log.addHandler(_Terminal())
        log.propagate = False
    log.setLevel(logging.INFO)


show()
