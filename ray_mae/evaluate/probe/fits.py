"""Fits of one label's logistic regression, and the choice of its regularisation C."""

import copy
import warnings
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
    """Of each, on what chooses."""
    failed: list[float]
    """C that did not converge."""
    models: list[LogisticRegression]
    """Of each C, fitted to all that is fitted to; none with folds, whose fits are to parts of it."""

    @property
    def chosen(self) -> int:
        """The best, of equally good ones the smallest."""
        return int(np.argmax(self.auroc))

    @property
    def choice(self) -> tuple[float, float]:
        """C, and its AUROC on what chose it."""
        return self.C[self.chosen], self.auroc[self.chosen]

    @property
    def at_edge(self) -> str:
        """See `LabelScore`. Of equally good ones the smallest is taken, so that a plateau is no edge."""
        if len(self.C) > 1 and self.chosen == len(self.C) - 1:
            return "largest"
        if len(self.C) > 1 and self.chosen == 0 and self.auroc[0] > self.auroc[1]:
            return "smallest"
        return ""

    def logits(
        self, x_test: FloatArray, x: FloatArray, y: FloatArray
    ) -> tuple[FloatArray, list[float]]:
        """Test logits [S] of the fit to x [n, D], y [n] at the C that was chosen, and Cs unconverged."""
        failed = self.failed
        if self.models:
            model = self.models[self.chosen]
        else:
            model, converged = _fitted(LogisticRegression(), self.C[self.chosen], x, y)
            failed = sorted({*failed, *([] if converged else [self.C[self.chosen]])})
        return model.decision_function(x_test).astype(np.float64), failed


def by_validation(
    x: FloatArray, y: FloatArray, x_val: FloatArray, y_val: FloatArray, C_values: list[float]
) -> FitPath:
    """Fits to x [n, D], y [n], scored on validation patients.

    From small to large each fit starts at the last one's solution. lbfgs: of the solvers of
    scikit-learn the fastest or close to it for 500 to 20,000 studies and 128 to 1024 features, and
    the only one that is so everywhere.
    """
    model = LogisticRegression(solver="lbfgs", max_iter=MAX_ITERATIONS, warm_start=True)
    path = FitPath(sorted(C_values), [], [], [])
    for C in path.C:
        model, converged = _fitted(model, C, x, y)
        if not converged:
            path.failed.append(C)
        path.auroc.append(float(roc_auc_score(y_val, model.decision_function(x_val))))
        path.models.append(copy.deepcopy(model))
    return path


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
    x: FloatArray, y: FloatArray, folds: list[tuple[NDArray, NDArray]], C_values: list[float]
) -> FitPath:
    """Fits to all folds but one, scored on that one: AUROC is the mean over the folds.

    Not of all scores together: those of different fits are not on one scale.
    """
    paths = [by_validation(x[a], y[a], x[b], y[b], C_values) for a, b in folds]
    auroc = np.mean([path.auroc for path in paths], axis=0).tolist()
    failed = sorted({C for path in paths for C in path.failed})
    return FitPath(sorted(C_values), auroc, failed, [])


def _fitted(
    model: LogisticRegression, C: float, x: FloatArray, y: FloatArray
) -> tuple[LogisticRegression, bool]:
    """The model fitted, and whether it converged."""
    with warnings.catch_warnings(record=True) as messages:
        warnings.simplefilter("always", ConvergenceWarning)
        model.set_params(C=C, max_iter=MAX_ITERATIONS).fit(x, y)
    return model, not any(issubclass(w.category, ConvergenceWarning) for w in messages)
