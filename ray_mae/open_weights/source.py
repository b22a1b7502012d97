"""What was found of somebody else's encoder."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ray_mae.config.sections import EncoderSettings
from ray_mae.encoders.registry import build_encoder
from ray_mae.open_weights.files import require_sound
from ray_mae.open_weights.names import Renamed


@dataclass(frozen=True)
class OpenEncoder:
    """An encoder of others, exactly as its makers have it."""

    path: Path
    """What was given."""
    family: str
    """In words."""
    licence: str | None
    """As its files say; None where they do not."""
    files: list[Path]
    """That hold its weights."""
    settings: EncoderSettings
    """Of `timm` or `convnextv2` for images, `resenc` or `primus` for volumes."""
    weights: dict[str, Tensor]
    """Of that encoder, float32, complete."""
    origins: dict[str, tuple[str, ...]]
    """Name of a weight → names in the source; of the decoder, too."""
    rewritten: dict[str, str]
    """Name of a weight → how its values changed."""
    left_out: dict[str, str]
    """Name in the source → why it is not taken."""
    decoder: dict[str, Tensor] = field(default_factory=dict)
    """Of a U-Net, by the names of ours."""
    spacing_mm: float | None = None
    """Of the volumes that it was trained on."""
    notes: Sequence[str] = ()
    """What a user should know, a sentence each."""


def complete(
    path: Path, settings: EncoderSettings, renamed: Renamed, prefix: str = "body."
) -> dict[str, Tensor]:
    """Returns the weights of an encoder, all of them, checked.

    Args:
        path: for messages.
        settings: of the encoder.
        renamed: weights by the names of its network.
        prefix: of those names in our encoder; origins and rewritten get it, too.

    Raises:
        ValueError: weights are missing, or of another shape, or the network lacks a part for them.
    """
    wanted = {name: tensor.shape for name, tensor in on_meta(settings).state_dict().items()}
    weights = {f"{prefix}{name}": w for name, w in renamed.weights.items()}
    renamed.origins = {f"{prefix}{name}": of for name, of in renamed.origins.items()}
    renamed.rewritten = {f"{prefix}{name}": how for name, how in renamed.rewritten.items()}
    if missing := [name for name in wanted if name not in weights]:
        raise ValueError(
            f"{path}: {len(missing)} of {len(wanted)} weights of the encoder are missing, such as "
            f"{missing[0].removeprefix(prefix)}: is it a head or a decoder alone?"
        )
    if strange := [name for name in weights if name not in wanted]:
        inside = [name for name in strange if re.search(r"\.(blocks|stages)\.", name)]
        if inside:
            raise ValueError(
                f"{path} has parts that {settings.described} has not, such as "
                f"{inside[0].removeprefix(prefix)}: its config.json, or the network, is another one"
            )
        for name in strange:
            del weights[name]
            renamed.rewritten.pop(name, None)
            for of in renamed.origins.pop(name):
                renamed.left_out[of] = "a part that no feature passes"
    for name, shape in wanted.items():
        if weights[name].shape != shape:
            raise ValueError(
                f"{path}: {name.removeprefix(prefix)} is {list(weights[name].shape)}, its settings ask for "
                f"{list(shape)}: the weights and their config.json do not belong together"
            )
    return {name: require_sound(path, name, weights[name]) for name in wanted}


def on_meta(settings: EncoderSettings) -> Any:
    """Returns the encoder without values of its weights."""
    with torch.device("meta"):
        return build_encoder(settings)
