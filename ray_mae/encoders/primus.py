"""Primus (Wald et al. 2025): EVA-02's blocks over the patches of a volume, with rotary positions.

Written on timm's blocks: the class of `dynamic-network-architectures` asks for an older timm. Weights
have the names that they have there, and outputs are the same. Tokens are in the order of their patches, the
last axis fastest.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from dynamic_network_architectures.building_blocks.patch_encode_decode import PatchDecode
from dynamic_network_architectures.initialization.weight_init import InitWeights_He
from timm.layers import apply_rot_embed_cat
from timm.models.eva import EvaBlock
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ray_mae.encoders.base import TokenEncoder
from ray_mae.encoders.patches import gather, patchify
from ray_mae.encoders.primus_settings import AXES, LAYER_SCALE, PAIR, PrimusSettings
from ray_mae.random_streams import Stream
from ray_mae.transforms.keyed_random import uniforms

_BASE = 10_000.0
"""The slowest wave of the rotary positions has about this wavelength, over 2π."""
_HE = InitWeights_He(1e-2)


def coordinates(index: Tensor, side: int) -> Tensor:
    """Positions [..., 3] on a cubic grid of patches, of indices [...] with the last axis fastest."""
    return torch.stack([index // side**2, index // side % side, index % side], dim=-1)


def rotary(position: Tensor, width: int) -> Tensor:
    """Sines and cosines of rotary positions of several axes, as timm's attention takes them.

    The channels of a head are divided among the axes; those of an axis are pairs of neighbours, turned by
    its coordinate times 10000^(−k / n), k < n.

    Args:
        position: [..., 3] coordinates.
        width: of a head, a multiple of 6.

    Returns:
        [..., 2 · width] float32: sines, then cosines.
    """
    bands = width // (AXES * PAIR)
    exponent = torch.arange(bands, device=position.device, dtype=torch.float32) / bands
    angle = position[..., None] * _BASE**-exponent  # [..., 3, bands]
    angle = angle.flatten(-2).repeat_interleave(PAIR, dim=-1)  # [..., width]
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


def resample_grid(table: Tensor, side: int) -> Tensor:
    """Positions [1, n³, D] of a cubic grid for one with `side` patches per axis, trilinearly."""
    before = round(table.shape[1] ** (1 / AXES))
    grid = table.float().transpose(1, 2).unflatten(2, (before,) * AXES)  # [1, D, n, n, n]
    other = F.interpolate(grid, size=(side,) * AXES, mode="trilinear", align_corners=False)
    return other.flatten(2).transpose(1, 2).to(table.dtype)


class _Kernel(nn.Conv3d):
    """Strided convolution whose inputs are patches [N, V, p³] already: [N, V, D]."""

    def forward(self, patches: Tensor) -> Tensor:
        return F.linear(patches.to(self.weight.dtype), self.weight.flatten(1), self.bias)


class Tokenizer(nn.Module):
    """Patches [N, V, p³] → [N, V, D]."""

    def __init__(self, patch: int, width: int) -> None:
        super().__init__()
        self.proj = _Kernel(1, width, patch, stride=patch)
        self.apply(_HE)

    def forward(self, patches: Tensor) -> Tensor:
        tokens: Tensor = self.proj(patches)
        return tokens


class Block(EvaBlock):
    """timm's block, whose branches some samples pass by, by keys."""

    def forward(self, x: Tensor, rope: Tensor | None, kept: Tensor | None) -> Tensor:
        """x: [N, V, D]; rope: of `rotary`; kept: [N, 2] factors of the two branches, None: 1."""
        attended = self.attn(self.norm1(x), rope=rope)
        x = x + _scaled(attended, self.gamma_1, None if kept is None else kept[:, 0])
        mixed = self.mlp(self.norm2(x))
        return x + _scaled(mixed, self.gamma_2, None if kept is None else kept[:, 1])


def _scaled(branch: Tensor, gamma: Tensor | None, kept: Tensor | None) -> Tensor:
    branch = branch if gamma is None else gamma * branch
    return branch if kept is None else kept[:, None, None].to(branch.dtype) * branch


