"""Tokens of visible patches → pixels of hidden ones."""

import torch
from torch import Tensor, nn

from ray_mae.encoders.vit import (
    VIEWS,
    Blocks,
    VisionTransformer,
    initialise,
    sincos_positions,
    table,
)
from ray_mae.encoders.vit_settings import Shape


class PixelDecoder(nn.Module):
    """Tokens of the visible patches → pixels of the hidden ones."""

    def __init__(
        self, shape: Shape, encoder: VisionTransformer, *, recompute: bool = False
    ) -> None:
        """shape: its own; encoder: whose tokens it reads, and whose kind of norms and positions it has."""
        super().__init__()
        settings = encoder.settings
        self.embed = nn.Linear(encoder.width, shape.width)
        self.mask = nn.Parameter(torch.randn(shape.width) * 0.02)
        self.position: Tensor
        if settings.positions == "learned":
            self.position = table(1 + encoder.patches, shape.width)
        else:
            grid = sincos_positions(int(encoder.patches**0.5), shape.width)
            self.register_buffer("position", torch.cat([torch.zeros(1, shape.width), grid]))
        self.view = table(VIEWS, shape.width)
        self.body = Blocks(shape, settings.qk_norm, recompute)
        self.pixels = nn.Linear(shape.width, encoder.stride**2)
        initialise(self)

    def no_weight_decay(self) -> set[str]:
        """Names of its tables and tokens, as of an encoder."""
        return {"mask", "view", "position"}

    def forward(self, tokens: Tensor, visible: Tensor, hidden: Tensor, view: Tensor) -> Tensor:
        """tokens [N, 1 + V, D], patch indices visible [N, V] and hidden [N, M] → [N, M, patch²]."""
        x = self.embed(tokens)  # [N, 1 + V, Dd]
        x = torch.cat([x, self.mask.expand(x.shape[0], hidden.shape[1], -1)], dim=1)
        slot = torch.cat([torch.zeros_like(visible[:, :1]), 1 + visible, 1 + hidden], dim=1)
        x = x + self.position.to(x.dtype)[slot] + self.view[view][:, None]
        x = self.body(x)  # attention does not mind that the hidden ones come last
        return self.pixels(x[:, 1 + visible.shape[1] :])
