"""What is done to a volume before the network sees it: noise, then hidden blocks (MDAE, section 3)."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from ray_mae.encoders.patches import enlarge
from ray_mae.methods.parts.mask_settings import MaskSettings
from ray_mae.methods.parts.masking import random_blocks, rank
from ray_mae.random_streams import Stream
from ray_mae.transforms.keyed_random import normals, uniforms


class Corrupted(NamedTuple):
    """B corrupted volumes and how they came about."""

    voxels: Tensor
    """x̃ [B, 1, D, H, W] float32: noisy where visible, exactly 0 where hidden."""
    hidden: Tensor
    """[B, 1, D, H, W] bool: Ω_M."""
    t: Tensor
    """[B] float32 in [0, 1): what the network is told."""
    sigma: Tensor
    """[B] float32: σ_t, the noise's deviation over the signal's: what Tweedie's formula wants."""


@dataclass(frozen=True)
class Corruption:
    """x̃ = M_v ⊙ x_t, with noise of σ_t = t·σ_max, t ~ U(0, 1), and a share p ~ U(low, high) hidden.

    Noise comes first, on the whole volume. With a = t·σ_max: ve x + a z; vp √(1−a) x + √a z; flow
    (1−a) x + a z. Without noise (σ_max 0) there is nothing to tell and t is 0.
    """

    noise: str
    sigma_max: float
    mask_ratio: tuple[float, float]
    masking: str
    block_size: int
    masks: MaskSettings | None = None
    """Which blocks are hidden; None: random ones."""

    def __call__(
        self, x: Tensor, draw: Tensor, *, p: float | None = None, t: float | None = None
    ) -> Corrupted:
        """Corrupt x [B, 1, D, H, W] float32, z-scored, by the keys draw [B].

        D, H and W are multiples of block_size. p, t: for all samples, instead of drawn.
        """
        u = uniforms(draw, 2, Stream.LEVEL)  # [B, 2]
        time = u[:, 0] if t is None else torch.full_like(u[:, 0], t)
        if self.sigma_max == 0:
            time = torch.zeros_like(time)
        low, high = self.mask_ratio if p is None else (p, p)
        ratio = low + (high - low) * u[:, 1].double()  # [B]

        noisy = self._noised(x, time * self.sigma_max, draw)
        hidden = self._hidden(x, ratio, draw)
        return Corrupted(torch.where(hidden, 0.0, noisy), hidden, time, self.sigma(time))

    def examples(self, pairs: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
        """Shares p of hidden blocks and noise levels t that training draws, each pair once.

        pairs: how far p lies between the least and the largest share, and t, which is 0 without noise.
        """
        low, high = self.mask_ratio
        shown = ((low + (high - low) * p, t if self.sigma_max else 0.0) for p, t in pairs)
        return list(dict.fromkeys(shown))

    def sigma(self, t: Tensor) -> Tensor:
        """σ_t [B] of t [B]: x_t, divided by what x is multiplied with, is x + σ_t z."""
        a = t * self.sigma_max
        if self.noise == "ve":
            return a
        share = a / (1 - a).clamp(min=1e-6)
        return share.sqrt() if self.noise == "vp" else share

    def _noised(self, x: Tensor, a: Tensor, draw: Tensor) -> Tensor:
        """x_t [B, 1, D, H, W]; a: [B]."""
        if self.sigma_max == 0:
            return x
        z = normals(draw, x[0].numel(), Stream.NOISE).view_as(x)
        a = a.view(-1, 1, 1, 1, 1)
        if self.noise == "ve":
            return torch.addcmul(x, a, z)
        if self.noise == "vp":
            return (1 - a).sqrt() * x + a.sqrt() * z
        return torch.lerp(x, z, a)

    def _hidden(self, x: Tensor, ratio: Tensor, draw: Tensor) -> Tensor:
        """Ω_M [B, 1, D, H, W]: whole blocks, by share ratio [B]."""
        grid = tuple(side // self.block_size for side in x.shape[2:])
        # runs of before hid the first of a random order, which other methods show
        chosen = None if self.masks is None or self.masks.mask == "random" else self.masks
        order = None if chosen is None else rank(chosen, grid, draw)
        hidden = random_blocks(draw, prod(grid), ratio, self.masking, order).view(-1, *grid)
        return enlarge(hidden, self.block_size)[:, None]
