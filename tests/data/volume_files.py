"""Small volume files for the tests."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from ray_mae.config import IngestConfig, VolumeSettings
from ray_mae.data.archives import VOLUME_READERS
from ray_mae.data.archives.records import VolumeRecord


def ball(size: int = 24, seed: int = 0) -> np.ndarray:
    """A solid, textured ball in air, [size, size, size]; brighter to the right, front and top."""
    x = np.linspace(-1, 1, size)
    at = np.stack(np.meshgrid(x, x, x, indexing="ij"))
    inside = (at**2).sum(0) < 0.7
    texture = np.random.default_rng(seed).normal(0, 20, inside.shape)
    shown = inside * (300 + 100 * at[0] + 60 * at[1] + 30 * at[2] + texture)
    return shown.round().astype(np.int16)


def write_nifti(
    path: Path, values: np.ndarray, spacing: float = 4.0, affine: np.ndarray | None = None
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(
        nib.Nifti1Image(values, np.diag([spacing] * 3 + [1.0]) if affine is None else affine), path
    )
    return path


def settings(archive: str, source: Path, output: Path, **volumes: Any) -> IngestConfig:
    return IngestConfig(
        archive=archive,  # type: ignore[arg-type]
        source=source,
        output=output,
        insecure_pseudonyms=True,
        volumes=VolumeSettings(**{"spacing_mm": 4.0, **volumes}),
    )


def listed(archive: str, source: Path, **volumes: Any) -> list[VolumeRecord]:
    config = settings(archive, source, source.parent / "out", **volumes)
    return VOLUME_READERS[archive](config, lambda done, of: None).records
