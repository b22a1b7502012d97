"""The Vision Transformer; its blocks have timm's names."""

import re
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ray_mae.batch import UNKNOWN
from ray_mae.encoders.base import TokenEncoder
from ray_mae.encoders.block import Block
from ray_mae.encoders.patches import gather, patchify
from ray_mae.encoders.vit_settings import Shape, VitSettings

VIEWS = 3  # frontal, lateral, unknown


def sincos_positions(grid: tuple[int, ...], width: int) -> Tensor:
    """Returns the fixed sine-cosine embedding of a grid [L, width], as in MAE, appendix A.1.

    Frequencies run from 1 to 1/side per patch. MAE's base of 10000 comes from sentences: on a grid
    of 8 or 14 patches most of its waves hardly move, and patches far from the corner look alike.

    Args:
        grid: patches along each of d axes; tokens are counted with the last axis fastest.
        width: of a token; what is left of it after equal even shares for the axes is 0.
    """
    d = len(grid)
    waves = width // (2 * d)  # of an axis
    axes = []
    for i, side in enumerate(grid):
        omega = float(side) ** -(torch.arange(waves, dtype=torch.float64) / waves)
        angle = torch.arange(side, dtype=torch.float64)[:, None] * omega  # [side, waves]
        shape = [side if j == i else 1 for j in range(d)]
        axis = torch.cat([angle.sin(), angle.cos()], dim=1).reshape(*shape, -1)
        axes.append(axis.expand(*grid, -1))
    x = torch.cat(axes[::-1], dim=-1).reshape(-1, 2 * d * waves).float()
    return F.pad(x, (0, width - x.shape[1]))


def table(rows: int, width: int) -> nn.Parameter:
    """Returns a learned embedding [rows, width] with fresh weights."""
    return nn.Parameter(torch.randn(rows, width) * 0.02)


class Blocks(nn.Module):
    """Blocks and a final norm, with optional recomputation in the backward pass.

    Args:
        shape: width, depth and heads.
        qk_norm: whether queries and keys are normalised.
        recompute: activations again in the backward pass, block by block.
        eps: of the layer norms.
    """

    def __init__(self, shape: Shape, qk_norm: bool, recompute: bool, eps: float = 1e-6) -> None:
        super().__init__()
        norm = partial(nn.LayerNorm, eps=eps)
        self.blocks = nn.ModuleList(
            Block(
                shape.width,
                shape.heads,
                mlp_ratio=shape.mlp_ratio,
                qk_norm=qk_norm,
                norm=norm,
            )
            for _ in range(shape.depth)
        )
        self.norm = norm(shape.width)
        self.recompute = recompute

    def forward(self, x: Tensor, first: int | None = None) -> Tensor:
        """[N, T, D] → [N, T, D]; first: only so many blocks, without the norm."""
        for block in list(self.blocks)[:first]:
            recompute = self.recompute and self.training
            x = checkpoint(block, x, use_reentrant=False) if recompute else block(x)
        return self.norm(x) if first is None else x

    def flops(self, tokens: int) -> float:
        """Forward of one sequence, products of matrices only."""
        weights = sum(p.numel() for p in self.parameters() if p.ndim == 2)
        width = self.norm.normalized_shape[0]
        return 2.0 * tokens * weights + 4.0 * tokens * tokens * width * len(self.blocks)


