"""Settings of MAE."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, cast

from ray_mae.config.base import setting
from ray_mae.config.sections import (
    DataConfig,
    EncoderSettings,
    OptimConfig,
    Paper,
    require_form,
)
from ray_mae.encoders.vit_settings import Shape, VitSettings
from ray_mae.methods.parts.mask_settings import MaskSettings
from ray_mae.methods.parts.spread_settings import SpreadSettings
from ray_mae.methods.parts.target_settings import TargetSettings

WIDTH, DEPTH, HEAD = 512, 8, 32
"""The paper's decoder: width, blocks, and width of an attention head."""


@dataclass(frozen=True, kw_only=True)
class MaeSettings(MaskSettings, SpreadSettings, TargetSettings):
    """MAE, the masked autoencoder (arXiv 2111.06377), of every view or crop on its own."""

    name: Literal["mae"] = "mae"
    """The method; others have settings of their own: see `pretrain --method.name NAME --help`."""
    mask_ratio: float = setting(0.75, gt=0, lt=1)
    """Share of the patches hidden in each input, independently."""
    decode_share: float = setting(1.0, gt=0, le=1)
    """Share of the hidden patches that are reconstructed, drawn anew each time (VideoMAE V2, arXiv
    2303.16727). Held-out losses are of all."""
    norm_pix: bool = True
    """Reconstruct patches normalised to mean 0 and variance 1 each."""
    decoder: Literal["self", "cross"] = "self"
    """Attention of the decoder: self, of visible and hidden patches among each other, as in MAE; cross, of
    each hidden patch to the visible ones alone (CrossMAE, arXiv 2401.14391), at less cost."""
    decoder_width: int | None = setting(None, ge=16)
    """Decoder width; default 512, or that of a narrower encoder."""
    decoder_depth: int | None = setting(None, ge=1)
    """Decoder blocks; default 8, or 4 with a narrower encoder."""
    decoder_heads: int | None = setting(None, ge=1)
    """Decoder attention heads; default one per 32 of the width."""

    kinds: ClassVar[tuple[str, ...]] = ("study", "volume")
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper(
            "He et al.",
            2022,
            "Masked Autoencoders Are Scalable Vision Learners",
            "CVPR, arXiv:2111.06377",
        ),
    )
    model: ClassVar[str] = "ray_mae.methods.mae.tokens:MaeTokens"
    losses: ClassVar[Mapping[str, str]] = {"reconstruction": "Hidden patches"}

    @property
    def described(self) -> str:
        masked = f"{self.mask_ratio:.0%} masked{self.mask_described}"
        target = self.target_described("normalised patches" if self.norm_pix else "patches")
        cross = ", cross-attention decoder" if self.decoder == "cross" else ""
        return masked + target + cross + self.spread_described

    def default_encoder(self) -> VitSettings:
        return VitSettings()

    def default_optim(self, encoder: EncoderSettings) -> OptimConfig:
        """Of volumes nnssl's for transformers, with a batch of 32."""
        if encoder.kind == "study":
            return OptimConfig()
        return OptimConfig(
            lr=3e-4,
            betas=(0.9, 0.98),
            decay="poly",
            warmup=0.05,
            batch_size=32,
            micro_batch_size=2,
            steps=250_000,
        )

    def decoder_shape(self, encoder: EncoderSettings) -> Shape:
        """The decoder's: the paper's, or that of a narrower encoder, with single values overridden."""
        own = cast(VitSettings, encoder).shape.width
        width = self.decoder_width or min(own, WIDTH)
        depth = DEPTH if own > WIDTH else DEPTH // 2
        return Shape(width, depth, max(1, width // HEAD)).override(
            None, self.decoder_depth, self.decoder_heads
        )

    def check(self, encoder: EncoderSettings, data: DataConfig) -> None:
        require_form(self, encoder, "tokens")
        self.check_mask(encoder)
        self.check_target(encoder)
        self.decoder_shape(encoder).check("method", "decoder_", sincos=False)
