"""ConvNeXt V2 of grey images; its weights have timm's names.

timm's own network computes the same. Importing it takes all of timm's models, and it does not know what of an
image is hidden.
"""

import re
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ray_mae.encoders.base import MapEncoder
from ray_mae.encoders.convnextv2_settings import STRIDE, ConvNextV2Settings
from ray_mae.encoders.sparse import Active, mask_operations, masked, seen

EPS = 1e-6
"""Of all norms."""
KERNEL, STEM, WIDENING = 7, 4, 4


class MapNorm(nn.LayerNorm):
    """Layer norm over the channels of each point of a map [N, C, H, W]."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class GlobalResponseNorm(nn.Module):
    """x + γ·(x·N) + β, where N is the norm of a channel over all points, divided by the mean of those norms.

    Of each image alone; the authors' sparse code takes the norms over a whole batch in pretraining, and over
    one image later. Hidden points are zeros: they add nothing, and how many they are divides out of N.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = (nn.Parameter(torch.zeros(channels)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """x: [N, H, W, C]."""
        norms = torch.linalg.vector_norm(x.float(), dim=(1, 2), keepdim=True)  # [N, 1, 1, C]
        share = norms / (norms.mean(-1, keepdim=True) + EPS)
        return x + torch.addcmul(self.bias, self.weight, x * share.to(x.dtype))


class Mlp(nn.Module):
    """Two layers with a GELU and a global response norm between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.act = nn.Linear(width, WIDENING * width), nn.GELU()
        self.grn = GlobalResponseNorm(WIDENING * width)
        self.fc2 = nn.Linear(WIDENING * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[N, H, W, C] → [N, H, W, C]."""
        h = self.act(self.fc1(x)).permute(0, 3, 1, 2)
        return self.fc2(self.grn(masked(h).permute(0, 2, 3, 1)))


class Block(nn.Module):
    """A depthwise convolution and a small network at each point, added to its input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv_dw = nn.Conv2d(width, width, KERNEL, padding=KERNEL // 2, groups=width)
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.mlp = Mlp(width)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] → [N, C, H, W]."""
        h = self.mlp(self.norm(self.conv_dw(x).permute(0, 2, 3, 1)))
        return x + masked(h.permute(0, 3, 1, 2))


class Stage(nn.Module):
    """A norm and a strided convolution, of all stages but the first, then blocks."""

    def __init__(self, before: int, width: int, blocks: int, *, first: bool) -> None:
        super().__init__()
        halve = [MapNorm(before, eps=EPS), nn.Conv2d(before, width, 2, 2)]
        self.downsample = nn.Identity() if first else nn.Sequential(*halve)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(blocks)))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.downsample(x))


class ConvNextV2(MapEncoder):
    """A stem of 4 × 4 pixels and four stages.

    Args:
        settings: its sizes.
        recompute: activations again in the backward pass, stage by stage.
    """

    def __init__(self, settings: ConvNextV2Settings, *, recompute: bool = False) -> None:
        super().__init__()
        self.settings: ConvNextV2Settings = settings
        self.channels = list(settings.widths)
        first, last = self.channels[0], self.channels[-1]
        self.stem: Any = nn.Sequential(nn.Conv2d(1, first, STEM, STEM), MapNorm(first, eps=EPS))
        before = [first, *self.channels]
        self.stages: Any = nn.ModuleList(
            Stage(before[i], width, settings.blocks[i], first=i == 0)
            for i, width in enumerate(self.channels)
        )
        self.norm_pre: nn.Module = nn.Identity()
        self.head: Any = nn.Module()  # timm's name of what follows the mean
        if settings.norm == "points":
            self.norm_pre = MapNorm(last, eps=EPS)
        else:
            self.head.norm = nn.LayerNorm(last, eps=EPS)
        self.recompute = recompute
        initialise(self)
        mask_operations(self)

    @property
    def width(self) -> int:
        return self.channels[-1]

    @property
    def depth(self) -> int:
        return len(self.stages)

    @property
    def stride(self) -> int:
        return STRIDE

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        dtype: torch.dtype = self.stem[0].weight.dtype
        return dtype

    def layer_of(self, name: str) -> int:
        if stage := re.match(r"stages\.(\d+)\.", name):
            return int(stage[1]) + 1
        return 0 if name.startswith("stem.") else self.depth + 1

    def skips(
        self, x: Tensor, e: Tensor | None = None, active: Active | None = None
    ) -> list[Tensor]:
        """Images x [N, 1, H, W] → the output of each stage [N, C, H/s, W/s], the finest first.

        The last one is normalised, unless that norm comes after a mean over its points. e: it is told nothing
        else. active: what is seen; None: all.
        """
        h = x.to(self.dtype)
        with seen(active):
            h = masked(h)
        maps = []
        for i in range(self.depth):
            stage = partial(self._stage, i, active)
            again = self.recompute and self.training
            h = checkpoint(stage, h, use_reentrant=False) if again else stage(h)
            maps.append(h)
        return maps

    def _stage(self, i: int, active: Active | None, h: Tensor) -> Tensor:
        with seen(active):
            h = masked(self.stem(h)) if i == 0 else h
            h = self.stages[i](h)
            return masked(self.norm_pre(h)) if i == self.depth - 1 else h

    def forward(self, images: Tensor, view: Tensor | None = None) -> Tensor:
        """[N, 1 + L, C] of images [N, 1, H, W]: the vector that the network pools, then its last points.

        view: it knows none.
        """
        points = self.skips(images)[-1].flatten(2).mT  # [N, L, C]
        pooled = points.mean(1, keepdim=True)
        if self.settings.norm == "pooled":
            pooled = self.head.norm(pooled)
        return torch.cat([pooled, points], dim=1)

    def flops(self, side: int) -> float:
        """Forward of one image of side² pixels: convolutions, and the layers at each point."""
        points = [(side / STEM / 2**i) ** 2 for i in range(self.depth)]
        parts = [(self.stem, points[0]), *zip(self.stages, points, strict=True)]
        return sum(2 * n * weights_at_points(part) for part, n in parts)


def initialise(module: nn.Module) -> None:
    """Gives convolutions and linear layers weights of deviation .02 and zero bias, as the authors do."""
    for part in module.modules():
        if isinstance(part, (nn.Conv2d, nn.Linear)):
            nn.init.trunc_normal_(part.weight, std=0.02)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def weights_at_points(module: nn.Module) -> int:
    """Weights of a part's convolutions and linear layers, each used once at every point that it gives."""
    kinds = (nn.Conv2d, nn.Linear)
    return sum(m.weight.numel() for m in module.modules() if isinstance(m, kinds))
