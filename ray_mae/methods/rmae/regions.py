"""R-MAE's branch of regions: their maps at visible patches → their maps at hidden ones."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ray_mae.encoders.base import TokenEncoder
from ray_mae.encoders.block import Block
from ray_mae.encoders.patches import enlarge, gather, patchify
from ray_mae.encoders.vit import Blocks, initialise, sincos_positions
from ray_mae.methods.parts.inputs import Inputs
from ray_mae.methods.parts.superpixels import superpixels
from ray_mae.methods.rmae.settings import COARSER, RmaeSettings
from ray_mae.random_streams import Stream
from ray_mae.transforms.keyed_random import uniforms

STORED = 256
"""Values of a label map that shards hold; 0 is no region."""


class RegionBranch(nn.Module):
    """Region maps and the encoder's tokens of visible patches → logits of the maps at hidden ones.

    Args:
        settings: of the method.
        encoder: whose tokens it reads.
        recompute: activations of its blocks again in the backward pass.
    """

    def __init__(
        self, settings: RmaeSettings, encoder: TokenEncoder, *, recompute: bool = False
    ) -> None:
        super().__init__()
        self.settings, self.prefix = settings, encoder.prefix
        self.times = settings.coarser(encoder.settings)
        self.side = encoder.stride // self.times  # of a patch of a map
        self.regions = settings.regions_of(encoder.settings)
        self.cells = settings.cells_of(encoder.settings)
        width, pixels = settings.region_width, self.side ** len(encoder.grid)
        qk_norm = getattr(encoder.settings, "qk_norm", True)
        norm = partial(nn.LayerNorm, eps=1e-6)
        self.position: Tensor
        self.register_buffer("position", sincos_positions(encoder.grid, width))

        def block() -> Block:
            heads = settings.shape.heads
            return Block(width, heads, mlp_ratio=4.0, qk_norm=qk_norm, norm=norm)

        self.patch = nn.Linear(pixels, width)
        self.read = block()
        self.query = nn.Sequential(norm(width), nn.Linear(width, width))
        self.embed = nn.Linear(encoder.width, width)
        self.mask = nn.Parameter(torch.randn(width) * 0.02)
        self.context = Blocks(settings.shape, qk_norm, recompute)
        self.among = block()
        self.place = nn.Linear(width, width)
        self.maps = nn.Sequential(
            norm(width),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Linear(width, pixels),
        )
        initialise(self)

    def no_weight_decay(self) -> set[str]:
        """Names of its tokens, as of an encoder."""
        return {"mask"}

    def forward(self, seen: Tensor, tokens: Tensor, visible: Tensor, hidden: Tensor) -> Tensor:
        """Logits of the maps at hidden patches.

        Args:
            seen: [N, K, V, Q] bool, the maps at visible patches, and nothing of them elsewhere.
            tokens: [N, prefix + V, D] of the encoder.
            visible: [N, V] indices of the patches that it saw.
            hidden: [N, M] indices of those whose maps are wanted.

        Returns:
            [N, K, M, Q].
        """
        N, K, V, _ = seen.shape
        position = self.position.to(tokens.dtype)
        r = self.patch(seen.to(tokens.dtype) - 0.5) + position[visible][:, None]  # [N, K, V, R]
        r = self.read(r.flatten(0, 1)).mean(1).view(N, K, -1)  # a vector of each region
        q = self.among(self.query(r))  # [N, K, R]

        m = self.embed(tokens[:, self.prefix :])  # [N, V, R]
        m = torch.cat([m, self.mask.to(m.dtype).expand(N, hidden.shape[1], -1)], dim=1)
        m = self.context(m + position[torch.cat([visible, hidden], dim=1)])
        m = self.place(m[:, V:])  # [N, M, R]
        return self.maps(q[:, :, None] + m[:, None])

    def targets(self, inputs: Inputs) -> Tensor:
        """[N, K, L, Q] bool: the maps of K regions of each input, by its draw."""
        labels = self.labels(inputs)  # [N, 1, *sides / times]
        chosen = drawn(labels, inputs.draw, self.regions, self.cells, self.side)  # [N, K]
        maps = labels == chosen.view(
            *chosen.shape, *[1] * (labels.ndim - 2)
        )  # [N, K, *sides / times]
        cut = patchify(maps.flatten(0, 1)[:, None], self.side)
        return cut.view(*chosen.shape, *cut.shape[1:])

    def labels(self, inputs: Inputs) -> Tensor:
        """[N, 1, *sides / times] int64: the stored regions of an input that has some, or its superpixels."""
        x = inputs.x
        pool = F.avg_pool2d if x.ndim == 4 else F.avg_pool3d
        coarse = superpixels(pool(x, COARSER), self.cells, self.settings.region_compactness)
        found = STORED + enlarge(coarse[:, 0], COARSER // self.times)[:, None]
        if inputs.regions is None:
            return found
        steps = [slice(None), slice(None), *[slice(None, None, self.times)] * (x.ndim - 2)]
        stored = inputs.regions[tuple(steps)].long()
        has = stored.flatten(1).any(1).view(-1, *[1] * (x.ndim - 1))
        return torch.where(has, stored, found)

    def loss(self, logits: Tensor, maps: Tensor, valid: Tensor | None) -> Tensor:
        """[N] binary cross-entropy of each input, a mean over regions, hidden patches and their pixels.

        Args:
            logits: [N, K, M, Q].
            maps: [N, K, M, Q] bool, what is right.
            valid: [N, M, Q] bool, which pixels count; None: all.
        """
        error = F.binary_cross_entropy_with_logits(
            logits.float(), maps.float(), reduction="none"
        ).mean(1)
        if valid is None:
            return error.mean(dim=(1, 2))
        total = torch.where(valid, error, 0).sum(dim=(1, 2))
        return total / valid.sum(dim=(1, 2)).clamp(min=1)

    def valid(self, inputs: Inputs, hidden: Tensor) -> Tensor | None:
        """[N, M, Q] bool: where maps of hidden patches count, all voxels being valid; None: everywhere."""
        if inputs.valid is None:
            return None
        pool = F.max_pool2d if inputs.x.ndim == 4 else F.max_pool3d
        outside = pool((~inputs.valid).float(), self.times) > 0
        return gather(patchify(~outside, self.side), hidden)

    def flops(self, visible: int, hidden: int) -> float:
        """Forward of one input, products of matrices only."""
        K, width = self.regions, self.settings.region_width
        read = visible * 2.0 * (self.patch.weight.numel() + _weights(self.read))
        read += 4.0 * visible * visible * width
        query = 2.0 * (_weights(self.query) + _weights(self.among)) + 4.0 * K * width
        context = 2.0 * visible * self.embed.weight.numel()
        context += self.context.flops(visible + hidden)
        context += 2.0 * hidden * self.place.weight.numel()
        return K * (read + query + 2.0 * hidden * _weights(self.maps)) + context


def _weights(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.ndim == 2)


def drawn(labels: Tensor, draw: Tensor, regions: int, cells: int, least: int) -> Tensor:
    """K regions of each input, by the keys draw [N]: each at most once, unless there are fewer.

    Args:
        labels: [N, 1, *sides] int64, as `RegionBranch.labels` gives them.
        draw: [N] int64.
        regions: K.
        cells: superpixels along each axis.
        least: side of a patch of the maps: a region of fewer pixels than one has is left out.

    Returns:
        [N, K] labels.
    """
    d = labels.ndim - 2
    flat = labels.flatten(1)  # [N, P]
    count = torch.zeros(len(flat), STORED + cells**d, device=flat.device)
    count = count.scatter_add(1, flat, torch.ones_like(flat, dtype=count.dtype))
    there = count >= least**d
    there[:, 0] = False
    order = (uniforms(draw, count.shape[1], Stream.REGION) + ~there).argsort(dim=1, stable=True)
    number = there.sum(1, keepdim=True).clamp(min=1)  # [N, 1]
    return order.gather(1, torch.arange(regions, device=flat.device)[None] % number)
