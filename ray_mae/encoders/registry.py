"""The encoders by name: one line each. Other packages add theirs by the entry point `ray_mae.encoders`."""

from typing import TYPE_CHECKING

from ray_mae.config.registry import Registry, load
from ray_mae.config.sections import EncoderSettings

if TYPE_CHECKING:
    from ray_mae.encoders.base import Encoder

ENCODERS: Registry[EncoderSettings] = Registry(
    "encoder.name",
    {
        "vit": "ray_mae.encoders.vit_settings:VitSettings",
        "timm": "ray_mae.encoders.timm_settings:TimmSettings",
        "primus": "ray_mae.encoders.primus_settings:PrimusSettings",
        "convnextv2": "ray_mae.encoders.convnextv2_settings:ConvNextV2Settings",
        "resenc": "ray_mae.encoders.resenc_settings:ResEncSettings",
    },
    group="ray_mae.encoders",
)


def kind_of_encoder(name: str) -> str:
    """Returns of which kind of samples an encoder is: study or volume."""
    return "study" if ENCODERS[name].dimensions == 2 else "volume"


def build_encoder(settings: EncoderSettings, *, recompute: bool = False) -> "Encoder":
    """Returns an encoder with fresh weights, by PyTorch's global seed. Imports PyTorch.

    Args:
        settings: of the encoder.
        recompute: activations again in the backward pass, which saves memory.

    Raises:
        ValueError: naming settings, where sizes do not fit together.
    """
    settings.check()
    encoder: Encoder = load(settings.network)(settings, recompute=recompute)
    return encoder
