"""The light decoder of FCMAE (Woo et al. 2023, arXiv 2301.00808): dense blocks on the last map."""

import torch
from torch import Tensor, nn

from ray_mae.encoders.convnextv2 import Block, ConvNextV2, initialise, weights_at_points
from ray_mae.encoders.patches import unpatchify
from ray_mae.encoders.sparse import Active, fill


class PointDecoder(nn.Module):
    """The points of the last map, and a token where none is seen → the pixels of their squares.

    Args:
        encoder: whose last map it reads.
        width: of its blocks.
        depth: number of them.
    """

    def __init__(self, encoder: ConvNextV2, width: int, depth: int) -> None:
        super().__init__()
        self.stride = encoder.stride
        self.proj = nn.Conv2d(encoder.width, width, 1)
        self.hidden = nn.Parameter(torch.randn(width) * 0.02)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(depth)))
        self.pred = nn.Conv2d(width, self.stride**2, 1)
        initialise(self)

    def no_weight_decay(self) -> set[str]:
        return {"hidden"}

    def forward(self, maps: list[Tensor], active: Active) -> Tensor:
        """Maps [N, C, H/s, W/s], the finest first → [N, 1, H, W]."""
        h = self.blocks(fill(self.proj(maps[-1]), self.hidden, active))
        squares = self.pred(h)  # [N, s², *grid]
        return unpatchify(squares.flatten(2).mT, self.stride, tuple(squares.shape[2:]))

    def flops(self, side: int) -> float:
        """Forward of one image of side² pixels."""
        return 2.0 * (side // self.stride) ** 2 * weights_at_points(self)
