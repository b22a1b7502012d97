"""Does an encoder serve all groups alike: gaps between groups, and the gap that chance alone makes.

The largest of several noisy values less the smallest is above 0 without any true difference. Beside each gap
stands what groups of the same sizes have on average when patients are dealt out to them at random. Errors are
counted at one threshold for everybody, by validation patients of the data set that heads were fitted on.
Average precision and Brier score follow the prevalence of a group: they stand beside it, and have no gap.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from ray_mae.benchmarking.records import ALL, Fit
from ray_mae.benchmarking.statistics import metrics
from ray_mae.benchmarking.statistics.results import Cohort, Place, Results
from ray_mae.benchmarking.statistics.scores import mean_known
from ray_mae.evaluate.metrics import Estimate, estimate

Array = NDArray[np.float64]
LEAST_OF_GROUP = 20
"""Patients of each class that a group has, or it is not scored."""
PERMUTATIONS = 1000
SPECIFICITY = 0.9
"""Of validation patients, at the threshold of each label."""
GAPS = ("auroc", "fpr", "fnr")
"""What has a gap; of errors the worst group is the one with most."""
AGES = (
    (0, 40, "below 40"),
    (40, 60, "40 to 59"),
    (60, 80, "60 to 79"),
    (80, np.inf, "80 and above"),
)
"""Of people in years: from, below, name."""


@dataclass(frozen=True)
class Group:
    """One group under one encoder."""

    name: str
    patients: int
    positive: int
    """Patients; the fewest of any label."""
    prevalence: float
    """Share of positive samples, mean over labels."""
    scores: dict[str, Estimate]
    """auroc, average_precision, brier; fpr and fnr where validation gave thresholds."""


@dataclass(frozen=True)
class Spread:
    """The gap between groups by one metric."""

    gap: Estimate
    chance: float
    """Mean gap of groups dealt out at random."""
    p: float
    """Share of these that are as large."""
    worst: str


@dataclass(frozen=True)
class Gap:
    """An encoder's groups by one attribute, mean over the labels that every one of its groups can tell."""

    place: Place
    head: str
    encoder: str
    attribute: str
    labels: list[str]
    groups: list[Group]
    spreads: dict[str, Spread]
    """By metric, of GAPS."""
    lowest: Array
    """[R] AUROC of the worst group of each resample."""
    left_out: dict[str, str]


@dataclass(frozen=True)
class WorstDifference:
    """Worst-group AUROC of the first encoder less that of the second."""

    place: Place
    head: str
    attribute: str
    a: str
    b: str
    difference: Estimate


def gaps(results: Results) -> Iterator[Gap]:
    """Of cells with all labelled studies and the first choice of views, by the attributes of the suite."""
    first = results.suite.views[0]
    for place, cells in results.places.items():
        cohort = results.cohorts[place]
        if place.views != first or cohort.kind != "labels":
            continue
        for attribute in results.suite.trust.subgroups:
            groups = grouped(results, cohort, attribute)
            if len(set(groups) - {""}) < 2:
                continue
            by_encoder = {
                (cell.head, encoder): fits
                for cell, by in cells.items()
                if cell.studies == ALL and cell.validation == "full"
                for encoder, fits in by.items()
            }
            yield from _gaps(results, cohort, attribute, groups, by_encoder)


def grouped(results: Results, cohort: Cohort, attribute: str) -> NDArray[np.str_]:
    """[S] group of each sample, "" where it is not known."""
    values = results.tables[cohort.place.dataset].attributes.get(attribute)
    if values is None:
        return np.full(len(cohort.rows), "")
    return np.array([_group(attribute, values[i]) for i in cohort.rows])


def _group(attribute: str, value: Any) -> str:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return ""
    if attribute == "age":
        return next(name for low, high, name in AGES if low <= float(value) < high)
    return str(value)


