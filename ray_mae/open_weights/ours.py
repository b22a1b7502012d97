"""Somebody else's encoder as one of ours, which can be pretrained: exactly, or refused by name."""

from dataclasses import dataclass, field
from typing import Any

import torch
from timm.layers.mlp import Mlp
from timm.models.vision_transformer import Block, LayerScale, VisionTransformer
from torch import Tensor, nn

from ray_mae.config.sections import EncoderSettings
from ray_mae.encoders.registry import build_encoder
from ray_mae.encoders.timm_settings import TimmSettings
from ray_mae.encoders.vit import VIEWS
from ray_mae.encoders.vit_settings import PRESETS, Shape, VitSettings
from ray_mae.open_weights.fold import (
    fold_channels,
    fold_layer_scale,
)
from ray_mae.open_weights.source import OpenEncoder, on_meta

LARGEST_DIFFERENCE = 1e-4
"""Of the tokens of an image, in float32, between the network of the makers and ours."""


@dataclass
class OurEncoder:
    """Weights by the names of an encoder of ours, and how each of them came to be."""

    settings: EncoderSettings
    weights: dict[str, Tensor]
    origins: dict[str, tuple[str, ...]]
    """Name of a weight → names in the source."""
    rewritten: dict[str, str] = field(default_factory=dict)
    """Name of a weight → how its values changed, without changing the network."""
    resampled: dict[str, str] = field(default_factory=dict)
    """Name of a weight → how it was fitted to another size, which does change the network."""
    fresh: list[str] = field(default_factory=list)
    """Weights that the source has not."""
    notes: list[str] = field(default_factory=list)


def as_ours(found: OpenEncoder) -> OurEncoder:
    """Returns the encoder as ours, of the sizes that it has.

    Raises:
        ValueError: it has a part that ours has not.
    """
    if not isinstance(found.settings, TimmSettings):
        every = found.weights | found.decoder
        return OurEncoder(
            found.settings,
            dict(every),
            dict(found.origins),
            dict(found.rewritten),
            notes=[*found.notes],
        )
    model = on_meta(found.settings).body
    if lacking := parts_ours_lacks(model):
        raise ValueError(
            f"{found.path} has {' and '.join(lacking)}, which the encoder vit of ray-mae has not: evaluate "
            f"it (ray-mae evaluate probe --checkpoint {found.path}), or start from one without"
        )
    return _fold_vit(found, found.settings, model)


def parts_ours_lacks(model: Any) -> list[str]:
    """Returns in words what a network of timm's has and our Vision Transformer has not."""
    block = model.blocks[0]
    rotary = getattr(model, "rope", None) is not None
    plain = isinstance(model, VisionTransformer) and type(block) is Block
    mlp = type(block.mlp) is Mlp
    activation = getattr(block.mlp, "act", None)
    exact = isinstance(activation, nn.GELU) and activation.approximate == "none"
    scale = getattr(block, "ls1", nn.Identity())
    checks = {
        "rotary positions (RoPE)": rotary,
        f"blocks of its own ({type(block).__name__})": not plain and not rotary,
        "a gated MLP (SwiGLU)": not mlp,
        "another activation than the exact GELU": mlp and not exact,
        "no class token": model.cls_token is None,
        "no table of positions": model.pos_embed is None and not rotary,
        "a norm before its blocks": _is_there(model, "norm_pre"),
        "a norm after pooling in the place of its last one (fc_norm)": _is_there(model, "fc_norm"),
        "norms inside attention or MLP": _is_there(block.attn, "norm")
        or _is_there(block.mlp, "norm"),
        "another scale after its branches": not isinstance(scale, (nn.Identity, LayerScale)),
    }
    return [words for words, there in checks.items() if there]


def _is_there(module: Any, name: str) -> bool:
    """Whether a part is more than a place holder."""
    return not isinstance(getattr(module, name, nn.Identity()), nn.Identity)


