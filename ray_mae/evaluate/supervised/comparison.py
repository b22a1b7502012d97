"""Runs of several initialisations → numbers with intervals, spread over seeds, paired differences.

A run gives each metric by row (a label, or a class of voxels): its value, and its value in every
resample of the test patients. Resamples are the same for all runs, so that means over seeds and
differences between initialisations are taken within each of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np

from ray_mae.evaluate.baselines import RANDOM, TRAINED
from ray_mae.evaluate.intervals import LEAST_RUNS
from ray_mae.evaluate.metrics import Estimate, FloatArray, macro
from ray_mae.evaluate.scores import (
    Evidence,
    LabelDifference,
    difference_estimate,
    label_differences,
    label_estimate,
)

MACRO = "macro"
"""Name of the mean over the rows."""


@dataclass(frozen=True)
class MetricValues:
    """One metric of one run."""

    value: FloatArray
    """[L] by row."""
    resampled: FloatArray
    """[L, R]; NaN where a resample cannot tell."""
    error: FloatArray | None = None
    """[L] standard errors without resamples, of an AUROC by DeLong."""

    def with_macro(self, *, complete: bool) -> "MetricValues":
        """[1 + L]: the mean over rows comes first.

        complete: it is NaN where a row has no value; else that row is left out of it.
        """
        rows = len(self.value)
        error = np.full(rows, np.nan) if self.error is None else self.error
        return MetricValues(
            np.concatenate(
                [[self.value.mean()] if complete else macro(self.value[:, None]), self.value]
            ),
            np.concatenate([macro(self.resampled)[None], self.resampled]),
            # of one row the mean is the row
            np.concatenate([error if rows == 1 else [np.nan], error]),
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
    evidence: dict[str, Evidence]
    """By label, what the test patients can tell of it; empty of what has no labels."""

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
        if not self.differences[MACRO][self.main].known:
            return "not told apart: the test patients are too few to tell."
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
        nothing = dict.fromkeys((field.name for field in fields(Evidence)), "")
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
                    if self.evidence:
                        record |= asdict(self.evidence[row]) if row in self.evidence else nothing
                    records.append(record)
        return records


def compare(
    values: Mapping[str, Sequence[Mapping[str, MetricValues]]],
    seeds: Sequence[int],
    rows: Sequence[str],
    metrics: Mapping[str, str],
    patients: int,
    evidence: Sequence[Evidence] = (),
) -> Comparison:
    """Means over seeds, and differences between initialisations, seed by seed.

    Args:
        values: by initialisation, for each of `seeds`, each metric [L] by row.
        seeds: of the runs, in order.
        rows: names of the L labels or classes.
        metrics: keys and printed names.
        patients: that the resamples are drawn from.
        evidence: [L] what the test patients can tell of each label; none of what has no labels.
    """
    names = [MACRO, *rows]
    by_row = dict(zip(rows, evidence, strict=False))
    allowed = by_row | ({MACRO: evidence[0]} if len(evidence) == 1 else {})
    runs = {
        initialisation: {
            metric: [run[metric].with_macro(complete=bool(evidence)) for run in of]
            for metric in metrics
        }
        for initialisation, of in values.items()
    }
    initialisations = {
        initialisation: {
            name: {
                metric: _seed_estimate(metric, of[metric], i, patients, allowed.get(name))
                for metric in metrics
            }
            for i, name in enumerate(names)
        }
        for initialisation, of in runs.items()
    }
    differences = {}
    if TRAINED in runs and RANDOM in runs:
        differences = {
            name: {
                metric: _difference(
                    runs[TRAINED][metric], runs[RANDOM][metric], i, patients, allowed.get(name)
                )
                for metric in metrics
            }
            for i, name in enumerate(names)
        }
        for metric, of_labels in _label_differences(runs, rows, by_row, patients).items():
            for name, difference in of_labels.items():
                differences[name][metric] = difference
    return Comparison(dict(metrics), list(seeds), names, initialisations, differences, by_row)


def _label_differences(
    runs: Mapping[str, Mapping[str, Sequence[MetricValues]]],
    rows: Sequence[str],
    evidence: Mapping[str, Evidence],
    patients: int,
) -> dict[str, dict[str, LabelDifference]]:
    """The AUROC's by label, with Holm's rule over all of them; none of what has no labels."""
    if not evidence:
        return {}
    pairs = list(zip(runs[TRAINED]["auroc"], runs[RANDOM]["auroc"], strict=True))
    values, resampled = {}, {}
    for i, name in enumerate(rows, 1):  # the mean comes first
        values[name] = [float(a.value[i] - b.value[i]) for a, b in pairs]
        resampled[name] = [a.resampled[i] - b.resampled[i] for a, b in pairs]
    return {"auroc": label_differences(values, resampled, evidence, patients)}


def _seed_estimate(
    metric: str,
    seeds: Sequence[MetricValues],
    row: int,
    patients: int,
    evidence: Evidence | None,
) -> SeedEstimate:
    """The mean of a row over seeds, and each seed by itself."""

    def over(runs: Sequence[MetricValues]) -> Estimate:
        values = [float(run.value[row]) for run in runs]
        errors = [np.nan if run.error is None else float(run.error[row]) for run in runs]
        resampled = [run.resampled[row] for run in runs]
        return label_estimate(metric, values, resampled, errors, evidence, patients)

    mean = over(seeds)
    values = [float(one.value[row]) for one in seeds]
    spread = float(np.std(values, ddof=1)) if len(seeds) > 1 else None
    by_seed = [over([one]) for one in seeds]
    return SeedEstimate(mean.value, mean.low, mean.high, spread, by_seed)


def _difference(
    one: Sequence[MetricValues],
    other: Sequence[MetricValues],
    row: int,
    patients: int,
    evidence: Evidence | None,
) -> Estimate:
    """The mean over seeds of a row's differences, seed by seed."""
    pairs = list(zip(one, other, strict=True))
    return difference_estimate(
        [float(a.value[row] - b.value[row]) for a, b in pairs],
        [a.resampled[row] - b.resampled[row] for a, b in pairs],
        evidence,
        patients,
    )
