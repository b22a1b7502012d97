"""Retrieval by cosine: does what lies next to a sample have the same findings? Nothing is fitted.

A sample's gallery are the others without those of the same patient. Relevant is what has a positive label in
common with it; samples without a positive label ask nothing. What chance gives is what random features give.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_mae.config.suite import Heads
from ray_mae.evaluate.heads.base import Data, FloatArray, HeadFit, Trial
from ray_mae.evaluate.heads.choice import best
from ray_mae.evaluate.heads.knn import unit

METRICS = {
    "recall@1": "Share of queries with a relevant one in the first",
    "recall@5": "Share of queries with a relevant one among 5",
    "recall@10": "Share of queries with a relevant one among 10",
    "P@10": "Share of 10 that is relevant",
    "mAP@R": "Mean precision at the relevant ones among the first R, R being all that are relevant",
    "nDCG": "Discounted gain, of the Jaccard index of findings, against the best order",
    "same_patient@1": "Share of queries whose nearest is of the same patient, of those that have one",
}
"""Key and meaning; the last is how well features tell people apart, and high is no merit."""
RANKED_BY = "mAP@R"
_BLOCK = 256


def fit(train: Data, val: Data, labels: list[str], settings: Heads, seed: int) -> HeadFit:
    """See `base.Head`. Only the vector is chosen, by mAP@R among validation patients."""
    at = list(METRICS).index(RANKED_BY)
    trials = []
    for pool in train.pools:
        scores = retrieved(val.vectors[pool], val.targets, val.patient)[:, at]
        known = scores[~np.isnan(scores)]
        trials.append(Trial({"pool": pool}, float(known.mean()) if len(known) else float("nan")))
    taken = best(np.array([trial.score for trial in trials])) or 0
    return HeadFit(
        chosen=dict(trials[taken].settings), arrays={}, trials=trials, columns=list(METRICS)
    )


def predict(
    chosen: dict[str, Any], arrays: dict[str, NDArray[Any]], data: Data, train: Data
) -> NDArray[np.float32]:
    """Returns METRICS of each sample as a query, [m, 7]; looks at the targets of `data`."""
    return retrieved(data.vectors[chosen["pool"]], data.targets, data.patient)


def retrieved(x: FloatArray, targets: FloatArray, patient: NDArray[np.str_]) -> NDArray[np.float32]:
    """METRICS [m, 7] of each sample as a query; NaN where it has no positive label or nothing is relevant.

    Args:
        x: [m, D]
        targets: [m, L]; unknown counts as not positive.
        patient: [m]
    """
    x = unit(x)
    positive = (targets == 1).astype(np.float32)
    count = positive.sum(axis=1)
    _, person = np.unique(patient, return_inverse=True)
    found = np.full((len(x), len(METRICS)), np.nan, np.float32)
    for start in range(0, len(x), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(x)))
        cosine = x[rows] @ x.T  # [b, m]
        itself = np.arange(len(x)) == rows[:, None]
        same = person[rows, None] == person
        found[rows, -1] = _same_person(np.where(itself, -np.inf, cosine), same & ~itself)
        order = np.argsort(np.where(same, np.inf, -cosine), axis=1, kind="stable")
        together = positive[rows] @ positive.T
        either = count[rows, None] + count - together
        gain = np.where(same, 0, together / np.maximum(either, 1))
        gain = np.take_along_axis(gain, order, axis=1)
        found[rows, :-1] = _ranked(gain, (~same).sum(axis=1))
    return found


def _same_person(cosine: FloatArray, same: NDArray[np.bool_]) -> FloatArray:
    """[b] 1 where the nearest is of the same person; NaN where no other sample is."""
    nearest = cosine.argmax(axis=1)
    hit = same[np.arange(len(same)), nearest].astype(np.float32)
    return np.where(same.any(axis=1), hit, np.nan)


def _ranked(gain: FloatArray, there: NDArray[np.intp]) -> FloatArray:
    """The other METRICS [b, 6] of gains [b, m] from the nearest on, `there` [b] of them of the gallery."""
    relevant = gain > 0
    R = relevant.sum(axis=1)
    hits = relevant.cumsum(axis=1)
    place = np.arange(1, gain.shape[1] + 1)
    at = [hits[:, min(k, hits.shape[1]) - 1] for k in (1, 5, 10)]
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(relevant & (place <= R[:, None]), hits / place, 0).sum(axis=1) / R
        discount = 1 / np.log2(place + 1)
        ndcg = gain @ discount / (-np.sort(-gain, axis=1) @ discount)
        of_ten = at[2] / np.minimum(there, 10)
    found = np.stack([*((hit > 0).astype(float) for hit in at), of_ten, precision, ndcg], axis=1)
    found[R == 0] = np.nan
    return found
