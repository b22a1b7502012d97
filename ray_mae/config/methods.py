"""Settings of the methods and their networks."""

from dataclasses import dataclass
from typing import Literal

from ray_mae.settings import setting


@dataclass(frozen=True, kw_only=True)
class MvmaeConfig:
    """MVMAE-V2T (arXiv 2511.22294). gamma 0: MVMAE; beta 0 as well: independent MAE."""

    name: Literal["mvmae"] = "mvmae"
    """The method; mdae has settings of its own: see `pretrain --method.name mdae --help`."""
    preset: Literal["tiny", "small", "base", "large", "huge"] = "base"
    """Width, depth and heads of the encoder and the pixel decoder."""
    image_size: int = setting(224, ge=16, le=2048)
    """Side of the square crop the encoder sees, in pixels; a multiple of patch_size."""
    patch_size: int = setting(16, ge=2, le=64)
    """Side of a patch, in pixels."""
    width: int | None = setting(None, ge=16)
    """Encoder width; default from the preset."""
    depth: int | None = setting(None, ge=1)
    """Encoder blocks; default from the preset."""
    heads: int | None = setting(None, ge=1)
    """Encoder attention heads; default from the preset."""
    qk_norm: bool = True
    """Normalise queries and keys in every attention of encoder and decoder."""
    positions: Literal["learned", "sincos"] = "sincos"
    """Position embedding of patches: fixed sine-cosine (MAE), or a learned table (the authors'
    code), which needs a longer training to tell the patches apart."""
    mask_ratio: float = setting(0.9, gt=0, lt=1)
    """Share of the patches hidden in each view, independently per view."""
    norm_pix: bool = False
    """Reconstruct patches normalised to mean 0 and variance 1 each."""
    decoder_width: int | None = setting(None, ge=16)
    """Pixel decoder width; default from the preset."""
    decoder_depth: int | None = setting(None, ge=1)
    """Pixel decoder blocks; default from the preset."""
    decoder_heads: int | None = setting(None, ge=1)
    """Pixel decoder attention heads; default from the preset."""
    alignment: Literal["mse", "cosine", "infonce", "vicreg"] = "mse"
    """Form of the alignment of a study's views; mse is the paper's."""
    alignment_tokens: Literal["visible", "cls", "patches"] = "visible"
    """Tokens pooled into a view's vector: visible patches and CLS, CLS alone, or patches alone."""
    alignment_reduction: Literal["mean", "sum"] = "mean"
    """mse only: mean over the vector's dimensions, as the paper, or their sum (2 - 2 cos)."""
    alignment_temperature: float = setting(0.07, gt=0)
    """infonce only: temperature of the softmax."""
    beta: float = setting(2.0, ge=0)
    """Final weight of the alignment: 0 until warm-up ends, then a half cosine up to beta."""
    gamma: float = setting(1.0, ge=0)
    """Weight of the report captioner; 0 builds none."""
    caption_depth: int = setting(4, ge=1)
    """Captioner blocks."""
    caption_heads: int = setting(8, ge=1)
    """Captioner attention heads."""
    caption_mlp_ratio: float = setting(1.0, gt=0)
    """Captioner feed-forward width over its model width."""
    caption_memory: Literal["view", "study"] = "view"
    """What a caption attends to: the tokens of one view (one caption loss per view), or those of
    all views of the study (one per study, cheaper)."""
    caption_parallel_share: float = setting(0.0, ge=0, le=1)
    """Share of the studies decoded in parallel, from mask tokens alone (CapPa), not causally."""

    @property
    def in_words(self) -> str:
        """For the table that opens a run."""
        return (
            f"{self.image_size} px, patches of {self.patch_size}, {self.mask_ratio:.0%} masked, "
            f"β {self.beta:g} ({self.alignment}), γ {self.gamma:g}"
        )


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
