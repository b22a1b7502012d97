"""The encoder of images for timm.

timm's ViT has no view embedding. Added to the positions it is part of them, so there is one file
per view: frontal.safetensors, lateral.safetensors and unknown.safetensors.
"""

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
from safetensors.numpy import save_file

from ray_mae.checkpoint.format import EncoderFacts, Weights, encoder_weights
from ray_mae.data.schema import VIEWS
from ray_mae.encoders.vit_settings import VitSettings
from ray_mae.files import write_whole
from ray_mae.transforms.images import PIXEL_MEAN, PIXEL_STD

TIMM_MODEL = "vit_base_patch16_224"
"""Any of timm's ViTs: the arguments replace its sizes."""


def export_timm(checkpoint: Path, facts: EncoderFacts, output: Path) -> str:
    """Writes timm's files into `output`; returns the call that loads them, in words."""
    arguments = timm_arguments(cast(VitSettings, facts.settings))
    weights = encoder_weights(checkpoint)
    for view, name in enumerate(VIEWS):
        save_file(timm_weights(weights, view), output / f"{name}.safetensors")
    description = {
        "model": TIMM_MODEL,
        "arguments": arguments,
        "mean": PIXEL_MEAN,
        "std": PIXEL_STD,
        "files": {name: f"{name}.safetensors" for name in VIEWS},
    }
    write_whole(output / "timm.json", json.dumps(description, indent=1) + "\n")
    keywords = ", ".join(f"{k}={v!r}" for k, v in arguments.items())
    file = str(output / "frontal.safetensors")
    return (
        f"timm.create_model({TIMM_MODEL!r}, {keywords}, checkpoint_path={file!r}); the features that "
        "are probed are model.forward_features(x)[:, 1:].mean(1), x = (grey / 255 − "
        f"{PIXEL_MEAN}) / {PIXEL_STD}; one file per view"
    )


def timm_arguments(settings: VitSettings) -> dict[str, Any]:
    """Returns arguments of `timm.create_model` that give this encoder's network."""
    shape = settings.shape
    return {
        "img_size": settings.image_size,
        "patch_size": settings.patch_size,
        "in_chans": 1,
        "num_classes": 0,
        "embed_dim": shape.width,
        "depth": shape.depth,
        "num_heads": shape.heads,
        "mlp_ratio": shape.mlp_ratio,
        "qk_norm": settings.qk_norm,
    }


def timm_weights(weights: Weights, view: int) -> Weights:
    """Returns weights by timm's names and in its shapes, with one view's embedding in the positions.

    Args:
        weights: of the encoder.
        view: 0 frontal, 1 lateral, 2 unknown.
    """
    D, P = weights["patch.weight"].shape
    side = int(P**0.5)
    positions = weights["position"] + weights["view"][view]
    body = {k.removeprefix("body."): v for k, v in weights.items() if k.startswith("body.")}
    return {
        "cls_token": weights["cls"].reshape(1, 1, D),
        "pos_embed": np.concatenate([np.zeros((1, D), np.float32), positions])[None],
        "patch_embed.proj.weight": weights["patch.weight"].reshape(D, 1, side, side),
        "patch_embed.proj.bias": weights["patch.bias"],
        **body,
    }
