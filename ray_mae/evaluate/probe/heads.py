"""One linear head per label on the features of one draw of labelled patients, its C chosen without test."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from ray_mae.config import ProbeSettings
from ray_mae.evaluate.calibration import temperature
from ray_mae.evaluate.metrics import FloatArray
from ray_mae.evaluate.probe.fits import (
    FitPath,
    beyond,
    by_folds,
    by_validation,
    fitted,
    logits,
    mean_path,
    split_by_patient,
)
from ray_mae.evaluate.probe.labelled import Draw, ProbeData
from ray_mae.evaluate.probe.scaling import FeatureScaler

OWN_CHOICE = 30
"""Patients with a positive study that a label needs on what chooses to have a C of its own: a choice by
fewer is noise, and the C that is best for the mean over labels is taken."""


@dataclass(frozen=True)
class Head:
    """The head of one label."""

    logits: FloatArray
    """[S] float64 of validation and test rows, NaN of those fitted to."""
    C: float
    """NaN of a constant."""
    own: bool
    """Whether the label chose C itself, and not the mean over labels."""
    at_edge: str
    """See `LabelScore`."""
    choice_auroc: float
    """Of the label at that C on what chose; NaN where that holds one class alone."""
    temperature: float | None
    """By what chose; None by folds, which leave nobody aside."""
    constant: bool
    """The labelled are of one class: everybody is given their prevalence."""
    failed: list[float]
    """C whose fits did not converge."""


@dataclass(frozen=True)
class Heads:
    """Those of one feature set and one draw."""

    heads: dict[str, Head]
    """By label."""
    constant_features: int
    """That do not vary over the labelled and count nothing."""


class _Fits:
    """Fits of the labels to one draw, at whatever C."""

    def __init__(self, x: FloatArray, data: ProbeData, draw: Draw, config: ProbeSettings) -> None:
        self._x, self._data, self._draw, self._config = x, data, draw, config

    def rows(self, column: int) -> tuple[FloatArray, NDArray[np.bool_], NDArray[np.bool_]]:
        """Targets [S] of a label, and its rows to fit and to choose."""
        y = self._data.targets[:, column]
        known = ~np.isnan(y)
        return y, self._draw.fit & known, self._draw.choose & known

    def chooses(self, column: int) -> bool:
        """Whether the label has positive patients enough to choose C."""
        y, fit, choose = self.rows(column)
        rows = fit if self._config.cross_validate else choose
        return len(np.unique(self._data.patient[rows & (y == 1)])) >= OWN_CHOICE

    def path(self, column: int, C: list[float], start: LogisticRegression | None = None) -> FitPath:
        y, fit, choose = self.rows(column)
        if self._config.cross_validate:
            folds = split_by_patient(y[fit], self._data.patient[fit], self._config)
            return by_folds(self._x[fit], y[fit], folds, C)
        return by_validation(self._x[fit], y[fit], self._x[choose], y[choose], C, start)

    def widened(self, column: int, path: FitPath, edge: str) -> FitPath:
        """With two more C beyond an end."""
        if not (C := beyond(path.C, edge)):
            return path
        start = path.models[-1] if edge == "largest" and path.models else None
        return path.joined(self.path(column, C, start))

    def head(self, column: int, path: FitPath, choice: FitPath, *, own: bool) -> Head:
        """The head at the best C of `choice`, which is the label's path or the mean over labels."""
        y, fit, choose = self.rows(column)
        C, failed = choice.C[choice.best], path.failed
        place = path.C.index(C)
        if path.models:
            model = path.models[place]
        else:
            model, converged = fitted(LogisticRegression(), C, self._x[fit], y[fit])
            failed = sorted({*failed, *([] if converged else [C])})
        chosen_by = y[choose], logits(model, self._x[choose])
        cool = None if self._config.cross_validate else temperature(*chosen_by)
        of = self._held_out(logits(model, self._x))
        return Head(of, C, own, choice.at_edge, path.auroc[place], cool, False, failed)

    def constant(self, column: int) -> Head:
        """Of a label with one class among the labelled: their prevalence, by Laplace's rule of succession."""
        y, fit, _ = self.rows(column)
        positive, every = int((y[fit] == 1).sum()), int(fit.sum())
        logit = float(np.log((positive + 1) / (every - positive + 1)))
        of = self._held_out(np.full(len(y), logit))
        cool = None if self._config.cross_validate else 1.0
        return Head(of, np.nan, False, "", np.nan, cool, True, [])

    def _held_out(self, values: FloatArray) -> FloatArray:
        held_out = ~self._data.rows("train") & ~self._draw.fit
        return np.where(held_out, values, np.nan)


def fit_heads(
    x: FloatArray,
    data: ProbeData,
    columns: Mapping[str, int],
    draw: Draw,
    config: ProbeSettings,
) -> Heads:
    """Fits the head of each label.

    Args:
        x: [S, D] features.
        data: S samples.
        columns: of the labels' targets, by name.
        draw: whom they are fitted to and chosen by.
        config: with the C to choose from.
    """
    # Standardised in double precision (an untrained encoder hardly varies around a large mean),
    # fitted in single: half the time at equal AUROC.
    x = np.asarray(x, np.float64)
    scaler = FeatureScaler().fit(x[draw.fit])
    fits = _Fits(scaler.transform(x).astype(np.float32), data, draw, config)
    varied = {}
    for name, column in columns.items():
        y, fit, _ = fits.rows(column)
        if len(np.unique(y[fit])) == 2:
            varied[name] = column
    paths = {name: fits.path(column, config.strengths) for name, column in varied.items()}
    own = {name: fits.chooses(column) for name, column in varied.items()}
    mean = mean_path(list(paths.values())) if paths else None
    edge_of_mean = mean.at_edge if mean and not all(own.values()) else ""
    for name, column in varied.items():
        for edge in {edge_of_mean, paths[name].at_edge if own[name] else ""}:
            paths[name] = fits.widened(column, paths[name], edge)
    if edge_of_mean:
        mean = mean_path(list(paths.values()))
    heads = {}
    for name, column in columns.items():
        if name in varied:
            choice = paths[name] if own[name] else mean
            assert choice is not None
            heads[name] = fits.head(column, paths[name], choice, own=own[name])
        else:
            heads[name] = fits.constant(column)
    return Heads(heads, int(scaler.constant_.sum()))
