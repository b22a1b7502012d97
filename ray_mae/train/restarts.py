"""What Ray Train's controller is told of errors, and what it tells of them."""

from typing import Any

from ray.train import ControllerError, WorkerGroupError
from ray.train.v2.api.callback import UserCallback

from ray_mae.train.ending import Ending


class NoRestart(UserCallback):
    """Workers are started again after any error (scaling.max_failures) but one that is an Ending."""

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Raises what a worker raised, where it is one: Ray Train ends over that."""
        for error in worker_exceptions.values():
            cause = getattr(error, "_base_exc", error)
            if isinstance(cause, Ending):
                raise cause


def cause_of(error: WorkerGroupError | ControllerError) -> tuple[str, str]:
    """Why Ray Train ended: in one line, and in full."""
    if isinstance(error, ControllerError):
        cause = error.controller_failure
        where = "" if isinstance(cause, Ending) else " in Ray Train's controller"
        return f"training ended{where}: {_last_line(cause)}", str(error)
    rank, failure = next(iter(error.worker_failures.items()))
    return f"training ended on worker {rank}: {_last_line(failure)}", f"{error}\n{failure}"


def _last_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__
