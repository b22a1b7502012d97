"""Vectors of whole inputs: what an encoder of any form gives, pooled, and a projector of it."""

from math import prod
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ray_mae.encoders.base import Encoder, MapEncoder, TokenEncoder
from ray_mae.encoders.vit import initialise


def pooled(
    encoder: Encoder, x: Tensor, view: Tensor | None = None, draw: Tensor | None = None
) -> Tensor:
    """[N, F] of inputs x [N, 1, *sides]: the means of all maps in one vector, or that of the patches' tokens.

    Args:
        encoder: of maps or tokens.
        x: of equal sides, that fit: see `checks.require_side`.
        view: [N] kind of view, of images with tokens; None is unknown.
        draw: [N] keys of what is random in an encoder with tokens; None: nothing.
    """
    if isinstance(encoder, MapEncoder):
        return torch.cat([h.flatten(2).mean(2) for h in encoder.skips(x)], dim=1)
    tokens: Tensor = encoder(x, view=view, draw=draw)
    return tokens[:, cast(TokenEncoder, encoder).prefix :].mean(1)


def pooled_width(encoder: Encoder) -> int:
    """F, the numbers that `pooled` gives of an input."""
    return sum(encoder.channels) if isinstance(encoder, MapEncoder) else encoder.width


def pooled_flops(encoder: Encoder, side: int) -> float:
    """Forward of `pooled` for one input of so many pixels or voxels a side."""
    if isinstance(encoder, MapEncoder):
        return encoder.flops(side)
    tokens = cast(TokenEncoder, encoder)
    return tokens.flops(tokens.prefix + prod(side // tokens.stride for _ in tokens.grid))


class Projector(nn.Module):
    """Three linear layers, with a norm of each vector and a rectifier between them.

    nnssl's; its InstanceNorm1d of [N, C] is what is written here, a LayerNorm without weights.

    Args:
        inputs: length of a vector.
        width: of the hidden layers.
        outputs: length of a projected vector.
    """

    def __init__(self, inputs: int, width: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [nn.Linear(inputs, width), nn.Linear(width, width), nn.Linear(width, outputs)]
        )
        initialise(self)

    def forward(self, h: Tensor) -> Tensor:
        """[N, inputs] → [N, outputs] float32."""
        h = h.to(next(self.parameters()).dtype)
        for layer in self.layers[:-1]:
            h = layer(h)
            h = F.layer_norm(h, h.shape[-1:]).relu()
        return self.layers[-1](h).float()

    @property
    def flops(self) -> float:
        """Forward of one vector, products of matrices only."""
        return 2.0 * sum(p.numel() for p in self.parameters() if p.ndim == 2)
