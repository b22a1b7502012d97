"""Fits of one label's logistic regression, and the choice of its regularisation C."""

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold

from ray_mae.config import ProbeSettings
from ray_mae.evaluate.metrics import FloatArray

MAX_ITERATIONS = 2000


@dataclass(frozen=True)
class FitPath:
    """Fits of one label from the smallest C to the largest."""

    C: list[float]
    """Rising."""
    auroc: list[float]
    """Of each, on what chooses; NaN where that holds one class alone."""
    failed: list[float]
    """C that did not converge."""
    models: list[LogisticRegression]
    """Of each C, fitted to all that is fitted to; none with folds, whose fits are to parts of it."""

    @property
    def best(self) -> int:
        """Place of the best C, of equally good ones the smallest; the middle one where none can be told."""
        known = np.nan_to_num(self.auroc, nan=-1.0)
        return int(np.argmax(known)) if known.max() >= 0 else len(self.C) // 2

    @property
    def at_edge(self) -> str:
        """See `LabelScore`. Of equally good ones the smallest is taken, so that a plateau is no edge."""
        if len(self.C) > 1 and self.best == len(self.C) - 1:
            return "largest"
        if len(self.C) > 1 and self.best == 0 and self.auroc[0] > self.auroc[1]:
            return "smallest"
        return ""

    def joined(self, other: "FitPath") -> "FitPath":
        """With fits of other C, all of them smaller or all of them larger."""
        a, b = (self, other) if self.C[0] < other.C[0] else (other, self)
        return FitPath(
            a.C + b.C, a.auroc + b.auroc, sorted(a.failed + b.failed), a.models + b.models
        )


def mean_path(paths: Sequence[FitPath]) -> FitPath:
    """The mean AUROC over labels of each C that all of them have, over those that can tell."""
    C = [c for c in paths[0].C if all(c in path.C for path in paths)]
    each = np.array([[path.auroc[path.C.index(c)] for c in C] for path in paths])
    known = ~np.isnan(each)
    mean = np.where(known, each, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return FitPath(C, np.where(known.any(axis=0), mean, np.nan).tolist(), [], [])


def beyond(C_values: Sequence[float], edge: str) -> list[float]:
    """Two C beyond an end of the grid, in its own steps; none of a grid of one or two, which is a choice."""
    C = sorted(C_values)
    if len(C) < 3 or not edge:
        return []
    if edge == "largest":
        step = C[-1] / C[-2]
        return [C[-1] * step, C[-1] * step**2]
    step = C[0] / C[1]
    return [C[0] * step**2, C[0] * step]


def by_validation(
    x: FloatArray,
    y: FloatArray,
    x_val: FloatArray,
    y_val: FloatArray,
    C_values: Sequence[float],
    start: LogisticRegression | None = None,
) -> FitPath:
    """Fits to x [n, D], y [n], scored on validation patients.

    From small to large each fit starts at the last one's solution, the first at that of `start`. lbfgs: of
    the solvers of scikit-learn the fastest or close to it for 500 to 20,000 studies and 128 to 1024 features,
    and the only one that is so everywhere.
    """
    model = copy.deepcopy(start) or LogisticRegression(
        solver="lbfgs", max_iter=MAX_ITERATIONS, warm_start=True
    )
    path = FitPath(sorted(C_values), [], [], [])
    both = len(np.unique(y_val)) == 2
    for C in path.C:
        model, converged = fitted(model, C, x, y)
        if not converged:
            path.failed.append(C)
        path.auroc.append(float(roc_auc_score(y_val, logits(model, x_val))) if both else np.nan)
        path.models.append(copy.deepcopy(model))
    return path


def logits(model: LogisticRegression, x: FloatArray) -> FloatArray:
    """Logits [n] in double precision: in that of the fit, distant ones would tie."""
    values: FloatArray = x.astype(np.float64) @ model.coef_[0].astype(np.float64)
    return values + float(model.intercept_[0])


def split_by_patient(
    y: FloatArray, patient: NDArray, config: ProbeSettings
) -> list[tuple[NDArray, NDArray]]:
    """Divides rows by patient into folds in which the classes are as frequent as in all, as far as that goes.

    Args:
        y: [n] in {0, 1}
        patient: [n]
        config: its cross_validate says how many, its seed how they are shuffled.

    Returns:
        Rows to fit to, and rows to score on, of each fold; those folds alone that have both classes in both.
    """
    assert config.cross_validate
    patients, of_class = len(np.unique(patient)), np.unique(y, return_counts=True)[1]
    folds = min(config.cross_validate, patients, int(of_class.max(initial=0)))
    if folds < 2:
        return []
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=config.seed)
    with (
        warnings.catch_warnings()
    ):  # of classes with less members than folds: such folds are left out
        warnings.simplefilter("ignore", UserWarning)
        pairs = list(splitter.split(y[:, None], y, patient))
    return [(a, b) for a, b in pairs if len(set(y[a])) == len(set(y[b])) == 2]


def by_folds(
    x: FloatArray,
    y: FloatArray,
    folds: list[tuple[NDArray, NDArray]],
    C_values: Sequence[float],
) -> FitPath:
    """Fits to all folds but one, scored on that one: AUROC is the mean over the folds, NaN without any.

    Not of all scores together: those of different fits are not on one scale.
    """
    C = sorted(C_values)
    if not folds:
        return FitPath(C, [np.nan] * len(C), [], [])
    paths = [by_validation(x[a], y[a], x[b], y[b], C) for a, b in folds]
    auroc = np.mean([path.auroc for path in paths], axis=0).tolist()
    return FitPath(C, auroc, sorted({c for path in paths for c in path.failed}), [])


def fitted(
    model: LogisticRegression, C: float, x: FloatArray, y: FloatArray
) -> tuple[LogisticRegression, bool]:
    """The model fitted, and whether it converged."""
    with warnings.catch_warnings(record=True) as messages:
        warnings.simplefilter("always", ConvergenceWarning)
        model.set_params(C=C, max_iter=MAX_ITERATIONS).fit(x, y)
    return model, not any(issubclass(w.category, ConvergenceWarning) for w in messages)
