"""A pretrained encoder for frozen use: `load_encoder`."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ray_mae.batch import UNKNOWN
from ray_mae.config import MvmaeConfig
from ray_mae.data.images import letterbox
from ray_mae.methods.augment import normalise, resample
from ray_mae.methods.build import build_encoder
from ray_mae.methods.masking import all_patches
from ray_mae.methods.vit import Encoder, patchify
from ray_mae.settings import from_dict, to_dict
from ray_mae.train import checkpoint as ckpt

WEIGHTS, CONFIG = "encoder.safetensors", "encoder.json"


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


def load_encoder(path: Path | str, pool: str = "mean") -> tuple[FrozenEncoder, Preprocessing]:
    """The encoder of a run, a checkpoint or an exported folder, in evaluation mode, on the CPU.

    pool: "mean" over patch tokens or "cls". Only safetensors and JSON are read: no code runs.
    Raises FileNotFoundError that says what was looked for.
    """
    path = Path(path)
    if (path / CONFIG).is_file():
        config = from_dict(MvmaeConfig, json.loads((path / CONFIG).read_text()))
        weights = load_file(path / WEIGHTS)
    else:
        checkpoint = ckpt.find_checkpoint(path)
        config = ckpt.read_config(checkpoint).method
        prefix = "encoder."
        every = load_file(checkpoint / ckpt.WEIGHTS)
        weights = {k.removeprefix(prefix): v for k, v in every.items() if k.startswith(prefix)}
    encoder = build_encoder(config)
    encoder.load_state_dict(weights)
    return FrozenEncoder(encoder, config, pool).eval(), Preprocessing(config.image_size)


def random_encoder(config: MvmaeConfig, seed: int, pool: str = "mean") -> FrozenEncoder:
    """The same network with fresh weights: what a probe must beat."""
    torch.manual_seed(seed)
    return FrozenEncoder(build_encoder(config), config, pool).eval()


def save_encoder(encoder: FrozenEncoder, folder: Path) -> None:
    """What `load_encoder` reads."""
    from safetensors.torch import save_file

    save_file(encoder.encoder.state_dict(), folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(to_dict(encoder.config), indent=1) + "\n")
