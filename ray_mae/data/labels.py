"""The 14 CheXpert labels, their four states in the shards, and the policies of training."""

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


def binary_targets(
    states: NDArray[np.int8], uncertain: Literal["zeros", "ones", "ignore"]
) -> NDArray[np.float32]:
    """Targets [S, 14] in {0, 1}, NaN where ignored, from label states [S, 14].

    Not mentioned counts as negative (CheXpert's own convention); `uncertain` says what an
    uncertain state counts as (U-Zeros, U-Ones, U-Ignore of the CheXpert paper).
    """
    targets = (states == POSITIVE).astype(np.float32)
    targets[states == UNCERTAIN] = {"zeros": 0.0, "ones": 1.0, "ignore": np.nan}[uncertain]
    return targets
