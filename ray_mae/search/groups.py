"""Runs of the same settings under several seeds, and what tells two settings apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ray_mae.evaluate.metrics import Estimate
from ray_mae.search.results import TrialRecord

_SEED = 0  # of the draws of runs


@dataclass(frozen=True)
class Group:
    """Runs of one setting."""

    values: dict[str, Any]
    """The searched settings without the seed."""
    trials: tuple[TrialRecord, ...]
    auroc: Estimate
    """Mean over the runs; interval over patients and, with several runs, over runs."""
    spread: float | None
    """Standard deviation over the runs; None of one."""


def group(trials: Sequence[TrialRecord], resamples: str = "all") -> list[Group]:
    """Whole trials by their settings, in the order in which these first occur."""
    found: dict[str, list[TrialRecord]] = {}
    for trial in trials:
        if trial.whole:
            found.setdefault(trial.setting, []).append(trial)
    return [_made(members, resamples) for members in found.values()]


def _made(trials: list[TrialRecord], resamples: str) -> Group:
    values = [t.auroc or 0.0 for t in trials]
    if resamples != "all":
        values = [t.probe()["by_count"][resamples][0] for t in trials]
    drawn = _resampled(trials, resamples)
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return Group(
        values={k: v for k, v in trials[0].values.items() if k != "seed"},
        trials=tuple(trials),
        auroc=Estimate(float(np.mean(values)), float(low), float(high)),
        spread=float(np.std(values, ddof=1)) if len(values) > 1 else None,
    )


def difference(one: Group, other: Group, resamples: str = "all") -> Estimate:
    """AUROC of `one` minus that of `other`, in pairs of the same resamples of patients.

    Runs are drawn with replacement within each setting, independently: few seeds make such an
    interval too narrow rather than too wide.
    """
    drawn = _resampled(one.trials, resamples, 1) - _resampled(other.trials, resamples, 2)
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return Estimate(one.auroc.value - other.auroc.value, float(low), float(high))


def _resampled(trials: Sequence[TrialRecord], resamples: str, salt: int = 0) -> np.ndarray:
    """[R] mean over runs drawn anew for each resample of the patients."""
    every = np.stack([t.resamples(resamples) for t in trials])  # [runs, R]
    n, count = every.shape
    drawn = np.random.default_rng([_SEED, salt]).integers(n, size=(n, count))
    return np.take_along_axis(every, drawn, axis=0).mean(axis=0)
