"""Masks that follow the encoder: what a few patches attend to (SMA), or the cluster that stands out (SG-MAE).

Choosing has no gradient. Scores are of patches; where units of several patches are hidden, a unit has their
mean. Scores that differ by less than rounding may change places where a batch is cut otherwise.
"""

from dataclasses import dataclass
from math import cos, pi, prod

import torch
import torch.nn.functional as F
from torch import Tensor

from ray_mae.encoders.base import TokenEncoder
from ray_mae.encoders.patches import patchify
from ray_mae.methods.parts.curves import Grid
from ray_mae.methods.parts.mask_settings import MaskSettings
from ray_mae.random_streams import Stream
from ray_mae.transforms.keyed_random import normals, uniforms

ITERATIONS = 30
"""Of the search for the vector that cuts patches in two."""
LEAST = 1e-3
"""Of that vector's eigenvalue, or there is nothing to cut: the first one has 1."""


@dataclass(frozen=True)
class Guide:
    """What guided masks look at: an encoder as it is now, and N inputs."""

    encoder: TokenEncoder
    x: Tensor
    """[N, 1, *sides] normalised."""
    view: Tensor | None = None
    """[N] kind of view, of images."""
    valid: Tensor | None = None
    """[N, 1, *sides] bool, False where there is nothing; None: there is everywhere."""
    step: int | None = None
    """Of the run; None: its last."""

    def features(self, grid: Grid) -> Tensor:
        """[N, U, D] float32, of the cells of a grid: of length 1, without what all of an input's share.

        0 where there is nothing.
        """
        tokens = self.encoder(self.x, view=self.view, blocks=middle(self.encoder))
        patches = F.layer_norm(tokens[:, self.encoder.prefix :].float(), (self.encoder.width,))
        cells = pooled(patches, self.encoder.grid, grid)  # [N, U, D]
        there = self.there(grid)[..., None]
        shared = (cells * there).sum(1, keepdim=True) / there.sum(1, keepdim=True).clamp(min=1)
        return F.normalize(cells - shared, dim=-1) * there

    def there(self, grid: Grid) -> Tensor:
        """[N, U] bool: the cells in which there is anything."""
        if self.valid is None:
            return torch.ones(len(self.x), prod(grid), dtype=torch.bool, device=self.x.device)
        return patchify(self.valid, self.valid.shape[2] // grid[0]).any(-1)


def middle(encoder: TokenEncoder) -> int:
    """Returns how many blocks features go through: half of them, for the sake of their cost."""
    return -(-encoder.depth // 2)


def pooled(values: Tensor, fine: Grid, grid: Grid) -> Tensor:
    """Means over the cells of a grid: [N, L, D] of a finer grid → [N, U, D]."""
    d = len(grid)
    cut = values.unflatten(1, [n for f, g in zip(fine, grid, strict=True) for n in (g, f // g)])
    return cut.mean(tuple(range(2, 2 * d + 1, 2))).flatten(1, d)


@torch.no_grad()
def attended(
    settings: MaskSettings,
    grid: Grid,
    draw: Tensor,
    plain: Tensor,
    visible: int,
    guide: Guide,
    share: float,
) -> Tensor:
    """SMA (arXiv 2402.14789): hidden is what a few random patches attend to most in the first block.

    At first a mask is random. The cells that can be hidden, all of them then, become fewer along half a
    cosine, until they are as many as are hidden.

    Args:
        settings: `mask_queries` and `mask_warmup`.
        grid: of the cells.
        draw: [N] keys.
        plain: [N, U] cells in a random order, which is that of equal scores.
        visible: how many cells are.
        guide: encoder and inputs.
        share: of the run that is over.

    Returns:
        [N, U] int64, the first `visible` of which are.
    """
    queries = uniforms(draw, guide.encoder.patches, Stream.GUIDE).argsort(dim=1, stable=True)
    queries = queries[:, : settings.mask_queries]
    attention = guide.encoder.attention(guide.x, queries, guide.view).mean(1).sum(1)  # [N, L]
    score = pooled(attention[..., None], guide.encoder.grid, grid)[..., 0]  # [N, U]
    by_score = score.gather(1, plain).argsort(dim=1, descending=True, stable=True)
    order = plain.gather(1, by_score)  # the most attended first
    risen = min(1.0, share / settings.mask_warmup) if settings.mask_warmup else 1.0
    candidates = order.shape[1] - round(visible * (1 - cos(pi * risen)) / 2)
    u = uniforms(draw, candidates, Stream.HINT)
    drawn = order[:, :candidates].gather(1, u.argsort(dim=1, stable=True))
    return torch.cat([order[:, candidates:], drawn], dim=1)


@torch.no_grad()
def clustered(
    settings: MaskSettings, grid: Grid, draw: Tensor, plain: Tensor, guide: Guide, share: float
) -> Tensor:
    """SG-MAE (arXiv 2507.19773): hidden is the cluster that a normalised cut of the patches sets apart.

    After a phase of random masks; then cells of the cluster are left among the others, as hints: all of them
    at first, and ever fewer until the last step.

    Args:
        settings: `mask_warmup` and `mask_hints`.
        grid: of the cells.
        draw: [N] keys.
        plain: [N, U] cells in a random order: that of the random masks, and of what is in no cluster.
        guide: encoder and inputs.
        share: of the run that is over.

    Returns:
        [N, U] int64, cells in the order in which they are seen.
    """
    guided = share - settings.mask_warmup
    if guided < 0:
        return plain
    over = guided / (1 - settings.mask_warmup) if settings.mask_warmup < 1 else 1.0
    hints = 1 - (1 - settings.mask_hints) * over
    f, there = guide.features(grid), guide.there(grid)
    start = normals(draw, prod(grid), Stream.GUIDE)  # [N, U]
    cluster = cut(f, there, start)
    mean = F.normalize((f * cluster[..., None]).sum(1, keepdim=True), dim=-1)  # [N, 1, D]
    likeness = (f * mean).sum(-1).clamp(0, 1)  # [N, U]
    meant = cluster & (uniforms(draw, prod(grid), Stream.HINT) >= hints)
    key = torch.where(meant, 1 + likeness, 0.0).gather(1, plain)
    return plain.gather(1, key.argsort(dim=1, stable=True))


def cut(f: Tensor, there: Tensor, start: Tensor) -> Tensor:
    """Returns the cells of the cluster that a normalised cut (Shi and Malik 2000) sets apart.

    Of both sides it is that of the cell which lies farthest out (TokenCut, arXiv 2202.11539), so the vector's
    sign does not matter.

    Args:
        f: [N, U, D] features of length 1, or 0 where there is nothing.
        there: [N, U] bool.
        start: [N, U] random numbers that the search begins with.

    Returns:
        [N, U] bool; nothing where the cells are all alike.
    """
    likeness = (f @ f.transpose(1, 2)).clamp(min=0).square()  # [N, U, U]
    root = likeness.sum(-1).clamp(min=1e-12).sqrt()  # [N, U]
    between = likeness / (root[:, :, None] * root[:, None, :])
    first = F.normalize(root * there, dim=-1)
    y, value = start * there, start
    for _ in range(ITERATIONS):
        y = y - first * (first * y).sum(-1, keepdim=True)
        y = F.normalize(y, dim=-1)
        value = (between @ y[..., None])[..., 0]
        y, last = value, y
    eigenvalue = (last * value).sum(-1, keepdim=True)  # [N, 1]
    y = last / root
    mean = (y * there).sum(-1, keepdim=True) / there.sum(-1, keepdim=True).clamp(min=1)
    out = torch.where(there, y.abs(), -1.0).argmax(-1, keepdim=True)
    above = y > mean
    return (above == above.gather(1, out)) & there & (eigenvalue > LEAST)


def guide_flops(settings: MaskSettings, grid: Grid, encoder: TokenEncoder) -> float:
    """Returns the operations of a forward pass that guided masks add for each input, a mean over the run."""
    L, D, U = encoder.patches, encoder.width, prod(grid)
    if settings.mask == "sma":
        patch = encoder.stride ** len(encoder.grid)
        return 2.0 * L * D * (patch + 3 * D + settings.mask_queries)
    if settings.mask == "sgmae":
        forward = encoder.flops(encoder.prefix + L) * middle(encoder) / encoder.depth
        return (1 - settings.mask_warmup) * (forward + 2.0 * U * U * (D + ITERATIONS))
    return 0.0
