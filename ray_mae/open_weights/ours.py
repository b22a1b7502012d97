"""Somebody else's encoder as one of ours, which can be pretrained: exactly, or refused by name."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from timm.layers.mlp import Mlp
from timm.models.vision_transformer import Block, LayerScale, VisionTransformer
from torch import Tensor, nn

from ray_mae.config.sections import EncoderSettings
from ray_mae.encoders.registry import build_encoder
from ray_mae.encoders.resenc import ResEnc, fold_film
from ray_mae.encoders.resenc_settings import ResEncSettings
from ray_mae.encoders.timm_settings import TimmSettings
from ray_mae.encoders.vit import VIEWS
from ray_mae.encoders.vit_settings import PRESETS, Shape, VitSettings
from ray_mae.open_weights.fold import (
    fold_channels,
    fold_layer_scale,
    resample_kernel,
    resample_positions,
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
    if isinstance(found.settings, ResEncSettings):
        every = found.weights | found.decoder
        return OurEncoder(
            found.settings,
            dict(every),
            dict(found.origins),
            dict(found.rewritten),
            notes=[*found.notes],
        )
    assert isinstance(found.settings, TimmSettings)
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
        **_preset_of(shape),
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


def _preset_of(shape: Shape) -> dict[str, Any]:
    """Settings that give this shape: a preset's name, and what differs from it."""
    name = min(PRESETS, key=lambda n: (PRESETS[n] != shape, abs(PRESETS[n].width - shape.width)))
    preset = PRESETS[name]
    own = {k: v for k, v in vars(shape).items() if getattr(preset, k) != v}
    return {"preset": name, **own}


# ------------------------------------------------------------------------------------- other settings


def fit_to(ours: OurEncoder, wanted: EncoderSettings, path: Path) -> OurEncoder:
    """Returns the weights for an encoder of other settings: another size of image or patch is resampled.

    Args:
        ours: what there is.
        wanted: settings of the run.
        path: of the source, for messages.

    Raises:
        ValueError: the settings are of another network, with those to set.
    """
    if type(wanted) is not type(ours.settings):
        raise ValueError(
            f"{path} holds an encoder {ours.settings.name}, the run has {wanted.name}: set encoder.name "
            f"{ours.settings.name}, with a method that trains it"
        )
    if isinstance(wanted, ResEncSettings):
        return _fit_resenc(ours, wanted, path)
    if not isinstance(wanted, VitSettings):
        return ours
    now = ours.settings
    assert isinstance(now, VitSettings)
    _require_same(now, wanted, path)
    weights, resampled = dict(ours.weights), dict(ours.resampled)
    notes, fresh = list(ours.notes), list(ours.fresh)
    if wanted.patch_size != now.patch_size:
        weights["patch.weight"] = resample_kernel(weights["patch.weight"], wanted.patch_size)
        resampled["patch.weight"] = f"from patches of {now.patch_size} to {wanted.patch_size} px"
    side = wanted.image_size // wanted.patch_size
    before = round(len(weights["position"]) ** 0.5)
    if wanted.positions == "learned" and side != before:
        weights["position"] = resample_positions(weights["position"], side)
        resampled["position"] = (
            f"from {before} × {before} to {side} × {side} patches (bicubic, antialiased)"
        )
    elif side != before:  # what the settings say, and no weight
        del weights["position"]
        fresh.append("position")
    if wanted.norm_eps != now.norm_eps:
        notes.append(
            f"Its layer norms were trained with eps {now.norm_eps:g}, encoder.norm_eps is "
            f"{wanted.norm_eps:g}."
        )
    return replace(
        ours, settings=wanted, weights=weights, resampled=resampled, fresh=fresh, notes=notes
    )


def _require_same(now: VitSettings, wanted: VitSettings, path: Path) -> None:
    """Raise where a network of the wanted settings cannot hold the weights."""
    if now.shape != wanted.shape:
        preset = _preset_of(now.shape)
        sets = ", ".join(f"encoder.{name} {value:g}" if name != "preset" else f"encoder.preset {value}"
                         for name, value in preset.items())  # fmt: skip
        shape = now.shape
        raise ValueError(
            f"{path} was made with width {shape.width}, depth {shape.depth}, heads {shape.heads}, mlp_ratio "
            f"{shape.mlp_ratio:g}: set {sets}, or leave them out"
        )
    if now.qk_norm != wanted.qk_norm:
        raise ValueError(
            f"{path} was made with{'' if now.qk_norm else 'out'} qk_norm: set encoder.qk_norm "
            f"{str(now.qk_norm).lower()}"
        )
    if now.registers != wanted.registers:
        raise ValueError(
            f"{path} has {now.registers or 'no'} registers: set encoder.registers {now.registers}"
        )
    if now.positions != wanted.positions:
        kind = "a learned table of" if now.positions == "learned" else "fixed sine-cosine"
        raise ValueError(f"{path} has {kind} positions: set encoder.positions {now.positions}")


def _fit_resenc(ours: OurEncoder, wanted: ResEncSettings, path: Path) -> OurEncoder:
    now = ours.settings
    assert isinstance(now, ResEncSettings)
    if now.preset != wanted.preset:
        raise ValueError(
            f"{path} has the stages of encoder.preset {now.preset}: set that, or leave it out"
        )
    if now.film and not wanted.film:
        network = ResEnc(now)
        inner = {n: w for n, w in ours.weights.items() if not n.startswith("decoder.")}
        network.load_state_dict(inner)
        fold_film(network)
        folded = dict(network.state_dict())
        rewritten = {
            name: "FiLM at noise level 0 folded into the norms"
            for name, w in folded.items()
            if not torch.equal(w, inner[name])
        }
        kept = {n: w for n, w in ours.weights.items() if n.startswith("decoder.")}
        return replace(ours, settings=wanted, weights=folded | kept, rewritten=rewritten)
    fresh = [*ours.fresh, *(("film.", "time.") if wanted.film and not now.film else ())]
    return replace(ours, settings=wanted, fresh=fresh)


@torch.no_grad()
def largest_difference(found: OpenEncoder, ours: OurEncoder) -> float:
    """Returns the largest difference of tokens between the makers' network and ours, on two grey images."""
    size = found.settings.input_size
    images = torch.randn(2, 1, size, size, generator=torch.Generator().manual_seed(0))
    tokens = []
    for settings, weights in ((found.settings, found.weights), (ours.settings, ours.weights)):
        network = build_encoder(settings)
        network.load_state_dict(dict(weights))
        tokens.append(network.eval()(images))
    return float((tokens[0] - tokens[1]).abs().max())
