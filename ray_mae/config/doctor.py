"""Settings of `doctor`."""

from dataclasses import dataclass
from pathlib import Path

from ray_mae.settings import Checked, setting


@dataclass(frozen=True, kw_only=True)
class DoctorConfig(Checked):
    """Is this machine, or each node of a cluster, fit: versions, storage, shared memory, GPUs, clocks."""

    shards: Path | None = None
    """Folder that `ingest` wrote, to be read from every node."""
    output: Path | None = None
    """Folder of runs, to be written from every node; summary.json goes there, too."""
    address: str | None = None
    """The cluster, as HOST:PORT or auto. Default: RAY_ADDRESS, else a Ray started on this machine."""
    file_mb: int = setting(64, ge=1)
    """Size of the file that each node writes and reads, in MB."""
    timeout: float = setting(180.0, gt=0)
    """Seconds that a node may take for one answer."""
