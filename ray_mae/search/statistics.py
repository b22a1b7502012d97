"""Statistics over seeds: runs of the same settings, and what tells two settings apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ray_mae.evaluate.intervals import LEAST_RUNS, over_components, without_interval
from ray_mae.evaluate.metrics import Estimate
from ray_mae.search.results import SEED, TrialResult


@dataclass(frozen=True)
class SeedStatistics:
    """Runs of one setting, each with a seed of its own."""

    values: dict[str, Any]
    """The searched settings without the seed."""
    trials: tuple[TrialResult, ...]
    mean: float
    """AUROC, mean over the runs."""
    resample_means: np.ndarray
    """[R] that mean in each resample of the patients."""
    std: float | None
    """Standard deviation over the runs; None of one."""


@dataclass(frozen=True)
class SeedVariance:
    """Variance between runs that differ in their seed alone, over all settings together."""

    variance: float
    freedom: int
    """Degrees of freedom: runs less settings, of settings with several."""

    @classmethod
    def of(cls, settings: Sequence[SeedStatistics]) -> "SeedVariance | None":
        """Returns it pooled over the settings; None where none has two runs: nothing is known of seeds."""
        freedom = sum(len(s.trials) - 1 for s in settings if s.std is not None)
        if not freedom:
            return None
        total = sum((len(s.trials) - 1) * (s.std or 0) ** 2 for s in settings)
        return cls(total / freedom, freedom)


def group_by_setting(trials: Sequence[TrialResult], resamples: str = "all") -> list[SeedStatistics]:
    """Returns statistics of whole trials by their settings, in the order in which these first occur.

    Args:
        trials: of which those that were stopped early do not count.
        resamples: "all", or one of probe.label_counts.
    """
    by_setting: dict[str, dict[Any, TrialResult]] = {}
    for trial in trials:
        if trial.whole:  # the same seed twice is one run, not two
            by_setting.setdefault(trial.setting, {}).setdefault(trial.values.get(SEED), trial)
    return [_statistics(list(runs.values()), resamples) for runs in by_setting.values()]


def _statistics(trials: list[TrialResult], resamples: str) -> SeedStatistics:
    values = [t.auroc or 0.0 for t in trials]
    if resamples != "all":
        values = [t.probe()["by_count"][resamples][0] for t in trials]
    return SeedStatistics(
        values={k: v for k, v in trials[0].values.items() if k != SEED},
        trials=tuple(trials),
        mean=float(np.mean(values)),
        resample_means=np.mean([t.resamples(resamples) for t in trials], axis=0),
        std=float(np.std(values, ddof=1)) if len(values) > 1 else None,
    )


def mean_auroc(setting: SeedStatistics, seed_variance: SeedVariance | None) -> Estimate:
    """Returns the mean over runs with its 95 % interval.

    Of one run, where nothing is known of seeds: over patients alone. Else over patients and seeds, by the
    variance between runs of all settings together; of two runs, or of one beside others, there is none.
    """
    runs = len(setting.trials)
    if runs == 1 and seed_variance is None:
        low, high = np.nanpercentile(setting.resample_means, [2.5, 97.5])
        return Estimate(setting.mean, float(low), float(high))
    if runs < LEAST_RUNS or seed_variance is None:
        return without_interval(setting.mean)
    return over_components(
        setting.mean,
        [
            _of_patients(setting.resample_means),
            (seed_variance.variance / runs, seed_variance.freedom),
        ],
        within=(0.0, 1.0),
    )


def difference(
    one: SeedStatistics,
    other: SeedStatistics,
    seed_variance: SeedVariance | None,
    comparisons: int = 1,
) -> Estimate | None:
    """Returns AUROC of `one` minus that of `other` with its 95 % interval; None where seeds are unknown.

    Patients: the variance over resamples, in pairs of the same ones. Seeds: the variance between runs, of
    which either takes three or more.

    Args:
        one, other: statistics of two settings over resamples of the same patients.
        seed_variance: pooled over all settings; None where no setting has two runs.
        comparisons: with how many settings `other` is compared; the 95 % hold for all of these
            together (Bonferroni).
    """
    if seed_variance is None or min(len(one.trials), len(other.trials)) < LEAST_RUNS:
        return None
    runs = seed_variance.variance * (1 / len(one.trials) + 1 / len(other.trials))
    return over_components(
        one.mean - other.mean,
        [
            _of_patients(one.resample_means - other.resample_means),
            (runs, seed_variance.freedom),
        ],
        comparisons=comparisons,
    )


def _of_patients(resampled: np.ndarray) -> tuple[float, float]:
    """Variance over the resamples [R], and degrees of freedom: how many patients there are is not known
    here, but that they are many more than the runs."""
    return float(np.nanvar(resampled, ddof=1)), np.inf
