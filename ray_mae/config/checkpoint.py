"""Settings of what looks at checkpoints."""

from dataclasses import dataclass
from pathlib import Path

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
