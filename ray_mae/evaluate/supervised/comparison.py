"""Runs of several initialisations → numbers with intervals, spread over seeds, paired differences.

A run gives each metric by row (a label, or a class of voxels): its value, and its value in every
resample of the test patients. Resamples are the same for all runs, so that means over seeds and
differences between initialisations are taken within each of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ray_mae.evaluate.baselines import RANDOM, TRAINED
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
    """The mean over seeds with its interval over patients, and what the seeds gave."""

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

        Its interval covers the choice of test patients alone. So that a seed's luck is no finding, each
        seed must agree; of one seed nothing is told.
        """
        if not self.differences:
            return ""
        if len(self.seeds) < 2:
            return (
                "one seed tells nothing: the interval covers the choice of test patients alone, and "
                "another seed may turn the difference round; give several by seeds."
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
) -> Comparison:
    """Means over seeds, and differences between initialisations.

    Args:
        values: by initialisation, for each of `seeds`, each metric [L] by row.
        seeds: of the runs, in order.
        rows: names of the L labels or classes.
        metrics: keys and printed names. The intervals of `ece` are moved as in `estimate`.
    """
    names = [MACRO, *rows]
    initialisations: dict[str, dict[str, dict[str, SeedEstimate]]] = {}
    means: dict[str, dict[str, MetricValues]] = {}
    for initialisation, runs in values.items():
        by_row: dict[str, dict[str, SeedEstimate]] = {name: {} for name in names}
        means[initialisation] = {}
        for metric in metrics:
            mean, estimates = _over_seeds(
                [run[metric].with_macro() for run in runs], error=metric == "ece"
            )
            means[initialisation][metric] = mean
            for name, one in zip(names, estimates, strict=True):
                by_row[name][metric] = one
        initialisations[initialisation] = by_row
    differences = {}
    if TRAINED in means and RANDOM in means:
        differences = {
            name: {
                metric: estimate(
                    means[TRAINED][metric].value[i] - means[RANDOM][metric].value[i],
                    means[TRAINED][metric].resampled[i] - means[RANDOM][metric].resampled[i],
                )
                for metric in metrics
            }
            for i, name in enumerate(names)
        }
    return Comparison(dict(metrics), list(seeds), names, initialisations, differences)


def _over_seeds(
    seeds: Sequence[MetricValues], *, error: bool
) -> tuple[MetricValues, list[SeedEstimate]]:
    """The mean of one metric [1 + L], and its estimate by row; error: see `estimate`."""
    values = np.stack([one.value for one in seeds])  # [seeds, 1 + L]
    mean = MetricValues(values.mean(0), np.stack([one.resampled for one in seeds]).mean(0))
    estimates = []
    for i in range(values.shape[1]):
        whole = estimate(mean.value[i], mean.resampled[i], error=error)
        spread = float(values[:, i].std(ddof=1)) if len(seeds) > 1 else None
        by_seed = [estimate(one.value[i], one.resampled[i], error=error) for one in seeds]
        estimates.append(SeedEstimate(whole.value, whole.low, whole.high, spread, by_seed))
    return mean, estimates
