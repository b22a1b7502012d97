"""Networks of volumes as nnU-Net's plans describe them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ray_mae.config.sections import EncoderSettings
from ray_mae.encoders.primus_settings import AXES, LAYER_SCALE, PrimusSettings
from ray_mae.encoders.resenc_settings import ResEncSettings

_PACKAGE = "dynamic_network_architectures.architectures"


@dataclass(frozen=True)
class Architecture:
    """A class of dynamic-network-architectures, and which of its weights are the encoder."""

    network: str
    """Its dotted name."""
    kwargs: dict[str, Any]
    """Arguments as plain values, types by their names."""
    encoder: str
    """How names of the encoder's weights begin, without those of its first layers."""
    stem: str
    in_proj: Sequence[str]
    """Layers that read the channels of an input."""
    features: int
    """Of its coarsest map."""
    types: Sequence[str] = field(default_factory=list)
    """Arguments that are types."""
    positions: str | None = None
    """Name of a table of positions."""


def architecture_of(settings: EncoderSettings) -> Architecture:
    """Returns what nnU-Net builds for an encoder."""
    if isinstance(settings, PrimusSettings):
        return _primus(settings)
    assert isinstance(settings, ResEncSettings)
    return _resenc(settings)


def _resenc(settings: ResEncSettings) -> Architecture:
    stages = settings.stages
    n = len(stages.features)
    stem = "encoder.stem.convs.0"
    return Architecture(
        f"{_PACKAGE}.unet.ResidualEncoderUNet",
        {
            "n_stages": n,
            "features_per_stage": list(stages.features),
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": [[3, 3, 3]] * n,
            "strides": [[s] * 3 for s in stages.strides],
            "n_blocks_per_stage": list(stages.blocks),
            "n_conv_per_stage_decoder": [1] * (n - 1),
            "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        encoder="encoder.stages",
        stem="encoder.stem",
        in_proj=[f"{stem}.conv", f"{stem}.all_modules.0"],
        features=stages.features[-1],
        types=["conv_op", "norm_op", "dropout_op", "nonlin"],
    )


def _primus(settings: PrimusSettings) -> Architecture:
    shape = settings.shape
    return Architecture(
        f"{_PACKAGE}.primus.Primus",
        {
            "embed_dim": shape.width,
            "patch_embed_size": [settings.patch_size] * AXES,
            "eva_depth": shape.depth,
            "eva_numheads": shape.heads,
            "input_shape": [settings.crop_size] * AXES,
            "drop_path_rate": settings.drop_path,
            "scale_attn_inner": True,
            "init_values": LAYER_SCALE,
        },
        encoder="eva",
        stem="down_projection",
        in_proj=["down_projection.proj"],
        features=shape.width,
        positions="eva.pos_embed",
    )
