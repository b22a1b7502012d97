"""Whom a probe is fitted to: labels with patients enough, and draws of few labelled patients."""

from collections.abc import Container, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ray_mae.config import ProbeSettings
from ray_mae.data.schema import SPLITS
from ray_mae.evaluate.cohort import (
    SplitCount,
    count_labels,
    draw_patients,
    hint_of_policy,
    too_rare,
)
from ray_mae.evaluate.metrics import FloatArray
from ray_mae.evaluate.probe.fits import split_by_patient

SPENT = 5
"""With validation spent, one of so many drawn patients chooses."""


@dataclass(frozen=True)
class ProbeData:
    """S studies or volumes, and what is to be told of them."""

    targets: FloatArray
    """[S, L] 0, 1, or NaN where unknown."""
    names: Sequence[str]
    """[L] of the labels."""
    patient: NDArray
    """[S]"""
    split: NDArray
    """[S]"""

    def rows(self, split: str) -> NDArray[np.bool_]:
        """Mask [S] of a split."""
        return np.asarray(self.split == split)


@dataclass(frozen=True)
class Draw:
    """Rows that a probe is fitted to, and those that choose its regularisation."""

    fit: NDArray[np.bool_]
    """[S]"""
    choose: NDArray[np.bool_]
    """[S] apart from `fit`; nobody where folds choose."""


def probeable(
    data: ProbeData, config: ProbeSettings
) -> tuple[dict[str, SplitCount], dict[str, str]]:
    """What each split holds, and which labels are too rare, with the reason.

    By the whole splits, whatever `train_studies` says: all points of a curve are of the same labels.
    Raises ValueError where all labels are too rare.
    """
    targets, patient, names = data.targets, data.patient, data.names
    counts = {s: count_labels(targets, patient, data.rows(s), names) for s in SPLITS}
    parts = counts
    if config.cross_validate:
        fitted = fitted_on(data.split, config)
        parts = {
            "train and val": count_labels(targets, patient, fitted, names),
            "test": counts["test"],
        }
    elif config.validation == "spent":
        parts = {s: counts[s] for s in ("train", "test")}
    left_out = too_rare(parts, config.min_positive)
    if config.cross_validate:
        left_out = _without_folds(data, fitted, config) | left_out
    if len(left_out) == len(names):
        raise ValueError(
            f"no label can be probed: none has {config.min_positive} patients with a positive study and "
            f"{config.min_positive} with a negative one in each of {', '.join(parts)}"
            f"{hint_of_policy(config)}; lower min_positive, "
            + ("" if config.cross_validate else "choose by folds (cross_validate 5), ")
            + "or bring more labelled patients"
        )
    return counts, left_out


def _without_folds(
    data: ProbeData, fitted: NDArray[np.bool_], config: ProbeSettings
) -> dict[str, str]:
    """Labels of which no fold has both classes within and without, such as one of a single patient."""
    reasons = {}
    for i, name in enumerate(data.names):
        rows = fitted & ~np.isnan(data.targets[:, i])
        if not split_by_patient(data.targets[rows, i], data.patient[rows], config):
            reasons[name] = "its positive or its negative studies are of too few patients for folds"
    return reasons


def fitted_on(split: NDArray, config: ProbeSettings) -> NDArray[np.bool_]:
    """Mask [S] of the studies that the probe is fitted to: training, by folds validation as well."""
    return np.isin(split, ("train", "val") if config.cross_validate else ("train",))


def needed_splits(there: Container[str], config: ProbeSettings) -> list[str]:
    """Splits that must have patients: by folds the validation split need not be there."""
    free = config.cross_validate or config.validation == "spent"
    return [s for s in SPLITS if s != "val" or not free or s in there]


def draws_of(data: ProbeData, config: ProbeSettings) -> list[Draw]:
    """The draws of labelled patients: one of all of them, or `config.draws` of `config.train_studies`.

    Within one draw a smaller number lies within a larger one, also what chooses where validation is spent.
    """
    fitted = fitted_on(data.split, config)
    choose = np.zeros(len(fitted), bool) if config.cross_validate else data.rows("val")
    wanted = config.train_studies
    if wanted is None or (wanted >= fitted.sum() and config.validation == "full"):
        return [Draw(fitted, choose)]
    draws = []
    for draw in range(config.draws):
        drawn = draw_patients(data.patient[fitted], wanted, config.seed, draw)
        if config.validation == "spent":
            choosing = drawn[SPENT - 1 :: SPENT] or drawn[1:]
            choose = fitted & np.isin(data.patient, choosing)
        part = fitted & np.isin(data.patient, drawn)
        draws.append(Draw(part & ~choose, choose))
    return draws
