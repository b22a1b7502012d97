"""Runs of several initialisations → numbers with intervals, spread over seeds, paired differences.

A run gives each metric by row (a label, or a class of voxels): its value, and its value in every
resample of the test patients. Resamples are the same for all runs, so that means over seeds and
differences between initialisations are taken within each of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ray_mae.evaluate.baselines import RANDOM, TRAINED
from ray_mae.evaluate.intervals import LEAST_RUNS, over_seeds
from ray_mae.evaluate.metrics import Estimate, FloatArray, estimate, macro

MACRO = "macro"
"""Name of the mean over the rows."""


@dataclass(frozen=True)
class MetricValues:
    """One metric of one run."""

    value: FloatArray
    """[L] by row."""
    resampled: FloatArray
    """[L, R]; NaN where a resample cannot tell."""

    def with_macro(self) -> "MetricValues":
        """[1 + L]: the mean over rows comes first."""
        mean = macro(self.value[:, None])
        return MetricValues(
            np.concatenate([mean, self.value]),
            np.concatenate([macro(self.resampled)[None], self.resampled]),
        )


@dataclass(frozen=True)
class SeedEstimate(Estimate):
    """The mean over seeds with its interval over patients and seeds, and what the seeds gave.

    Of one seed the interval is over patients alone; of two there is none.
    """

    spread: float | None
    """Standard deviation over seeds; None of one seed."""
    seeds: list[Estimate]
    """By seed."""


@dataclass(frozen=True)
class Comparison:
    """Numbers on test patients."""

    metrics: dict[str, str]
    """Key and printed name."""
    seeds: list[int]
    """Of the runs of every initialisation, in order."""
    rows: list[str]
    """macro, then labels or classes."""
    initialisations: dict[str, dict[str, dict[str, SeedEstimate]]]
    """By initialisation, row and metric."""
    differences: dict[str, dict[str, Estimate]]
    """trained − random by row and metric, paired; empty without both."""

    @property
    def main(self) -> str:
        """The metric that the page and the summary begin with."""
        return next(iter(self.metrics))

    def verdict(self) -> str:
        """What the difference of the main metric's mean tells, in a sentence; empty without one.

        Its interval covers the choice of test patients and of seeds, by the spread of these. That of few
        seeds is itself uncertain, so each seed must agree; of one or two nothing is told.
        """
        if not self.differences:
            return ""
        if len(self.seeds) < LEAST_RUNS:
            few = ("one seed tells", "two seeds tell")[len(self.seeds) - 1]
            return (
                f"{few} nothing: how far seeds differ is not known, and another may turn the difference "
                f"round; give {LEAST_RUNS} or more by seeds."
            )
        trained, random = (
            self.initialisations[n][MACRO][self.main].seeds for n in (TRAINED, RANDOM)
        )
        above = sum(a.value > b.value for a, b in zip(trained, random, strict=True))
        below = sum(a.value < b.value for a, b in zip(trained, random, strict=True))
        difference, seeds = self.differences[MACRO][self.main], len(self.seeds)
        if difference.low > 0 and above == seeds:
            return f"better: the interval lies above 0, and so does each of {seeds} seeds."
        if difference.high < 0 and below == seeds:
            return f"worse: the interval lies below 0, and so does each of {seeds} seeds."
        if difference.low <= 0 <= difference.high:
            return "not told apart: the interval holds 0."
        return f"not told apart: the seeds do not agree, {above} of {seeds} lie above 0."

    def table(self) -> list[dict[str, object]]:
        """One record per initialisation (`start`), row and seed, and one for the mean over seeds."""
        records: list[dict[str, object]] = []
        for initialisation, rows in self.initialisations.items():
            for row, metrics in rows.items():
                for i, seed in enumerate(("mean", *self.seeds)):
                    record: dict[str, object] = {"start": initialisation, "row": row, "seed": seed}
                    for name, mean in metrics.items():
                        one = mean.seeds[i - 1] if i else mean
                        record |= {
                            name: one.value,
                            f"{name}_low": one.low,
                            f"{name}_high": one.high,
                        }
                        record[f"{name}_spread"] = None if i else mean.spread
                    records.append(record)
        return records


def compare(
    values: Mapping[str, Sequence[Mapping[str, MetricValues]]],
    seeds: Sequence[int],
    rows: Sequence[str],
    metrics: Mapping[str, str],
    patients: int,
) -> Comparison:
    """Means over seeds, and differences between initialisations, seed by seed.

    Args:
        values: by initialisation, for each of `seeds`, each metric [L] by row.
        seeds: of the runs, in order.
        rows: names of the L labels or classes.
        metrics: keys and printed names. The intervals of one seed's `ece` are moved as in `estimate`.
        patients: that the resamples are drawn from.
    """
    names = [MACRO, *rows]
    runs = {
        initialisation: {metric: [run[metric].with_macro() for run in of] for metric in metrics}
        for initialisation, of in values.items()
    }
    initialisations = {
        initialisation: {
            name: {
                metric: _seed_estimate(of[metric], i, patients, error=metric == "ece")
                for metric in metrics
            }
            for i, name in enumerate(names)
        }
        for initialisation, of in runs.items()
    }
    differences = {}
    if TRAINED in runs and RANDOM in runs:
        pairs = {
            metric: [
                MetricValues(a.value - b.value, a.resampled - b.resampled)
                for a, b in zip(runs[TRAINED][metric], runs[RANDOM][metric], strict=True)
            ]
            for metric in metrics
        }
        differences = {
            name: {metric: _over_seeds(pairs[metric], i, patients) for metric in metrics}
            for i, name in enumerate(names)
        }
    return Comparison(dict(metrics), list(seeds), names, initialisations, differences)


def _seed_estimate(
    seeds: Sequence[MetricValues], row: int, patients: int, *, error: bool
) -> SeedEstimate:
    """The mean of a row over seeds, and each seed by itself; error: see `estimate`."""
    mean = _over_seeds(seeds, row, patients, error=error, within=(0.0, 1.0))
    values = [float(one.value[row]) for one in seeds]
    spread = float(np.std(values, ddof=1)) if len(seeds) > 1 else None
    by_seed = [estimate(one.value[row], one.resampled[row], error=error) for one in seeds]
    return SeedEstimate(mean.value, mean.low, mean.high, spread, by_seed)


def _over_seeds(
    seeds: Sequence[MetricValues],
    row: int,
    patients: int,
    *,
    error: bool = False,
    within: tuple[float, float] = (-np.inf, np.inf),
) -> Estimate:
    """The mean of a row over seeds with its interval."""
    values = [float(one.value[row]) for one in seeds]
    resampled = [one.resampled[row] for one in seeds]
    return over_seeds(values, resampled, patients, error=error, within=within)
