"""Settings of the demonstrations."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ray_mae.settings import Checked, setting


@dataclass(frozen=True, kw_only=True)
class DemoConfig(Checked):
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
class DemoMdaeConfig(Checked):
    """The whole way on generated brain volumes, on this machine, in minutes."""

    output: Path = Path("demo-mdae")
    """Folder for everything the demo makes."""
    seed: int = setting(0, ge=0)
    """Seed of the cohort and of the training."""
    patients: int = setting(300, ge=20)
    """Patients in the cohort, each in four contrasts."""
    steps: int = setting(300, ge=1)
    """Optimiser steps of the pretraining."""
