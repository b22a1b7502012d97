"""Scores of each encoder in each cell: a mean over its fits, and its resampled values."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_mae.benchmarking.records import Cell, Fit
from ray_mae.benchmarking.statistics import metrics
from ray_mae.benchmarking.statistics.results import Cohort, Place, Results
from ray_mae.benchmarking.statistics.uncertainty import (
    FACTORS,
    FEW,
    LEAST,
    SMALL,
    Score,
    as_row,
    components_of_runs,
    score,
)
from ray_mae.evaluate.delong import AurocError, clustered

Array = NDArray[np.float64]
MACRO = "macro"


@dataclass(frozen=True)
class Scored:
    """What the fits of one encoder in one cell are worth on one test."""

    cell: Cell
    encoder: str
    cohort: Cohort
    fits: list[Fit]
    """F"""
    values: dict[str, Array]
    """[F, L] by metric."""
    resampled: dict[str, Array]
    """[L, R] by metric, mean over the fits."""
    macro_runs: Array
    """[F, R] of the primary metric's mean over labels, for curves."""
    delong: dict[str, AurocError]
    """By label with few patients, of the first fit."""

    @property
    def primary(self) -> str:
        return metrics.PRIMARY[self.cohort.kind]

    @property
    def levels(self) -> NDArray[np.intp]:
        """[F, 3] of pretraining seeds, draws, and seeds of the head.

        Where each draw has a seed of its own, the two are one source of variance, and it is the draw.
        """
        levels = np.array([[getattr(fit.key, factor) for factor in FACTORS] for fit in self.fits])
        draw, seed = FACTORS.index("draw"), FACTORS.index("seed")
        both = len(np.unique(levels[:, [draw, seed]], axis=0))
        if both == len(np.unique(levels[:, draw])) == len(np.unique(levels[:, seed])):
            levels[:, seed] = 0
        return levels

    def columns(self, label: str) -> list[int]:
        """Of a label, or of the mean over labels."""
        return self.cohort.macro if label == MACRO else [self.cohort.names.index(label)]

    def runs(self, metric: str, label: str) -> Array:
        """[F] value of each fit."""
        return self.values[metric][:, self.columns(label)].mean(1)

    def replicates(self, metric: str, label: str) -> Array:
        """[R] of the mean over fits; a label that a resample cannot tell is left out for all encoders."""
        return mean_known(self.resampled[metric][self.columns(label)])

    def rarer(self, metric: str, label: str) -> float:
        """Patients of the rarer class; of a mean over labels, their effective number."""
        return effective(
            [self.cohort.rarer(self.cohort.names[i]) for i in self.columns(label)],
            self.resampled[metric][self.columns(label)],
        )

    def score(self, metric: str, label: str = MACRO) -> Score:
        """With its interval."""
        columns = self.columns(label)
        if not columns:
            return Score(np.nan, np.nan, np.nan, "no label has patients enough", [], 0.0)
        runs = self.runs(metric, label)
        told = score(
            float(runs.mean()),
            self.replicates(metric, label),
            components_of_runs(self.levels, runs),
            self.rarer(metric, label),
            share=metric in metrics.SHARES,
            within=metrics.BOUNDS.get(metric, (0.0, 1.0)),
            error=metric in metrics.SURPLUS,
            delong=self.delong.get(self.cohort.names[columns[0]])
            if metric == "auroc" and len(columns) == 1
            else None,
        )
        # A resample counts as one that can tell where all labels can be told.
        whole = ~np.isnan(self.resampled[metric][columns]).any(0)
        return Score(**{**vars(told), "usable": float(whole.mean())})


def mean_known(values: Array) -> Array:
    """Mean [R] over the rows of [L, R] that are known; NaN where none is."""
    known = ~np.isnan(values)
    count = known.sum(0)
    mean = np.where(known, values, 0.0).sum(0) / np.maximum(count, 1)
    return np.where(count > 0, mean, np.nan)


def effective(rarer: Sequence[int], resampled: Array) -> float:
    """Of a mean over labels, the number of patients whose degrees of freedom it has (Satterthwaite).

    Args:
        rarer: [L] patients of the rarer class.
        resampled: [L, R] values, or differences.
    """
    if len(rarer) <= 1:
        return float(rarer[0]) if len(rarer) else 0.0
    if not all(n > 1 for n in rarer):
        return float(min(rarer))
    known = ~np.isnan(resampled)
    variance = np.array(
        [row[k].var() if k.any() else 0.0 for row, k in zip(resampled, known, strict=True)]
    )
    if not variance.any():
        return float(min(rarer))
    shares = float((variance**2 / (np.array(rarer) - 1)).sum())
    # Labels of one patient hang together: never more than the best of them has.
    return min(float(variance.sum() ** 2 / shares) + 1, float(max(rarer)))


