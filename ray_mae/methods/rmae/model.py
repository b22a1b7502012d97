"""R-MAE (Nguyen et al. 2024, arXiv 2306.05411): MAE, and maps of regions from the same visible patches."""

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor

from ray_mae.config.sections import EncoderSettings
from ray_mae.encoders.patches import enlarge, gather, unpatchify
from ray_mae.methods.base import Batch, Context, Losses, Pictures
from ray_mae.methods.mae.settings import MaeSettings
from ray_mae.methods.mae.tokens import Decoded, MaeTokens
from ray_mae.methods.parts.inputs import Inputs
from ray_mae.methods.parts.pictures import volume_rows
from ray_mae.methods.rmae.regions import RegionBranch
from ray_mae.methods.rmae.settings import RmaeSettings
from ray_mae.transforms.images import denormalise

TITLE = "original, then two regions: what is seen, predicted, true"
SHOWN = 2
HIDDEN = 0.5
"""Grey of what is not seen of a region."""


class Rmae(MaeTokens):
    """MAE with a branch of regions; without a weight for them, nothing but MAE."""

    settings: RmaeSettings
    regions: RegionBranch | None
    """None without a weight: then there is nothing to train."""

    @classmethod
    def build(cls, settings: MaeSettings, encoder: EncoderSettings, context: Context) -> Self:
        assert isinstance(settings, RmaeSettings)
        model = super().build(settings, encoder, context)
        model.regions = (
            RegionBranch(settings, model.encoder, recompute=context.recompute)
            if settings.region_weight
            else None
        )
        return model

    def losses(self, found: Decoded, inputs: Inputs, step: int, watch: bool) -> Losses:
        losses = super().losses(found, inputs, step, watch)
        if self.regions is None:
            return losses
        logits, maps = self._maps(found, inputs)
        error = self.regions.loss(logits, maps, self.regions.valid(inputs, found.hidden))
        each = inputs.per_sample(error)  # [S]
        total, weight = each.mean(), self.settings.region_weight
        assert losses.each is not None
        return losses._replace(
            total=losses.total + weight * total,
            parts={**losses.parts, "regions": total.detach()},
            each=losses.each + weight * each.detach(),
        )

    def _maps(self, found: Decoded, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Logits of the maps at hidden patches [N, K, M, Q], and the maps there [N, K, M, Q] bool."""
        assert self.regions is not None
        maps = self.regions.targets(inputs)  # [N, K, L, Q]
        seen = _at(maps, found.visible)
        logits = self.regions(seen, found.tokens, found.visible, found.hidden)
        return logits, _at(maps, found.hidden)

    @torch.no_grad()
    def pictures(self, batch: Batch, decode: Callable[[list[int]], str] | None = None) -> Pictures:
        """Those of MAE, and of some regions what the branch saw, what it made of that, and what is true."""
        pictures = super().pictures(batch, decode)
        if self.regions is None:
            return pictures
        inputs = self.reader.plain(batch)
        found = self.decode(inputs)
        logits, _ = self._maps(found, inputs)
        true = self.regions.targets(inputs)[:, :SHOWN].float()  # [N, k, L, Q]
        where = found.hidden[:, None, :, None].expand(-1, true.shape[1], -1, true.shape[-1])
        predicted = true.scatter(2, where, logits[:, :SHOWN].sigmoid().float())
        seen = true.scatter(2, where, HIDDEN)
        columns = [
            self._whole(part[:, k])
            for k in range(true.shape[1])
            for part in (seen, predicted, true)
        ]
        if inputs.x.ndim == 5:
            image = volume_rows(inputs.x, *columns)
        else:
            image = torch.cat([denormalise(inputs.x), *columns], dim=-1)[:, 0].flatten(0, 1)
        return Pictures({**pictures.images, TITLE: image}, pictures.texts)

    def _whole(self, patches: Tensor) -> Tensor:
        """Patches of maps [N, L, Q] as [N, 1, *sides] of an input."""
        assert self.regions is not None
        maps = unpatchify(patches, self.regions.side, self.encoder.grid)
        return enlarge(maps[:, 0], self.regions.times)[:, None]

    def flops(self, images: int, samples: int) -> float:
        """Forward and backward (twice the forward), products of matrices only."""
        work = super().flops(images, samples)
        if self.regions is None:
            return work
        return work + 3.0 * images * self.regions.flops(self.masks.visible, self.decoded)


def _at(maps: Tensor, index: Tensor) -> Tensor:
    """Maps [N, K, L, Q] at patches [N, V]: [N, K, V, Q]."""
    N, K = maps.shape[:2]
    each = index[:, None].expand(-1, K, -1).flatten(0, 1)
    return gather(maps.flatten(0, 1), each).view(N, K, index.shape[1], -1)
