"""After which errors the workers are started again, and how the last one reads."""

import traceback
from contextlib import suppress
from typing import Any

from ray.exceptions import RayError, RayTaskError
from ray.train import ControllerError, WorkerGroupError
from ray.train.v2.api.callback import UserCallback

from ray_mae.checkpoint.format import committed
from ray_mae.cluster.ray_private import RayTrainError, is_preempted_actor
from ray_mae.train.errors import FatalError
from ray_mae.train.run_folder import RunFolder


class Failed(FatalError):
    """The last failure that a run takes."""

    def __init__(self, line: str, full: str) -> None:
        super().__init__(line, full)
        self.line, self.full = line, full

    def __str__(self) -> str:
        return self.line


class Restarts(UserCallback):
    """Ray Train starts its workers again after any error of theirs, unless this raises.

    It does for an `FatalError`; for an error of a program, and not of a machine, before the command's first
    step, which would only come again; and after more than `limit` failures in a row with no checkpoint
    between them. Preempted nodes do not count.
    """

    def __init__(self, folder: RunFolder, limit: int) -> None:
        """limit: -1 for none."""
        self._folder, self._limit = folder, limit
        self._in_a_row, self._saved = 0, 0

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Of the workers, by rank."""
        for error in worker_exceptions.values():
            if isinstance(error, FatalError):
                raise error
        if any(is_preempted_actor(error) for error in worker_exceptions.values()):
            self._note("a node was taken away")
            return
        # when one worker is lost, those that waited for it fail, too
        lost = {rank: e for rank, e in worker_exceptions.items() if _is_of_machine(e)}
        rank, error = next(iter((lost or worker_exceptions).items()))
        try:
            saved = max((metrics["step"] for _, metrics in committed(self._folder.path)), default=0)
            began = any(e["event"] == "first step" for e in self._folder.events())
        except OSError:  # storage is away
            saved, began = self._saved, True
        self._in_a_row = self._in_a_row + 1 if saved == self._saved else 1
        self._saved = saved
        line = f"training ended on worker {rank}: {_last_line(error)}"
        if not began and not lost:
            raise Failed(line, _full(error))
        if 0 <= self._limit < self._in_a_row:
            if self._limit:
                line += f" (failure {self._in_a_row} in a row with no checkpoint between them)"
            raise Failed(line, _full(error))
        self._note(line.replace("training ended on", "lost" if lost else "failed:", 1))

    def _note(self, what: str) -> None:
        """Tells the driver why all workers start again."""
        with suppress(OSError):
            self._folder.note(f"{what}; all workers start again with the last checkpoint")


def keep_trace(error: Exception) -> None:
    """Notes with an error where it came from: Ray Train would lose that on the way to the driver."""
    error.add_note(traceback.format_exc())


def cause_of(error: WorkerGroupError | ControllerError) -> tuple[str, str]:
    """Returns why Ray Train ended: in one line, and in full."""
    if isinstance(error, ControllerError):
        cause = error.controller_failure
        if isinstance(cause, Failed):
            return cause.line, cause.full
        where = "" if isinstance(cause, FatalError) else " in Ray Train's controller"
        return f"training ended{where}: {_last_line(cause)}", str(error)
    rank, failure = next(iter(error.worker_failures.items()))
    return f"training ended on worker {rank}: {_last_line(failure)}", f"{error}\n{failure}"


def _is_of_machine(error: Exception) -> bool:
    """Whether the worker's process is gone, or does not answer."""
    return isinstance(error, RayTrainError | RayError) and not isinstance(error, RayTaskError)


def _full(error: Exception) -> str:
    return "\n".join([str(error), *getattr(error, "__notes__", [])])


def _last_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__