class Eva(nn.Module):
    """Positions, blocks and the last norm."""

    def __init__(self, settings: PrimusSettings, recompute: bool) -> None:
        super().__init__()
        shape, eva = settings.shape, not settings.plain
        self.side, self.drop_path, self.recompute = settings.side, settings.drop_path, recompute
        self.head = shape.width // shape.heads if eva else 0
        self.pos_embed = nn.Parameter(torch.empty(1, self.side**AXES, shape.width))
        self.blocks = nn.ModuleList(
            Block(
                shape.width,
                shape.heads,
                qkv_fused=False,
                mlp_ratio=shape.mlp_ratio,
                swiglu_mlp=eva,
                scale_mlp=eva,
                scale_attn_inner=eva,
                init_values=LAYER_SCALE if eva else None,
                num_prefix_tokens=0,
                norm_layer=nn.LayerNorm,  # its eps, not timm's
            )
            for _ in range(shape.depth)
        )
        self.norm = nn.LayerNorm(shape.width)
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for name, weight in self.named_parameters():
            if last := re.fullmatch(r"blocks\.(\d+)\.(attn\.proj|mlp\.fc2)\.weight", name):
                weight.div_((2.0 * (int(last[1]) + 1)) ** 0.5)

    def forward(
        self,
        x: Tensor,
        visible: Tensor | None,
        draw: Tensor | None,
        side: int | None = None,
        blocks: int | None = None,
    ) -> Tensor:
        """Tokens [N, V, D] after all blocks and the last norm, or after some blocks alone.

        Args:
            x: [N, V, D] of the patches `visible` [N, V], or of all.
            visible: indices; None: all.
            draw: [N] keys; None drops no path.
            side: patches of an axis, where they are not as many as the table of positions is for.
            blocks: how many; None: all.
        """
        side = self.side if side is None else side
        table = self.pos_embed if side == self.side else resample_grid(self.pos_embed, side)
        index = torch.arange(table.shape[1], device=x.device)
        index = index if visible is None else visible
        x = x + table[0, index].to(x.dtype)
        rope = self.rope(index, side)
        if rope is not None and visible is not None:
            rope = rope[:, None]  # [N, 1, V, …], of all heads
        kept = self._kept(draw)
        for i, block in enumerate(self.blocks[:blocks]):
            inputs = x, rope, None if kept is None else kept[:, i]
            recompute = self.recompute and self.training
            x = checkpoint(block, *inputs, use_reentrant=False) if recompute else block(*inputs)
        return x if blocks is not None else cast(Tensor, self.norm(x))

    def rope(self, index: Tensor, side: int) -> Tensor | None:
        """Rotary positions [..., 2 · width of a head] of patches index [...]; None without."""
        return rotary(coordinates(index, side), self.head) if self.head else None

    def _kept(self, draw: Tensor | None) -> Tensor | None:
        """[N, depth, 2] factors of branches, with a mean of 1: 0 where a sample passes one by."""
        if draw is None or not self.drop_path or not self.training:
            return None
        depth = len(self.blocks)
        rate = torch.linspace(0, self.drop_path, depth, device=draw.device)[:, None]
        drawn = uniforms(draw, 2 * depth, Stream.DROP_PATH).unflatten(1, (depth, 2))
        return (drawn >= rate) / (1 - rate)


