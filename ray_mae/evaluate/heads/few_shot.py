"""Few labelled patients: nothing is chosen, for there is nothing to choose on.

Features are brought to one scale by all training samples, whose labels stay unknown but for those of the
patients drawn. The vector is the longest there is.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_mae.config.suite import Heads
from ray_mae.evaluate.heads import linear
from ray_mae.evaluate.heads.axes import scaling
from ray_mae.evaluate.heads.base import POOLS, Data, FloatArray, HeadFit
from ray_mae.evaluate.heads.choice import one_class, prevalence_logits
from ray_mae.evaluate.heads.knn import unit
from ray_mae.evaluate.heads.logistic import logistic_path

C = 1.0


@dataclass(frozen=True)
class FewShot:
    """A head that is fitted to `settings.shots` patients of each class of each label; shots is one number."""

    by_mean: bool
    """Nearest class mean by cosine, in place of logistic regression."""

    def fit(self, train: Data, val: Data, labels: list[str], settings: Heads, seed: int) -> HeadFit:
        """See `base.Head`. The seed draws the patients; those of fewer shots are among those of more.

        Raises:
            ValueError: where `settings.shots` is not one number.
        """
        if len(settings.shots) != 1:
            raise ValueError(f"shots must be one number for each fit, got {settings.shots}")
        pool = max(train.pools, key=POOLS.index)
        mean, scale = scaling(train.vectors[pool])
        x: FloatArray = (train.vectors[pool] - mean) * scale
        y = drawn(train, settings.shots[0], seed)
        rows = ~np.isnan(y).all(axis=1)
        x, y = x[rows], y[rows]
        constant = one_class(y)
        varying = np.flatnonzero(~constant)
        patients = [[int((column == state).sum()) for state in (1, 0)] for column in y.T]
        parameters, converged = 0, True
        if self.by_mean:
            means = np.stack([_class_means(x, column) for column in y.T])
            arrays = {"mean": mean, "scale": scale, "means": means, "varies": (~constant) * 1.0}
        else:
            path = logistic_path(x, y[:, varying], [C])
            weight, bias = np.zeros((len(labels), x.shape[1])), prevalence_logits(y)
            weight[varying], bias[varying] = path.weight[0] * scale, path.bias[0]
            arrays = {"weight": weight, "bias": bias - weight @ mean}
            parameters = len(varying) * (x.shape[1] + 1)
            converged = bool(path.converged.all())
        return HeadFit(
            chosen={"pool": pool, "patients": patients},
            arrays=arrays,
            constant=[labels[i] for i in np.flatnonzero(constant)],
            converged=converged,
            parameters=parameters,
            samples_seen=len(x),
        )

    def predict(
        self, chosen: dict[str, Any], arrays: dict[str, NDArray[Any]], data: Data, train: Data
    ) -> NDArray[np.float32]:
        """See `base.Head`. Of class means: cosine with that of the positive less that with the negative."""
        if not self.by_mean:
            return linear.predict(chosen, arrays, data, train)
        x = unit((data.vectors[chosen["pool"]] - arrays["mean"]) * arrays["scale"])
        negative, positive = (unit(arrays["means"][:, state]) for state in (0, 1))
        return ((x @ (positive - negative).T) * arrays["varies"]).astype(np.float32)


logistic, class_mean = FewShot(by_mean=False), FewShot(by_mean=True)


def drawn(train: Data, shots: int, seed: int) -> NDArray[np.float64]:
    """Targets [n, L] of the samples drawn, NaN of all others.

    For each label so many patients of each class with one sample each, positive ones first; a patient who is
    drawn as a positive one is no negative one. All there are where there are fewer.
    """
    targets = np.full(train.targets.shape, np.nan)
    for i, column in enumerate(train.targets.T):
        taken: set[str] = set()
        order = np.random.default_rng([seed, i]).permutation(len(train))
        for state in (1, 0):
            found: dict[str, int] = {}
            for row in order[column[order] == state]:
                patient = str(train.patient[row])
                if len(found) == shots:
                    break
                if patient not in taken:
                    found.setdefault(patient, row)
            taken |= found.keys()
            targets[list(found.values()), i] = state
    return targets


def _class_means(x: FloatArray, y: FloatArray) -> FloatArray:
    """[2, D] of the negative and of the positive, 0 where there is none."""
    return np.stack(
        [x[y == state].mean(axis=0) if (y == state).any() else 0 * x[0] for state in (0, 1)]
    )
