"""How far a search is, as Ray metrics."""

from collections.abc import Sequence
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState

from ray_mae.search.files import STATES
from ray_mae.train.metrics.prometheus import Gauges

GAUGES = {
    "mae_search_planned": "Trials that the search has in all",
    "mae_search_trials": "Trials by state",
    "mae_search_best_auroc": "Macro AUROC of the best trial that ended",
}
"""Every gauge of a search and what it holds."""


class SearchGauges:
    """Shows the trials of a study, until it ends. Made while Ray is connected.

    folder: of the trials; its name is the tag `study`.
    """

    def __init__(self, folder: Path, planned: int) -> None:
        more: dict[str, tuple[str, ...]] = {name: ("study",) for name in GAUGES}
        more["mae_search_trials"] = ("study", "state")
        self._gauges, self._study = Gauges(folder.parent, GAUGES, more), folder.name
        self._gauges.set("mae_search_planned", planned, study=self._study)

    def show(self, trials: Sequence[FrozenTrial]) -> None:
        """Every state, also those that no trial is in any more."""
        for state, name in STATES.items():
            count = sum(t.state == state for t in trials)
            self._gauges.set("mae_search_trials", count, study=self._study, state=name)
        ended = [t.values[0] for t in trials if t.state == TrialState.COMPLETE]
        if ended:
            self._gauges.set("mae_search_best_auroc", max(ended), study=self._study)

    def close(self) -> None:
        """The search is over."""
        self._gauges.close()
