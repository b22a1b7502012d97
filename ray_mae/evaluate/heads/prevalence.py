"""What is said without looking: the prevalence of a label, the median of a number, one risk for all."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_mae.config.suite import Heads
from ray_mae.evaluate.heads.base import Data, HeadFit
from ray_mae.evaluate.heads.choice import prevalence_logits
from ray_mae.evaluate.heads.cox import RISK


def fit(train: Data, val: Data, labels: list[str], settings: Heads, seed: int) -> HeadFit:
    """See `base.Head`. Nothing is chosen."""
    if train.kind == "survival":
        return HeadFit(chosen={}, arrays={"value": np.zeros(1)}, columns=[RISK])
    if train.kind == "number":
        known = [column[~np.isnan(column)] for column in train.targets.T]
        medians = [np.median(column) if len(column) else np.nan for column in known]
        return HeadFit(chosen={}, arrays={"value": np.array(medians)})
    return HeadFit(
        chosen={}, arrays={"value": prevalence_logits(train.targets)}, constant=list(labels)
    )


def predict(
    chosen: dict[str, Any], arrays: dict[str, NDArray[Any]], data: Data, train: Data
) -> NDArray[np.float32]:
    """See `base.Head`."""
    return np.tile(arrays["value"].astype(np.float32), (len(data), 1))
