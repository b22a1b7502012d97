"""`export`: the encoder as files that other libraries load.

timm's ViT has no view embedding. Added to the positions it is part of them, so there is one file
per view: frontal.safetensors, lateral.safetensors and unknown.safetensors.
"""

import json
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from ray_mae.config import ExportConfig, MvmaeConfig
from ray_mae.data.schema import VIEWS
from ray_mae.encoder import FrozenEncoder, load_encoder, save_encoder
from ray_mae.methods.augment import PIXEL_MEAN, PIXEL_STD
from ray_mae.methods.shapes import shapes
from ray_mae.methods.vit import Encoder

TIMM_MODEL = "vit_base_patch16_224"
"""Any of timm's ViTs: the arguments replace its sizes."""


def export(config: ExportConfig) -> dict[str, Any]:
    """Write the encoder in the format asked for; returns the summary, also in summary.json."""
    encoder, _ = load_encoder(config.checkpoint)
    if not isinstance(encoder, FrozenEncoder):
        raise ValueError(
            f"{config.checkpoint} holds an encoder of volumes, which timm has no network for"
        )
    config.output.mkdir(parents=True, exist_ok=True)
    save_encoder(encoder, config.output)
    arguments = timm_arguments(encoder.config)
    for view, name in enumerate(VIEWS):
        save_file(timm_weights(encoder.encoder, view), config.output / f"{name}.safetensors")
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


@torch.no_grad()
def timm_weights(encoder: Encoder, view: int) -> dict[str, Tensor]:
    """timm's names and shapes, with the embedding of one view in the position table."""
    D, P = encoder.patch.weight.shape
    side = int(P**0.5)
    positions = torch.cat([torch.zeros(1, D), encoder.position + encoder.view[view]])
    weights = {
        "cls_token": encoder.cls.reshape(1, 1, D),
        "pos_embed": positions[None],
        "patch_embed.proj.weight": encoder.patch.weight.reshape(D, 1, side, side),
        "patch_embed.proj.bias": encoder.patch.bias,
        **encoder.body.state_dict(),
    }
    return {name: tensor.detach().clone().contiguous() for name, tensor in weights.items()}
