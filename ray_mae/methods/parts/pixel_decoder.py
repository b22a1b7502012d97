"""Tokens of visible patches → pixels of hidden ones."""

import torch
from torch import Tensor, nn

from ray_mae.encoders.vit import VIEWS, Blocks, initialise, sincos_positions, table
from ray_mae.encoders.vit_settings import Shape


class PixelDecoder(nn.Module):
    """Tokens of the visible patches → pixels of the hidden ones."""

    def __init__(
        self,
        shape: Shape,
        *,
        encoder_width: int,
        patches: int,
        patch_size: int,
        qk_norm: bool = True,
        positions: str = "learned",
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(encoder_width, shape.width)
        self.mask = nn.Parameter(torch.randn(shape.width) * 0.02)
        self.position: Tensor
        if positions == "learned":
            self.position = table(1 + patches, shape.width)
        else:
            grid = sincos_positions(int(patches**0.5), shape.width)
            self.register_buffer("position", torch.cat([torch.zeros(1, shape.width), grid]))
        self.view = table(VIEWS, shape.width)
        self.body = Blocks(shape, qk_norm, recompute)
        self.pixels = nn.Linear(shape.width, patch_size**2)
        initialise(self)

    def forward(self, tokens: Tensor, visible: Tensor, hidden: Tensor, view: Tensor) -> Tensor:
        """tokens [N, 1 + V, D], patch indices visible [N, V] and hidden [N, M] → [N, M, patch²]."""
        x = self.embed(tokens)  # [N, 1 + V, Dd]
        x = torch.cat([x, self.mask.expand(x.shape[0], hidden.shape[1], -1)], dim=1)
        slot = torch.cat([torch.zeros_like(visible[:, :1]), 1 + visible, 1 + hidden], dim=1)
        x = x + self.position.to(x.dtype)[slot] + self.view[view][:, None]
        x = self.body(x)  # attention does not mind that the hidden ones come last
        return self.pixels(x[:, 1 + visible.shape[1] :])
