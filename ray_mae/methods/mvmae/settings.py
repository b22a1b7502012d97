"""Settings of MVMAE and MVMAE-V2T."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, cast

from ray_mae.config.base import setting
from ray_mae.config.sections import (
    DataConfig,
    EncoderSettings,
    Paper,
    multiple,
    require_form,
)
from ray_mae.encoders.vit_settings import Shape, VitSettings
from ray_mae.methods.parts.mask_settings import MaskSettings
from ray_mae.methods.parts.spread_settings import SpreadSettings

DECODERS: dict[str, Shape] = {
    "tiny": Shape(192, 4, 3),
    "small": Shape(384, 4, 6),
    "base": Shape(768, 4, 12),
    "large": Shape(1024, 8, 8, 2.0),
    "huge": Shape(1024, 8, 8, 2.0),
}
"""Pixel decoders by the encoder's preset; those of tiny, base and large are those of the authors' code."""


@dataclass(frozen=True, kw_only=True)
class MvmaeSettings(MaskSettings, SpreadSettings):
    """MVMAE-V2T (arXiv 2511.22294). gamma 0: MVMAE; beta 0 as well: independent MAE."""

    name: Literal["mvmae"] = "mvmae"
    """The method; others have settings of their own: see `pretrain --method.name NAME --help`."""
    mask_ratio: float = setting(0.9, gt=0, lt=1)
    """Share of the patches hidden in each view, independently per view."""
    decode_share: float = setting(1.0, gt=0, le=1)
    """Share of the hidden patches that are reconstructed, drawn anew each time (VideoMAE V2, arXiv
    2303.16727): of a view that hides 90 % a quarter takes about half of a step. Held-out losses are of
    all."""
    norm_pix: bool = False
    """Reconstruct patches normalised to mean 0 and variance 1 each."""
    cross_view: bool = False
    """Let the pixel decoder look at the visible tokens of the study's other views too (CAV-MAE, arXiv
    2210.07839). Of a study with one view it changes nothing."""
    decoder_width: int | None = setting(None, ge=16)
    """Pixel decoder width; default from the preset."""
    decoder_depth: int | None = setting(None, ge=1)
    """Pixel decoder blocks; default from the preset."""
    decoder_heads: int | None = setting(None, ge=1)
    """Pixel decoder attention heads; default from the preset."""
    alignment: Literal["mse", "centred", "cosine", "infonce", "vicreg"] = "mse"
    """Form of the alignment of a study's views; mse is the paper's. centred: mse of vectors from which the
    mean over studies is taken first, so that it cannot be made small by what all studies share."""
    alignment_tokens: Literal["visible", "cls", "patches"] = "visible"
    """Tokens pooled into a view's vector: visible patches and CLS, CLS alone, or patches alone."""
    alignment_reduction: Literal["mean", "sum"] = "mean"
    """mse only: mean over the vector's dimensions, as the paper, or their sum (2 - 2 cos)."""
    alignment_momentum: float = setting(0.9, ge=0, lt=1)
    """centred only: share of the mean that a step keeps."""
    alignment_temperature: float = setting(0.07, gt=0)
    """infonce only: temperature of the softmax."""
    beta: float = setting(2.0, ge=0)
    """Final weight of the alignment: 0 until warm-up ends, then a half cosine up to beta."""
    rare_power: float = setting(0.0, ge=-2, le=2)
    """Weights of studies by the rarest of their findings c: (n_max/n_c)^rare_power, n_c studies of the train
    split being positive, and 1 without a finding; divided by their mean over the train split. More than 0:
    rare findings count more; less: they count less; 0 reads no label."""
    rare_most: float = setting(10.0, gt=1)
    """Limit of these weights, and 1/rare_most of those below 1, before they are divided."""
    rare_terms: Literal["alignment", "reconstruction", "both"] = "alignment"
    """What is weighted. Of infonce the terms of anchors, of vicreg the invariance."""
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

    kinds: ClassVar[tuple[str, ...]] = ("study",)
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper(
            "Agostini et al.",
            2025,
            "Structure is Supervision: Multiview Masked Autoencoders for Radiology",
            "arXiv:2511.22294",
        ),
    )
    model: ClassVar[str] = "ray_mae.methods.mvmae.model:Mvmae"
    losses: ClassVar[Mapping[str, str]] = {
        "reconstruction": "Reconstruction",
        "alignment": "Alignment",
        "caption": "Caption",
    }
    shown: ClassVar[tuple[str, ...]] = ("beta",)

    @property
    def described(self) -> str:
        masked = f"{self.mask_ratio:.0%} masked{self.mask_described}"
        cross = ", cross-view decoding" if self.cross_view else ""
        terms = f"β {self.beta:g} ({self.alignment}), γ {self.gamma:g}{self.spread_described}"
        return f"{masked}{cross}, {terms}"

    @property
    def reads_reports(self) -> bool:
        return self.gamma > 0

    @property
    def study_weights(self) -> tuple[float, float] | None:
        return (self.rare_power, self.rare_most) if self.rare_power else None

    @property
    def label_uses(self) -> tuple[str, ...]:
        if not self.rare_power:
            return ()
        terms = "alignment and reconstruction" if self.rare_terms == "both" else self.rare_terms
        return (f"weights of studies in the {terms} (method.rare_power {self.rare_power:g})",)

    @property
    def coupled(self) -> bool:
        return super().coupled or (self.beta > 0 and self.alignment in ("infonce", "vicreg"))

    def default_encoder(self) -> VitSettings:
        return VitSettings()

    def decoder_shape(self, encoder: VitSettings) -> Shape:
        """The pixel decoder's: that of the encoder's preset, with single values overridden."""
        return DECODERS[encoder.preset].override(
            self.decoder_width, self.decoder_depth, self.decoder_heads
        )

    def check(self, encoder: EncoderSettings, data: DataConfig) -> None:
        require_form(self, encoder, "tokens")
        self.check_mask(encoder)
        vit = cast(VitSettings, encoder)
        self.decoder_shape(vit).check("method", "decoder_", sincos=vit.positions == "sincos")
        if self.gamma > 0:
            multiple("encoder.width", vit.shape.width, "method.caption_heads", self.caption_heads)
        if self.rare_power and self.rare_terms == "alignment" and not self.beta:
            raise ValueError(
                f"method.rare_power ({self.rare_power:g}) weights the alignment, which method.beta 0 leaves "
                "out: set method.rare_terms to reconstruction or both, or rare_power to 0"
            )
