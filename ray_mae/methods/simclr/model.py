"""SimCLR (Chen et al. 2020, arXiv 2002.05709), of views of studies and of volumes."""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from ray_mae.batch import mean_per_study
from ray_mae.config.sections import EncoderSettings
from ray_mae.encoders.base import Encoder
from ray_mae.encoders.patches import enlarge
from ray_mae.encoders.registry import build_encoder
from ray_mae.methods.base import Batch, Context, Losses, Method, Pictures
from ray_mae.methods.parts.collapse import signs_of_collapse
from ray_mae.methods.parts.contrastive import infonce
from ray_mae.methods.parts.embedding import Projector, pooled, pooled_flops, pooled_width
from ray_mae.methods.parts.inputs import Inputs
from ray_mae.methods.parts.pictures import side_by_side
from ray_mae.methods.simclr.pairs import PairMaker, Pairs, pairs_of
from ray_mae.methods.simclr.settings import SimclrSettings


class Simclr(Method):
    """The whole pretraining model: encoder and projector."""

    def __init__(
        self, settings: SimclrSettings, encoder: Encoder, projector: Projector, pairs: PairMaker
    ) -> None:
        super().__init__()
        self.settings = settings
        self.encoder, self.projector = encoder, projector
        self.temperature = settings.temperature_of(encoder.settings)
        self.pairs = pairs

    @classmethod
    def build(
        cls, settings: SimclrSettings, encoder: EncoderSettings, context: Context
    ) -> "Simclr":
        torch.manual_seed(context.seed)
        network = build_encoder(encoder, recompute=context.recompute)
        output = settings.output_of(encoder)
        projector = Projector(pooled_width(network), settings.projector_width, output)
        return cls(settings, network, projector, pairs_of(context, encoder, settings))

    def forward(self, batch: Batch, step: int, watch: bool = False) -> Losses:
        """The contrast of all crops, a mean over each sample's and then over samples.

        watch: record signs of collapse as well, which cost a singular value decomposition.
        """
        pairs = self.pairs(batch)
        h = pooled(self.encoder, pairs.x, pairs.view, pairs.draw)  # [R, F]
        n = F.normalize(self.projector(h), dim=-1)
        terms = infonce(n, pairs.group, self.temperature, batch.key[pairs.sample])  # [R]
        each = mean_per_study(terms, pairs.sample, batch.samples)  # [S]
        total = each.mean()
        ratios = signs_of_collapse(h, self.watched(pairs, batch)) if watch else {}
        return Losses(total, {"contrast": total.detach()}, ratios, each.detach())

    def watched(self, pairs: Pairs, batch: Batch) -> Inputs:
        """What signs of collapse are of: of views the studies are told apart, of volumes nothing is."""
        of_views = None if pairs.view is None else pairs.sample
        return Inputs(pairs.x, pairs.sample, batch.key, sample=of_views)

    @torch.no_grad()
    def pictures(self, batch: Batch, decode: Callable[[list[int]], str] | None = None) -> Pictures:
        """Both crops of each pair as the network sees them, and the cosines of all crops, pairs together."""
        pairs = self.pairs(batch)
        n = F.normalize(self.projector(pooled(self.encoder, pairs.x, pairs.view)), dim=-1)
        cosines = ((n @ n.T + 1) / 2).clamp(0, 1)
        return Pictures(
            {
                "two crops of each pair": side_by_side(pairs.x[0::2], pairs.x[1::2]),
                "cosines of crops, from -1 (black) to 1": enlarge(cosines[None], 8)[0],
            }
        )

    def flops(self, images: int, samples: int) -> float:
        """Forward and backward (twice the forward), of the encoder as it counts, and the projector."""
        one = pooled_flops(self.encoder, self.pairs.side) + self.projector.flops
        return 3.0 * images * self.pairs.per_input * one
