"""Which patches of an image, or blocks of a volume, are hidden.

A mask is a ranking: the cells of a grid in the order in which they are seen, of which the first are visible,
so that their count is exact. Rankings depend on the keys of inputs; those of `attention_masks` also on the
encoder.
"""

from collections.abc import Callable
from functools import lru_cache
from math import pi, prod
from typing import cast

import torch
from torch import Tensor

from ray_mae.encoders.base import Encoder, TokenEncoder
from ray_mae.methods.parts.attention_masks import Guide, attended, clustered, guide_flops
from ray_mae.methods.parts.curves import Grid, places
from ray_mae.methods.parts.mask_settings import CURVED, GUIDED, MaskSettings
from ray_mae.random_streams import Stream
from ray_mae.transforms.keyed_random import normals, uniforms

GOLDEN = round((5**0.5 - 1) / 2 * 2**40) | 1
"""The golden ratio's fraction (√5 − 1)/2 in units of 2^-40, odd, so that its multiples come again last."""
BLOCKS = 64
"""Drawn of each input: of 14² cells 15 hide three quarters on average, and never more than 60 were needed for
nine tenths."""
SHARES = (0.08, 0.25)
"""Of the grid that a block has, 16 to 49 of 196 patches."""
STRETCH = {2: (0.3**0.5, 0.3**-0.5), 3: (0.5**0.5, 0.5**-0.5)}
"""Of a block's sides, by axes."""
BAND = (1.0, 2.0)
"""Deviations in cells of the two Gaussian filters whose difference is green noise."""


def visible_count(patches: int, mask_ratio: float) -> int:
    """Patches left visible: the exact count of the MAE papers, int(n · (1 − r)).

    At least one is visible and, of two or more, one hidden.
    """
    return max(1, min(patches - 1, int(patches * (1 - mask_ratio) + 1e-6)))


def uniform(grid: Grid, draw: Tensor) -> Tensor:
    """[N, L] int64, cells of a grid in a random order, by the keys draw [N]."""
    return uniforms(draw, prod(grid), Stream.MASK).argsort(
        dim=1, stable=True
    )  # ties alike on any device


def blocks(grid: Grid, draw: Tensor) -> Tensor:
    """[N, L] int64: last what the first of random rectangles or boxes cover, cells of one block at random.

    Blocks may hang over the edge. BEiT's lie inside, so that of three quarters hidden a patch in the middle
    is visible in 2 % of images and a corner in 86 %.
    """
    N, d = len(draw), len(grid)
    u = uniforms(draw, BLOCKS * 2 * d, Stream.BLOCK).view(N, BLOCKS, 2, d)
    share = SHARES[0] + (SHARES[1] - SHARES[0]) * u[:, :, 0, :1]  # [N, 64, 1]
    low, high = STRETCH[d]
    stretch = low * (high / low) ** u[:, :, 0, 1:]  # [N, 64, d − 1], log-uniform
    stretch = torch.cat([stretch, 1 / stretch.prod(-1, keepdim=True)], dim=-1)
    covered = torch.ones(N, BLOCKS, *[1] * d, dtype=torch.bool, device=draw.device)
    for axis, n in enumerate(grid):
        side = (n * share[..., 0] ** (1 / d) * stretch[..., axis]).round().clamp(1, n)  # [N, 64]
        start = (u[:, :, 1, axis] * (n + side - 1)).floor() - side + 1  # from 1 − side to n − 1
        at = torch.arange(n, device=draw.device)
        within = (at >= start[..., None]) & (at < (start + side)[..., None])  # [N, 64, n]
        covered = covered & within.view(N, BLOCKS, *(n if k == axis else 1 for k in range(d)))
    covered = covered.flatten(2)  # [N, 64, L]
    first = covered.to(torch.uint8).argmax(1)  # [N, L], of the blocks that cover a cell
    block = torch.where(covered.any(1), first, BLOCKS)
    order = uniform(grid, draw)
    return order.gather(1, block.gather(1, order).argsort(dim=1, descending=True, stable=True))


def green(grid: Grid, draw: Tensor) -> Tensor:
    """[N, L] int64: first the largest values of band-passed noise, whose waves are some cells long."""
    axes = tuple(range(1, len(grid) + 1))
    noise = normals(draw, prod(grid), Stream.GREEN).view(-1, *grid)
    passed = torch.fft.fftn(noise, dim=axes) * _band(grid, draw.device)
    values = torch.fft.ifftn(passed, dim=axes).real.flatten(1)
    return values.argsort(dim=1, descending=True, stable=True)


@lru_cache(maxsize=16)
def _band(grid: Grid, device: torch.device) -> Tensor:
    """[*grid] the filter of green noise by frequency."""
    parts = torch.meshgrid(*(torch.fft.fftfreq(n, device=device) for n in grid), indexing="ij")
    square = torch.stack(parts).square().sum(0)
    narrow, wide = ((-2 * pi**2 * s**2 * square).exp() for s in BAND)
    return narrow - wide


@lru_cache(maxsize=16)
def _places(curve: str, grid: Grid, device: torch.device) -> Tensor:
    """`places` on a device, where they are copied once."""
    return torch.from_numpy(places(curve, grid)).to(device)


