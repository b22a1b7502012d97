"""A pretrained encoder of volumes for frozen use, and what prepares a volume for it."""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool3d

from ray_mae.batch import VolumeBatch, WindowBatch
from ray_mae.config.sections import DataConfig, EncoderSettings, VolumeDataConfig
from ray_mae.encoders.base import MapEncoder, TokenEncoder
from ray_mae.encoders.resenc import ResEnc, fold_film
from ray_mae.transforms.volumes import VolumeAugmentation, clean

RAW_SIDE = 8
"""Side of the small volumes that are the baseline of raw intensities."""


@dataclass(frozen=True)
class VolumePreprocessing:
    """One volume as a file → what the encoder takes."""

    crop_size: int
    spacing_mm: float | None
    """None keeps the file's own."""

    def whole(self, path: Path | str) -> Tensor:
        """A NIfTI file or a folder with one DICOM series → [X, Y, Z] float32: RAS, resampled, z-scored.

        It is cropped to the anatomy, as by `ingest`: what `FrozenVolumeEncoder.embed_whole` takes.

        Raises:
            ValueError: `ingest` would put the volume into quarantine, with the reason.
        """
        from ray_mae.data.decoding.decoder_process import prepare_file

        return torch.from_numpy(prepare_file(Path(path), self.spacing_mm))

    def __call__(self, path: Path | str) -> Tensor:
        """The middle of `whole` alone → [1, S, S, S] float32, 0 around a volume that is smaller.

        What lies outside of it is not seen: see `FrozenVolumeEncoder.embed_whole` for all of it.

        Raises:
            ValueError: as `whole`.
        """
        import numpy as np

        from ray_mae.data.loading.volume_collator import crop_slices

        voxels = self.whole(path).numpy()
        source, target = crop_slices(voxels.shape, self.crop_size, None)
        cube = np.zeros([self.crop_size] * 3, np.float32)
        cube[target] = voxels[source]
        return torch.from_numpy(cube)[None]


class FrozenVolumeEncoder(nn.Module):
    """Crops of volumes → feature vectors, at noise level 0 where a network is told one. Nothing is masked.

    It sees what it is given: `VolumePreprocessing` gives the middle of a volume, `embed_whole` looks at all
    of it.
    """

    def __init__(
        self,
        encoder: MapEncoder | TokenEncoder,
        data: DataConfig | None = None,
        pool: str | None = None,
        spacing_mm: float | None = None,
    ) -> None:
        """data: as of the pretraining; spacing_mm: of its volumes; None: each had its own."""
        super().__init__()
        self.encoder, self.pool, self.spacing_mm = encoder, "mean", spacing_mm
        self.data = cast(VolumeDataConfig, data or VolumeDataConfig())

    @property
    def settings(self) -> EncoderSettings:
        """The encoder's."""
        return self.encoder.settings

    @property
    def preprocessing(self) -> VolumePreprocessing:
        """What turns a file into the encoder's input."""
        return VolumePreprocessing(self.settings.input_size, self.spacing_mm)

    @property
    def augmentation(self) -> VolumeAugmentation:
        """As in pretraining."""
        return VolumeAugmentation.of(self.data)

    @property
    def width(self) -> int:
        """Length of a feature vector."""
        return self.encoder.width

    def forward(self, volumes: Tensor) -> Tensor:
        """[B, 1, D, H, W] preprocessed → [B, C]: the mean over the last stage, or over tokens."""
        last = self.encoder.last_map(volumes.to(next(self.parameters()).dtype))
        return last.mean(dim=(2, 3, 4))

    def embed(
        self, batch: VolumeBatch | WindowBatch, augment: VolumeAugmentation | None = None
    ) -> Tensor:
        """[B, C], of the crops as they are or changed by `augment`; of windows (as they are) the mean.

        The mean over a volume's windows weighs each by its share of the foreground. As many windows as
        there are volumes go through the network at a time.
        """
        if isinstance(batch, WindowBatch):
            parts = clean(batch)[0].split(batch.samples)
            return batch.pool(torch.cat([self(x) for x in parts]))
        x, _ = augment(batch) if augment else clean(batch)
        return self(x)

    def embed_whole(self, volume: Tensor, valid: Tensor | None = None) -> Tensor:
        """[C], of a whole volume by windows over its foreground.

        Windows of the size of the crop cover the volume, as few as reach from end to end along each axis,
        evenly spaced; those with hardly any foreground are left out. Their features are averaged, each
        weighted by its share of the foreground.

        Args:
            volume: [X, Y, Z] preprocessed, as of `VolumePreprocessing.whole`.
            valid: [X, Y, Z] bool, False where it was anonymised; None: every voxel counts.
        """
        from ray_mae.data.loading.volume_windows import cut, windows_of

        values, mask = volume.cpu().numpy(), None if valid is None else valid.cpu().numpy()
        size = self.settings.input_size
        places, weights = windows_of(values, mask, size)
        windows, inside = (torch.from_numpy(a) for a in cut(values, mask, places, size))
        batch = WindowBatch(
            windows,
            inside,
            volume=torch.zeros(len(places), dtype=torch.long),
            weight=torch.from_numpy(weights),
            key=torch.zeros(1, dtype=torch.long),
        )
        return self.embed(batch.to(next(self.parameters()).device))[0]

    def raw(self, batch: VolumeBatch | WindowBatch) -> Tensor:
        """[B, P]: intensities of small volumes, as they are, of windows their mean: a baseline."""
        small = adaptive_avg_pool3d(clean(batch)[0], RAW_SIDE).flatten(1)
        return batch.pool(small) if isinstance(batch, WindowBatch) else small

    def resize(self, size: int | None) -> None:
        """Take another size of crop. Raises ValueError where the network cannot."""
        self.encoder.resize(self.settings.resized(size))

    def drop_film(self) -> None:
        """Leave FiLM out, without changing the features."""
        if isinstance(self.encoder, ResEnc):
            fold_film(self.encoder)
