"""VolumeFusion (Wang et al. 2023, arXiv 2306.16925): encoder and decoder tell how two volumes were mixed."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from ray_mae.encoders.patches import enlarge
from ray_mae.encoders.resenc import ResEnc, VolumeDecoder, encoder_and_decoder
from ray_mae.encoders.resenc_settings import ResEncSettings
from ray_mae.methods.base import Batch, Context, Losses, Method, Pictures
from ray_mae.methods.parts.collapse import effective_rank
from ray_mae.methods.parts.inputs import Crops, Inputs
from ray_mae.methods.parts.pictures import LEAST_SIDE, axial, volume_rows
from ray_mae.methods.volumefusion.fusion import (
    class_maps,
    cross_entropy,
    dice_loss,
    partners,
    standardised,
)
from ray_mae.methods.volumefusion.settings import VolumefusionSettings
from ray_mae.transforms.intensities import IntensityChanges
from ray_mae.transforms.volumes import VolumeAugmentation

INTENSITIES = replace(IntensityChanges(), low_resolution=0.25)
"""nnssl's for this method."""


class Fused(NamedTuple):
    """B mixed volumes."""

    x: Tensor
    """[B, 1, S, S, S] float32: α of the volume and 1 − α of its partner."""
    classes: Tensor
    """[B, 1, S, S, S] int64: α · (K − 1)."""
    counted: Tensor
    """[B, 1, S, S, S] bool, where both are valid."""


class Volumefusion(Method):
    """The whole pretraining model: a U-Net whose encoder and decoder are both kept."""

    encoder: ResEnc

    def __init__(
        self,
        settings: VolumefusionSettings,
        encoder: ResEnc,
        decoder: VolumeDecoder,
        crops: Crops,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.encoder, self.decoder, self.crops = encoder, decoder, crops
        self.crop_size = encoder.settings.crop_size
        self.intensities = INTENSITIES.times(settings.intensities)

    @classmethod
    def build(
        cls, settings: VolumefusionSettings, encoder: ResEncSettings, context: Context
    ) -> "Volumefusion":
        torch.manual_seed(context.seed)
        network, decoder = encoder_and_decoder(
            encoder, classes=settings.classes, recompute=context.recompute
        )
        return cls(settings, network, decoder, Crops(VolumeAugmentation.of(context.volumes)))

    def forward(self, batch: Batch, step: int, watch: bool = False) -> Losses:
        """Cross-entropy and Dice of the shares in B mixed volumes, a mean over them.

        watch: record a sign of collapse as well, which costs a singular value decomposition.
        """
        inputs = self.crops(batch)
        fused = self.fused(replace(inputs, x=self.intensities(inputs.x, inputs.draw)))
        skips = self.encoder.skips(fused.x)
        logits = self.decoder(skips, None).float()  # [B, K, S, S, S]
        entropy = cross_entropy(logits, fused.classes, fused.counted)  # [B]
        dice = dice_loss(logits, fused.classes, fused.counted)
        weight = self.settings.lambda_dice
        each = entropy + weight * dice if weight else entropy
        parts = {"cross_entropy": entropy.mean().detach(), "dice": dice.mean().detach()}
        h = skips[-1].detach().float().flatten(2).mean(2)
        ratios = {"effective_rank": effective_rank(h)} if watch else {}
        return Losses(each.mean(), parts, ratios, each.detach())

    def fused(self, inputs: Inputs) -> Fused:
        """Mixes each of B volumes with another of the batch.

        Where there is no other sample it is mixed with itself, turned around.
        """
        valid = (
            torch.ones_like(inputs.x, dtype=torch.bool) if inputs.valid is None else inputs.valid
        )
        own = standardised(inputs.x, valid)
        partner = partners(inputs.key)
        alone = (inputs.key[partner] == inputs.key).view(-1, 1, 1, 1, 1)
        other, other_valid = (
            torch.where(alone, t[partner].flip((2, 3, 4)), t[partner]) for t in (own, valid)
        )
        classes = class_maps(inputs.draw, self.crop_size, self.settings)
        return Fused(torch.lerp(other, own, self.share(classes)), classes, valid & other_valid)

    def share(self, classes: Tensor) -> Tensor:
        """α, float32, of classes."""
        return classes / (self.settings.classes - 1)

    @torch.no_grad()
    def pictures(self, batch: Batch, decode: Callable[[list[int]], str] | None = None) -> Pictures:
        """Per volume: it, and it as it is mixed; then its share in each voxel, and the share found."""
        inputs = self.crops.plain(batch)
        fused = self.fused(inputs)
        found = self.decoder(self.encoder.skips(fused.x), None).argmax(1, keepdim=True)
        shares = torch.cat(
            [axial(self.share(classes)) for classes in (fused.classes, found)], dim=2
        )
        zoom = max(1, -(-LEAST_SIDE // self.crop_size))  # as `volume_rows` has it
        return Pictures(
            {
                "volume, mixed with another one": volume_rows(
                    standardised(inputs.x, fused.counted), fused.x
                ),
                "share of the volume itself, share found": enlarge(shares, zoom).flatten(0, 1),
            }
        )

    def flops(self, images: int, samples: int) -> float:
        """Forward and backward (twice the forward), convolutions only."""
        forward = self.encoder.flops(self.crop_size) + self.decoder.flops(self.crop_size)
        return 3.0 * images * forward
