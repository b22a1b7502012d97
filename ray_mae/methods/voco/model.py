"""VoCo (Wu et al. 2024, arXiv 2402.17300): volume contrast by the places of crops."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ray_mae.config.sections import EncoderSettings
from ray_mae.encoders.base import Encoder
from ray_mae.encoders.patches import enlarge
from ray_mae.encoders.registry import build_encoder
from ray_mae.methods.base import Batch, Context, Losses, Method, Pictures
from ray_mae.methods.parts.collapse import effective_rank
from ray_mae.methods.parts.crops import anatomy, cut, filled
from ray_mae.methods.parts.embedding import Projector, pooled, pooled_flops, pooled_width
from ray_mae.methods.parts.inputs import Crops, Inputs
from ray_mae.methods.parts.pictures import side_by_side
from ray_mae.methods.voco.losses import base_starts, overlaps, placement
from ray_mae.methods.voco.settings import VocoSettings
from ray_mae.random_streams import Stream
from ray_mae.transforms.intensities import IntensityChanges
from ray_mae.transforms.keyed_random import repeated, uniforms
from ray_mae.transforms.volumes import VolumeAugmentation

LEAST_ANATOMY = 0.05
"""Share of a base crop that must be brighter than air for it to count: nothing tells two empty ones apart."""


class Placed(NamedTuple):
    """The crops of B volumes: K base crops, then T targets, of each."""

    x: Tensor
    """[B · (K + T), 1, c, c, c] float32."""
    draw: Tensor
    """[B · (K + T)] int64, keys of the crops."""
    y: Tensor
    """[B, T, K], the share of each target in each base crop."""
    there: Tensor
    """[B, K] bool, base crops that hold anatomy."""


class Voco(Method):
    """The whole pretraining model: encoder and projector."""

    def __init__(
        self, settings: VocoSettings, encoder: Encoder, projector: Projector, crops: Crops
    ) -> None:
        super().__init__()
        self.settings = settings
        self.encoder, self.projector, self.crops = encoder, projector, crops
        self.side = settings.side(encoder.settings)
        self.bases, self.targets = settings.grid**3, settings.target_crops
        self.intensities = IntensityChanges().times(settings.intensities)

    @classmethod
    def build(cls, settings: VocoSettings, encoder: EncoderSettings, context: Context) -> "Voco":
        torch.manual_seed(context.seed)
        network = build_encoder(encoder, recompute=context.recompute)
        projector = Projector(
            pooled_width(network), settings.projector_width, settings.projector_output
        )
        return cls(settings, network, projector, Crops(VolumeAugmentation.of(context.volumes)))

    def forward(self, batch: Batch, step: int, watch: bool = False) -> Losses:
        """The three terms of B volumes, a mean over them.

        watch: record a sign of collapse as well, which costs a singular value decomposition.
        """
        placed = self.placed(self.crops(batch))
        h = pooled(self.encoder, placed.x, draw=placed.draw)  # [B · (K + T), F]
        base, target = self.vectors(h)
        overlap, apart, regularisation = placement(target, base, placed.y, placed.there)  # [B]
        each = overlap + apart
        if weight := self.settings.lambda_regularisation:
            each = each + weight * regularisation
        parts = {"overlap": overlap, "apart": apart, "regularisation": regularisation}
        ratios = {"effective_rank": effective_rank(h.detach().float())} if watch else {}
        means = {name: term.mean().detach() for name, term in parts.items()}
        return Losses(each.mean(), means, ratios, each.detach())

    def placed(self, inputs: Inputs) -> Placed:
        """Cuts base crops and targets out of B volumes, which were mirrored and turned as wholes.

        A crop is not mirrored by itself: its place would be another one.
        """
        room = inputs.x.shape[-1] - self.side
        u = uniforms(inputs.draw, 3 * self.targets, Stream.TARGET)
        target = (u * (room + 1)).long().view(-1, self.targets, 3)  # [B, T, 3]
        base = base_starts(self.settings.grid, self.side, inputs.x.device)  # [K, 3]
        bases = base.expand(inputs.samples, -1, -1)
        there = filled(anatomy(inputs.x, inputs.valid), bases, self.side) >= LEAST_ANATOMY
        x = cut(inputs.x, torch.cat([bases, target], dim=1), self.side)
        draw = repeated(inputs.draw, self.bases + self.targets)
        return Placed(self.intensities(x, draw), draw, overlaps(target, base, self.side), there)

    def vectors(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """[B, K, D] of base crops and [B, T, D] of targets, from pooled features h [B · (K + T), F]."""
        z = self.projector(h).unflatten(0, (-1, self.bases + self.targets))
        return z[:, : self.bases], z[:, self.bases :]

    @torch.no_grad()
    def pictures(self, batch: Batch, decode: Callable[[list[int]], str] | None = None) -> Pictures:
        """The targets of each volume; of each its overlaps with the base crops, and the likenesses found."""
        inputs = self.crops.plain(batch)
        placed = self.placed(inputs)
        base, target = (
            F.normalize(z, dim=-1) for z in self.vectors(pooled(self.encoder, placed.x))
        )
        found = (target @ base.transpose(1, 2)).relu()  # [B, T, K]
        gap = torch.ones_like(found[..., :1])
        rows = torch.cat([placed.y, gap, found], dim=2).flatten(0, 1).clamp(0, 1)
        crops = placed.x.unflatten(0, (-1, self.bases + self.targets))[:, self.bases :]
        return Pictures(
            {
                "targets of each volume": side_by_side(*crops.unbind(1)),
                "overlap of each target with the base crops, likeness found": enlarge(rows, 8),
            }
        )

    def flops(self, images: int, samples: int) -> float:
        """Forward and backward (twice the forward), of the encoder as it counts, and the projector."""
        one = pooled_flops(self.encoder, self.side) + self.projector.flops
        return 3.0 * images * (self.bases + self.targets) * one
