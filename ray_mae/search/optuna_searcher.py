"""Optuna as Tune's search algorithm. All that a search knows is in its Optuna study's database."""

import time
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import Trial, TrialState
from ray.tune.search import Searcher

from ray_mae.search.space import Parameter, suggest
from ray_mae.search.tensorboard import write_hparams
from ray_mae.search.trial import NUMBER, trial_folder
from ray_mae.terminal import console
from ray_mae.train.metrics.jsonl import read_jsonl
from ray_mae.train.run_folder import EVENTS

HOPELESS = 3
"""So many first trials that fail before any was probed: the fault is not in their settings."""


class OptunaSearcher(Searcher):
    """Asks an Optuna study for settings and tells it what came of them.

    Everything is written to the Optuna study at once, so a search goes on from there whatever happened to its
    driver: trials that were running are given out again first, under their numbers, and find their
    checkpoints. Of each trial it keeps as attributes `values` (the searched settings), `probes`
    (by step: AUROC, low, high, percent), `percent` of its steps, `hours` that the training takes in whole,
    `seconds` and `start_up_seconds` of the trial, `restarts` and, where it failed, the `reason`.
    """

    def __init__(
        self,
        study: optuna.Study,
        parameters: list[Parameter],
        objectives: list[str],
        folder: Path,
    ) -> None:
        super().__init__(metric="auroc", mode="max")
        self._study, self._parameters = study, parameters
        self._objectives, self._folder = objectives, folder
        trials = study.get_trials(deepcopy=False)
        self._interrupted = [t for t in trials if t.state == TrialState.RUNNING]
        self._trials: dict[str, Trial] = {}
        self._clock: dict[str, tuple[float, float, float]] = {}
        self._first: list[str] = []
        self._failed: set[str] = set()
        self._probed = False
        self.interrupted = False
        """Set when a signal ends the search: what Tune stops from then on stays under way in Optuna."""

    def folders(self) -> list[Path]:
        """Returns those of the trials that are under way."""
        return [trial_folder(self._folder, trial.number) for trial in self._trials.values()]

    @property
    def hopeless(self) -> bool:
        """Whether the first trials since the start all failed, and none was probed."""
        return len(self._first) == HOPELESS and self._failed >= {*self._first} and not self._probed

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """Returns the settings of the next trial, for Tune; None for none now."""
        if self.interrupted:
            return None
        if self._interrupted:
            trial = Trial(self._study, self._interrupted.pop(0)._trial_id)
        else:
            trial = self._study.ask()
        values = trial.user_attrs.get("values") or suggest(self._parameters, trial)
        trial.set_user_attr("values", values)
        self._trials[trial_id] = trial
        if len(self._first) < HOPELESS:
            self._first.append(trial_id)
        return {**values, NUMBER: trial.number}

    def started(self, trial_id: str) -> None:
        """Notes that the process of a trial starts."""
        before = self._trials[trial_id].user_attrs
        self._clock[trial_id] = (
            time.time(),
            before.get("seconds", 0.0),
            before.get("start_up_seconds", 0.0),
        )

    def restarted(self, trial_id: str, reason: str) -> None:
        """Notes that a trial failed and will start again."""
        if trial_id not in self._trials:
            return
        trial = self._trials[trial_id]
        trial.set_user_attr("restarts", [*trial.user_attrs.get("restarts", []), reason])
        self._count_seconds(trial_id)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Notes a probe of a trial. Started again, a trial reports its last one once more."""
        self._probed = True
        trial = self._trials[trial_id]
        probes = dict(trial.user_attrs.get("probes", {}))
        new = str(result["step"]) not in probes
        probes[str(result["step"])] = [
            result[n] for n in ("auroc", "auroc_low", "auroc_high", "percent")
        ]
        trial.set_user_attr("probes", probes)
        trial.set_user_attr("percent", result["percent"])
        trial.set_user_attr("hours", result["hours"])
        self._count_seconds(trial_id)
        if new and len(self._objectives) == 1:
            trial.report(result["auroc"], result["step"])

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Notes that a trial ended, or was stopped early; `failed` notes one that failed."""
        if error or self.interrupted:
            return
        if not result or "auroc" not in result:
            self.failed(trial_id, "it ended without a probe")
            return
        # the probe that stops a trial is reported here alone
        self.on_trial_result(trial_id, result)
        trial = self._trials[trial_id]
        try:
            folder = trial_folder(self._folder, trial.number)
            write_hparams(folder, trial.user_attrs["values"])
        except OSError as why:  # TensorBoard lacks it then; the Optuna study has all
            console.print(f"trial {trial.number}: no HParams in TensorBoard: {why}")
        if result["percent"] < 100:
            self._study.tell(trial, state=TrialState.PRUNED)
        else:
            self._study.tell(trial, [result[name] for name in self._objectives])
        self._forget(trial_id)

    def failed(self, trial_id: str, reason: str) -> None:
        """Notes that a trial failed for the last time."""
        if trial_id not in self._trials:  # it had already ended for Optuna
            return
        self._failed.add(trial_id)
        self._count_seconds(trial_id)
        trial = self._trials[trial_id]
        trial.set_user_attr("reason", reason)
        self._study.tell(trial, state=TrialState.FAIL)
        self._forget(trial_id)

    def _forget(self, trial_id: str) -> None:
        self._trials.pop(trial_id)
        self._clock.pop(trial_id, None)

    def _count_seconds(self, trial_id: str) -> None:
        """Notes the seconds of a trial over all its starts, and of those the ones until its first steps."""
        if trial_id not in self._clock:
            return
        trial = self._trials[trial_id]
        began, seconds, start_up = self._clock[trial_id]
        events = read_jsonl(trial_folder(self._folder, trial.number) / EVENTS)
        first = [e["time"] for e in events if e["event"] == "first step" and e["time"] > began]
        now = time.time()
        trial.set_user_attr("seconds", seconds + now - began)
        trial.set_user_attr("start_up_seconds", start_up + min([*first, now]) - began)

    def save(self, checkpoint_path: str) -> None:
        """Saves nothing: the Optuna study holds all."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """Restores nothing, as `save`."""
