"""A pretrained encoder for frozen use: `load_encoder`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from ray_mae.batch import UNKNOWN, StudyBatch, mean_per_study
from ray_mae.checkpoint import format as ckpt
from ray_mae.config import MdaeConfig, MvmaeConfig
from ray_mae.data.decoding.images import letterbox
from ray_mae.encoders.vit import Encoder, all_patches, patchify
from ray_mae.methods.mvmae.model import build_encoder
from ray_mae.transforms.images import normalise, resample, whole

if TYPE_CHECKING:
    from ray_mae.inference.volumes import FrozenVolumeEncoder

RAW_SIDE = 32


@dataclass(frozen=True)
class Preprocessing:
    """One grey image of any size → what the encoder takes."""

    image_size: int

    def __call__(self, image: np.ndarray | Tensor) -> Tensor:
        """[H, W] uint8, black to white → [1, size, size] float32, letterboxed and normalised."""
        grey = np.asarray(image)
        if grey.ndim != 2 or grey.dtype != np.uint8:
            raise ValueError(
                f"a grey uint8 image [H, W] is wanted, got {grey.dtype} {list(grey.shape)}"
            )
        square, side = letterbox([grey])
        box = torch.tensor([[0.0, 0.0, float(side[0])]])
        x = resample(torch.from_numpy(square), torch.from_numpy(side), box, self.image_size)
        return normalise(x)[0]


class FrozenEncoder(nn.Module):
    """Views → feature vectors. Nothing is masked, no report is needed."""

    def __init__(self, encoder: Encoder, config: MvmaeConfig, pool: str = "mean") -> None:
        super().__init__()
        self.encoder, self.config, self.pool = encoder, config, pool
        self.spacing_mm: float | None = None  # images have none

    @property
    def preprocessing(self) -> Preprocessing:
        """What turns an image into the encoder's input."""
        return Preprocessing(self.config.image_size)

    @property
    def width(self) -> int:
        """Length of a feature vector."""
        return self.encoder.cls.shape[0]

    def tokens(self, images: Tensor, view: Tensor | None = None) -> Tensor:
        """[N, 1, size, size] preprocessed, view [N] (0 frontal, 1 lateral, 2 unknown) → [N, 1 + L, D]."""
        if view is None:
            view = torch.full((images.shape[0],), UNKNOWN, device=images.device)
        patches = patchify(images, self.config.patch_size)
        index = all_patches(patches.shape[0], patches.shape[1], patches.device)
        return self.encoder(patches.to(self.encoder.patch.weight.dtype), index, view)

    def forward(self, images: Tensor, view: Tensor | None = None) -> Tensor:
        """[N, D]: the class token or the mean over patch tokens, as `pool` says."""
        tokens = self.tokens(images, view)
        return tokens[:, 0] if self.pool == "cls" else tokens[:, 1:].mean(1)

    def drop_film(self) -> None:
        """There is none."""

    def embed(self, batch: StudyBatch) -> Tensor:
        """[S, D]: the mean over each study's views.

        This is late fusion: for a linear head the mean of the views' logits is the logit of their
        mean.
        """
        images = whole(batch, self.config.image_size)
        return mean_per_study(self(images, batch.view), batch.study, batch.samples)

    def raw(self, batch: StudyBatch) -> Tensor:
        """[S, P]: small images as they are, the mean over each study's views: a baseline."""
        pixels = whole(batch, RAW_SIDE).flatten(1)
        return mean_per_study(pixels, batch.study, batch.samples)


AnyEncoder: TypeAlias = "FrozenEncoder | FrozenVolumeEncoder"


def load_encoder(path: Path | str, pool: str = "mean") -> tuple[AnyEncoder, Any]:
    """The encoder of a run, a checkpoint or an exported folder, in evaluation mode, on the CPU.

    Returns the module and the preprocessing that belongs to it: FrozenEncoder and Preprocessing for
    images, FrozenVolumeEncoder and VolumePreprocessing for volumes. pool: "mean" over patch tokens
    or "cls" (images only). Only safetensors and JSON are read: no code runs.
    Raises FileNotFoundError that says what was looked for.
    """
    config = ckpt.method_config(Path(path))
    weights = {name: torch.from_numpy(w) for name, w in ckpt.encoder_weights(Path(path)).items()}
    encoder = _fresh(config, pool)
    encoder.encoder.load_state_dict(weights)
    encoder.spacing_mm = ckpt.spacing_of(Path(path))
    return encoder.eval(), encoder.preprocessing


def random_encoder(config: MvmaeConfig | MdaeConfig, seed: int, pool: str = "mean") -> AnyEncoder:
    """The same network with fresh weights: what a probe must beat."""
    torch.manual_seed(seed)
    return _fresh(config, pool).eval()


def _fresh(config: MvmaeConfig | MdaeConfig, pool: str) -> AnyEncoder:
    if isinstance(config, MdaeConfig):  # its libraries take seconds to import
        from ray_mae.inference.volumes import FrozenVolumeEncoder
        from ray_mae.methods.mdae.model import build_volume_encoder

        return FrozenVolumeEncoder(build_volume_encoder(config), config)
    return FrozenEncoder(build_encoder(config), config, pool)
