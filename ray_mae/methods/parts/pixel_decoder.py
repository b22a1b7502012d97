"""Tokens of visible patches → pixels or voxels of hidden ones."""

import torch
from torch import Tensor, nn

from ray_mae.encoders.base import TokenEncoder
from ray_mae.encoders.vit import VIEWS, Blocks, initialise, sincos_positions, table
from ray_mae.encoders.vit_settings import Shape
from ray_mae.methods.parts.cross_attention import CrossBlocks, OtherViews, Together


class PixelDecoder(nn.Module):
    """Tokens of the visible patches → pixels or voxels of the hidden ones."""

    view: nn.Parameter | None
    pixels: nn.Linear | None
    """The head; None where something else than pixels is predicted."""

    def __init__(
        self,
        shape: Shape,
        encoder: TokenEncoder,
        *,
        attention: str = "self",
        recompute: bool = False,
    ) -> None:
        """Makes fresh weights.

        Args:
            shape: its own.
            encoder: whose tokens it reads, and whose kind of norms and positions it has.
            attention: "self" of visible and hidden patches, or "cross" of hidden ones to visible ones.
            recompute: activations again in the backward pass.
        """
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
        self.shape, self.qk_norm = shape, getattr(settings, "qk_norm", True)
        kind = Blocks if attention == "self" else CrossBlocks
        self.body: Blocks | CrossBlocks = kind(shape, self.qk_norm, recompute)
        self.others: OtherViews | None = None
        self.pixels = nn.Linear(shape.width, encoder.stride**axes)
        initialise(self)

    def add_other_views(self) -> None:
        """Has it look at the other views of a study; to be called after all else has its weights."""
        self.others = OtherViews(self.shape, self.qk_norm)

    def no_weight_decay(self) -> set[str]:
        """Names of its tables and tokens, as of an encoder."""
        return {"mask", "position"} | ({"view"} if self.view is not None else set())

    def forward(
        self,
        tokens: Tensor,
        visible: Tensor,
        hidden: Tensor,
        view: Tensor | None = None,
        together: Together | None = None,
    ) -> Tensor:
        """Pixels or voxels of hidden patches.

        Args:
            tokens: [N, prefix + V, D] of the encoder.
            visible: [N, V] indices of the patches that it saw.
            hidden: [N, M] indices of those that are reconstructed.
            view: [N] kind of view, of images.
            together: which views are of one study, of a decoder that looks at the others; None: each alone.

        Returns:
            [N, M, P].
        """
        assert self.pixels is not None
        return self.pixels(self.features(tokens, visible, hidden, view, together))

    def features(
        self,
        tokens: Tensor,
        visible: Tensor,
        hidden: Tensor,
        view: Tensor | None = None,
        together: Together | None = None,
    ) -> Tensor:
        """The same before the head: [N, M, Dd]."""
        x = self.embed(tokens)  # [N, prefix + V, Dd]
        x = torch.cat([x, self.mask.expand(x.shape[0], hidden.shape[1], -1)], dim=1)
        slot = torch.cat([self.prefix + visible, self.prefix + hidden], dim=1)
        first = torch.arange(self.prefix, device=slot.device).expand(len(slot), -1)
        x = x + self.position.to(x.dtype)[torch.cat([first, slot], dim=1)]
        if self.view is not None and view is not None:
            x = x + self.view[view][:, None]
        seen = (
            self.prefix + visible.shape[1]
        )  # attention does not mind that the hidden ones come last
        if isinstance(self.body, CrossBlocks):
            return self.body(x[:, seen:], x[:, :seen])
        if self.others is not None and together is not None:
            x = self.others(self.body, x, x[:, :seen], together)
        else:
            x = self.body(x)
        return x[:, seen:]

    def flops(self, seen: int, hidden: int, views: int = 1) -> float:
        """Forward of one input of which so many tokens are read and so many patches decoded.

        views: of a study, of a decoder that looks at the others.
        """
        if isinstance(self.body, CrossBlocks):
            return self.body.flops(hidden, seen)
        more = 0.0 if self.others is None else self.others.flops(seen + hidden, seen, views)
        return self.body.flops(seen + hidden) + more
