"""Attention of a decoder to what the encoder saw: of the other views of a study too, or of its own alone."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ray_mae.encoders.block import Mlp, Norm
from ray_mae.encoders.vit import Blocks, initialise
from ray_mae.encoders.vit_settings import Shape

NORM: Norm = partial(nn.LayerNorm, eps=1e-6)


class CrossAttention(nn.Module):
    """Multi-head attention of some tokens to others, both of one width.

    Args:
        width: of a token.
        heads: of the attention.
        qk_norm: whether queries and keys are normalised.
    """

    def __init__(self, width: int, heads: int, qk_norm: bool) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.norm_seen = NORM(width), NORM(width)
        self.q, self.kv = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.q_norm = NORM(width // heads) if qk_norm else nn.Identity()
        self.k_norm = NORM(width // heads) if qk_norm else nn.Identity()
        self.proj = nn.Linear(width, width)

    def seen(self, x: Tensor) -> Tensor:
        """Keys and values [N, K, 2 D] of tokens [N, K, D]."""
        kv: Tensor = self.kv(self.norm_seen(x))
        return kv

    def forward(self, x: Tensor, kv: Tensor, attends: Tensor | None = None) -> Tensor:
        """What tokens x [N, T, D] find in others.

        kv: [N, K, 2 D] by `seen`; attends: [N, K] bool, which of them there are, at least one; None: all.
        """
        N, T, D = x.shape
        q = self.q_norm(self.q(self.norm(x)).view(N, T, self.heads, -1).transpose(1, 2))
        k, v = kv.view(N, -1, 2, self.heads, D // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        mask = None if attends is None else attends[:, None, None]
        y = F.scaled_dot_product_attention(q, self.k_norm(k), v, attn_mask=mask)
        out: Tensor = self.proj(y.transpose(1, 2).reshape(N, T, D))
        return out

    def flops(self, queries: int, projected: int, keys: int) -> float:
        """Forward of one sequence, products of matrices only.

        Args:
            queries: tokens that look.
            projected: tokens whose keys and values are computed.
            keys: tokens that are looked at.
        """
        width = self.proj.in_features
        return 4.0 * width**2 * (queries + projected) + 4.0 * queries * keys * width


class Together(NamedTuple):
    """Which of N views are of one study."""

    study: Tensor
    """[N], non-decreasing."""
    studies: int
    most: int
    """Views of a study at most."""


class OtherViews(nn.Module):
    """Before each block of a decoder, attention to the visible tokens of the study's other views.

    What it adds is 0 at the start, and of a view without others always.

    Args:
        shape: of the decoder.
        qk_norm: as of its blocks.
    """

    layers: Any

    def __init__(self, shape: Shape, qk_norm: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            CrossAttention(shape.width, shape.heads, qk_norm) for _ in range(shape.depth)
        )
        initialise(self)
        for layer in self.layers:
            nn.init.zeros_(layer.proj.weight)

    def forward(self, body: Blocks, x: Tensor, seen: Tensor, together: Together) -> Tensor:
        """What the decoder's blocks make of tokens x [N, T, D], seen [N, K, D] being those of the encoder."""
        study, studies, most = together
        count = torch.zeros_like(study[:1]).expand(studies)
        count = count.index_add(0, study, torch.ones_like(study))  # [S]
        within = torch.arange(len(study), device=study.device) - (count.cumsum(0) - count)[study]
        slot = torch.arange(most, device=study.device)
        has_other = count[study] > 1  # [N]
        other = (slot < count[study][:, None]) & (slot != within[:, None])  # [N, G]
        # never a softmax over nothing: without others all is attended to, and does not count
        attends = (other | ~has_other[:, None]).repeat_interleave(seen.shape[1], dim=1)

        def look(layer: CrossAttention, block: nn.Module, x: Tensor) -> Tensor:
            kv, _ = pad_groups(layer.seen(seen), study, studies, most)  # [S, G · K, 2 D]
            x = x + torch.where(has_other[:, None, None], layer(x, kv[study], attends), 0)
            out: Tensor = block(x)
            return out

        for layer, block in zip(self.layers, body.blocks, strict=True):
            x = again_if(body, partial(look, layer, block), x)
        return body.norm(x)

    def flops(self, tokens: int, seen: int, most: int) -> float:
        """Forward of what is added to a decoder over one view, of studies with `most` views."""
        return sum(layer.flops(tokens, seen, most * seen) for layer in self.layers)


class CrossBlocks(nn.Module):
    """CrossMAE's blocks (Fu et al. 2024, arXiv 2401.14391): queries look at what was seen, not at each other.

    So each hidden patch is predicted alone, whichever others are.

    Args:
        shape: width, depth and heads.
        qk_norm: whether queries and keys are normalised.
        recompute: activations again in the backward pass, block by block.
    """

    def __init__(self, shape: Shape, qk_norm: bool, recompute: bool) -> None:
        super().__init__()
        width, hidden = shape.width, int(shape.width * shape.mlp_ratio)
        self.attention: Any = nn.ModuleList(
            CrossAttention(width, shape.heads, qk_norm) for _ in range(shape.depth)
        )
        self.mlp: Any = nn.ModuleList(
            nn.Sequential(NORM(width), Mlp(width, hidden)) for _ in range(shape.depth)
        )
        self.norm, self.recompute = NORM(width), recompute

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """Queries x [N, T, D] that saw tokens [N, K, D] → [N, T, D]."""

        def block(attention: CrossAttention, mlp: nn.Module, x: Tensor) -> Tensor:
            x = x + attention(x, attention.seen(seen))
            return x + mlp(x)

        for attention, mlp in zip(self.attention, self.mlp, strict=True):
            x = again_if(self, partial(block, attention, mlp), x)
        return self.norm(x)

    def flops(self, queries: int, seen: int) -> float:
        """Forward of one sequence, products of matrices only."""
        layers = sum(layer.flops(queries, seen, seen) for layer in self.attention)
        return layers + 2.0 * queries * sum(p.numel() for p in self.mlp.parameters() if p.ndim == 2)


def again_if(module: Any, block: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """A block of x, computed again in the backward pass where the module is to do so."""
    if module.recompute and module.training:
        out: Tensor = checkpoint(block, x, use_reentrant=False)
        return out
    return block(x)


def pad_groups(memory: Tensor, group: Tensor, groups: int, most: int) -> tuple[Tensor, Tensor]:
    """Rows [N, T, D] side by side by group: [K, G·T, D], and where nothing is [K, G·T] bool.

    group: [N], non-decreasing; most: G, rows of the largest group.
    """
    _, T, D = memory.shape
    count = group.new_zeros(groups).index_add(0, group, torch.ones_like(group))  # [K]
    first = count.cumsum(0) - count
    within = torch.arange(group.shape[0], device=group.device) - first[group]  # [N]
    padded = memory.new_zeros(groups, most, T, D)
    padded[group, within] = memory
    absent = torch.arange(most, device=group.device) >= count[:, None]  # [K, G]
    return padded.flatten(1, 2), absent.repeat_interleave(T, dim=1)
