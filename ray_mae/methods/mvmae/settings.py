"""Settings of the methods and their networks."""

from dataclasses import dataclass
from typing import Literal

from ray_mae.config.base import setting


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
