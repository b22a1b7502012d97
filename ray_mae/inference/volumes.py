"""A pretrained encoder of volumes for frozen use, and what prepares a volume for it."""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool3d

from ray_mae.batch import VolumeBatch
from ray_mae.config.sections import DataConfig, VolumeDataConfig
from ray_mae.encoders.resenc import ResEnc, fold_film
from ray_mae.encoders.resenc_settings import ResEncSettings
from ray_mae.transforms.volumes import VolumeAugmentation, clean

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

        from ray_mae.data.decoding.decoder_process import prepare_file
        from ray_mae.data.loading.volume_collator import crop_slices

        voxels = prepare_file(Path(path), self.spacing_mm)
        source, target = crop_slices(voxels.shape, self.crop_size, None)
        cube = np.zeros([self.crop_size] * 3, np.float32)
        cube[target] = voxels[source]
        return torch.from_numpy(cube)[None]


class FrozenVolumeEncoder(nn.Module):
    """Volumes → feature vectors at noise level 0. Nothing is masked."""

    def __init__(
        self,
        encoder: ResEnc,
        data: DataConfig | None = None,
        pool: str = "mean",
        spacing_mm: float | None = None,
    ) -> None:
        """data: as of the pretraining; spacing_mm: of its volumes; None: each had its own."""
        super().__init__()
        self.encoder, self.pool, self.spacing_mm = encoder, "mean", spacing_mm
        self.data = cast(VolumeDataConfig, data or VolumeDataConfig())

    @property
    def settings(self) -> ResEncSettings:
        """The encoder's."""
        return self.encoder.settings

    @property
    def preprocessing(self) -> VolumePreprocessing:
        """What turns a file into the encoder's input."""
        return VolumePreprocessing(self.settings.crop_size, self.spacing_mm)

    @property
    def augmentation(self) -> VolumeAugmentation:
        """As in pretraining."""
        return VolumeAugmentation.of(self.data)

    @property
    def width(self) -> int:
        """Length of a feature vector."""
        return self.encoder.width

    def forward(self, volumes: Tensor) -> Tensor:
        """[B, 1, D, H, W] preprocessed → [B, C]: the mean over the last stage."""
        return self.encoder(volumes.to(next(self.parameters()).dtype))

    def embed(self, batch: VolumeBatch, augment: VolumeAugmentation | None = None) -> Tensor:
        """[B, C], of the crops as they are or changed by `augment`."""
        x, _ = augment(batch) if augment else clean(batch)
        return self(x)

    def raw(self, batch: VolumeBatch) -> Tensor:
        """[B, P]: intensities of small volumes, as they are: a baseline."""
        return adaptive_avg_pool3d(clean(batch)[0], RAW_SIDE).flatten(1)

    def resize(self, size: int | None) -> None:
        """Take another size of crop. Raises ValueError where the network cannot."""
        self.encoder.settings = self.settings.resized(size)

    def drop_film(self) -> None:
        """Leave FiLM out, without changing the features."""
        fold_film(self.encoder)
