"""Names of weights in other libraries → timm's: tables of patterns, one for each family."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

Pairs = tuple[tuple[str, str], ...]
"""Pattern of a whole name → the name that it gets."""

PREFIXES = (
    *("module.", "_orig_mod.", "model.", "backbone.", "student.backbone.", "teacher.backbone."),
    *("visual.trunk.", "vision_model.", "vit.", "dinov2.", "base_model."),
)
"""What wrappers put before every name of an encoder."""

_LAYER = r"(?:encoder\.|model\.)?layers?\.(\d+)\."

HF_VIT: Pairs = (
    (r"embeddings\.cls_token", "cls_token"),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.patch_embeddings\.projection\.(weight|bias)", r"patch_embed.proj.\1"),
    (
        _LAYER + r"attention\.(?:attention\.)?(?:query|q_proj)\.(weight|bias)",
        r"blocks.\1.attn.q.\2",
    ),
    (_LAYER + r"attention\.(?:attention\.)?(?:key|k_proj)\.(weight|bias)", r"blocks.\1.attn.k.\2"),
    (
        _LAYER + r"attention\.(?:attention\.)?(?:value|v_proj)\.(weight|bias)",
        r"blocks.\1.attn.v.\2",
    ),
    (_LAYER + r"attention\.(?:output\.dense|o_proj)\.(weight|bias)", r"blocks.\1.attn.proj.\2"),
    (_LAYER + r"(?:layernorm_before|norm1)\.(weight|bias)", r"blocks.\1.norm1.\2"),
    (_LAYER + r"(?:layernorm_after|norm2)\.(weight|bias)", r"blocks.\1.norm2.\2"),
    (
        _LAYER + r"(?:intermediate\.dense|mlp\.fc1|mlp\.weights_in)\.(weight|bias)",
        r"blocks.\1.mlp.fc1.\2",
    ),
    (
        _LAYER + r"(?:output\.dense|mlp\.fc2|mlp\.weights_out)\.(weight|bias)",
        r"blocks.\1.mlp.fc2.\2",
    ),
    (r"layernorm\.(weight|bias)", r"norm.\1"),
)
"""transformers: ViTModel and ViTMAE, in its spelling on disk and that of version 5 in memory."""

HF_DINOV2: Pairs = (
    *HF_VIT,
    (r"embeddings\.register_tokens", "reg_token"),
    (_LAYER + r"layer_scale([12])\.lambda1", r"blocks.\1.ls\2.gamma"),
)
"""transformers: Dinov2Model and Dinov2WithRegistersModel; RAD-DINO is the former."""

HF_DINOV3: Pairs = (
    (r"embeddings\.cls_token", "cls_token"),
    (r"embeddings\.register_tokens", "reg_token"),
    (r"embeddings\.patch_embeddings\.(weight|bias)", r"patch_embed.proj.\1"),
    (_LAYER + r"attention\.([qkv])_proj\.weight", r"blocks.\1.attn.\2.weight"),
    (_LAYER + r"attention\.([qv])_proj\.bias", r"blocks.\1.attn.\2_bias"),
    (_LAYER + r"attention\.o_proj\.(weight|bias)", r"blocks.\1.attn.proj.\2"),
    (_LAYER + r"layer_scale([12])\.lambda1", r"blocks.\1.gamma_\2"),
    (_LAYER + r"mlp\.gate_proj\.(weight|bias)", r"blocks.\1.mlp.fc1_g.\2"),
    (_LAYER + r"mlp\.up_proj\.(weight|bias)", r"blocks.\1.mlp.fc1.\2"),
    (_LAYER + r"mlp\.down_proj\.(weight|bias)", r"blocks.\1.mlp.fc2.\2"),
    (_LAYER + r"norm([12])\.(weight|bias)", r"blocks.\1.norm\2.\3"),
    (r"norm\.(weight|bias)", r"norm.\1"),
)
"""transformers: DINOv3ViTModel. `fc1` beside a gate is timm's `fc1_x`."""

HF_SIGLIP: Pairs = (
    (r"embeddings\.patch_embedding\.(weight|bias)", r"patch_embed.proj.\1"),
    (r"embeddings\.position_embedding\.weight", "pos_embed"),
    (_LAYER + r"layer_norm([12])\.(weight|bias)", r"blocks.\1.norm\2.\3"),
    (_LAYER + r"self_attn\.([qkv])_proj\.(weight|bias)", r"blocks.\1.attn.\2.\3"),
    (_LAYER + r"self_attn\.out_proj\.(weight|bias)", r"blocks.\1.attn.proj.\2"),
    (_LAYER + r"mlp\.fc([12])\.(weight|bias)", r"blocks.\1.mlp.fc\2.\3"),
    (r"post_layernorm\.(weight|bias)", r"norm.\1"),
    (r"head\.probe", "attn_pool.latent"),
    (r"head\.attention\.in_proj_(weight|bias)", r"attn_pool.qkv.\1"),
    (r"head\.attention\.out_proj\.(weight|bias)", r"attn_pool.proj.\1"),
    (r"head\.layernorm\.(weight|bias)", r"attn_pool.norm.\1"),
    (r"head\.mlp\.(fc[12])\.(weight|bias)", r"attn_pool.mlp.\1.\2"),
)
"""transformers: SiglipVisionModel, and the vision model of a SiglipModel."""

