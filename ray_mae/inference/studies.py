"""A pretrained encoder of images for frozen use, and what prepares an image for it."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor, nn

from ray_mae.batch import StudyBatch, mean_per_study
from ray_mae.config.sections import DataConfig, Sight, StudyDataConfig
from ray_mae.data.letterbox import letterbox
from ray_mae.encoders.convnextv2 import ConvNextV2
from ray_mae.encoders.convnextv2_settings import ConvNextV2Settings
from ray_mae.encoders.timm_settings import TimmSettings
from ray_mae.encoders.vit import VisionTransformer
from ray_mae.encoders.vit_settings import VitSettings
from ray_mae.transforms.images import Augmentation, normalise, seen, whole

if TYPE_CHECKING:  # importing timm takes seconds
    from ray_mae.encoders.timm_vit import TimmVit

RAW_SIDE = 32


@dataclass(frozen=True)
class Preprocessing:
    """One grey image of any size → what the encoder takes."""

    image_size: int
    sight: Sight = field(default_factory=Sight)
    """How an image that is no square becomes one."""

    def __call__(self, image: np.ndarray | Tensor) -> Tensor:
        """[H, W] uint8, black to white → [1, size, size] float32, a square and normalised as ours are."""
        grey = np.asarray(image)
        if grey.ndim != 2 or grey.dtype != np.uint8:
            raise ValueError(
                f"a grey uint8 image [H, W] is wanted, got {grey.dtype} {list(grey.shape)}"
            )
        square, side = (torch.from_numpy(array) for array in letterbox([grey]))
        shape = torch.tensor([grey.shape])
        return normalise(seen(square, side, shape, self.image_size, self.sight))[0]


class FrozenStudyEncoder(nn.Module):
    """Views → feature vectors. Nothing is masked, no report is needed."""

    def __init__(
        self,
        encoder: "VisionTransformer | ConvNextV2 | TimmVit",
        data: DataConfig | None = None,
        pool: str | None = None,
        spacing_mm: float | None = None,
    ) -> None:
        """pool: mean over patch tokens, or cls; by default mean, or what an encoder's makers take.

        Of an encoder with maps the points of its last map are the tokens, after the vector that it pools.
        """
        super().__init__()
        self.encoder, self.pool = encoder, pool or encoder.settings.default_pool
        self.data = cast(StudyDataConfig, data or StudyDataConfig())
        self.spacing_mm = spacing_mm

    @property
    def settings(self) -> VitSettings | ConvNextV2Settings | TimmSettings:
        """The encoder's."""
        return self.encoder.settings

    @property
    def preprocessing(self) -> Preprocessing:
        """What turns an image into the encoder's input."""
        return Preprocessing(self.settings.image_size, self.settings.sight)

    @property
    def augmentation(self) -> Augmentation:
        """Of a training under supervision: the default one of pretraining."""
        return Augmentation()

    @property
    def width(self) -> int:
        """Length of a feature vector."""
        return self.encoder.width

    def tokens(self, images: Tensor, view: Tensor | None = None) -> Tensor:
        """[N, 1, size, size] preprocessed, view [N] (0 frontal, 1 lateral, 2 unknown) → [N, 1 + L, D]."""
        return self.encoder(images, view=view)

    def forward(self, images: Tensor, view: Tensor | None = None) -> Tensor:
        """[N, D]: the class token or the mean over patch tokens, as `pool` says."""
        tokens = self.tokens(images, view)
        return tokens[:, 0] if self.pool == "cls" else tokens[:, 1:].mean(1)

    def embed(self, batch: StudyBatch, augment: Augmentation | None = None) -> Tensor:
        """[S, D]: the mean over each study's views, as they are or changed by `augment`.

        This is late fusion: for a linear head the mean of the views' logits is the logit of their
        mean.
        """
        return mean_per_study(self.views(batch, augment), batch.study, batch.samples)

    def views(self, batch: StudyBatch, augment: Augmentation | None = None) -> Tensor:
        """[N, D]: of each view, as it is or changed by `augment`."""
        size = self.settings.image_size
        images = augment(batch, size) if augment else whole(batch, size, self.settings.sight)
        return self(images, batch.view)

    def raw(self, batch: StudyBatch) -> Tensor:
        """[S, P]: small images as they are, the mean over each study's views: a baseline."""
        pixels = whole(batch, RAW_SIDE).flatten(1)
        return mean_per_study(pixels, batch.study, batch.samples)

    def resize(self, size: int | None) -> None:
        """Raises ValueError for a size: images have that of their pretraining."""
        self.settings.resized(size)

    def drop_film(self) -> None:
        """There is none."""
