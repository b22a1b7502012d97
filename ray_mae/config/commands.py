"""Settings of the short commands: demo, doctor, checkpoint, submit."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ray_mae.config.base import ValidatedConfig, setting


@dataclass(frozen=True, kw_only=True)
class DemoConfig(ValidatedConfig):
    """The whole way on a generated cohort, on this machine, in minutes."""

    output: Path = Path("demo")
    """Folder for everything the demo makes."""
    seed: int = setting(0, ge=0)
    """Seed of the cohort and of the training."""
    patients: int = setting(450, ge=20)
    """Patients in the cohort."""
    disease: Literal["caricature", "subtle"] = "caricature"
    """How disease shows: as textures that a small network learns in minutes, or as subtle as on real
    films, for which it takes a larger cohort and a longer training."""
    steps: int = setting(500, ge=1)
    """Optimiser steps of the pretraining."""


@dataclass(frozen=True, kw_only=True)
class DemoMdaeConfig(ValidatedConfig):
    """The whole way on generated brain volumes, on this machine, in minutes."""

    output: Path = Path("demo-mdae")
    """Folder for everything the demo makes."""
    seed: int = setting(0, ge=0)
    """Seed of the cohort and of the training."""
    patients: int = setting(300, ge=20)
    """Patients in the cohort, each in four contrasts."""
    steps: int = setting(300, ge=1)
    """Optimiser steps of the pretraining."""


@dataclass(frozen=True, kw_only=True)
class DoctorConfig(ValidatedConfig):
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


@dataclass(frozen=True, kw_only=True)
class CheckpointListConfig(ValidatedConfig):
    """Checkpoints that a run keeps: step, size, who wrote them, the online probe's AUROC."""

    run: Path
    """Folder of the run."""


@dataclass(frozen=True, kw_only=True)
class CheckpointVerifyConfig(ValidatedConfig):
    """Read checkpoints in full and compare them with the checksums that their workers wrote."""

    path: Path
    """Folder of a run, whose committed checkpoints are all read, or one checkpoint."""


@dataclass(frozen=True, kw_only=True)
class CheckpointInspectConfig(ValidatedConfig):
    """What an encoder is and what would be taken of it: a run's, an exported one, or weights of others."""

    path: Path
    """Folder of a run, a checkpoint, an exported encoder, or a file or folder of weights of others."""


@dataclass(frozen=True, kw_only=True)
class CheckpointConvertConfig(ValidatedConfig):
    """Write a checkpoint for others: weights alone, or DeepSpeed's universal format."""

    checkpoint: Path
    """Folder of a run, whose last committed checkpoint is taken, or one checkpoint."""
    output: Path
    """Folder to write to, new or empty."""
    to: Literal["weights", "universal"] = "weights"
    """weights: what evaluate, embed and export read, without the optimiser. universal: with the
    optimiser's state, for DeepSpeed with any number of workers; the ZeRO stage stays 1 or 2, or 3."""


@dataclass(frozen=True, kw_only=True)
class SubmitConfig(ValidatedConfig):
    """Run a command as a job of a Ray cluster: ray-mae submit [--SETTING …] -- COMMAND …"""

    command: list[str] = field(default_factory=list)
    """The command with its settings, as after `ray-mae`; on the command line it stands after `--`."""
    address: str | None = None
    """The cluster's dashboard, http://HOST:8265. Default: environment RAY_API_SERVER_ADDRESS, then
    RAY_ADDRESS, then this machine. Token authentication: RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH."""
    follow: bool = False
    """Stay, print what the job prints, and end with its exit code. Ctrl-C leaves the job running."""
    dry_run: bool = False
    """Check everything that can be checked here, print what would be sent, and send nothing."""
    env: list[str] = field(default_factory=list)
    """Names of environment variables that the job needs, such as those of secrets: `--env NAME`, as
    often as needed. The values are the cluster's, never sent; where one is missing the job says so."""
    environment: Literal["cluster", "uv"] = "cluster"
    """cluster: what is installed on the nodes, such as the image. uv: each node builds the environment
    from the packed pyproject.toml; minutes at a node's first task, and gigabytes."""
    image: str | None = None
    """Container image for this job's processes, where the nodes have podman. Nothing is packed then."""
    folder: Path = Path(".")
    """Working folder: ray_mae in it is sent, if it is there, and the packages below; of the rest only
    the YAML files that the command names. Nothing else goes along."""
    package: list[str] = field(default_factory=list)
    """Names of further import packages of the folder to send: `--package NAME`, as often as needed."""
    max_mb: float = setting(20.0, gt=0)
    """More than so many MB are not sent."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.env:
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                # what follows a `=` may be a secret, and this goes to a terminal or a log
                raise ValueError(
                    f"env takes names of variables and no values, got {name.partition('=')[0]}…: "
                    "set the value on the cluster (a Kubernetes secret, the nodes' environment)"
                )
        for name in self.package:
            if not name.isidentifier():
                raise ValueError(f"package takes names of import packages, got {name}")
        if self.address and not re.match(r"https?://", self.address):
            raise ValueError(
                f"address must be the dashboard's, http://HOST:8265 or https://…, got {self.address}"
            )
        if self.image and self.environment == "uv":
            raise ValueError("image and environment uv exclude each other: choose one")
