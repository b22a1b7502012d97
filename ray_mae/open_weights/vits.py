"""Vision Transformers of others: from files and their settings to timm's network and its weights."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ray_mae.encoders.timm_settings import ARGUMENTS, TimmSettings
from ray_mae.encoders.timm_vit import timm_model
from ray_mae.encoders.vit_settings import PRESETS
from ray_mae.open_weights import names
from ray_mae.open_weights.names import Pairs, rename, strip_prefixes
from ray_mae.open_weights.preprocessing import IMAGENET, of_hf, of_timm
from ray_mae.open_weights.source import OpenEncoder
from ray_mae.open_weights.vit_weights import (
    at_size,
    class_position_into_token,
    opened,
    sizes_of,
    whole_number,
)

MARKS = (r"patch_embed\.proj\.weight", r"embeddings\.patch_embedding.*")
"""A name that every ViT has, in one of its spellings."""
_HEADS = {shape.width: shape.heads for shape in PRESETS.values()} | {1536: 24}


@dataclass(frozen=True)
class Family:
    """How a kind of ViT is written down by somebody."""

    words: str
    table: Pairs
    pool: str
    """Which vector its makers take."""
    architecture: Callable[[Mapping[str, Any]], str] = lambda config: "vit_base_patch16_224"
    """timm's network that is made to its sizes, from config.json."""
    mean_and_std: tuple[list[float], list[float]] = IMAGENET
    """Of its input, where its files do not say."""


def _dinov2(config: Mapping[str, Any]) -> str:
    size = "giant" if config.get("use_swiglu_ffn") else "base"
    registers = "_reg4" if config.get("num_register_tokens") else ""
    return f"vit_{size}_patch14{registers}_dinov2"


def _dinov3(config: Mapping[str, Any]) -> str:
    return f"vit_{'huge_plus' if config.get('use_gated_mlp') else 'base'}_patch16_dinov3_qkvb"


def _siglip(config: Mapping[str, Any]) -> str:
    return "vit_base_patch16_siglip_224"


_HALF = [0.5] * 3, [0.5] * 3
HF: dict[str, Family] = {
    "vit": Family("a ViT of transformers", names.HF_VIT, "cls", mean_and_std=_HALF),
    "vit_mae": Family("a masked autoencoder (ViTMAE) of transformers", names.HF_VIT, "mean"),
    "dinov2": Family("a DINOv2 of transformers", names.HF_DINOV2, "cls", _dinov2),
    "dinov2_with_registers": Family(
        "a DINOv2 with registers of transformers", names.HF_DINOV2, "cls", _dinov2
    ),
    "dinov3_vit": Family("a DINOv3 of transformers", names.HF_DINOV3, "cls", _dinov3),
    "siglip": Family("a SigLIP of transformers", names.HF_SIGLIP, "cls", _siglip, _HALF),
    "siglip_vision_model": Family(
        "a SigLIP of transformers", names.HF_SIGLIP, "cls", _siglip, _HALF
    ),
}
"""By `model_type` of config.json."""
_ACTIVATIONS = {
    "gelu": None,
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
}
"""Name in config.json → timm's; None is its own."""
MAE = Family("a masked autoencoder in the form of MAE's authors", names.TIMM, "mean")
DINOV2 = Family("a DINOv2 in the form of its authors", names.DINOV2, "cls")
PLAIN = Family("a ViT with timm's names", names.TIMM, "cls")


def read_hf(
    path: Path,
    files: list[Path],
    tensors: dict[str, Tensor],
    config: dict[str, Any],
    seen: dict[str, Any],
    *,
    own_size: bool,
) -> OpenEncoder:
    """Returns the encoder of a folder of Hugging Face's layout.

    Args:
        path: the folder.
        files: of its weights.
        tensors: in them, by name.
        config: config.json.
        seen: preprocessor_config.json, or nothing.
        own_size: leave the positions as they are, of whatever size its preprocessing makes an image.

    Raises:
        ValueError: it is none that is known, or is not whole.
    """
    where = path / "config.json"
    kind = config.get("model_type")
    if kind not in HF:
        raise ValueError(f"{where}: model_type {kind} is none of {', '.join(HF)}")
    family = HF[kind]
    config = {**config, **config.get("vision_config", {})}
    gated = bool(config.get("use_swiglu_ffn") or config.get("use_gated_mlp"))
    activation = config.get("hidden_act", "gelu")
    if not gated and activation not in _ACTIVATIONS:
        raise ValueError(f"{where}: hidden_act {activation} is none of {', '.join(_ACTIVATIONS)}")
    renamed = rename(strip_prefixes(tensors, MARKS), family.table)
    size, patch = (whole_number(where, config, name) for name in ("image_size", "patch_size"))
    heads = whole_number(where, config, "num_attention_heads")
    arguments = sizes_of(path, renamed.weights, heads) | {"img_size": size, "patch_size": patch}
    if not gated and (act := _ACTIVATIONS[activation]):
        arguments["act_layer"] = act
    if kind == "dinov3_vit":
        arguments["rope_temperature"] = config.get("rope_theta", 100.0)
    if "reg_token" in renamed.weights:
        count = renamed.weights["reg_token"].shape[1]
        arguments["num_reg_tokens" if kind == "dinov3_vit" else "reg_tokens"] = count
        if kind != "dinov3_vit":
            class_position_into_token(renamed)
    settings = TimmSettings(
        architecture=family.architecture(config),
        arguments=json.dumps(arguments),
        image_size=size,
        patch_size=patch,
        norm_eps=config.get("layer_norm_eps"),
        pool=family.pool,  # type: ignore[arg-type]
    )
    settings, wanted = of_hf(settings, seen, family.mean_and_std)
    notes = []
    if config.get("auto_map"):
        notes.append(f"{where} names code (auto_map): it is not run; the weights alone are read.")
    licence = config.get("license")
    found = opened(path, family.words, files, settings, renamed, licence, notes)
    return found if own_size else at_size(found, wanted)


