"""`export`: the encoder as files that other libraries load.

timm's ViT has no view embedding. Added to the positions it is part of them, so there is one file
per view: frontal.safetensors, lateral.safetensors and unknown.safetensors.
"""

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from ray_mae.config import ExportConfig, MdaeConfig, MvmaeConfig
from ray_mae.data.schema import VIEWS
from ray_mae.methods.shapes import PIXEL_MEAN, PIXEL_STD, shapes
from ray_mae.settings import to_dict
from ray_mae.train import checkpoint as ckpt

TIMM_MODEL = "vit_base_patch16_224"
"""Any of timm's ViTs: the arguments replace its sizes."""


def export(config: ExportConfig) -> dict[str, Any]:
    """Write the encoder in the format asked for; returns the summary, also in summary.json."""
    method = ckpt.method_config(config.checkpoint)
    if isinstance(method, MdaeConfig):
        raise ValueError(
            f"{config.checkpoint} holds an encoder of volumes, which timm has no network for"
        )
    weights = ckpt.encoder_weights(config.checkpoint)
    config.output.mkdir(parents=True, exist_ok=True)
    save_file(weights, config.output / ckpt.ENCODER)
    (config.output / ckpt.EXPORTED).write_text(json.dumps(to_dict(method), indent=1) + "\n")
    arguments = timm_arguments(method)
    for view, name in enumerate(VIEWS):
        save_file(timm_weights(weights, view), config.output / f"{name}.safetensors")
    (config.output / "timm.json").write_text(
        json.dumps(
            {
                "model": TIMM_MODEL,
                "arguments": arguments,
                "mean": PIXEL_MEAN,
                "std": PIXEL_STD,
                "files": {name: f"{name}.safetensors" for name in VIEWS},
            },
            indent=1,
        )
        + "\n"
    )
    load = ", ".join(f"{k}={v!r}" for k, v in arguments.items())
    summary = {
        "command": "export",
        "format": config.format,
        "checkpoint": str(config.checkpoint),
        "files": sorted(p.name for p in config.output.glob("*.safetensors")),
        "load": f"timm.create_model({TIMM_MODEL!r}, {load}, "
        f"checkpoint_path={str(config.output / 'frontal.safetensors')!r})",
    }
    (config.output / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    return summary


def timm_arguments(config: MvmaeConfig) -> dict[str, Any]:
    """Arguments of `timm.create_model` that give this encoder's network."""
    shape, _ = shapes(config)
    return {
        "img_size": config.image_size,
        "patch_size": config.patch_size,
        "in_chans": 1,
        "num_classes": 0,
        "embed_dim": shape.width,
        "depth": shape.depth,
        "num_heads": shape.heads,
        "mlp_ratio": shape.mlp_ratio,
        "qk_norm": config.qk_norm,
    }


def timm_weights(
    weights: dict[str, NDArray[np.float32]], view: int
) -> dict[str, NDArray[np.float32]]:
    """timm's names and shapes, with the embedding of one view in the position table."""
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