def _fold_vit(found: OpenEncoder, theirs: TimmSettings, model: Any) -> OurEncoder:
    weights = {name.removeprefix("body."): w for name, w in found.weights.items()}
    of = {name.removeprefix("body."): o for name, o in found.origins.items()}
    how = {name.removeprefix("body."): h for name, h in found.rewritten.items()}
    block = model.blocks[0]
    kernel = weights["patch_embed.proj.weight"]
    width, channels, patch, _ = kernel.shape
    registers = weights["reg_token"].shape[1] if "reg_token" in weights else 0
    shape = Shape(
        width,
        len(model.blocks),
        block.attn.num_heads,
        weights["blocks.0.mlp.fc1.weight"].shape[0] / width,
    )
    settings = VitSettings(
        **preset_of(shape),
        image_size=theirs.image_size,
        patch_size=patch,
        registers=registers,
        norm_eps=block.norm1.eps,
        qk_norm=not isinstance(block.attn.q_norm, nn.Identity),
        positions="learned",
    )
    ours = OurEncoder(settings, {}, {}, notes=[*found.notes])

    def put(name: str, value: Tensor, *sources: str, rule: str = "") -> None:
        ours.weights[name] = value
        ours.origins[name] = tuple(o for source in sources for o in of[source])
        if rules := [r for r in (*(how.get(source, "") for source in sources), rule) if r]:
            ours.rewritten[name] = ", ".join(dict.fromkeys(rules))

    bias = weights.get("patch_embed.proj.bias", torch.zeros(width))
    with_bias = ["patch_embed.proj.bias"] if "patch_embed.proj.bias" in weights else []
    grey, constant = fold_channels(kernel, bias, theirs.mean, theirs.std)
    rule = f"{channels} channel{'s' * (channels > 1)} and their mean and deviation folded into one of grey"
    put("patch.weight", grey, "patch_embed.proj.weight", rule=rule)
    put("patch.bias", constant, *with_bias, "patch_embed.proj.weight", rule=rule)

    table = weights["pos_embed"][0]
    prefix = len(table) - settings.patches
    token, rule = weights["cls_token"].flatten(), ""
    if prefix:
        token, rule = token + table[0], "its position folded into it"
    put("cls", token, "cls_token", *(["pos_embed"] if prefix else []), rule=rule)
    if registers:
        tokens = weights["reg_token"][0]
        if prefix > 1:
            tokens = tokens + table[1 : 1 + registers]
        put("register", tokens, "reg_token", rule="their positions folded into them" * (prefix > 1))
    put("position", table[prefix:], "pos_embed", rule="rows of patches alone" * bool(prefix))
    ours.weights["view"], ours.origins["view"] = torch.zeros(VIEWS, width), ()
    ours.fresh.append("view")

    scaled = isinstance(getattr(block, "ls1", None), LayerScale)
    for name in weights:
        if not name.startswith(("blocks.", "norm.")) or ".ls1." in name or ".ls2." in name:
            continue
        gamma = _scale_after(name) if scaled else None
        if gamma is None:
            put(f"body.{name}", weights[name], name)
            continue
        layer = name.rpartition(".")[0]
        pair = fold_layer_scale(
            weights[f"{layer}.weight"], weights[f"{layer}.bias"], weights[gamma]
        )
        put(f"body.{name}", pair[name.endswith(".bias")], name, gamma, rule="layer scale folded")
    if scaled:
        ours.notes.append(
            "Its layer scale is part of the weights now: the same network, and another way of training it."
        )
    return ours


def _scale_after(name: str) -> str | None:
    """The layer scale that follows a weight, if any."""
    block = ".".join(name.split(".")[:2])
    if ".attn.proj." in name:
        return f"{block}.ls1.gamma"
    return f"{block}.ls2.gamma" if ".mlp.fc2." in name else None


def preset_of(shape: Shape) -> dict[str, Any]:
    """Settings that give this shape: a preset's name, and what differs from it."""
    name = min(PRESETS, key=lambda n: (PRESETS[n] != shape, abs(PRESETS[n].width - shape.width)))
    preset = PRESETS[name]
    own = {k: v for k, v in vars(shape).items() if getattr(preset, k) != v}
    return {"preset": name, **own}


@torch.no_grad()
def largest_difference(found: OpenEncoder, ours: OurEncoder) -> float:
    """Returns the largest difference of tokens between the makers' network and ours, on a grey image."""
    size = found.settings.input_size
    images = torch.randn(1, 1, size, size, generator=torch.Generator().manual_seed(0))
    tokens = []
    for settings, weights in ((found.settings, found.weights), (ours.settings, ours.weights)):
        network = build_encoder(settings)
        network.load_state_dict(dict(weights))
        tokens.append(network.eval()(images))
    return float((tokens[0] - tokens[1]).abs().max())
