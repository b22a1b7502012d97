"""MDAE, the masked-diffusion autoencoder of volumes (CVPR 2026).

L = λ_m·L_masked + λ_v·L_visible. Without noise and λ_v it is a masked autoencoder (MAE-3D), without
hidden blocks denoising score matching: one code.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ray_mae.batch import VolumeBatch
from ray_mae.encoders.resenc import ResEnc, VolumeDecoder, encoder_and_decoder
from ray_mae.encoders.resenc_settings import ResEncSettings
from ray_mae.methods.base import Context, Losses, Method, Pictures
from ray_mae.methods.mdae.corruption import Corruption
from ray_mae.methods.mdae.losses import noise_weight
from ray_mae.methods.mdae.settings import MdaeSettings
from ray_mae.methods.parts.collapse import effective_rank
from ray_mae.methods.parts.losses import region_mean
from ray_mae.methods.parts.pictures import volume_rows
from ray_mae.transforms.keyed_random import repeated
from ray_mae.transforms.volumes import VolumeAugmentation, clean

LEVELS = 4
"""Equal parts of t in [0, 1) by which errors are recorded."""
SHOWN = ((0.25, 0.25), (0.75, 0.25), (0.75, 0.75))
"""Of the pictures: how far from the least to the largest share of hidden blocks, and the noise level t."""


class Mdae(Method):
    """The whole pretraining model: encoder, and a decoder back to voxels."""

    encoder: ResEnc

    def __init__(
        self,
        settings: MdaeSettings,
        encoder: ResEnc,
        decoder: VolumeDecoder,
        *,
        corruption: Corruption,
        augment: VolumeAugmentation,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.encoder, self.decoder = encoder, decoder
        self.crop_size = encoder.settings.crop_size
        self.corruption, self.augment = corruption, augment
        self.weighting, self.mask_repeats = settings.weighting, settings.mask_repeats
        # w(σ) has mean 1 over t ~ U(0, 1), or λ 1:1 would not mean what it says
        t = (torch.arange(100_000, dtype=torch.float64, device="cpu") + 0.5) / 100_000
        self.mean_weight = float(noise_weight(corruption.sigma(t), self.weighting).double().mean())
        self.lambda_masked, self.lambda_visible = settings.lambda_masked, settings.lambda_visible

    @classmethod
    def build(cls, settings: MdaeSettings, encoder: ResEncSettings, context: Context) -> "Mdae":
        torch.manual_seed(context.seed)
        network, decoder = encoder_and_decoder(encoder, recompute=context.recompute)
        return cls(
            settings,
            network,
            decoder,
            corruption=Corruption(
                noise=settings.noise,
                sigma_max=settings.sigma_max,
                mask_ratio=settings.mask_ratio,
                masking=settings.masking,
                block_size=settings.block_size,
                masks=settings,
            ),
            augment=VolumeAugmentation.of(context.volumes),
        )

    def forward(self, batch: VolumeBatch, step: int, watch: bool = False) -> Losses:
        """The loss of B volumes, each corrupted K times: a mean over them all.

        The part `visible` is weighted by w(σ), as in the sum; `masked_error_t0` (t < 1/4) and so on
        are plain squared errors by noise level.
        """
        x, valid = self.augment(batch)  # [B, 1, D, H, W]
        x, valid = (a.repeat_interleave(self.mask_repeats, dim=0) for a in (x, valid))
        corrupted, hidden, t, sigma = self.corruption(x, repeated(batch.draw, self.mask_repeats))

        e = self.encoder.embed(t)
        skips = self.encoder.skips(corrupted, e)
        error = (self.decoder(skips, e).float() - x).square()  # [B·K, 1, D, H, W]
        regions = {"masked": hidden & valid, "visible": ~hidden & valid}
        errors = {name: region_mean(error, region) for name, region in regions.items()}  # [B·K]

        masked = errors["masked"].mean()
        weight = noise_weight(sigma, self.weighting) / self.mean_weight  # [B·K]
        visible = (weight * errors["visible"]).mean()
        total = self.lambda_masked * masked + self.lambda_visible * visible
        parts = {"masked": masked.detach(), "visible": visible.detach()}
        ratios = {}
        if watch:
            # no cosine: vectors of instance-normalised channels are alike in every such network
            ratios["effective_rank"] = effective_rank(skips[-1].detach().float().mean((2, 3, 4)))
        for name, region in regions.items():
            for level, pair in enumerate(by_level(errors[name].detach(), region, t)):
                ratios[f"{name}_error_t{level}"] = pair
        each = (
            self.lambda_masked * errors["masked"] + self.lambda_visible * weight * errors["visible"]
        )
        each = each.detach().view(-1, self.mask_repeats).mean(1)  # [B]
        return Losses(total, parts, ratios, each)

    def reconstruct(self, corrupted: Tensor, t: Tensor) -> Tensor:
        """x̂ [B, 1, D, H, W] float32 from x̃ [B, 1, D, H, W] and noise levels t [B]."""
        e = self.encoder.embed(t)
        return self.decoder(self.encoder.skips(corrupted, e), e).float()

    @torch.no_grad()
    def pictures(
        self, batch: VolumeBatch, decode: Callable[[list[int]], str] | None = None
    ) -> Pictures:
        """Per volume, clean, corrupted and reconstructed: the middle axial slice, in radiological convention.

        Corrupted as in training: with shares of hidden blocks between the settings' own, and with noise
        only where there is some. Voxels that no loss reconstructs are as they came in. Grey values from the
        1st to the 99th percentile of the clean slice.
        """
        x, _ = clean(batch)
        images = {}
        for p, t in self.corruption.examples(SHOWN):
            c = self.corruption(x, batch.draw, p=p, t=t)
            learnt = torch.where(c.hidden, self.lambda_masked > 0, self.lambda_visible > 0)
            made = torch.where(learnt, self.reconstruct(c.voxels, c.t), c.voxels)
            blocks = f"{p:.0%} hidden" if p else "nothing hidden"
            noise = f"noise level {t:g}" if t else "no noise"
            name = f"clean, corrupted, reconstructed ({blocks}, {noise})"
            images[name] = volume_rows(x, c.voxels, made)
        return Pictures(images)

    def flops(self, images: int, samples: int) -> float:
        """Forward and backward (twice the forward), convolutions only."""
        forward = self.encoder.flops(self.crop_size) + self.decoder.flops(self.crop_size)
        return 3.0 * images * self.mask_repeats * forward


def by_level(error: Tensor, region: Tensor, t: Tensor) -> Tensor:
    """[4, 2] sum of the errors [B] and their number, by quarter of the noise level t [B].

    A sample whose region [B, …] is empty has no error and does not count.
    """
    present = region.flatten(1).any(1)
    level = (t * LEVELS).long().clamp(max=LEVELS - 1)
    pairs = torch.stack([error, torch.ones_like(error)], dim=1) * present[:, None]  # [B, 2]
    return pairs.new_zeros(LEVELS, 2).index_add(0, level, pairs)
