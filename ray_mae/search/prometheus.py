"""How far a search is, as Ray metrics, which Prometheus scrapes as `ray_mae_search_…`."""

from collections.abc import Sequence
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState

from ray_mae.search.files import STATES
from ray_mae.train.metrics.prometheus import Gauges

METRICS = {
    "mae_search_planned": "Trials that the search has in all",
    "mae_search_trials": "Trials by state",
    "mae_search_best_auroc": "Macro AUROC of the best trial that ended",
}
"""Every metric of a search and what it holds."""


class SearchMetrics:
    """Shows the trials of an Optuna study, until it ends. Made while Ray is connected."""

    def __init__(self, folder: Path, planned: int) -> None:
        """Shows how many trials there will be.

        Args:
            folder: of the trials; its name is the tag `study`.
            planned: trials that the Optuna study has in all.
        """
        tags: dict[str, tuple[str, ...]] = {name: ("study",) for name in METRICS}
        tags["mae_search_trials"] = ("study", "state")
        self._gauges, self._study = Gauges(folder.parent, METRICS, tags), folder.name
        self._gauges.set("mae_search_planned", planned, study=self._study)

    def show(self, trials: Sequence[FrozenTrial]) -> None:
        """Shows trials by state, also those that no trial is in any more, and the best AUROC."""
        for state, name in STATES.items():
            count = sum(t.state == state for t in trials)
            self._gauges.set("mae_search_trials", count, study=self._study, state=name)
        aurocs = [t.values[0] for t in trials if t.state == TrialState.COMPLETE]
        if aurocs:
            self._gauges.set("mae_search_best_auroc", max(aurocs), study=self._study)

    def close(self) -> None:
        """Lets the metrics vanish: the search is over."""
        self._gauges.close()
