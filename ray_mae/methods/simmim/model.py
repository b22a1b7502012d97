"""SimMIM (Xie et al. 2022, arXiv 2111.09886): an encoder that sees mask tokens, and a linear head."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ray_mae.batch import StudyBatch, mean_per_study
from ray_mae.encoders.registry import build_encoder
from ray_mae.encoders.vit import VisionTransformer, initialise, patchify
from ray_mae.encoders.vit_settings import VitSettings
from ray_mae.methods.base import Context, Losses, Method, Pictures
from ray_mae.methods.parts.collapse import collapse_signs
from ray_mae.methods.parts.losses import region_mean
from ray_mae.methods.parts.masking import random_masks, visible_count
from ray_mae.methods.parts.pictures import STUDY_TITLE, study_rows
from ray_mae.methods.simmim.settings import SimmimSettings
from ray_mae.transforms.images import Augmentation, whole


class Simmim(Method):
    """The whole pretraining model: encoder, mask token and a linear head to pixels."""

    encoder: VisionTransformer

    def __init__(
        self, settings: SimmimSettings, encoder: VisionTransformer, *, augment: Augmentation
    ) -> None:
        super().__init__()
        self.settings = settings
        self.encoder = encoder
        self.mask = nn.Parameter(torch.randn(encoder.width) * 0.02)
        self.head = nn.Linear(encoder.width, encoder.stride**2)
        initialise(self.head)
        self.image_size, self.patch_size = encoder.settings.image_size, encoder.stride
        self.units = encoder.settings.image_size // settings.mask_size  # of a side
        self.visible = visible_count(self.units**2, settings.mask_ratio)
        self.augment = augment

    @classmethod
    def build(cls, settings: SimmimSettings, encoder: VitSettings, context: Context) -> "Simmim":
        torch.manual_seed(context.seed)
        network = build_encoder(encoder, recompute=context.recompute)
        assert isinstance(network, VisionTransformer)
        return cls(settings, network, augment=Augmentation.of(context.studies))

    def no_weight_decay(self) -> set[str]:
        return {"mask"}

    def forward(self, batch: StudyBatch, step: int, watch: bool = False) -> Losses:
        """L1 over the hidden pixels of S studies with N views, a mean over the studies.

        watch: record signs of collapse as well, which cost a singular value decomposition.
        """
        images = self.augment(batch, self.image_size)  # [N, 1, H, W]
        patches = patchify(images, self.patch_size)  # [N, L, patch²]
        hidden = self.hidden(batch.view_draw)  # [N, L]

        tokens = self.encoder(images, view=batch.view, masked=(hidden, self.mask))  # [N, 1 + L, D]
        error = (self.head(tokens[:, 1:]).float() - patches).abs()  # [N, L, patch²]
        each = region_mean(error, hidden[..., None].expand_as(error))  # [N]

        each = mean_per_study(each, batch.study, batch.samples)  # [S]
        total = each.mean()
        ratios = {}
        if watch:
            ratios = collapse_signs(tokens.detach().float().mean(1), batch.study)
        return Losses(total, {"reconstruction": total.detach()}, ratios, each.detach())

    def hidden(self, draw: Tensor) -> Tensor:
        """[N, L] bool: the patches of the hidden units, as many in every view, by the keys draw [N]."""
        _, index = random_masks(draw, self.units**2, self.visible)  # [N, M]
        units = torch.zeros(len(draw), self.units**2, dtype=torch.bool, device=draw.device)
        grid = units.scatter(1, index, True).view(-1, self.units, self.units)
        side = self.settings.mask_size // self.patch_size  # patches of a unit's side
        return grid.repeat_interleave(side, dim=1).repeat_interleave(side, dim=2).flatten(1)

    @torch.no_grad()
    def pictures(
        self, batch: StudyBatch, decode: Callable[[list[int]], str] | None = None
    ) -> Pictures:
        """Per view: what was shown, what was reconstructed, the original."""
        images = whole(batch, self.image_size)
        hidden = self.hidden(batch.view_draw)
        tokens = self.encoder(images, view=batch.view, masked=(hidden, self.mask))
        pixels = self.head(tokens[:, 1:]).float()
        patches = patchify(images, self.patch_size)
        return Pictures({STUDY_TITLE: study_rows(patches, hidden, pixels, self.patch_size)})

    def flops(self, images: int, samples: int) -> float:
        """Forward and backward (twice the forward), products of matrices only."""
        L = self.encoder.patches
        return 3.0 * images * (self.encoder.flops(1 + L) + 2 * L * self.head.weight.numel())
