"""Logistic regression on frozen features: a vector and C for each label, chosen on validation patients."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_mae.config.suite import Heads
from ray_mae.evaluate.heads.axes import scaling
from ray_mae.evaluate.heads.base import Data, FloatArray, HeadFit, Trial
from ray_mae.evaluate.heads.choice import (
    OWN_CHOICE,
    aurocs,
    best,
    fused,
    is_at_edge,
    mean_known,
    one_class,
    patients_of_rarer_class,
    prevalence_logits,
    widened,
)
from ray_mae.evaluate.heads.logistic import LogisticPath, logistic_path


@dataclass(frozen=True)
class _Choice:
    """Fits on one of the vectors, and the C of each label that varies."""

    pool: str
    path: LogisticPath
    mean: FloatArray
    scale: FloatArray
    auroc: FloatArray
    """[L', K] on validation patients."""
    C: list[int]
    """[L'] which of the path."""

    @property
    def score(self) -> float:
        """Mean AUROC over the labels, each at its own C."""
        return float(mean_known(self.auroc[np.arange(len(self.C)), self.C][:, None])[0])


def fit(train: Data, val: Data, labels: list[str], settings: Heads, seed: int) -> HeadFit:
    """See `base.Head`.

    A label chooses its C where 30 validation patients of its rarer class can tell; the others take the C
    that is best for the mean over labels. The vector is the same for all. Where validation cannot tell
    anything, C is the one next to 1.
    """
    constant = one_class(train.targets)
    varying = np.flatnonzero(~constant)
    grid = widened(settings.C)
    own = patients_of_rarer_class(val)[varying] >= OWN_CHOICE
    found = [_fit_pool(pool, train, val, varying, grid, own) for pool in train.pools]
    taken = found[best(np.array([choice.score for choice in found])) or 0]
    path, places = taken.path, np.arange(len(varying))
    weight = np.zeros((len(labels), len(taken.mean)))
    bias = prevalence_logits(train.targets)
    weight[varying] = path.weight[taken.C, places] * taken.scale
    bias[varying] = path.bias[taken.C, places] - weight[varying] @ taken.mean
    C: list[float | None] = [None] * len(labels)
    for place, i in enumerate(varying):
        C[i] = path.C[taken.C[place]]
    outside = [labels[i] for i in varying if not min(settings.C) <= (C[i] or 0) <= max(settings.C)]
    scores = mean_known(taken.auroc)
    edge = [
        labels[i]
        for place, i in enumerate(varying)
        if is_at_edge(taken.C[place], taken.auroc[place] if own[place] else scores)
    ]
    return HeadFit(
        chosen={
            "pool": taken.pool,
            "C": C,
            "own_choice": [labels[i] for i in varying[own]],
            "beyond_the_grid": outside,
        },
        arrays={"weight": weight, "bias": bias},
        trials=[
            Trial({"pool": choice.pool, "C": C}, float(score))
            for choice in found
            for C, score in zip(grid, mean_known(choice.auroc), strict=True)
        ],
        at_edge=edge,
        constant=[labels[i] for i in np.flatnonzero(constant)],
        converged=bool(path.converged[taken.C, places].all()),
        parameters=len(varying) * (weight.shape[1] + 1),
        samples_seen=len(train) * len(grid) * len(found),
    )


def predict(
    chosen: dict[str, Any], arrays: dict[str, NDArray[Any]], data: Data, train: Data
) -> NDArray[np.float32]:
    """See `base.Head`."""
    x = data.vectors[chosen["pool"]].astype(np.float64)
    return (x @ arrays["weight"].T + arrays["bias"]).astype(np.float32)


def _fit_pool(
    pool: str,
    train: Data,
    val: Data,
    varying: NDArray[np.intp],
    grid: list[float],
    own: NDArray[np.bool_],
) -> _Choice:
    x = train.vectors[pool]
    mean, scale = scaling(x)
    path = logistic_path((x - mean) * scale, train.targets[:, varying], grid)
    logits = path.logits((val.vectors[pool] - mean) * scale)
    targets, logits = fused(val, logits)
    auroc = aurocs(targets[:, varying], logits)
    for_all = best(mean_known(auroc))
    if for_all is None:
        for_all = int(np.argmin(np.abs(np.log(grid))))
    C = [best(auroc[place]) if own[place] else None for place in range(len(varying))]
    return _Choice(pool, path, mean, scale, auroc, [for_all if c is None else c for c in C])
