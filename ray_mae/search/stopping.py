"""When a search ends before its trials do."""

import time
from pathlib import Path

from ray.tune import Stopper

from ray_mae.cluster import ray_private
from ray_mae.cluster.interruption import StopSignal
from ray_mae.search.optuna_searcher import OptunaSearcher
from ray_mae.terminal import console
from ray_mae.train.run_folder import ATTEMPT, STOPPED, RunFolder


class SearchStopper(Stopper):
    """Ends a search whose first trials all failed, since the next ones would, too; and after a signal.

    After a signal the trials under way save a checkpoint first, and stay under way in the Optuna study.

    Args:
        searcher: that knows the trials.
        signal: of the driver.
        patience: seconds that trials have after a signal.
    """

    def __init__(self, searcher: OptunaSearcher, signal: StopSignal, patience: float) -> None:
        self._searcher, self._signal, self._patience = searcher, signal, patience
        self._deadline: float | None = None
        self.saved = 0
        """Trials that were saved after a signal."""

    def __call__(self, trial_id: str, result: dict) -> bool:
        """No single trial is stopped."""
        return False

    def stop_all(self) -> bool:
        """Whether to stop every trial now; Tune asks again and again."""
        if self._signal.signum is None:
            return self._searcher.hopeless
        if self._deadline is None:
            console.print(
                f"{self._signal.signum.name}: trials save a checkpoint; a second signal ends at once"
            )
            self._searcher.interrupted = True
            ray_private.request_stop()
            self._deadline = time.monotonic() + self._patience
        folders = self._searcher.folders()
        self.saved = sum(_happened(folder, STOPPED) for folder in folders)
        if not all(_is_saved(f) for f in folders) and time.monotonic() < self._deadline:
            return False
        ray_private.withdraw_stop()
        return True


def _is_saved(folder: Path) -> bool:
    """Whether a trial has nothing to save, or has saved it."""
    if not _happened(folder, "first step"):
        return True
    return _happened(folder, STOPPED) or _happened(folder, "done")


def _happened(folder: Path, event: str) -> bool:
    """Whether there was an event in the present start of a trial."""
    try:
        attempt = (folder / ATTEMPT).read_text()
    except FileNotFoundError:
        return False
    return RunFolder(folder, attempt, patience=0).happened(event)