def score_place(
    results: Results, cohort: Cohort, cells: Mapping[Cell, Mapping[str, list[Fit]]]
) -> list[Scored]:
    """Returns what the fits of each cell and encoder are worth on the samples of the cohort."""
    weights = results.weights(cohort.place.dataset, cohort.patient)
    kind, labels, resamples = cohort.kind, len(cohort.names), weights.shape[1] - 1
    all_fits = [fit for by in cells.values() for fits in by.values() for fit in fits]
    values_of = results.outlined if kind == "segmentation" else results.values
    said = {fit.key: values_of(fit, cohort) for fit in all_fits}
    macro = {fit.key: _Mean(resamples) for fit in all_fits}
    tables = {(cell, encoder): ({}, {}, {}) for cell, by in cells.items() for encoder in by}  # type: dict[tuple[Cell, str], tuple[dict[str, Array], dict[str, Array], dict[str, AurocError]]]
    for i, name in enumerate(cohort.names):
        if cohort.rarer(name) < LEAST and i not in cohort.macro:
            continue
        known = cohort.known(i)
        target, patient = cohort.truth(i)[known], cohort.patient[known]
        shares = weights[known]
        if kind == "segmentation":
            shares = metrics.per_patient(shares, patient)
        measure = metrics.measure_of(kind, target, shares)
        for (cell, encoder), (values, means, delong) in tables.items():
            fits = cells[cell][encoder]
            for f, fit in enumerate(fits):
                value = said[fit.key][known, i]
                found = measure(value)
                for metric, column in found.items():
                    empty = (len(fits), labels), (labels, resamples)
                    values.setdefault(metric, np.full(empty[0], np.nan))[f, i] = column[0]
                    of_label = means.setdefault(metric, np.full(empty[1], np.nan))
                    of_label[i] = (0.0 if f == 0 else of_label[i]) + column[1:] / len(fits)
                if i in cohort.macro:
                    macro[fit.key].add(found[metrics.PRIMARY[kind]][1:])
                if kind == "labels" and f == 0 and FEW <= cohort.rarer(name) < SMALL:
                    delong[name] = clustered(target, value, patient)
    return [
        Scored(
            cell, encoder, cohort, cells[cell][encoder], *of_cell[:2],
            np.stack([macro[fit.key].mean() for fit in cells[cell][encoder]]), of_cell[2],
        )
        for (cell, encoder), of_cell in tables.items()
    ]  # fmt: skip


class _Mean:
    """A mean over labels of [R] resampled values, without those that a resample cannot tell."""

    def __init__(self, resamples: int) -> None:
        self.sum, self.count = np.zeros(resamples, np.float32), np.zeros(resamples, np.uint16)

    def add(self, values: Array) -> None:
        known = ~np.isnan(values)
        self.sum += np.where(known, values, 0.0).astype(np.float32)
        self.count += known

    def mean(self) -> NDArray[np.float32]:
        return np.where(self.count > 0, self.sum / np.maximum(self.count, 1), np.float32(np.nan))


def score_all(results: Results) -> Iterator[Scored]:
    """Everything that can be scored, in the suite's order of tasks, tests, views, cells and encoders."""
    for place, cells in results.places.items():
        yield from score_place(results, results.cohorts[place], cells)


def rows_of(results: Results, scored: Scored) -> list[dict[str, Any]]:
    """A row for each label and metric, as scores.csv has them."""
    cohort, place = scored.cohort, scored.cohort.place
    labels = [MACRO] if cohort.macro and (len(cohort.names) > 1 or cohort.kind == "labels") else []
    labels += [
        n for i, n in enumerate(cohort.names) if cohort.rarer(n) >= LEAST or i in cohort.macro
    ]
    rows = []
    for label in labels:
        columns = scored.columns(label)
        counts = [
            cohort.counts[cohort.names[i]] for i in columns if cohort.names[i] in cohort.counts
        ]
        known = np.any([cohort.known(i) for i in columns], axis=0)
        for metric in scored.values:
            rows.append(
                {
                    **cell_columns(place, scored.cell),
                    "encoder": scored.encoder,
                    "exposure": results.exposure(scored.encoder, place.dataset)["state"],
                    "label": label,
                    "metric": metric,
                    **as_row(scored.score(metric, label)),
                    "fits": len(scored.fits),
                    **{
                        f"n_{f}": len(np.unique(scored.levels[:, k])) for k, f in enumerate(FACTORS)
                    },
                    "n_samples": int(known.sum()),
                    "n_patients": len(np.unique(cohort.patient[known])),
                    "n_positive_patients": min((c.positive_patients for c in counts), default=None),
                    "n_negative_patients": min((c.negative_patients for c in counts), default=None),
                    "n_labels": len(columns),
                    "label_set": cohort.label_set if label == MACRO else "",
                    "constant": sum(
                        cohort.names[i] in fit.constant for fit in scored.fits for i in columns
                    ),
                }
            )
    return rows


def cell_columns(place: Place, cell: Cell) -> dict[str, Any]:
    """The columns that say where a row belongs."""
    return {
        "task": cell.task,
        "test": place.dataset,
        "head": cell.head,
        "views": cell.views,
        "studies": cell.studies or "all",
        "validation": cell.validation,
        "held_out": cell.held_out,
    }