class VisionTransformer(TokenEncoder):
    """ViT over the visible patches of one view at a time; all views share it (MVMAE, section 4.1)."""

    def __init__(self, settings: VitSettings, *, recompute: bool = False) -> None:
        super().__init__()
        self.settings: VitSettings = settings
        self.prefix = 1
        shape = settings.shape
        self.patch = nn.Linear(settings.patch_size**2, shape.width)
        # not timm's 1e-6: without a position of its own, the first norm would magnify its gradient
        # a thousandfold, and clipping would silence all others
        self.cls = nn.Parameter(torch.randn(shape.width) * 0.02)
        self.view = table(VIEWS, shape.width)
        self.position: Tensor
        if settings.positions == "learned":
            self.position = table(self.patches, shape.width)
        else:
            self.register_buffer("position", sincos_positions(self.grid, shape.width))
        self.register = table(settings.registers, shape.width) if settings.registers else None
        self.body = Blocks(shape, settings.qk_norm, recompute, settings.norm_eps)
        initialise(self)

    @property
    def grid(self) -> tuple[int, ...]:
        return (self.settings.image_size // self.stride,) * 2

    @property
    def patches(self) -> int:
        return self.settings.patches

    @property
    def width(self) -> int:
        return self.cls.shape[0]

    @property
    def depth(self) -> int:
        return len(self.body.blocks)

    @property
    def stride(self) -> int:
        return self.settings.patch_size

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return self.patch.weight.dtype

    def forward(
        self,
        x: Tensor,
        visible: Tensor | None = None,
        view: Tensor | None = None,
        masked: tuple[Tensor, Tensor] | None = None,
        blocks: int | None = None,
        draw: Tensor | None = None,
    ) -> Tensor:
        """Tokens of images, the class token first.

        That has neither position nor view embedding, as in the code of MVMAE's authors. Registers stand
        beside it in the network, and are not given out.

        Args:
            x: [N, 1, H, W] normalised grey values; of another size than that of the settings, positions are
                interpolated.
            visible: [N, V] indices of the patches that the network sees; None shows all L.
            view: [N] 0 frontal, 1 lateral, 2 unknown; None is unknown.
            masked: [N, V] bool, and a vector [D] that stands in the place of those patches (SimMIM).
            blocks: how many of the blocks they go through, without the last norm; None: all.
            draw: not used, since nothing here is random.

        Returns:
            [N, 1 + V, D].
        """
        grid = [side // self.stride for side in x.shape[2:]]
        patches = patchify(x, self.stride)  # [N, L, patch²]
        if visible is None:
            visible = all_patches(patches.shape[0], patches.shape[1], patches.device)
        else:
            patches = gather(patches, visible)
        if view is None:
            view = torch.full((len(x),), UNKNOWN, device=x.device)
        x = self.patch(patches.to(self.dtype))  # [N, V, D]
        if masked is not None:
            x = torch.where(masked[0][..., None], masked[1].to(x.dtype), x)
        position = self.positions(*grid).to(x.dtype)
        x = x + position[visible] + self.view[view][:, None]
        first = (
            self.cls[None] if self.register is None else torch.cat([self.cls[None], self.register])
        )
        x = self.body(torch.cat([first.expand(x.shape[0], -1, -1), x], dim=1), blocks)
        return x if self.register is None else torch.cat([x[:, :1], x[:, len(first) :]], dim=1)

    def attention(self, x: Tensor, queries: Tensor, view: Tensor | None = None) -> Tensor:
        tokens = self(x, view=view, blocks=0)[:, self.prefix :]  # [N, L, D]
        block = cast(Block, self.body.blocks[0])
        q, k, _ = block.attn.project(block.norm1(tokens))  # [N, heads, L, D / heads]
        index = queries[:, None, :, None].expand(-1, q.shape[1], -1, q.shape[3])
        scores = q.gather(2, index) @ k.transpose(2, 3)  # [N, heads, Q, L]
        return (scores.float() / q.shape[3] ** 0.5).softmax(-1)

    def positions(self, rows: int, columns: int) -> Tensor:
        """Of a grid of patches, [rows · columns, D]; of another one than the encoder's bicubically."""
        if (rows, columns) == self.grid:
            return self.position
        table = self.position.float().T.unflatten(1, self.grid)[None]  # [1, D, side, side]
        other = F.interpolate(table, (rows, columns), mode="bicubic", align_corners=False)
        return other[0].flatten(1).T

    def layer_of(self, name: str) -> int:
        if block := re.match(r"body\.blocks\.(\d+)\.", name):
            return int(block[1]) + 1
        return self.depth + 1 if name.startswith("body.") else 0

    def no_weight_decay(self) -> set[str]:
        return {"cls", "view", "position"} | ({"register"} if self.settings.registers else set())

    def flops(self, tokens: int) -> float:
        """Forward of one sequence of so many tokens, without registers, products of matrices only."""
        return self.body.flops(tokens + self.settings.registers)


def initialise(module: nn.Module) -> None:
    """Gives linear layers Xavier-uniform weights and zero bias, as in MAE."""
    for child in module.modules():
        if isinstance(child, nn.Linear):
            nn.init.xavier_uniform_(child.weight)
            if child.bias is not None:
                nn.init.zeros_(child.bias)


def all_patches(n: int, patches: int, device: torch.device) -> Tensor:
    """Returns indices [n, patches] of all patches of n views, for a network that sees each of them."""
    return torch.arange(patches, device=device).expand(n, patches)
