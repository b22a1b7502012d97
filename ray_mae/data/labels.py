"""Labels of studies: their states in the shards, names and cells of tables, and the policies of training.

A data set has labels of any names, by default the 14 of CheXpert; its manifest says which. Of each study it
holds one state per label.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ray_mae.config.chexpert import CHEXPERT_LABELS as CHEXPERT_LABELS

# Not mentioned: whoever labelled the study said nothing of it. Not labelled: nobody was asked.
POSITIVE, NEGATIVE, UNCERTAIN, NOT_MENTIONED, NOT_LABELLED = 1, 0, -1, -2, -3
STATE_NAMES = {
    POSITIVE: "positive",
    NEGATIVE: "negative",
    UNCERTAIN: "uncertain",
    NOT_MENTIONED: "not mentioned",
    NOT_LABELLED: "not labelled",
}
_WORDS = {name: state for state, name in STATE_NAMES.items()} | {
    "true": POSITIVE,
    "yes": POSITIVE,
    "false": NEGATIVE,
    "no": NEGATIVE,
    **dict.fromkeys(("", "nan", "na", "n/a", "<na>", "null"), NOT_MENTIONED),
}

# Names other archives use, where they mean the same or a part of one of the 14. Deliberately short:
# a name that is neither here nor above (Emphysema, Fibrosis, Hernia …) is counted, not guessed.
SYNONYMS = {
    "normal": "No Finding",
    "opacity": "Lung Opacity",
    "infiltration": "Lung Opacity",  # ChestX-ray14
    "infiltrate": "Lung Opacity",
    "mass": "Lung Lesion",  # CheXpert: nodules and masses
    "nodule": "Lung Lesion",
    "effusion": "Pleural Effusion",
    "pleural thickening": "Pleural Other",  # ChestX-ray14
}
CHEXPERT_MEANINGS = {name.lower(): name for name in CHEXPERT_LABELS} | SYNONYMS
"""The 14 by every name that means one of them, as `normalised` gives it."""


def normalised(name: str) -> str:
    """What names of one label have in common: case, _ and white space do not matter."""
    return " ".join(name.replace("_", " ").lower().split())


def label_named(name: str) -> str | None:
    """The CheXpert label that an archive's name stands for. None: none of the 14."""
    return CHEXPERT_MEANINGS.get(normalised(name))


@lru_cache(maxsize=4096)
def state_of(cell: str) -> int | None:
    """The state in one cell of a table: 1, 0, -1, yes, no, true, false, a name of a state, or nothing.

    None where the cell holds anything else.
    """
    word = cell.strip().lower()
    if word in _WORDS:
        return _WORDS[word]
    try:
        state = float(word)
    except ValueError:
        return None
    return int(state) if state in (POSITIVE, NEGATIVE, UNCERTAIN) else None


_BY_STRENGTH = (NOT_LABELLED, NOT_MENTIONED, NEGATIVE, UNCERTAIN, POSITIVE)


def strongest(*states: int) -> int:
    """One state for several statements: positive over uncertain over negative over not mentioned."""
    return max(states, key=_BY_STRENGTH.index)


def states_of(statements: Iterable[tuple[str, int]]) -> tuple[int, ...]:
    """The 14 states from statements (label, state); what no statement names is not mentioned."""
    states = dict.fromkeys(CHEXPERT_LABELS, NOT_MENTIONED)
    for label, state in statements:
        states[label] = strongest(states[label], state)
    return tuple(states.values())


Uncertain = Literal["zeros", "ones", "ignore"]
Unmentioned = Literal["zeros", "ignore"]


def binary_targets(
    states: NDArray[np.int8], uncertain: Uncertain, unmentioned: Unmentioned
) -> NDArray[np.float64]:
    """Turn label states into targets of a binary classifier.

    Args:
        states: [S, L].
        uncertain: what an uncertain state counts as (U-Zeros, U-Ones, U-Ignore of the CheXpert paper).
        unmentioned: what a label that is not mentioned counts as (zeros is CheXpert's convention).

    Returns:
        [S, L] of 0 and 1, NaN where ignored or not labelled.
    """
    targets = (states == POSITIVE).astype(np.float64)
    targets[states == UNCERTAIN] = {"zeros": 0.0, "ones": 1.0, "ignore": np.nan}[uncertain]
    targets[states == NOT_MENTIONED] = {"zeros": 0.0, "ignore": np.nan}[unmentioned]
    targets[states == NOT_LABELLED] = np.nan
    return targets


def policy_in_words(uncertain: Uncertain, unmentioned: Unmentioned) -> str:
    """What states that are neither positive nor negative count as, in words for a page."""
    words = {"zeros": "counts as negative", "ones": "counts as positive", "ignore": "is ignored"}
    return (
        f"not mentioned {words[unmentioned]}{_default(unmentioned)}; uncertain "
        f"{words[uncertain]}{_default(uncertain)}; a study that was never labelled for a finding is "
        "left out of it"
    )


def _default(policy: str) -> str:
    return ", the default" if policy == "zeros" else ""
