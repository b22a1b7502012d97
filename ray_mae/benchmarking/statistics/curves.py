"""Label-efficiency curves: what a number of labelled studies is worth, and how many a goal takes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ray_mae.benchmarking.records import ALL
from ray_mae.benchmarking.statistics.results import Place, Results
from ray_mae.benchmarking.statistics.scores import MACRO, Scored
from ray_mae.benchmarking.statistics.uncertainty import (
    TOO_FEW,
    Score,
    components_of_runs,
    score,
)

Array = NDArray[np.float64]
GOALS = (0.75, 0.80)
"""AUROC whose number of labelled studies is asked for."""


@dataclass(frozen=True)
class Needed:
    """Labelled studies that a goal takes; infinite where the curve does not reach it."""

    goal: float
    value: float
    low: float
    high: float
    most: float
    """Labelled studies that there are."""


@dataclass(frozen=True)
class Curve:
    """One encoder under one head, by the number of labelled studies."""

    place: Place
    head: str
    validation: str
    encoder: str
    points: list[Scored]
    """N, by rising number."""
    studies: list[float]
    """[N] labelled ones; of few-shot heads patients of each class."""
    scores: list[Score]
    area: Score
    """Mean over log₂ of the studies."""
    needed: list[Needed]

    @property
    def label_set(self) -> str:
        return self.points[0].cohort.label_set


@dataclass(frozen=True)
class Saving:
    """How many times the labelled studies of one encoder that another one takes for the same goal."""

    place: Place
    head: str
    encoder: str
    baseline: str
    goal: float
    value: float
    """NaN where neither reaches the goal."""
    at_least: bool
    """Whether the baseline does not reach it: the value is then what it needs at the least."""
    low: float
    high: float
    """Infinite where the baseline does not reach it in the resamples that are kindest to the encoder."""


def curves(results: Results, scored: Sequence[Scored]) -> list[Curve]:
    """Curves with two points or more, in the order of the scores."""
    groups: dict[tuple[Place, str, str, str], list[Scored]] = {}
    for one in scored:
        if one.primary == "auroc" and one.cohort.macro:
            c = one.cell
            groups.setdefault((one.cohort.place, c.head, c.validation, one.encoder), []).append(one)
    found = []
    for (place, head, validation, encoder), points in groups.items():
        # All studies of `spent` are those of `full`, of which a part chooses.
        by = sorted(points, key=labelled)
        if len({labelled(p) for p in by}) > 1:
            studies = [labelled(p) for p in by]
            scores = [p.score("auroc") for p in by]
            area = _area(by, np.log2(studies))
            needed = [_needed(by, studies, goal) for goal in GOALS]
            found.append(Curve(place, head, validation, encoder, by, studies, scores, area, needed))
    return found


def labelled(one: Scored) -> float:
    """Studies whose labels a fit could use: for fit and choice together where these are shared out."""
    if one.cell.studies != ALL:
        return float(one.cell.studies)
    spent = one.cell.validation == "spent"
    return float(np.mean([f.train_studies + (f.val_studies if spent else 0) for f in one.fits]))


def _levels(points: Sequence[Scored]) -> tuple[list[int], list[int]]:
    """Pretraining seeds, and draws, that any point has."""
    keys = [fit.key for p in points for fit in p.fits]
    return sorted({k.pretraining for k in keys}), sorted({k.draw for k in keys})


def _runs(points: Sequence[Scored]) -> tuple[Array, NDArray[np.float32], NDArray[np.intp]]:
    """Curves by pretraining seed and draw: values [F, N], resampled [F, R, N], levels [F, 2].

    A point with one draw, as that of all studies is, belongs to the curves of all draws.
    """
    pretrainings, draws = _levels(points)
    values, resampled, levels = [], [], []
    for p in pretrainings:
        for d in draws:
            of_points = [_of(point, p, d) for point in points]
            values.append([v for v, _ in of_points])
            resampled.append(np.stack([r for _, r in of_points], axis=1))
            levels.append((p, d))
    return np.array(values), np.stack(resampled), np.array(levels)


def _of(point: Scored, pretraining: int, draw: int) -> tuple[float, NDArray[np.float32]]:
    """Value and replicates [R] of one draw, mean over seeds of the head; of all where it has no such draw."""
    levels = point.levels
    mine = np.ones(len(levels), bool)
    for column, level in ((0, pretraining), (1, draw)):
        if (levels[:, column] == level).any():
            mine &= levels[:, column] == level
    if not mine.any():
        mine[:] = True
    return float(point.runs("auroc", MACRO)[mine].mean()), point.macro_runs[mine].mean(0)


def _area(points: Sequence[Scored], x: Array) -> Score:
    """Mean of the curve over log₂ of the studies, by trapezoids."""
    values, resampled, levels = _runs(points)
    share = np.zeros(len(x))
    share[1:] += np.diff(x) / 2
    share[:-1] += np.diff(x) / 2
    share /= x[-1] - x[0]
    runs = values @ share
    return score(
        float(runs.mean()),
        (resampled @ share).mean(0),
        components_of_runs(levels, runs, ("pretraining", "draw")),
        points[-1].rarer("auroc", MACRO),
        share=True,
    )


def _needed(points: Sequence[Scored], studies: Sequence[float], goal: float) -> Needed:
    """Interpolated in log n, inside each resample and draw."""
    values, resampled, _ = _runs(points)
    x = np.log(studies)
    value = float(np.exp(reached(values.mean(0)[None], x, goal)[0]))
    if points[-1].score("auroc").interval == TOO_FEW:
        return Needed(goal, value, np.nan, np.nan, studies[-1])
    each = np.exp(reached(resampled.reshape(-1, len(x)), x, goal))
    low, high = np.quantile(each[~np.isnan(each)], [0.025, 0.975], method="inverted_cdf")
    return Needed(goal, value, float(low), float(high), studies[-1])


def reached(curve: NDArray[np.floating], x: Array, goal: float) -> Array:
    """Where each curve first reaches the goal: between two points on the line, before the first at the first,
    infinite where it does not.

    Args:
        curve: [K, N]
        x: [N] rising.
        goal: value.
    """
    high = curve >= goal  # [K, N]
    first = high.argmax(1)
    rows = np.arange(len(curve))
    before = np.maximum(first - 1, 0)
    y0, y1 = curve[rows, before], curve[rows, first]
    with np.errstate(divide="ignore", invalid="ignore"):
        part = np.where(first > 0, (goal - y0) / (y1 - y0), 0.0)
    at = x[before] + part * (x[first] - x[before])
    return np.where(high.any(1), np.where(first > 0, at, x[0]), np.inf)


def savings(results: Results, found: Sequence[Curve]) -> list[Saving]:
    """Of each encoder against the baseline that validation prefers, under the same head and resamples."""
    out = []
    groups: dict[tuple[Place, str, str], list[Curve]] = {}
    for curve in found:
        groups.setdefault((curve.place, curve.head, curve.validation), []).append(curve)
    for group in groups.values():
        baseline = best_baseline(results, group)
        if baseline is None:
            continue
        for curve in group:
            if curve.encoder not in results.baselines:
                out += [_saving(curve, baseline, goal) for goal in GOALS]
    return out


def best_baseline(results: Results, group: Sequence[Curve]) -> Curve | None:
    """The one with the best validation score with all labelled studies; None where there is none."""
    among = [c for c in group if c.encoder in results.baselines]
    by_validation = {c.encoder: validation_score(c.points[-1]) for c in among}
    known = [c for c in among if not np.isnan(by_validation[c.encoder])]
    return max(known, key=lambda c: by_validation[c.encoder], default=None)


def validation_score(one: Scored) -> float:
    """Of the settings that were chosen, mean over fits; NaN where nothing was chosen."""
    best = [max(scores) for f in one.fits if (scores := finite([t.score for t in f.trials]))]
    return float(np.mean(best)) if best else np.nan


def finite(values: Sequence[float]) -> list[float]:
    return [v for v in values if v is not None and np.isfinite(v)]


def _saving(curve: Curve, baseline: Curve, goal: float) -> Saving:
    """The baseline's studies by the encoder's, in the same resamples; draw by draw where both have as many.

    A baseline that never reaches the goal needs at least all studies there are.
    """
    each = []
    for one in (curve, baseline):
        values, resampled, levels = _runs(one.points)
        x = np.log(one.studies)
        draws = sorted(set(levels[:, 1].tolist()))
        # Mean over pretraining seeds, so that curves go together by draw and resample.
        by_draw = np.stack([resampled[levels[:, 1] == d].mean(0) for d in draws])  # [D, R, N]
        at = reached(by_draw.reshape(-1, len(x)), x, goal).reshape(len(draws), -1)
        each.append((float(reached(values.mean(0)[None], x, goal)[0]), at))
    (mine, a), (theirs, b) = each
    if len(a) != len(b):
        a, b = (np.broadcast_to(v.mean(0), (1, v.shape[1])) for v in (a, b))
    most = float(np.log(baseline.studies[-1]))
    neither = np.isinf(a) & np.isinf(b)  # nothing is told
    value = (
        np.nan if np.isinf(mine) and np.isinf(theirs) else float(np.exp(min(theirs, most) - mine))
    )
    low = high = np.nan
    if neither.mean() <= 0.05:
        ratio = np.exp(np.minimum(b, most) - a)[~neither]
        low, high = np.quantile(ratio, [0.025, 0.975], method="inverted_cdf")
        if np.isinf(b[~neither]).mean() > 0.025:
            high = np.inf
    return Saving(
        curve.place, curve.head, curve.encoder, baseline.encoder, goal, value, bool(np.isinf(theirs)),
        float(low), float(high),
    )  # fmt: skip
