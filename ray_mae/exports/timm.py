"""The encoder of images for timm and transformers: config.json, model.safetensors, views.safetensors.

timm's ViT has no view embedding. It is added to patches alone, so that a view is nothing but another bias
of the first layer: one model file, and one vector per view. Every tool gives three channels, and pads
with the grey that it takes for the mean; so three kernels are published, whose sum is ours, and the mean
and deviation of grey values are folded into them: the model takes grey / 255, and black is 0.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from ray_mae.checkpoint.format import Weights
from ray_mae.data.schema import VIEWS
from ray_mae.encoders.vit_settings import VitSettings
from ray_mae.files import write_whole
from ray_mae.transforms.images import PIXEL_MEAN, PIXEL_STD

CONFIG, MODEL, VIEW_BIASES = "config.json", "model.safetensors", "views.safetensors"
TIMM_MODEL = "vit_base_patch16_224"
"""Any of timm's ViTs: the arguments replace its sizes."""
CHANNELS = 3
NORM_EPS = 1e-6
"""What timm's networks add to the variance in their norms, which no setting of config.json changes."""


def write_timm(
    weights: Weights, settings: VitSettings, output: Path, *, pool: str, view: str, licence: str
) -> None:
    """Writes the folder that `timm.create_model("local-dir:…")` and transformers open.

    Args:
        weights: of the encoder.
        settings: of the encoder.
        output: folder, which is there.
        pool: what `forward` gives: mean over patch tokens, or cls.
        view: of VIEWS, whose bias the model has.
        licence: of the weights.
    """
    model, biases = timm_weights(weights, view)
    description = json.dumps(timm_config(settings, pool, licence), indent=1)
    write_whole(output / CONFIG, description + "\n")
    write_whole(output / MODEL, save(model, metadata={"format": "pt"}))
    write_whole(output / VIEW_BIASES, save(biases, metadata={"format": "pt"}))


def timm_config(settings: VitSettings, pool: str, licence: str) -> dict[str, Any]:
    """Returns config.json: timm reads all of it, transformers finds its timm wrapper by `pretrained_cfg`.

    `num_classes` stands at the top alone: within `model_args` transformers stumbles over it.
    """
    shape, size = settings.shape, settings.image_size
    pooled = {"global_pool": "avg" if pool == "mean" else "token"}
    return {
        "architecture": TIMM_MODEL,
        "num_classes": 0,
        "num_features": shape.width,
        **pooled,
        "model_args": {
            "img_size": size,
            "patch_size": settings.patch_size,
            "in_chans": CHANNELS,
            "embed_dim": shape.width,
            "depth": shape.depth,
            "num_heads": shape.heads,
            "mlp_ratio": shape.mlp_ratio,
            "qk_norm": settings.qk_norm,
            **({"reg_tokens": settings.registers} if settings.registers else {}),
            "no_embed_class": True,  # neither the class token nor registers have positions
            "fc_norm": False,  # the norm stays before the pool, as in ours
            **pooled,
        },
        "pretrained_cfg": seen_by_timm(size, licence, "patch_embed.proj", "head"),
    }


def seen_by_timm(
    size: int, licence: str, first_conv: str, classifier: str, *, fixed: bool = True
) -> dict[str, Any]:
    """Returns `pretrained_cfg` of config.json: how an image is prepared.

    Args:
        size: side of an image, in pixels.
        licence: of the weights.
        first_conv: timm's name of the layer that reads an image.
        classifier: the same of what a classifier has last.
        fixed: whether the network is made for that size.
    """
    return {
        "tag": "ray_mae",
        "custom_load": False,
        "input_size": [CHANNELS, size, size],
        "fixed_input_size": fixed,
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "crop_mode": "border",  # the whole image, padded to a square
        "mean": [0.0] * CHANNELS,
        "std": [1.0] * CHANNELS,
        "num_classes": 0,
        "pool_size": None,
        "first_conv": first_conv,
        "classifier": classifier,
        "license": licence,
    }


def timm_weights(weights: Weights, view: str) -> tuple[Weights, Weights]:
    """Returns weights by timm's names and in its shapes, and the first layer's bias [D] of each view.

    Args:
        weights: of the encoder.
        view: of VIEWS, whose bias the model has.
    """
    D, P = weights["patch.weight"].shape
    side = int(P**0.5)
    kernels = weights["patch.weight"].astype(np.float64) / PIXEL_STD  # of grey / 255
    shift = weights["patch.bias"] - PIXEL_MEAN * kernels.sum(1)  # [D]
    biases = {name: (shift + weights["view"][i]).astype(np.float32) for i, name in enumerate(VIEWS)}
    channel = (kernels / CHANNELS).astype(np.float32).reshape(D, 1, side, side)
    body = {k.removeprefix("body."): v for k, v in weights.items() if k.startswith("body.")}
    registers = {"reg_token": weights["register"][None]} if "register" in weights else {}
    return {
        "cls_token": weights["cls"].reshape(1, 1, D),
        **registers,
        "pos_embed": weights["position"][None],
        "patch_embed.proj.weight": np.repeat(channel, CHANNELS, axis=1),
        "patch_embed.proj.bias": biases[view],
        **body,
    }, biases