TIMM: Pairs = (
    (r"((?:cls|reg)_token|pos_embed)", r"\1"),
    (r"((?:patch_embed|blocks|norm_pre|norm|fc_norm|attn_pool|rope)\..*)", r"\1"),
)
"""timm, and the authors of MAE, MVMAE and medical_mae, who took its names."""

DINOV2: Pairs = (
    (r"register_tokens", "reg_token"),
    (r"(blocks\.\d+\.mlp\.)w12\.(weight|bias)", r"\1fc1.\2"),
    (r"(blocks\.\d+\.mlp\.)w3\.(weight|bias)", r"\1fc2.\2"),
    *TIMM,
)
"""DINOv2's authors."""

LEFT_OUT: Pairs = (
    (r"(?:.*\.)?mask_token|.*mask_embed.*", "the mask token of its pretraining"),
    (r"decoder(?:_|\.).*", "the decoder of its pretraining"),
    (r"pooler\..*", "the pooler, which no feature passes"),
    (r"(?:head|heads|classifier|fc|head_dist|visual\.head|dino_head|ibot_head)\..*|proj", "a head"),
    (r"text_model\..*|text\..*|transformer\..*|token_embedding\..*|logit_(?:scale|bias)|ln_final\..*"
     r"|text_projection|positional_embedding|attn_mask", "the text model"),
    (r".*position_ids|.*relative_position_index|.*num_batches_tracked", "a table of indices"),
    (r"rope_embed\.periods|.*bias_mask", "what follows from the settings"),
)  # fmt: skip
"""Pattern of a whole name → why it is not taken."""


@dataclass
class Renamed:
    """Weights under timm's names, and what became of every tensor of the source."""

    weights: dict[str, Tensor] = field(default_factory=dict)
    origins: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """timm's name → those of the source."""
    rewritten: dict[str, str] = field(default_factory=dict)
    """timm's name → how its values changed."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Name of the source → why."""

    def put(self, name: str, value: Tensor, of: Sequence[str], how: str = "") -> None:
        """Sets a weight that was made of others, by names here or in the source, in their place."""
        sources = tuple(o for n in of for o in self.origins.pop(n, (n,)))
        for other in of:
            self.weights.pop(other, None)
        self.weights[name], self.origins[name] = value, sources
        if how:
            self.rewritten[name] = how


def strip_prefixes(
    tensors: dict[str, Tensor], marks: Sequence[str]
) -> dict[str, tuple[str, Tensor]]:
    """Returns tensors by name without what wrappers put before it, beside their name in the file.

    Args:
        tensors: of a file.
        marks: patterns of names that every encoder of the family has; prefixes go until one is found.
    """
    names = {name: name for name in tensors}  # now → in the file
    while not any(re.fullmatch(mark, name) for mark in marks for name in names):
        lengths = [p for p in PREFIXES if any(name.startswith(p) for name in names)]
        if not lengths:
            break
        # the wrapper that most names share
        prefix = max(lengths, key=lambda p: sum(name.startswith(p) for name in names))
        shorter = {n.removeprefix(prefix): of for n, of in names.items()}
        if len(shorter) < len(names):  # two would have one name
            break
        names = shorter
    return {name: (of, tensors[of]) for name, of in names.items()}


def rename(tensors: dict[str, tuple[str, Tensor]], table: Pairs) -> Renamed:
    """Returns the tensors under timm's names, queries, keys and values joined as timm has them.

    Args:
        tensors: by name without prefix, beside their name in the file.
        table: of the family.
    """
    result = Renamed()
    for name, (source, tensor) in tensors.items():
        target = _first_match(name, table)
        if target is not None:
            result.put(target, tensor, [source])
        else:
            result.left_out[source] = (
                _first_match(name, LEFT_OUT) or "a part that no encoder here has"
            )
    _join(result)
    return result


def _first_match(name: str, table: Pairs) -> str | None:
    for pattern, target in table:
        if match := re.fullmatch(pattern, name):
            return match.expand(target)
    return None


def _join(renamed: Renamed) -> None:
    """q, k, v → qkv, as timm has them; `fc1` beside a gate → `fc1_x`; of a pooling by attention q and kv."""
    weights = renamed.weights
    for name in [n for n in weights if re.fullmatch(r"blocks\.\d+\.attn\.q\.(weight|bias)", n)]:
        parts = [name.replace(".attn.q.", f".attn.{letter}.") for letter in "qkv"]
        if all(part in weights for part in parts):
            joined = torch.cat([weights[part] for part in parts])
            renamed.put(name.replace(".attn.q.", ".attn.qkv."), joined, parts, "q, k and v joined")
    for name in [n for n in weights if ".mlp.fc1_g." in n]:
        plain = name.replace(".fc1_g.", ".fc1.")
        if plain in weights:
            renamed.put(name.replace(".fc1_g.", ".fc1_x."), weights[plain], [plain])
    for name in [n for n in weights if n.startswith("attn_pool.qkv.")]:
        whole, last = weights[name], name.rpartition(".")[2]
        width = len(whole) // 3
        source = renamed.origins[name]
        renamed.put(f"attn_pool.q.{last}", whole[:width], [name], "q, k and v parted")
        renamed.put(f"attn_pool.kv.{last}", whole[width:], source, "q, k and v parted")
    if "pos_embed" in weights and weights["pos_embed"].ndim == 2:
        weights["pos_embed"] = weights["pos_embed"][None]
