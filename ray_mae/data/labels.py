"""The 14 CheXpert labels, their four states in the shards, and the policies of training."""

from collections.abc import Iterable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

CHEXPERT_LABELS = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)

POSITIVE, NEGATIVE, UNCERTAIN, NOT_MENTIONED = 1, 0, -1, -2
STATE_NAMES = {
    POSITIVE: "positive",
    NEGATIVE: "negative",
    UNCERTAIN: "uncertain",
    NOT_MENTIONED: "not mentioned",
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
_CANONICAL = {name.lower(): name for name in CHEXPERT_LABELS} | SYNONYMS


def label_named(name: str) -> str | None:
    """The CheXpert label an archive's name stands for; case and _ do not matter. None: none of 14."""
    return _CANONICAL.get(" ".join(name.replace("_", " ").lower().split()))


def state_of(cell: str) -> int:
    """The state in one cell of a table: 1, 0, -1, true, false, or nothing.

    Raises:
        ValueError: the cell holds anything else.
    """
    word = cell.strip().lower()
    if word in ("", "nan"):
        return NOT_MENTIONED
    if word in ("true", "false"):
        return POSITIVE if word == "true" else NEGATIVE
    state = float(word)
    if state not in (POSITIVE, NEGATIVE, UNCERTAIN):
        raise ValueError(f"a label state must be 1, 0, -1 or empty, got {cell!r}")
    return int(state)


def strongest(*states: int) -> int:
    """One state for several statements: positive over uncertain over negative over not mentioned."""
    return max(states, key=(NOT_MENTIONED, NEGATIVE, UNCERTAIN, POSITIVE).index)


def states_of(statements: Iterable[tuple[str, int]]) -> tuple[int, ...]:
    """The 14 states from statements (label, state); what no statement names is not mentioned."""
    states = dict.fromkeys(CHEXPERT_LABELS, NOT_MENTIONED)
    for label, state in statements:
        states[label] = strongest(states[label], state)
    return tuple(states.values())


def binary_targets(
    states: NDArray[np.int8], uncertain: Literal["zeros", "ones", "ignore"]
) -> NDArray[np.float32]:
    """Turn label states into targets of a binary classifier.

    Not mentioned counts as negative (CheXpert's own convention).

    Args:
        states: [S, 14] of POSITIVE, NEGATIVE, UNCERTAIN and NOT_MENTIONED.
        uncertain: what an uncertain state counts as (U-Zeros, U-Ones, U-Ignore of the CheXpert paper).

    Returns:
        [S, 14] of 0 and 1, NaN where ignored.
    """
    targets = (states == POSITIVE).astype(np.float32)
    targets[states == UNCERTAIN] = {"zeros": 0.0, "ones": 1.0, "ignore": np.nan}[uncertain]
    return targets
