"""Which labelled patients a fit may see: drawn as a whole, each draw within the next larger one."""

import numpy as np
from numpy.typing import NDArray

from ray_mae.benchmarking.records import ALL

SPENT_ON_FIT = 0.8
"""Share of the labelled studies that fits, where they count for fit and choice together."""


def draw_patients(patient: NDArray[np.str_], studies: int, seed: int) -> NDArray[np.intp]:
    """Returns rows of so many studies, or a few more: the last patient comes with all of theirs.

    Of one seed a smaller draw lies within a larger one.

    Args:
        patient: [S] of the studies there are, in an order that does not change.
        studies: wanted; ALL or more than there are gives all.
        seed: of the order of the patients.
    """
    if studies == ALL or studies >= len(patient):
        return np.arange(len(patient))
    names, of_row, counts = np.unique(patient, return_inverse=True, return_counts=True)
    order = np.random.default_rng([seed, 17]).permutation(len(names))
    enough = int(np.searchsorted(np.cumsum(counts[order]), studies)) + 1
    return np.flatnonzero(np.isin(of_row, order[:enough]))


def labelled_rows(
    patient: NDArray[np.str_],
    split: NDArray[np.str_],
    usable: NDArray[np.bool_],
    studies: int,
    validation: str,
    seed: int,
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Returns the rows that fit, and those that choose.

    Args:
        patient, split: [S]
        usable: [S] whether a row has a label and what the encoder is to see.
        studies: labelled ones; ALL for all.
        validation: full: the whole validation split chooses. spent: fit and choice share the studies, four
            to one, each from its own split.
        seed: of the draw.
    """
    train, val = (np.flatnonzero((split == name) & usable) for name in ("train", "val"))
    if studies == ALL:
        return train, val
    if validation == "full":
        return train[draw_patients(patient[train], studies, seed)], val
    fit = max(1, round(SPENT_ON_FIT * studies))
    return (
        train[draw_patients(patient[train], fit, seed)],
        val[draw_patients(patient[val], max(1, studies - fit), seed)],
    )
