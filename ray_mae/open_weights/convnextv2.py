"""ConvNeXt V2 in timm's folder: it is one of ours at once, with its channels folded into one of grey."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ray_mae.encoders.convnextv2_settings import PRESETS, STAGES, ConvNextV2Settings
from ray_mae.open_weights.fold import fold_channels
from ray_mae.open_weights.names import Pairs, Renamed, rename, strip_prefixes
from ray_mae.open_weights.preprocessing import IMAGENET
from ray_mae.open_weights.source import OpenEncoder, complete

MARKS = (r"stem\.0\.weight",)
"""A name that every ConvNeXt of timm has."""
NAMES: Pairs = ((r"((?:stem|stages|norm_pre|head\.norm)\..*)", r"\1"),)
_FOLDED = "channels, and their mean and deviation, folded into one of grey"


def is_convnextv2(config: Mapping[str, Any]) -> bool:
    """Returns whether config.json, of timm's layout, is of a ConvNeXt V2."""
    return str(config.get("architecture")).startswith("convnextv2")


def read_convnextv2(
    path: Path, files: list[Path], tensors: dict[str, Tensor], config: Mapping[str, Any]
) -> OpenEncoder:
    """Returns the encoder of a folder that timm opens as local-dir:PATH.

    Args:
        path: the folder.
        files: of its weights.
        tensors: in them, by name.
        config: config.json.

    Raises:
        ValueError: it is of stages that ours has not, or is not whole.
    """
    seen = config.get("pretrained_cfg") or {}
    renamed = rename(strip_prefixes(tensors, MARKS), NAMES)
    weights = renamed.weights
    for name in [n for n, w in weights.items() if ".mlp.fc" in n and w.ndim == 4]:
        renamed.put(name, weights[name].flatten(1), [name], "kernels of one point as matrices")
    notes = ["It is shown a whole image with black beside it, as all of ours, and no middle part."]
    if not {"norm_pre.weight", "head.norm.weight"} & {*weights}:  # FCMAE trains none
        width = len(weights.get("stages.3.blocks.0.conv_dw.bias", torch.empty(0)))
        renamed.put("head.norm.weight", torch.ones(width), [])
        renamed.put("head.norm.bias", torch.zeros(width), [])
        notes.append("It has no last norm: a fresh one is taken, as timm does.")
    size = (seen.get("input_size") or [3, 224, 224])[-1]
    settings = ConvNextV2Settings(
        **_shape(path, weights),
        image_size=size,
        norm="points" if "norm_pre.weight" in weights else "pooled",
    )
    _fold_stem(path, renamed, seen)
    settings.check()
    licence = seen.get("license") or config.get("license")
    whole = complete(path, settings, renamed, prefix="")
    return OpenEncoder(
        path,
        f"{config.get('architecture')} of timm",
        licence,
        files,
        settings,
        whole,
        renamed.origins,
        renamed.rewritten,
        renamed.left_out,
        notes=notes,
    )


def _shape(path: Path, weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Settings that give the stages: a preset's name, and the width where that differs."""
    blocks = [0] * STAGES
    widths = [0] * STAGES
    for name, tensor in weights.items():
        if match := re.fullmatch(r"stages\.([0-3])\.blocks\.(\d+)\.conv_dw\.weight", name):
            stage = int(match[1])
            blocks[stage] = max(blocks[stage], int(match[2]) + 1)
            widths[stage] = tensor.shape[0]
    alike = [n for n, (_, own) in PRESETS.items() if own == tuple(blocks)]
    if not alike or widths != [widths[0] * 2**stage for stage in range(STAGES)]:
        known = ", ".join(str(list(own)) for own in dict.fromkeys(b for _, b in PRESETS.values()))
        raise ValueError(
            f"{path} has stages of {widths} channels with {blocks} blocks: ray-mae knows widths that double, "
            f"with {known} blocks"
        )
    exact = [n for n in alike if PRESETS[n][0] == widths[0]]
    return {"preset": exact[0]} if exact else {"preset": alike[0], "width": widths[0]}


def _fold_stem(path: Path, renamed: Renamed, seen: Mapping[str, Any]) -> None:
    """Three channels of theirs as one of ours, exactly: the stem's squares have no padding."""
    names = ["stem.0.weight", "stem.0.bias"]
    if missing := [name for name in names if name not in renamed.weights]:
        raise ValueError(f"{path}: {missing[0]} is missing: is it a head or a decoder alone?")
    kernel, bias = (renamed.weights[name] for name in names)
    mean, std = seen.get("mean") or IMAGENET[0], seen.get("std") or IMAGENET[1]
    channels = kernel.shape[1]
    if len(mean) != channels or len(std) != channels:
        raise ValueError(
            f"{path} reads {channels} channels with {len(mean)} means: grey images are one or three"
        )
    grey, constant = fold_channels(kernel, bias, mean, std)
    origins = [renamed.origins[name] for name in names]
    renamed.put(names[0], grey.view(len(kernel), 1, *kernel.shape[2:]), [names[0]], _FOLDED)
    renamed.put(names[1], constant, [names[1]], _FOLDED)
    renamed.origins[names[1]] = origins[1] + origins[0]
