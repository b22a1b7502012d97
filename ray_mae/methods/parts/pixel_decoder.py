"""Tokens of visible patches → pixels or voxels of hidden ones."""

import torch
from torch import Tensor, nn

from ray_mae.encoders.base import TokenEncoder
from ray_mae.encoders.vit import VIEWS, Blocks, initialise, sincos_positions, table
from ray_mae.encoders.vit_settings import Shape


class PixelDecoder(nn.Module):
    """Tokens of the visible patches → pixels or voxels of the hidden ones."""

    view: nn.Parameter | None

    def __init__(self, shape: Shape, encoder: TokenEncoder, *, recompute: bool = False) -> None:
        """shape: its own; encoder: whose tokens it reads, and whose kind of norms and positions it has."""
        super().__init__()
        settings, axes = encoder.settings, len(encoder.grid)
        self.prefix = encoder.prefix
        self.embed = nn.Linear(encoder.width, shape.width)
        self.mask = nn.Parameter(torch.randn(shape.width) * 0.02)
        self.position: Tensor
        if getattr(settings, "positions", "sincos") == "learned":
            self.position = table(self.prefix + encoder.patches, shape.width)
        else:
            grid = sincos_positions(encoder.grid, shape.width)
            first = torch.zeros(self.prefix, shape.width)  # a class token lies nowhere
            self.register_buffer("position", torch.cat([first, grid]))
        self.view = table(VIEWS, shape.width) if axes == 2 else None
        self.body = Blocks(shape, getattr(settings, "qk_norm", True), recompute)
        self.pixels = nn.Linear(shape.width, encoder.stride**axes)
        initialise(self)

    def no_weight_decay(self) -> set[str]:
        """Names of its tables and tokens, as of an encoder."""
        return {"mask", "position"} | ({"view"} if self.view is not None else set())

    def forward(
        self, tokens: Tensor, visible: Tensor, hidden: Tensor, view: Tensor | None = None
    ) -> Tensor:
        """Pixels or voxels of hidden patches.

        Args:
            tokens: [N, prefix + V, D] of the encoder.
            visible: [N, V] indices of the patches that it saw.
            hidden: [N, M] indices of those that are reconstructed.
            view: [N] kind of view, of images.

        Returns:
            [N, M, P].
        """
        x = self.embed(tokens)  # [N, prefix + V, Dd]
        x = torch.cat([x, self.mask.expand(x.shape[0], hidden.shape[1], -1)], dim=1)
        slot = torch.cat([self.prefix + visible, self.prefix + hidden], dim=1)
        first = torch.arange(self.prefix, device=slot.device).expand(len(slot), -1)
        x = x + self.position.to(x.dtype)[torch.cat([first, slot], dim=1)]
        if self.view is not None and view is not None:
            x = x + self.view[view][:, None]
        x = self.body(x)  # attention does not mind that the hidden ones come last
        return self.pixels(x[:, self.prefix + visible.shape[1] :])
