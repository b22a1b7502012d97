"""Small suites on generated shards, with encoders of no training."""

from pathlib import Path
from typing import Any

import numpy as np

from ray_mae.config import SuiteConfig
from tests.checkpoints import write_checkpoint
from tests.shards import rewrite, write_shards, write_volume_shards

EDEMA, FRACTURE = 5, 12
"""Places of two labels among CheXpert's."""


def study_shards(folder: Path, seed: int = 0, test_labels: int = 0) -> Path:
    """72 studies of 36 patients with two labels, both classes in every split.

    Args:
        folder: to write to.
        seed: of the labels.
        test_labels: another number gives the test patients other labels.
    """
    write_shards(folder, train=40, held_out=16)
    draw = {s: np.random.default_rng([seed, i]) for i, s in enumerate(("train", "val"))}
    draw["test"] = np.random.default_rng([seed, 2, test_labels])

    def label(row: dict) -> None:
        states = [-3] * 14
        patient = int(row["patient_id"].rpartition("-")[2])
        states[EDEMA] = int(patient % 2)
        states[FRACTURE] = int(patient % 4 < 2)
        if row["split"] == "test" and test_labels:
            states[EDEMA] = int(draw["test"].integers(2))
        row["labels"] = states

    rewrite(folder, label)
    return folder


def volume_shards(folder: Path) -> Path:
    write_volume_shards(folder, train=24, held_out=12)
    return folder


def study_suite(root: Path, shards: Path, **changes: Any) -> SuiteConfig:
    """Two seeds of a pretraining and baselines, two label counts, linear and kNN."""
    paths = [
        write_checkpoint(root / "checkpoints" / str(i), shards, "mvmae", gamma=0.0)
        for i in range(2)
    ]
    values: dict[str, Any] = {
        "output": root / "suite",
        "encoders": {
            "ours": {"paths": paths},
            "random": {"kind": "random", "like": "ours", "seeds": [0, 1]},
            "pixels": {"kind": "pixels", "side": 8, "components": 8},
            "histogram": {"kind": "histogram"},
            "metadata": {"kind": "metadata", "columns": ["views", "view"]},
            "prevalence": {"kind": "prevalence"},
        },
        "datasets": {"here": {"shards": shards}},
        "tasks": {"findings": {"dataset": "here", "least_patients": 2}},
        "heads": {"use": ["linear", "knn"], "C": [0.01, 1.0], "k": [3]},
        "label_counts": {"studies": [12], "draws": 2, "validation": ["full", "spent"]},
        "views": ["all", "both_logits"],
        "contrasts": [["ours", "random"]],
        "small": {"folds": 3, "repeats": 1},
        "statistics": {"resamples": 50},
        "batch_size": 8,
        "max_views": 4,
    }
    return SuiteConfig(**{**values, **changes})
