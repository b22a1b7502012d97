"""Runs of the same settings under several seeds, and what tells two settings apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import t as student

from ray_mae.evaluate.metrics import Estimate
from ray_mae.search.results import SEED, TrialRecord


@dataclass(frozen=True)
class Group:
    """Runs of one setting, each with a seed of its own."""

    values: dict[str, Any]
    """The searched settings without the seed."""
    trials: tuple[TrialRecord, ...]
    mean: float
    """AUROC, mean over the runs."""
    resampled: np.ndarray
    """[R] that mean in each resample of the patients."""
    spread: float | None
    """Standard deviation over the runs; None of one."""


@dataclass(frozen=True)
class Spread:
    """Variance between runs that differ in their seed alone, over all settings together."""

    variance: float
    freedom: int
    """Degrees of freedom: runs less settings, of settings with several."""

    @classmethod
    def of(cls, groups: Sequence[Group]) -> "Spread | None":
        """None where no setting has two runs: then nothing is known of seeds."""
        several = [g for g in groups if g.spread is not None]
        freedom = sum(len(g.trials) - 1 for g in several)
        if not freedom:
            return None
        total = sum((len(g.trials) - 1) * (g.spread or 0) ** 2 for g in several)
        return cls(total / freedom, freedom)


def group(trials: Sequence[TrialRecord], resamples: str = "all") -> list[Group]:
    """Whole trials by their settings, in the order in which these first occur.

    resamples: all, or one of probe.label_counts.
    """
    found: dict[str, dict[Any, TrialRecord]] = {}
    for trial in trials:
        if trial.whole:  # the same seed twice is one run, not two
            found.setdefault(trial.setting, {}).setdefault(trial.values.get(SEED), trial)
    return [_made(list(members.values()), resamples) for members in found.values()]


def _made(trials: list[TrialRecord], resamples: str) -> Group:
    values = [t.auroc or 0.0 for t in trials]
    if resamples != "all":
        values = [t.probe()["by_count"][resamples][0] for t in trials]
    return Group(
        values={k: v for k, v in trials[0].values.items() if k != SEED},
        trials=tuple(trials),
        mean=float(np.mean(values)),
        resampled=np.mean([t.resamples(resamples) for t in trials], axis=0),
        spread=float(np.std(values, ddof=1)) if len(values) > 1 else None,
    )


def auroc(one: Group, spread: Spread | None) -> Estimate:
    """Mean over runs with its 95 % interval over patients and, where `spread` is known, over seeds."""
    if spread is None:
        low, high = np.nanpercentile(one.resampled, [2.5, 97.5])
        return Estimate(one.mean, float(low), float(high))
    variance = np.nanvar(one.resampled, ddof=1) + spread.variance / len(one.trials)
    found = _interval(one.mean, float(variance), spread)
    return Estimate(found.value, max(found.low, 0.0), min(found.high, 1.0))


def difference(
    one: Group, other: Group, spread: Spread | None, comparisons: int = 1
) -> Estimate | None:
    """AUROC of `one` minus that of `other` with its 95 % interval; None where seeds are unknown.

    Patients: the variance over resamples, in pairs of the same ones. Seeds: the variance between runs,
    with the t quantile of its few degrees of freedom. comparisons: with how many settings `other` is
    compared; the 95 % hold for all of these together (Bonferroni).
    """
    if spread is None:
        return None
    patients = np.nanvar(one.resampled - other.resampled, ddof=1)
    runs = spread.variance * (1 / len(one.trials) + 1 / len(other.trials))
    return _interval(one.mean - other.mean, float(patients + runs), spread, comparisons)


def _interval(value: float, variance: float, spread: Spread, comparisons: int = 1) -> Estimate:
    half = float(student.ppf(1 - 0.025 / comparisons, spread.freedom)) * variance**0.5
    return Estimate(value, value - half, value + half)
