"""Several runs of several starts → numbers with intervals, spread over seeds, paired differences.

A run gives each metric by row (a label, or a class of voxels): its value, and its value in every
resample of the test patients. Resamples are the same for all runs, so that means over seeds and
differences between starts are taken within each of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ray_mae.evaluate.baselines import RANDOM, TRAINED
from ray_mae.evaluate.metrics import Estimate, FloatArray, estimate, macro

MACRO = "macro"
"""Name of the mean over the rows."""


@dataclass(frozen=True)
class Measured:
    """One metric of one run."""

    value: FloatArray
    """[L] by row."""
    resampled: FloatArray
    """[L, R]; NaN where a resample cannot tell."""

    def with_macro(self) -> "Measured":
        """[1 + L]: the mean over rows comes first."""
        mean = macro(self.value[:, None])
        return Measured(
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
    """Of the runs of every start, in order."""
    rows: list[str]
    """macro, then labels or classes."""
    starts: dict[str, dict[str, dict[str, SeedEstimate]]]
    """By start, row and metric."""
    differences: dict[str, dict[str, Estimate]]
    """trained − random by row and metric, paired; empty without both."""

    def table(self) -> list[dict[str, object]]:
        """One record per start, row and seed, and one for the mean over seeds."""
        records: list[dict[str, object]] = []
        for start, rows in self.starts.items():
            for row, metrics in rows.items():
                for i, seed in enumerate(("mean", *self.seeds)):
                    record: dict[str, object] = {"start": start, "row": row, "seed": seed}
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
    found: Mapping[str, Sequence[Mapping[str, Measured]]],
    seeds: Sequence[int],
    rows: Sequence[str],
    metrics: Mapping[str, str],
) -> Comparison:
    """Means over seeds and differences of the starts.

    found: by start, for each of `seeds`, each metric [L] by row. The ECE's intervals are moved as in
    `estimate`.
    """
    names = [MACRO, *rows]
    starts: dict[str, dict[str, dict[str, SeedEstimate]]] = {}
    means: dict[str, dict[str, Measured]] = {}
    for start, runs in found.items():
        starts[start] = {name: {} for name in names}
        means[start] = {}
        for metric in metrics:
            each = [run[metric].with_macro() for run in runs]
            values = np.stack([m.value for m in each])  # [seeds, 1 + L]
            mean = Measured(values.mean(0), np.stack([m.resampled for m in each]).mean(0))
            means[start][metric] = mean
            for i, name in enumerate(names):
                whole = estimate(mean.value[i], mean.resampled[i], error=metric == "ece")
                spread = float(values[:, i].std(ddof=1)) if len(each) > 1 else None
                by_seed = [
                    estimate(m.value[i], m.resampled[i], error=metric == "ece") for m in each
                ]
                starts[start][name][metric] = SeedEstimate(
                    whole.value, whole.low, whole.high, spread, by_seed
                )
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
    return Comparison(dict(metrics), list(seeds), names, starts, differences)


def in_words(value: Estimate) -> str:
    """value [low, high]"""
    return f"{value.value:.3f} [{value.low:.3f}, {value.high:.3f}]"