def along(settings: MaskSettings, grid: Grid, draw: Tensor) -> Tensor:
    """[N, L] int64: cells by where they lie along a curve, which each key of draw [N] reflects anew."""
    L = prod(grid)
    table = _places(settings.mask, grid, draw.device)
    length = min(L, settings.mask_run or (4 if len(grid) == 2 else 8))
    pieces = -(-L // length)
    u = uniforms(draw, 2 + max(L, pieces), Stream.CURVE)
    place = table[(u[:, 0] * len(table)).long()].long()  # [N, L]
    start, u = u[:, 1:2], u[:, 2:]
    if settings.mask_pattern == "stride":
        # multiples of the golden ratio leave gaps of 3 or 4 lengths, whatever their number
        shift = (start * 2**24).long() << 16
        key = (place * GOLDEN + shift) & (2**40 - 1)
    elif settings.mask_pattern == "centre":
        gumbel = -(-(u + 2.0**-25).log()).log()
        key = place / (L / 2) - gumbel
    else:
        place = (place + (start * L).long()) % L
        piece = place // length
        rank = u[:, :pieces].argsort(dim=1, stable=True).argsort(dim=1)
        key = rank.gather(1, piece) * length + place % length
    return key.argsort(dim=1, stable=True)


RANKINGS: dict[str, Callable[[MaskSettings, Grid, Tensor], Tensor]] = {
    "random": lambda _, grid, draw: uniform(grid, draw),
    "block": lambda _, grid, draw: blocks(grid, draw),
    "green": lambda _, grid, draw: green(grid, draw),
    **dict.fromkeys(CURVED, along),
}
"""By the names of `MaskSettings.mask`, those that look at nothing but keys."""


def rank(settings: MaskSettings, grid: Grid, draw: Tensor) -> Tensor:
    """Returns the cells of a grid in the order in which they are seen.

    Args:
        settings: say which ranking, one that looks at nothing but keys.
        grid: lengths of 2 or 3 axes.
        draw: [N] int64, one key per input.

    Returns:
        [N, L] int64, the first V of which are visible, for any V. Cells have the last axis fastest.
    """
    return RANKINGS[settings.mask](settings, grid, draw)


class Masks:
    """Which cells of a grid are hidden, as many in every input.

    Args:
        settings: of the method.
        grid: of patches, or of units of several patches.
        mask_ratio: share of the cells that is hidden; see `visible_count`.
        steps: of the run, over which guided masks change.
    """

    def __init__(
        self, settings: MaskSettings, grid: Grid, mask_ratio: float, steps: int = 1
    ) -> None:
        self.settings, self.grid, self.steps = settings, grid, steps
        self.visible = visible_count(prod(grid), mask_ratio)

    def __call__(self, draw: Tensor, guide: Guide | None = None) -> tuple[Tensor, Tensor]:
        """Visible [N, V] and hidden [N, M] indices, ascending, by the keys draw [N].

        guide: what guided masks look at; others look at nothing.
        """
        order = self.order(draw, guide)
        visible, hidden = order[:, : self.visible], order[:, self.visible :]
        return visible.sort(dim=1).values, hidden.sort(dim=1).values

    def hidden(self, draw: Tensor, guide: Guide | None = None) -> Tensor:
        """[N, *grid] bool, the same."""
        _, index = self(draw, guide)
        hidden = torch.zeros(len(draw), prod(self.grid), dtype=torch.bool, device=draw.device)
        return hidden.scatter(1, index, True).view(-1, *self.grid)

    def order(self, draw: Tensor, guide: Guide | None = None) -> Tensor:
        """[N, L] int64 as of `rank`, and of guided masks, where the first V are visible for their V alone."""
        settings = self.settings
        if settings.mask not in GUIDED:
            return rank(settings, self.grid, draw)
        assert guide is not None
        share = 1.0 if guide.step is None else min(1.0, guide.step / self.steps)
        plain = uniform(self.grid, draw)
        if settings.mask == "sma":
            return attended(settings, self.grid, draw, plain, self.visible, guide, share)
        return clustered(settings, self.grid, draw, plain, guide, share)

    def flops(self, encoder: Encoder) -> float:
        """What choosing adds to a step for each input, in forward passes without gradient."""
        if self.settings.mask not in GUIDED:
            return 0.0
        return guide_flops(self.settings, self.grid, cast(TokenEncoder, encoder))


def some_of(draw: Tensor, hidden: Tensor, count: int) -> Tensor:
    """[N, count] of the hidden patches [N, M], ascending, drawn by the keys draw [N], whatever the mask."""
    order = uniforms(draw, hidden.shape[1], Stream.DECODE).argsort(dim=1, stable=True)
    return hidden.gather(1, order[:, :count].sort(dim=1).values)


def random_blocks(
    draw: Tensor,
    blocks: int,
    ratio: Tensor,
    masking: str = "exact",
    order: Tensor | None = None,
) -> Tensor:
    """[B, blocks] bool, which are hidden: a share ratio [B] in [0, 1] of them, by the keys draw [B].

    exact: the share of the blocks, rounded down; bernoulli: as many as if each were hidden with that
    probability. At least one block is hidden and one visible, unless the ratio is exactly 0 or 1.

    order: [B, blocks] in which they are seen, of `rank`; None: a random one.
    """
    u = uniforms(draw, blocks, Stream.MASK)  # [B, blocks]
    first = u.argsort(dim=1, stable=True) if order is None else order.flip(1)  # to be hidden
    expected = (ratio.double() * blocks + 1e-6).long()
    count = expected if masking == "exact" else (u < ratio[:, None]).sum(1)  # [B]
    between = (ratio > 0) & (ratio < 1)
    count = torch.where(between, count.clamp(1, blocks - 1), count)
    return first.argsort(dim=1) < count[:, None]
