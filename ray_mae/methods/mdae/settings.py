"""Settings of MDAE."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from ray_mae.config.base import setting
from ray_mae.config.sections import (
    DataConfig,
    EncoderSettings,
    OptimConfig,
    Paper,
    multiple,
    require_form,
)
from ray_mae.encoders.resenc_settings import ResEncSettings
from ray_mae.methods.parts.mask_settings import MaskSettings
from ray_mae.methods.parts.recipes import NNSSL_MAPS


@dataclass(frozen=True, kw_only=True)
class MdaeSettings(MaskSettings):
    """MDAE, masked-diffusion autoencoder of volumes (CVPR 2026).

    sigma_max 0 with lambda_visible 0: MAE-3D; mask_ratio (0, 0): denoising score matching.
    """

    name: Literal["mdae"] = "mdae"
    """The method; others have settings of their own: see `pretrain --method.name NAME --help`."""
    block_size: int = setting(16, ge=1, le=64)
    """Side of a masked block, in voxels."""
    mask_ratio: tuple[float, float] = setting((0.01, 0.99), ge=0, le=1, rising=True)
    """The share p of hidden blocks is drawn per sample between these; equal values fix it. At least
    one block is hidden and one visible, unless the ratio is exactly 0 or 1."""
    masking: Literal["exact", "bernoulli"] = "exact"
    """exact: a share p of the blocks, rounded down; bernoulli: as many as if each were hidden with
    probability p."""
    noise: Literal["ve", "vp", "flow"] = "ve"
    """Added before masking: ve x + σ z, vp √(1-a) x + √a z, flow (1-a) x + a z."""
    sigma_max: float = setting(1.0, ge=0)
    """Noise level at t = 1, in units of the volume's standard deviation; for vp and flow the
    largest a (at most 1)."""
    weighting: Literal["dsm_clipped", "none", "edm", "bounded"] = "dsm_clipped"
    """Weight w(σ) of the visible loss, with mean 1 over t: 1/max(σ, 0.1)², 1, 1/σ² + 1 (clipped
    alike), or 1/(σ² + 1)."""
    lambda_masked: float = setting(1.0, ge=0)
    """Weight of the loss on hidden voxels."""
    lambda_visible: float = setting(1.0, ge=0)
    """Weight of the loss on visible, noisy voxels."""
    mask_repeats: int = setting(1, ge=1, le=64)
    """Corruptions drawn of each volume that is read: reading is the cost."""

    kinds: ClassVar[tuple[str, ...]] = ("volume",)
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper(
            "Tu et al.",
            2026,
            "Masked-Diffusion Autoencoders for 3D Medical Vision Representation Learning",
            "CVPR",
        ),
    )
    model: ClassVar[str] = "ray_mae.methods.mdae.model:Mdae"
    losses: ClassVar[Mapping[str, str]] = {
        "masked": "Masked voxels",
        "visible": "Visible voxels, weighted",
    }

    @property
    def described(self) -> str:
        low, high = self.mask_ratio
        return (
            f"blocks of {self.block_size}³, {low:.0%} to {high:.0%} masked{self.mask_described}, "
            f"noise {self.noise} up to {self.sigma_max:g}, λ {self.lambda_masked:g} masked "
            f"and {self.lambda_visible:g} visible ({self.weighting})"
        )

    def default_encoder(self) -> ResEncSettings:
        return ResEncSettings(film=True)

    def default_optim(self, encoder: EncoderSettings) -> OptimConfig:
        """nnssl's."""
        return NNSSL_MAPS

    def check(self, encoder: EncoderSettings, data: DataConfig) -> None:
        require_form(self, encoder, "maps")
        self.check_mask(encoder)
        crop, block = encoder.input_size, self.block_size
        multiple("encoder.crop_size", crop, "method.block_size", block)
        if crop == block:
            raise ValueError(
                f"method.block_size ({block}) must be smaller than encoder.crop_size ({crop}): one "
                "block cannot be both hidden and visible"
            )
        if self.noise != "ve" and self.sigma_max > 1:
            raise ValueError(
                f"method.sigma_max ({self.sigma_max:g}) must be at most 1 with method.noise "
                f"{self.noise}: it is the largest share of noise"
            )
        low, high = self.mask_ratio
        if (self.lambda_masked == 0 or high == 0) and (self.lambda_visible == 0 or low == 1):
            raise ValueError(
                "method.lambda_masked, method.lambda_visible and method.mask_ratio leave nothing "
                "to learn"
            )