def _gaps(
    results: Results,
    cohort: Cohort,
    attribute: str,
    groups: NDArray[np.str_],
    fits: Mapping[tuple[str, str], Sequence[Fit]],
) -> Iterator[Gap]:
    names, columns, left_out = _told(cohort, groups)
    if len(names) < 2:
        return
    members = np.stack([groups == name for name in names])  # [G, S]
    weights = results.weights(cohort.place.dataset, cohort.patient)
    draw = np.random.default_rng(results.statistics.seed)
    dealt = _dealt(groups, cohort.patient, names, draw)  # [G, S, K]
    shape = len(names), len(columns)
    said = {at: [results.values(fit, cohort) for fit in runs] for at, runs in fits.items()}
    heights = {
        at: [[threshold_of(results, fit, cohort, i) for i in columns] for fit in runs]
        for at, runs in fits.items()
    }
    resampled: dict[tuple[str, str], dict[str, Array]] = {at: {} for at in fits}
    chances: dict[tuple[str, str], dict[str, Array]] = {at: {} for at in fits}
    for k, i in enumerate(columns):
        known = cohort.known(i)
        target = cohort.truth(i)[known]
        for g in range(len(names)):
            here = members[g][known]
            measures = (
                (resampled, here, _measure(target[here], weights[known][here])),
                (chances, slice(None), _measure(target, dealt[g][known])),
            )
            for at, values in said.items():
                for into, rows, measure in measures:
                    each = [
                        measure(v[known, i][rows], height[k])
                        for v, height in zip(values, heights[at], strict=True)
                    ]
                    for metric in set.intersection(*(set(of) for of in each)):
                        mean = np.mean([of[metric] for of in each], axis=0)
                        table = into[at].setdefault(metric, np.full((*shape, len(mean)), np.nan))
                        table[g, k] = mean
    counts = _counts(cohort, members, columns)
    for at in fits:
        yield _gap(cohort.place, at, attribute, names, [cohort.names[i] for i in columns],
                   resampled[at], chances[at], counts, left_out)  # fmt: skip


def _gap(
    place: Place, at: tuple[str, str], attribute: str, names: Sequence[str], labels: list[str],
    resampled: Mapping[str, Array], chances: Mapping[str, Array],
    counts: Sequence[tuple[int, int, float]], left_out: dict[str, str],
) -> Gap:  # fmt: skip
    """From values [G, L, 1 + R] by metric, and such of groups dealt out [G, L, 1 + K]."""
    means = {m: np.stack([mean_known(of_group) for of_group in v]) for m, v in resampled.items()}
    spreads = {}
    for metric in [m for m in GAPS if m in means]:
        values = means[metric]  # [G, 1 + R]
        by_chance = np.ptp(np.stack([mean_known(v) for v in chances[metric]]), axis=0)[1:]
        by_chance = by_chance[~np.isnan(by_chance)]
        gap = np.ptp(values, axis=0)
        worst = values[:, 0].argmin() if metric == "auroc" else values[:, 0].argmax()
        p = float((np.sum(by_chance >= gap[0]) + 1) / (len(by_chance) + 1))
        spreads[metric] = Spread(
            estimate(gap[0], gap[1:]), float(by_chance.mean()), p, names[int(worst)]
        )
    groups = [
        Group(name, *counts[g], {m: estimate(v[g, 0], v[g, 1:]) for m, v in means.items()})
        for g, name in enumerate(names)
    ]
    head, encoder = at
    lowest = means["auroc"].min(0)
    return Gap(place, head, encoder, attribute, labels, groups, spreads, lowest, left_out)


def _measure(target: Array, weights: NDArray) -> Callable[[Array, float | None], dict[str, Array]]:
    """Returns a function from logits [S] and a threshold to metrics [R]; weights: [S, R]."""
    ranking, every = metrics.ranking_of(target, weights), weights.astype(np.float64)
    ill = target == 1
    n_ill, n_well, n = (every[rows].sum(0) for rows in (ill, ~ill, slice(None)))

    def found(logit: Array, height: float | None) -> dict[str, Array]:
        auroc, precision = ranking(logit)
        with np.errstate(divide="ignore", invalid="ignore"):
            values = {
                "auroc": auroc,
                "average_precision": precision,
                "brier": (expit(logit) - target) ** 2 @ every / n,
            }
            if height is not None:
                above = logit > height
                values["fpr"] = (above & ~ill) @ every / n_well
                values["fnr"] = (~above & ill) @ every / n_ill
        return values

    return found


