"""What a person sees of a search in the terminal, and how failures reach the Optuna study."""

import time
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState
from ray.tune import Callback

from ray_mae.number_text import ENDS, with_interval
from ray_mae.search.files import STATES
from ray_mae.search.optuna_searcher import OptunaSearcher
from ray_mae.search.prometheus import SearchMetrics
from ray_mae.search.space import describe
from ray_mae.search.trial import NUMBER
from ray_mae.terminal import console


class ProgressCallback(Callback):
    """Prints a line per event: a trial started, was probed, ended, was stopped or failed."""

    def __init__(
        self, study: optuna.Study, searcher: OptunaSearcher, total: int, folder: Path
    ) -> None:
        self._study, self._searcher, self._total = study, searcher, total
        self._began = time.time()
        self._before = len([t for t in study.get_trials(deepcopy=False) if t.state.is_finished()])
        self._folder = folder

    def setup(self, **info: Any) -> None:
        self._metrics = SearchMetrics(
            self._folder, self._total
        )  # no sooner: Tune pickles callbacks

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._searcher.started(trial.trial_id)
        self._metrics.show(self._study.get_trials(deepcopy=False))
        values = {k: v for k, v in trial.config.items() if k != NUMBER}
        self._print(trial, "starts: " + describe(values))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        auroc = f"macro AUROC {with_interval(*(result[f'auroc{end}'] for end in ENDS))}"
        self._print(trial, f"{result['percent']:>3} %  {auroc}")

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        reason = reason_of(trial)
        self._searcher.restarted(trial.trial_id, reason)
        self._print(trial, f"failed, and starts again from its last checkpoint: {reason}")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        reason = reason_of(trial)
        self._searcher.failed(trial.trial_id, reason)
        self._print(trial, f"failed: {reason}")
        self._print_state()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        number = trial.config[NUMBER]
        trials_now = self._study.get_trials(deepcopy=False)
        state = next(t.state for t in trials_now if t.number == number)
        self._print(trial, STATES[state])
        self._print_state()

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        self._metrics.close()

    def _print(self, trial: Any, text: str) -> None:
        stamp = time.strftime("%H:%M:%S")
        console.print(f"{stamp}  trial {trial.config[NUMBER]:>3}  {text}")

    def _print_state(self) -> None:
        """Prints trials by state, the best so far, the time left."""
        trials = self._study.get_trials(deepcopy=False)
        self._metrics.show(trials)
        count = {name: sum(STATES[t.state] == name for t in trials) for name in STATES.values()}
        done = len([t for t in trials if t.state.is_finished()])
        parts = [f"{done} of {self._total} trials done"]
        parts += [f"{n} {name}" for name, n in count.items() if n and name != "waiting"]
        complete = [t for t in trials if t.state == TrialState.COMPLETE]
        if complete:
            best = max(complete, key=lambda t: t.values[0])
            parts.append(f"best {best.values[0]:.3f} (trial {best.number})")
        if done > self._before and done < self._total:
            pace = (time.time() - self._began) / (done - self._before)
            parts.append(f"about {max(1, round(pace * (self._total - done) / 60))} min left")
        console.print("          " + " · ".join(parts))


def reason_of(trial: Any) -> str:
    """Returns the last line of what Tune wrote down of a trial's last error."""
    text = Path(trial.error_file).read_text() if trial.error_file else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason is known"