def read_timm(
    path: Path, files: list[Path], tensors: dict[str, Tensor], config: dict[str, Any]
) -> OpenEncoder:
    """Returns the encoder of a folder that timm opens as local-dir:PATH; arguments as of `read_hf`.

    Raises:
        ValueError: timm has no such network, it is no ViT, or is not whole.
    """
    seen = config.get("pretrained_cfg") or {}
    arguments = {k: v for k, v in (config.get("model_args") or {}).items() if k in ARGUMENTS}
    if config.get("global_pool"):
        arguments.setdefault("global_pool", config["global_pool"])
    if "img_size" not in arguments:
        arguments["img_size"] = (seen.get("input_size") or [3, 224, 224])[-1]
    settings = TimmSettings(
        architecture=str(config.get("architecture")), arguments=json.dumps(arguments)
    )
    try:
        with torch.device("meta"):
            model = timm_model(settings)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path / 'config.json'}: {error}") from error
    size, patch = model.patch_embed.img_size, model.patch_embed.patch_size
    if len({*size}) > 1 or len({*patch}) > 1:
        raise ValueError(
            f"{path / 'config.json'}: images of {size[0]} × {size[1]} in patches of {patch[0]} × {patch[1]}: "
            "what an encoder sees is square here"
        )
    own = settings.architecture.partition(".")[0].split("_")
    dino = any(
        word.startswith("dino") for word in own
    )  # timm pools DINOv3 otherwise than its makers
    masked = seen.get("tag") == "mae" or (model.global_pool == "avg" and not dino)
    settings = replace(
        settings,
        image_size=size[0],
        patch_size=patch[0],
        pool="mean" if masked and isinstance(model.fc_norm, torch.nn.Identity) else "cls",
    )
    renamed = rename(strip_prefixes(tensors, MARKS), names.TIMM)
    licence = seen.get("license") or config.get("license")
    words = f"{settings.architecture} of timm"
    return opened(path, words, files, of_timm(settings, seen), renamed, licence)


def read_named(
    path: Path, tensors: dict[str, Tensor], family: Family, heads: int | None = None
) -> OpenEncoder:
    """Returns the encoder of a file without settings, which follow from the shapes of its weights.

    Args:
        path: the file.
        tensors: in it, by name.
        family: that was recognised.
        heads: of the attention, where they are known.

    Raises:
        ValueError: it is not whole, or its shapes do not say enough.
    """
    renamed = rename(strip_prefixes(tensors, MARKS), family.table)
    weights = renamed.weights
    if "patch_embed.proj.weight" not in weights or "blocks.0.norm1.weight" not in weights:
        raise ValueError(
            f"{path}: the weights of an encoder are missing, such as blocks.0.norm1.weight: is it a head or "
            "a decoder alone?"
        )
    width, _, patch, _ = weights["patch_embed.proj.weight"].shape
    heads = heads or _HEADS.get(width) or (width // 64 if width % 64 == 0 else None)
    if heads is None:
        raise ValueError(
            f"{path} does not say how many attention heads it has, and its width, {width}, is no multiple of "
            "64: put it as model.safetensors into a folder with a config.json of timm's"
        )
    registers = weights["reg_token"].shape[1] if "reg_token" in weights else 0
    if registers and family is DINOV2:
        class_position_into_token(renamed)
    prefix = 0 if registers or "cls_token" not in weights else 1
    side = round((weights["pos_embed"].shape[1] - prefix) ** 0.5) if "pos_embed" in weights else 0
    gated = "blocks.0.mlp.fc1.weight" in weights and (
        weights["blocks.0.mlp.fc1.weight"].shape[0]
        == 2 * weights["blocks.0.mlp.fc2.weight"].shape[1]
    )
    scaled = "blocks.0.ls1.gamma" in weights
    architecture = _dinov2({"use_swiglu_ffn": gated, "num_register_tokens": registers})
    arguments = sizes_of(path, weights, heads) | {"img_size": side * patch, "patch_size": patch}
    if registers:
        arguments["reg_tokens"] = registers
    pool = family.pool
    if "fc_norm.weight" in weights:  # its own pooling is more than a mean
        arguments |= {"global_pool": "avg", "fc_norm": True}
        pool = "cls"
    settings = TimmSettings(
        architecture=architecture if scaled or gated or registers else "vit_base_patch16_224",
        arguments=json.dumps(arguments),
        image_size=side * patch,
        patch_size=patch,
        mean=IMAGENET[0],
        std=IMAGENET[1],
        interpolation="bicubic",
        pool=pool,  # type: ignore[arg-type]
    )
    notes = [
        "The file does not say how its images were normalised: ImageNet's mean and deviation are taken."
    ]
    return opened(path, family.words, [path], settings, renamed, None, notes)