def threshold_of(results: Results, fit: Fit, cohort: Cohort, column: int) -> float | None:
    """The logit above which SPECIFICITY of the validation patients without a label do not lie; None without
    their predictions."""
    found = results.validation(fit, cohort, column)
    if found is None or not (found[0] == 0).any():
        return None
    target, logit = found
    return float(np.quantile(logit[target == 0], SPECIFICITY, method="higher"))


def _counts(
    cohort: Cohort, members: NDArray[np.bool_], columns: Sequence[int]
) -> list[tuple[int, int, float]]:
    """Patients of each group, those positive of the label with fewest, and the mean share of positives."""
    return [
        (
            len(np.unique(cohort.patient[here])),
            min(len(np.unique(cohort.patient[here & (cohort.truth(i) == 1)])) for i in columns),
            float(np.mean([np.nanmean(cohort.truth(i)[here]) for i in columns])),
        )
        for here in members
    ]


def _told(cohort: Cohort, groups: NDArray[np.str_]) -> tuple[list[str], list[int], dict[str, str]]:
    """Groups and labels that have patients enough in all of them: groups first, by the commonest label."""
    counts = {
        (name, i): min(
            len(np.unique(cohort.patient[(groups == name) & (cohort.truth(i) == one)]))
            for one in (0, 1)
        )
        for name in sorted(set(groups.tolist()) - {""})
        for i in cohort.macro
    }
    every = sorted({name for name, _ in counts})
    names = [n for n in every if any(counts[n, i] >= LEAST_OF_GROUP for i in cohort.macro)]
    columns = [i for i in cohort.macro if all(counts[n, i] >= LEAST_OF_GROUP for n in names)]
    left_out = {}
    if not columns and names:
        # No label that all can tell: the one that most groups can.
        best = max(cohort.macro, key=lambda i: sum(counts[n, i] >= LEAST_OF_GROUP for n in names))
        columns = [best]
        names = [n for n in names if counts[n, best] >= LEAST_OF_GROUP]
    for name in every:
        if name not in names:
            left_out[name] = f"fewer than {LEAST_OF_GROUP} patients of a class"
    for i in cohort.macro:
        if i not in columns:
            left_out[cohort.names[i]] = "not told in all groups"
    return names, columns, left_out


def _dealt(
    groups: NDArray[np.str_],
    patient: NDArray[np.str_],
    names: Sequence[str],
    draw: np.random.Generator,
) -> NDArray[np.uint8]:
    """Membership [G, S, 1 + K] of the groups themselves and of K deals of their values over the patients.

    Where a patient's studies lie in one group, patients are dealt out; where they do not, as by view, the
    studies in the order of shuffled patients, so that those of one patient stay together.
    """
    patients, index = np.unique(patient, return_inverse=True)
    first = np.zeros(len(patients), int)
    first[index[::-1]] = np.arange(len(patient))[::-1]
    of_patient = groups[first]
    constant = bool((of_patient[index] == groups).all())
    order = np.argsort(index, kind="stable")
    deals = [groups]
    for _ in range(PERMUTATIONS):
        shuffled = draw.permutation(len(patients))
        if constant:
            deals.append(of_patient[shuffled][index])
        else:
            by = np.argsort(shuffled[index], kind="stable")
            dealt = np.empty_like(groups)
            dealt[order] = groups[by]
            deals.append(dealt)
    told = np.stack(deals, axis=1)  # [S, 1 + K]
    return np.stack([(told == name).astype(np.uint8) for name in names])


def worst_differences(results: Results, found: Sequence[Gap]) -> list[WorstDifference]:
    """Planned pairs by their worst groups, in the same resamples."""
    by = {(g.place, g.head, g.attribute, g.encoder): g for g in found}
    out = []
    for a, b in results.suite.contrasts:
        for (place, head, attribute, encoder), gap in by.items():
            other = by.get((place, head, attribute, b))
            if encoder == a and other is not None:
                lowest = gap.lowest - other.lowest
                out.append(
                    WorstDifference(place, head, attribute, a, b, estimate(lowest[0], lowest[1:]))
                )
    return out
