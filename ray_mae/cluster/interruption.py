"""Signals that end a command: what can be saved is saved first, and the last line says how to go on."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

CODES = {
    signal.SIGINT: 130,
    signal.SIGTERM: 143,
    signal.SIGHUP: 129,
    signal.SIGUSR1: 75,
}
"""Exit codes by signal: 128 + its number as shells have it, and EX_TEMPFAIL for SIGUSR1, which batch systems
send some time before a job's end: whoever started the command may start it again."""

_Handler = Callable[[int, FrameType | None], Any]


class Interrupted(KeyboardInterrupt):
    """A signal ended the work; the text says what is kept of it."""

    def __init__(self, signum: int, text: str = "") -> None:
        super().__init__(text)
        self.signum, self.text = signal.Signals(signum), text

    @property
    def code(self) -> int:
        """Of the process that ends by it."""
        return CODES[self.signum]

    def __str__(self) -> str:
        return f"{self.signum.name}: {self.text}" if self.text else self.signum.name


@contextmanager
def signals_interrupt() -> Iterator[None]:
    """Each of the signals raises Interrupted in the main thread, during a block."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise Interrupted(signum)

    with _handling(interrupt):
        yield


class StopSignal:
    """Notes the first of the signals, during a block; the next one ends the process at once.

    Outside of the main thread, where Python handles no signals, it notes nothing.
    """

    def __init__(self) -> None:
        self.signum: signal.Signals | None = None

    def __enter__(self) -> "StopSignal":
        self._block = _handling(self._note)
        self._block.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._block.__exit__(*error)

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy in another process notes nothing."""
        return StopSignal, ()

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self.signum is not None:
            # not by an exception: whoever sends two signals does not want to wait for anything
            os.write(sys.__stderr__.fileno(), b"ray-mae: ended at once\n")  # type: ignore[union-attr]
            os._exit(CODES[signal.Signals(signum)])
        self.signum = signal.Signals(signum)


@contextmanager
def _handling(handler: _Handler) -> Iterator[None]:
    """Has a function handle the signals during a block; one that is ignored (nohup) stays so."""
    with handlers_kept():
        if threading.current_thread() is threading.main_thread():
            for signum in CODES:
                if signal.getsignal(signum) is not signal.SIG_IGN:
                    signal.signal(signum, handler)
        yield


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Puts back, after a block, what handled the signals: Ray's start brings its own, which dump a stack."""
    if threading.current_thread() is not threading.main_thread():
        yield  # where Python may set none
        return
    before = {signum: signal.getsignal(signum) for signum in CODES}
    try:
        yield
    finally:
        for signum, handler in before.items():
            if handler is not None:  # None is one that Python does not know
                signal.signal(signum, handler)


@contextmanager
def signals_blocked() -> Iterator[None]:
    """Holds the signals back during a block: one that comes is answered at its end."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, CODES)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
