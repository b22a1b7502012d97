"""A pretrained encoder of volumes for frozen use, and what prepares a volume for it."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool3d

from ray_mae.batch import VolumeBatch
from ray_mae.config import MdaeConfig
from ray_mae.encoders.resenc import VolumeEncoder, fold_film
from ray_mae.transforms.volumes import clean

RAW_SIDE = 8
"""Side of the small volumes that are the baseline of raw intensities."""


@dataclass(frozen=True)
class VolumePreprocessing:
    """One volume as a file → what the encoder takes."""

    crop_size: int
    spacing_mm: float | None
    """None keeps the file's own."""

    def __call__(self, path: Path | str) -> Tensor:
        """A NIfTI file → [1, S, S, S] float32: RAS, resampled, foreground, z-scored, centre crop."""
        import numpy as np

        from ray_mae.data.decoding.preprocessing import prepare_file
        from ray_mae.data.loading.volume_collator import crop_slices

        voxels = prepare_file(Path(path), self.spacing_mm)
        source, target = crop_slices(voxels.shape, self.crop_size, None)
        cube = np.zeros([self.crop_size] * 3, np.float32)
        cube[target] = voxels[source]
        return torch.from_numpy(cube)[None]


class FrozenVolumeEncoder(nn.Module):
    """Volumes → feature vectors at noise level 0. Nothing is masked."""

    def __init__(
        self, encoder: VolumeEncoder, config: MdaeConfig, spacing_mm: float | None = None
    ) -> None:
        """spacing_mm: of the volumes that it was trained on; None: each had its own."""
        super().__init__()
        self.encoder, self.config, self.spacing_mm = encoder, config, spacing_mm

    @property
    def preprocessing(self) -> VolumePreprocessing:
        """What turns a file into the encoder's input."""
        return VolumePreprocessing(self.config.crop_size, self.spacing_mm)

    @property
    def width(self) -> int:
        """Length of a feature vector."""
        return self.encoder.width

    def forward(self, volumes: Tensor) -> Tensor:
        """[B, 1, D, H, W] preprocessed → [B, C]: the mean over the last stage."""
        return self.encoder(volumes.to(next(self.parameters()).dtype))

    def embed(self, batch: VolumeBatch) -> Tensor:
        """[B, C]."""
        return self(clean(batch)[0])

    def raw(self, batch: VolumeBatch) -> Tensor:
        """[B, P]: intensities of small volumes, as they are: a baseline."""
        return adaptive_avg_pool3d(clean(batch)[0], RAW_SIDE).flatten(1)

    def drop_film(self) -> None:
        """Leave FiLM out, without changing the features."""
        fold_film(self.encoder)
        self.config = replace(self.config, film=False)
