"""Results of a search, read back from its Optuna studies and the folders of its trials."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial

from ray_mae.config import TuneConfig
from ray_mae.search.database import open_storage, without_password
from ray_mae.search.files import REPEATS, SEARCH, STATES, study_name
from ray_mae.search.optuna_study import optuna_quiet, stored_config
from ray_mae.search.trial import trial_folder
from ray_mae.store import fetch
from ray_mae.train.metrics.jsonl import read_jsonl
from ray_mae.train.run_folder import PROBES, RESAMPLES

SEED = "seed"
"""The setting that may differ between runs of one setting."""


@dataclass(frozen=True)
class TrialResult:
    """One trial, as far as it came."""

    number: int
    state: str
    """One of STATES in files.py."""
    values: dict[str, Any]
    probes: list[tuple[int, float, float, float]]
    """Percent of the steps, macro AUROC and its 95 % interval, by step."""
    last_step: int
    """Of the last probe; 0 without any."""
    hours: float | None
    """Of training alone, were it run to its end."""
    seconds: float
    start_up_seconds: float
    restarts: list[str]
    reason: str
    folder: Path
    of: int | None = None
    """Of a repeat: the trial whose settings it repeats."""

    @property
    def auroc(self) -> float | None:
        """Of the last probe."""
        return self.probes[-1][1] if self.probes else None

    @property
    def percent(self) -> int:
        """How far it came."""
        return self.probes[-1][0] if self.probes else 0

    @property
    def whole(self) -> bool:
        """Whether it was trained and probed to its end."""
        return self.state == "ended" and self.percent == 100

    @property
    def setting(self) -> str:
        """The same for trials that differ in their seed alone."""
        return json.dumps({k: v for k, v in self.values.items() if k != SEED}, sort_keys=True)

    def resamples(self, name: str = "all") -> np.ndarray:
        """Returns macro AUROC [R] of the last probe in each resample of the validation patients.

        Args:
            name: "all", or one of probe.label_counts.
        """
        with np.load(fetch(self.folder / RESAMPLES / f"{self.last_step:08d}.npz")) as file:
            return file[name]

    def probe(self) -> dict[str, Any]:
        """Returns the record of the last probe in full."""
        records = [r for r in read_jsonl(self.folder / PROBES) if r["step"] == self.last_step]
        return records[-1]


@dataclass(frozen=True)
class SearchResult:
    """A whole search."""

    config: TuneConfig
    output: Path
    storage: str
    """URL of the database."""
    study: optuna.Study
    """Of the search itself, without the repeats."""
    trials: list[TrialResult]
    repeats: list[TrialResult]

    @property
    def whole(self) -> list[TrialResult]:
        """Trials that went to their end, best first."""
        return sorted((t for t in self.trials if t.whole), key=lambda t: -(t.auroc or 0))


def read_search(output: Path, storage: str) -> SearchResult:
    """Reads the results so far.

    Args:
        output: folder of the search.
        storage: URL of the database that holds its Optuna studies.

    Raises:
        ValueError: There is no search.
    """
    name, repeats_name = (study_name(output, kind) for kind in (SEARCH, REPEATS))
    with optuna_quiet():
        database = open_storage(storage)
        names = {s.study_name for s in optuna.get_all_study_summaries(database)}
        if name not in names:
            raise ValueError(
                f"{without_password(storage)} holds no Optuna study {name!r}: give the --storage of `tune`"
            )
        study = optuna.load_study(study_name=name, storage=database)
        repeats = (
            optuna.load_study(study_name=repeats_name, storage=database).trials
            if repeats_name in names
            else []
        )
    return SearchResult(
        stored_config(study.user_attrs["search"]),
        output,
        storage,
        study,
        [_result(t, output / SEARCH) for t in study.trials],
        [_result(t, output / REPEATS) for t in repeats],
    )


def _result(trial: FrozenTrial, folder: Path) -> TrialResult:
    attrs = trial.user_attrs
    steps = sorted(attrs.get("probes", {}), key=int)
    probes = [attrs["probes"][step] for step in steps]
    return TrialResult(
        number=trial.number,
        state=STATES[trial.state],
        values=attrs.get("values", {}),
        probes=[(percent, auroc, low, high) for auroc, low, high, percent in probes],
        last_step=int(steps[-1]) if steps else 0,
        hours=attrs.get("hours"),
        seconds=attrs.get("seconds", 0.0),
        start_up_seconds=attrs.get("start_up_seconds", 0.0),
        restarts=attrs.get("restarts", []),
        reason=attrs.get("reason", ""),
        folder=trial_folder(folder, trial.number),
        of=attrs.get("of"),
    )