class Primus(TokenEncoder):
    """A transformer of cubic crops of one channel; it has no class token."""

    def __init__(self, settings: PrimusSettings, *, recompute: bool = False) -> None:
        super().__init__()
        self.settings: PrimusSettings = settings
        self.prefix = 0
        self.down_projection = Tokenizer(settings.patch_size, settings.shape.width)
        self.eva = Eva(settings, recompute)
        self.register_load_state_dict_pre_hook(_fit_positions)

    @property
    def recompute(self) -> bool:
        """Whether activations are computed again in the backward pass."""
        return self.eva.recompute

    @recompute.setter
    def recompute(self, on: bool) -> None:
        self.eva.recompute = on

    @property
    def grid(self) -> tuple[int, ...]:
        return (self.settings.side,) * AXES

    @property
    def patches(self) -> int:
        return self.settings.side**AXES

    @property
    def width(self) -> int:
        return self.settings.shape.width

    @property
    def depth(self) -> int:
        return len(self.eva.blocks)

    @property
    def stride(self) -> int:
        return self.settings.patch_size

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return self.eva.pos_embed.dtype

    def forward(
        self,
        x: Tensor,
        visible: Tensor | None = None,
        view: Tensor | None = None,
        masked: tuple[Tensor, Tensor] | None = None,
        blocks: int | None = None,
        draw: Tensor | None = None,
    ) -> Tensor:
        """Tokens of crops; see `TokenEncoder`. Volumes have no kind of view.

        Of crops of another size than that of the settings the table of positions is resampled.

        Raises:
            ValueError: the crops are no cubes, or of no whole number of patches.
        """
        sides = {*x.shape[2:]}
        if len(sides) > 1 or x.shape[2] % self.stride:
            raise ValueError(
                f"the sides of a volume must be equal multiples of {self.stride} voxels, got "
                f"{list(x.shape[2:])}: crop it, or pad it"
            )
        patches = patchify(x, self.stride)  # [N, L, patch³]
        tokens = self.down_projection(patches if visible is None else gather(patches, visible))
        if masked is not None:
            tokens = torch.where(masked[0][..., None], masked[1].to(tokens.dtype), tokens)
        seen: Tensor = self.eva(tokens, visible, draw, x.shape[2] // self.stride, blocks)
        return seen

    def attention(self, x: Tensor, queries: Tensor, view: Tensor | None = None) -> Tensor:
        tokens = self(x, blocks=0)  # [N, L, D]
        block: Any = self.eva.blocks[0]
        heads = block.attn.num_heads
        h = block.norm1(tokens)
        q, k = (
            project(h).unflatten(2, (heads, -1)).transpose(1, 2)  # [N, heads, L, D / heads]
            for project in (block.attn.q_proj, block.attn.k_proj)
        )
        rope = self.eva.rope(torch.arange(h.shape[1], device=h.device), x.shape[2] // self.stride)
        if rope is not None:
            q, k = (apply_rot_embed_cat(part, rope).to(h.dtype) for part in (q, k))
        index = queries[:, None, :, None].expand(-1, heads, -1, q.shape[3])
        scores = q.gather(2, index) @ k.transpose(2, 3)  # [N, heads, Q, L]
        return (scores.float() / q.shape[3] ** 0.5).softmax(-1)

    def resize(self, settings: PrimusSettings) -> None:
        """Take crops of another size: the table of positions is resampled."""
        self.settings, self.eva.side = settings, settings.side
        if len(self.eva.pos_embed[0]) != self.patches:
            table = resample_grid(self.eva.pos_embed.detach(), settings.side)
            self.eva.pos_embed = nn.Parameter(table, self.eva.pos_embed.requires_grad)

    def layer_of(self, name: str) -> int:
        if block := re.match(r"eva\.blocks\.(\d+)\.", name):
            return int(block[1]) + 1
        return self.depth + 1 if name.startswith("eva.norm.") else 0

    def no_weight_decay(self) -> set[str]:
        return {"eva.pos_embed"}

    def flops(self, tokens: int) -> float:
        """Forward of one sequence of so many tokens, products of matrices only."""
        weights = sum(p.numel() for p in self.eva.parameters() if p.ndim == 2)
        weights += self.down_projection.proj.weight.numel()
        return 2.0 * tokens * weights + 4.0 * tokens * tokens * self.width * self.depth


def _fit_positions(module: Any, weights: dict[str, Any], prefix: str, *_: Any) -> None:
    """Weights of crops of another size fit: the table of positions is resampled as it is loaded."""
    name = f"{prefix}eva.pos_embed"
    table = weights.get(name)
    if table is not None and table.shape[1] != module.patches:
        weights[name] = resample_grid(table, module.settings.side)


class UpProjection(PatchDecode):
    """Primus' decoder: transposed convolutions that double the resolution, from tokens to voxels.

    Args:
        settings: of the encoder.
        classes: output channels.
    """

    def __init__(self, settings: PrimusSettings, classes: int) -> None:
        super().__init__((settings.patch_size,) * AXES, settings.shape.width, classes)
        self.grid = (settings.side,) * AXES
        self.recompute = False
        self.apply(_HE)

    def forward(self, tokens: Tensor) -> Tensor:
        """[N, L, D] → [N, classes, *sides]."""
        x = tokens.transpose(1, 2).unflatten(2, self.grid)  # [N, D, *grid]
        for stage in self.decode:
            recompute = self.recompute and self.training
            x = checkpoint(stage, x, use_reentrant=False) if recompute else stage(x)
        return x


def encoder_and_decoder(settings: PrimusSettings, *, classes: int) -> tuple[Primus, UpProjection]:
    """Returns the network of a segmentation with fresh weights, by PyTorch's global seed.

    Args:
        settings: of the encoder.
        classes: output channels.

    Raises:
        ValueError: where sizes do not fit together.
    """
    settings.check()
    return Primus(settings), UpProjection(settings, classes)


def turned(
    weights: Mapping[str, Tensor], heads: int, kernels: Sequence[int], tokens: Sequence[int]
) -> dict[str, Tensor]:
    """Weights by which the network says of a volume with other axes what it said of the volume before.

    Rotary positions turn a third of a head's channels by each axis: with the axes of the tokens these
    thirds of queries and keys change places, which no product of the two feels.

    Args:
        weights: by the names of a Primus, with or without its decoder.
        heads: of its attention.
        kernels: axis i of the new volume is axis kernels[i] of the former one.
        tokens: the same of the axes in the order of tokens.
    """
    turned = {}
    for name, w in weights.items():
        if w.ndim == 2 + AXES:
            w = w.permute(0, 1, *(2 + axis for axis in kernels))
        elif name.endswith("pos_embed"):
            side = round(w.shape[1] ** (1 / AXES))
            grid = w.unflatten(1, (side,) * AXES)
            w = grid.permute(0, *(1 + axis for axis in tokens), 1 + AXES).flatten(1, AXES)
        elif re.search(r"\.attn\.[qk]_proj\.", name):
            thirds = w.unflatten(0, (heads, AXES, -1))
            w = thirds[:, list(tokens)].flatten(0, 2)
        turned[name] = w.contiguous()
    return turned
