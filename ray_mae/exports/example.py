"""Synthetic inputs, and what an encoder says of them: no patient, and the same on every machine."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ray_mae.data.decoding.foreground import foreground
from ray_mae.data.phantoms.brain_anatomy import PRETRAINING, draw_head, show
from ray_mae.data.phantoms.chest_anatomy import build, draw_patient
from ray_mae.data.phantoms.chest_projection import FRONTAL, LATERAL, expose
from ray_mae.data.schema import VIEWS
from ray_mae.exports.timm import CHANNELS
from ray_mae.inference.load import AnyEncoder
from ray_mae.inference.studies import FrozenStudyEncoder
from ray_mae.inference.volumes import FrozenVolumeEncoder
from ray_mae.transforms.images import denormalise, normalise

FILE = "example.npz"
FILMS = (FRONTAL, LATERAL, FRONTAL, FRONTAL)
SMALLEST_FILM = 96
VOLUMES, SMALLEST_HEAD, NOISE = 2, 24, 0.03


def draw_films(size: int) -> list[NDArray[np.uint8]]:
    """Returns films of simulated chests, one of FILMS each, whose short side has at least `size` pixels."""
    films = []
    for number, view in enumerate(FILMS):
        rng = np.random.default_rng(number)
        chest = build(draw_patient(rng), rng, 0.0)
        film = expose(chest, view, max(size, SMALLEST_FILM), rng)
        films.append((film >> 4).astype(np.uint8))  # of 12 bits
    return films


def draw_volumes(size: int) -> NDArray[np.float32]:
    """Returns z-scores [VOLUMES, 1, size, size, size] of simulated heads, of which float16 loses nothing."""
    volumes = []
    for number in range(VOLUMES):
        rng = np.random.default_rng(number)
        side = max(size, SMALLEST_HEAD)
        head = show(draw_head(rng, side), PRETRAINING[number % len(PRETRAINING)], rng, NOISE)
        inside = head[foreground(head)]
        first = (side - size) // 2
        middle = (slice(first, first + size),) * 3
        volumes.append(((head - inside.mean()) / inside.std())[middle])
    return np.stack(volumes)[:, None].astype(np.float16).astype(np.float32)


@dataclass(frozen=True)
class Example:
    """Inputs as published models take them, and our features of them."""

    encoder: AnyEncoder
    """Of the checkpoint."""
    inputs: tuple[Tensor, ...]
    """Images [N, 3, S, S] of grey / 255 and views [N]; or volumes [N, 1, S, S, S]."""

    @classmethod
    def of(cls, encoder: AnyEncoder) -> "Example":
        """Inputs of the encoder's size."""
        size = encoder.settings.input_size
        if isinstance(encoder, FrozenVolumeEncoder):
            return cls(encoder, (torch.from_numpy(draw_volumes(size)),))
        images = torch.stack([encoder.preprocessing(film) for film in draw_films(size)])
        views = torch.tensor([i % len(VIEWS) for i in range(len(images))])
        return cls(encoder, (denormalise(images).repeat(1, CHANNELS, 1, 1), views))

    @cached_property
    def features(self) -> Tensor:
        """[N, D], in float32 on this machine's CPU."""
        return self._features(self.inputs[1]) if len(self.inputs) == 2 else self._features(None)

    def of_view(self, view: str) -> Tensor:
        """[N, D] of the images, each taken for one of this view."""
        return self._features(torch.full_like(self.inputs[1], VIEWS.index(view)))

    @torch.inference_mode()
    def _features(self, views: Tensor | None) -> Tensor:
        if views is None:
            return self.encoder(self.inputs[0])
        encoder = cast(FrozenStudyEncoder, self.encoder)
        return encoder(normalise(self.inputs[0][:, :1]), views)

    def write(self, output: Path) -> None:
        """Writes example.npz: image and view, or volume, and features."""
        names = ("image", "view") if len(self.inputs) == 2 else ("volume",)
        arrays = {name: x.numpy() for name, x in zip(names, self.inputs, strict=True)}
        if "volume" in arrays:
            arrays["volume"] = arrays["volume"].astype(np.float16)
        else:  # the three channels are one
            arrays["image"] = arrays["image"][:, :1]
        np.savez_compressed(output / FILE, **arrays, features=self.features.numpy())  # type: ignore[arg-type]
