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
    multiple,
    require_form,
)
from ray_mae.encoders.convnextv2_settings import STRIDE, ConvNextV2Settings
from ray_mae.encoders.resenc_settings import ResEncSettings
from ray_mae.encoders.vit_settings import Shape, VitSettings
from ray_mae.methods.parts.checks import require_no_film
from ray_mae.methods.parts.mask_settings import MaskSettings
from ray_mae.methods.parts.recipes import NNSSL_MAPS, NNSSL_TOKENS
from ray_mae.methods.parts.spread_settings import SpreadSettings
from ray_mae.methods.parts.target_settings import TargetSettings

WIDTH, DEPTH, HEAD = 512, 8, 32
"""The paper's decoder: width, blocks, and width of an attention head."""
FORMS = {
    "resenc": (
        Paper(
            "Tian et al.",
            2023,
            "Designing BERT for Convolutional Networks: Sparse and Hierarchical Masked Modeling",
            "ICLR, arXiv:2301.03580",
        ),
    ),
    "convnextv2": (
        Paper(
            "Woo et al.",
            2023,
            "ConvNeXt V2: Co-designing and Scaling ConvNets with Masked Autoencoders",
            "CVPR, arXiv:2301.00808",
        ),
    ),
}
"""Papers of what it is of networks that convolve, by encoder."""
UNIT = 32
"""Side of what SparK and FCMAE hide as a whole, in pixels or voxels."""


@dataclass(frozen=True, kw_only=True)
class MaeSettings(MaskSettings, SpreadSettings, TargetSettings):
    """MAE, the masked autoencoder (arXiv 2111.06377), of every view or crop on its own.

    Of convolutional networks it is SparK (resenc) and FCMAE (convnextv2).
    """

    name: Literal["mae"] = "mae"
    """The method; others have settings of their own: see `pretrain --method.name NAME --help`."""
    mask_ratio: float = setting(0.75, gt=0, lt=1)
    """Share of the patches hidden in each input, independently. SparK and FCMAE: 0.6."""
    mask_size: int | None = setting(None, ge=1, le=512)
    """Of encoders with maps: side of a unit that is hidden as a whole, in pixels or voxels, a multiple of the
    network's stride; the patches of the target are of that size. Default 32."""
    decode_share: float = setting(1.0, gt=0, le=1)
    """Share of the hidden patches that are reconstructed, drawn anew each time (VideoMAE V2, arXiv
    2303.16727). Held-out losses are of all."""
    norm_pix: bool = True
    """Reconstruct patches normalised to mean 0 and variance 1 each."""
    decoder: Literal["self", "cross"] = "self"
    """Attention of the decoder: self, of visible and hidden patches among each other, as in MAE; cross, of
    each hidden patch to the visible ones alone (CrossMAE, arXiv 2401.14391), at less cost."""
    decoder_width: int | None = setting(None, ge=16)
    """Decoder width; default 512, or that of a narrower encoder. A U-Net has its own."""
    decoder_depth: int | None = setting(None, ge=1)
    """Decoder blocks; default 8, or 4 with a narrower encoder; of convnextv2 1."""
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
        """Of volumes nnssl's for transformers and for U-Nets, with a batch of 32."""
        if encoder.kind == "study":
            return OptimConfig()
        return NNSSL_MAPS if encoder.form == "maps" else NNSSL_TOKENS

    def papers_of(self, encoder: EncoderSettings) -> tuple[Paper, ...]:
        return (*self.papers, *FORMS.get(encoder.name, ()))

    def model_of(self, encoder: EncoderSettings) -> str:
        return self.model if encoder.form == "tokens" else "ray_mae.methods.mae.maps:MaeMaps"

    def unit(self, encoder: EncoderSettings) -> int:
        """Side of a unit of an encoder with maps, in pixels or voxels."""
        return self.mask_size or UNIT

    def decoder_shape(self, encoder: EncoderSettings) -> Shape:
        """The decoder's: the paper's, or that of a narrower encoder, with single values overridden."""
        own = cast(VitSettings, encoder).shape.width
        width = self.decoder_width or min(own, WIDTH)
        depth = DEPTH if own > WIDTH else DEPTH // 2
        return Shape(width, depth, max(1, width // HEAD)).override(
            None, self.decoder_depth, self.decoder_heads
        )

    def point_decoder(self, encoder: EncoderSettings) -> tuple[int, int]:
        """Width and blocks of the decoder of convnextv2."""
        own = cast(ConvNextV2Settings, encoder).widths[-1]
        return self.decoder_width or min(own, WIDTH), self.decoder_depth or 1

    def check(self, encoder: EncoderSettings, data: DataConfig) -> None:
        require_form(self, encoder)
        self.check_mask(encoder)
        self.check_target(encoder)
        if encoder.form == "maps":
            self._check_maps(encoder)
            return
        if self.mask_size is not None:
            raise ValueError(
                f"method.mask_size is for encoders with maps: encoder.name {encoder.name} has patches"
            )
        self.decoder_shape(encoder).check("method", "decoder_", sincos=False)

    def _check_maps(self, encoder: EncoderSettings) -> None:
        unused = ["decoder_heads"] if self.decoder_heads else []
        if self.decoder != "self":
            unused.append("decoder")
        if self.decode_share < 1:
            unused.append("decode_share")
        if isinstance(encoder, ResEncSettings):
            stride = encoder.stages.stride
            unused += [n for n in ("decoder_width", "decoder_depth") if getattr(self, n)]
            require_no_film(self, encoder)
        elif isinstance(encoder, ConvNextV2Settings):
            stride = STRIDE
        else:
            raise ValueError(
                f"method.name {self.name} has no decoder for the maps of encoder.name {encoder.name}: take "
                "resenc or convnextv2"
            )
        if unused:
            raise ValueError(
                f"{' and '.join(f'method.{n}' for n in unused)} mean nothing with encoder.name "
                f"{encoder.name}: leave them out"
            )
        size, unit = encoder.input_size, self.unit(encoder)
        side = encoder.size_name
        multiple("method.mask_size", unit, f"{stride}, the encoder's stride", stride)
        multiple(side, size, "method.mask_size", unit)
        units = (size // unit) ** encoder.dimensions
        if units == 1:
            raise ValueError(
                f"method.mask_size ({unit}) must be smaller than {side} ({size}): one unit cannot be both "
                "hidden and visible"
            )
        seen = max(1, int(units * (1 - self.mask_ratio) + 1e-6)) * (unit // stride) ** 3
        if isinstance(encoder, ResEncSettings) and seen < 2:
            raise ValueError(
                f"method.mask_ratio ({self.mask_ratio:g}) leaves one point of the last map of {side} {size}, "
                "of which an instance norm has no variance: lower it, or enlarge the crop"
            )
