"""Weights of a ViT under timm's names: the sizes that they say, their checks, and another size of image."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor

from ray_mae.encoders.timm_settings import TimmSettings
from ray_mae.encoders.timm_vit import timm_model
from ray_mae.open_weights.names import Renamed
from ray_mae.open_weights.source import OpenEncoder, complete


def class_position_into_token(renamed: Renamed) -> None:
    """The class token's row of the positions becomes part of the token, as timm has it beside registers."""
    weights = renamed.weights
    token, table = weights["cls_token"], weights["pos_embed"]
    how = "the class token's position folded into it"
    of_table = renamed.origins["pos_embed"]
    renamed.put("cls_token", token + table[:, :1], ["cls_token"], how)
    renamed.put("pos_embed", table[:, 1:], ["pos_embed"], how)
    renamed.origins["cls_token"] += of_table


def sizes_of(path: Path, weights: Mapping[str, Tensor], heads: int) -> dict[str, Any]:
    """Width, depth and the like as timm's arguments, from the shapes of weights."""
    blocks = [int(name.split(".")[1]) for name in weights if name.startswith("blocks.")]
    kernel = weights.get("patch_embed.proj.weight")
    inner = weights.get("blocks.0.mlp.fc1.weight", weights.get("blocks.0.mlp.fc1_x.weight"))
    if not blocks or kernel is None or inner is None or kernel.ndim != 4:
        raise ValueError(
            f"{path}: the weights of an encoder are missing, such as blocks.0.norm1.weight: is it a head or "
            "a decoder alone?"
        )
    width = kernel.shape[0]
    return {
        "embed_dim": width,
        "depth": max(blocks) + 1,
        "num_heads": heads,
        "mlp_ratio": inner.shape[0] / width,
        "in_chans": kernel.shape[1],
    }


def whole_number(where: Path, config: Mapping[str, Any], name: str) -> int:
    value = config.get(name)
    if isinstance(value, list) and len({*value}) == 1:
        value = value[0]
    if not isinstance(value, int) or value <= 0:
        raise ValueError(f"{where}: {name} must be a whole number, got {config.get(name)}")
    return value


def opened(
    path: Path,
    words: str,
    files: list[Path],
    settings: TimmSettings,
    renamed: Renamed,
    licence: str | None,
    notes: list[str] | None = None,
) -> OpenEncoder:
    weights = complete(path, settings, renamed)
    channels = weights["body.patch_embed.proj.weight"].shape[1]
    if channels not in (1, 3) or len(settings.mean) != channels:
        raise ValueError(
            f"{path} reads {channels} channels with {len(settings.mean)} means: grey images are one or three"
        )
    return OpenEncoder(
        path, words, licence, files, settings, weights, renamed.origins, renamed.rewritten,
        renamed.left_out, notes=notes or [],
    )  # fmt: skip


def at_size(found: OpenEncoder, size: int) -> OpenEncoder:
    """The same for images of another size, its table of positions resampled."""
    settings = found.settings
    assert isinstance(settings, TimmSettings)
    if size == settings.image_size or size % settings.patch_size:
        return found
    arguments = settings.keywords | {"img_size": size}
    settings = replace(settings, arguments=json.dumps(arguments), image_size=size)
    weights, rewritten = dict(found.weights), dict(found.rewritten)
    if (table := weights.get("body.pos_embed")) is not None:
        side = size // settings.patch_size
        with torch.device("meta"):
            model = timm_model(settings)
        prefix = table.shape[1] - round(table.shape[1] ** 0.5) ** 2
        assert model.pos_embed.shape[1] == side**2 + prefix
        weights["body.pos_embed"] = resample_abs_pos_embed(
            table, new_size=[side, side], num_prefix_tokens=prefix
        )
        rewritten["body.pos_embed"] = f"resampled to {side} × {side} patches"
    return replace(found, settings=settings, weights=weights, rewritten=rewritten)
