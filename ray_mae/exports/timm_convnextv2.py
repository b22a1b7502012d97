"""ConvNeXt V2 for timm and transformers: config.json and model.safetensors. It knows no views."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from ray_mae.checkpoint.format import Weights
from ray_mae.encoders.convnextv2_settings import ConvNextV2Settings
from ray_mae.exports.timm import CHANNELS, CONFIG, MODEL, seen_by_timm
from ray_mae.files import write_whole
from ray_mae.transforms.images import PIXEL_MEAN, PIXEL_STD

TIMM_MODEL = "convnextv2_tiny"
"""Any of timm's: the arguments replace its sizes."""


def write_timm_convnextv2(
    weights: Weights, settings: ConvNextV2Settings, output: Path, *, pool: str, licence: str
) -> None:
    """Writes the folder that `timm.create_model("local-dir:…")` and transformers open.

    Args:
        weights: of the encoder.
        settings: of the encoder.
        output: folder, which is there.
        pool: what is to be given, cls being the vector that the network pools.
        licence: of the weights.

    Raises:
        ValueError: a mean is wanted of a network that has its norm after it.
    """
    if settings.norm == "pooled" and pool == "mean":
        raise ValueError(
            "timm's ConvNeXt V2 with encoder.norm pooled gives the normalised mean: give --pool cls for it"
        )
    description = json.dumps(timm_config(settings, licence), indent=1)
    write_whole(output / CONFIG, description + "\n")
    write_whole(output / MODEL, save(timm_weights(weights), metadata={"format": "pt"}))


def timm_config(settings: ConvNextV2Settings, licence: str) -> dict[str, Any]:
    """Returns config.json, as `ray_mae.exports.timm.timm_config` does of a Vision Transformer."""
    size = settings.image_size
    return {
        "architecture": TIMM_MODEL,
        "num_classes": 0,
        "num_features": settings.widths[-1],
        "global_pool": "avg",
        "model_args": {
            "in_chans": CHANNELS,
            "depths": list(settings.blocks),
            "dims": list(settings.widths),
            "head_norm_first": settings.norm == "points",
            "global_pool": "avg",
        },
        "pretrained_cfg": seen_by_timm(size, licence, "stem.0", "head.fc", fixed=False),
    }


def timm_weights(weights: Weights) -> Weights:
    """Returns the same weights, but a stem of three channels of grey / 255, whose sum is ours."""
    kernels = weights["stem.0.weight"].astype(np.float64) / PIXEL_STD  # [C, 1, 4, 4]
    shift = weights["stem.0.bias"] - PIXEL_MEAN * kernels.sum((1, 2, 3))
    stem = np.repeat((kernels / CHANNELS).astype(np.float32), CHANNELS, axis=1)
    return {**weights, "stem.0.weight": stem, "stem.0.bias": shift.astype(np.float32)}
