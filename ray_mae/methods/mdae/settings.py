"""Settings of MDAE."""

from dataclasses import dataclass
from typing import Literal

from ray_mae.config.base import setting


@dataclass(frozen=True, kw_only=True)
class MdaeConfig:
    """MDAE, masked-diffusion autoencoder of volumes (CVPR 2026).

    sigma_max 0 with lambda_visible 0: MAE-3D; mask_ratio (0, 0): denoising score matching.
    """

    name: Literal["mdae"] = "mdae"
    """The method."""
    preset: Literal["tiny", "base", "large"] = "large"
    """Stages of the ResEnc U-Net; large is nnU-Net's ResEnc-L."""
    crop_size: int = setting(160, ge=16, le=512)
    """Side of the random crop, in voxels; a multiple of block_size and of the network's stride."""
    block_size: int = setting(16, ge=1, le=64)
    """Side of a masked block, in voxels."""
    mask_ratio: tuple[float, float] = setting((0.01, 0.99), ge=0, le=1, rising=True)
    """The share p of hidden blocks is drawn per sample between these; equal values fix it. At least
    one block is hidden and one visible, unless the ratio is exactly 0 or 1."""
    masking: Literal["exact", "bernoulli"] = "exact"
    """exact: a share p of the blocks, rounded down; bernoulli: each block with probability p."""
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
    film: bool = True
    """Tell the network the noise level by FiLM; False leaves it to guess."""
    mirror: bool = True
    """Mirror each axis of half of the crops, as nnU-Net does; False keeps left and right apart."""
    rotate_share: float = setting(0.2, ge=0, le=1)
    """Share of the crops rotated by up to 30 degrees about each axis."""
    scale_share: float = setting(0.2, ge=0, le=1)
    """Share of the crops scaled."""
    scale_range: tuple[float, float] = setting((0.7, 1.4), gt=0, rising=True)
    """Smallest and largest scale."""

    @property
    def in_words(self) -> str:
        """For the table that opens a run."""
        low, high = self.mask_ratio
        return (
            f"crops of {self.crop_size}³, blocks of {self.block_size}³, {low:.0%} to {high:.0%} "
            f"masked, noise {self.noise} up to {self.sigma_max:g}, λ {self.lambda_masked:g} masked "
            f"and {self.lambda_visible:g} visible ({self.weighting})"
        )
