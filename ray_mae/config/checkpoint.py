"""Settings of what looks at checkpoints."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ray_mae.settings import Checked


@dataclass(frozen=True, kw_only=True)
class CheckpointListConfig(Checked):
    """Checkpoints that a run keeps: step, size, who wrote them, the online probe's AUROC."""

    run: Path
    """Folder of the run."""


@dataclass(frozen=True, kw_only=True)
class CheckpointVerifyConfig(Checked):
    """Read checkpoints in full and compare them with the checksums that their workers wrote."""

    path: Path
    """Folder of a run, whose committed checkpoints are all read, or one checkpoint."""


@dataclass(frozen=True, kw_only=True)
class CheckpointConvertConfig(Checked):
    """Write a checkpoint for others: weights alone, or DeepSpeed's universal format."""

    checkpoint: Path
    """Folder of a run, whose last committed checkpoint is taken, or one checkpoint."""
    output: Path
    """Folder to write to, new or empty."""
    to: Literal["weights", "universal"] = "weights"
    """weights: what evaluate, embed and export read, without the optimiser. universal: with the
    optimiser's state, for DeepSpeed with any number of workers; the ZeRO stage stays 1 or 2, or 3."""
