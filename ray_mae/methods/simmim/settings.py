"""Settings of SimMIM."""

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
from ray_mae.encoders.vit_settings import VitSettings
from ray_mae.methods.parts.checks import require_no_film
from ray_mae.methods.parts.mask_settings import MaskSettings
from ray_mae.methods.parts.spread_settings import SpreadSettings
from ray_mae.methods.parts.target_settings import TargetSettings


@dataclass(frozen=True, kw_only=True)
class SimmimSettings(MaskSettings, SpreadSettings, TargetSettings):
    """SimMIM (arXiv 2111.09886): mask tokens, or a learnt value, in the encoder, L1, a linear head."""

    name: Literal["simmim"] = "simmim"
    """The method; others have settings of their own: see `pretrain --method.name NAME --help`."""
    mask_ratio: float = setting(0.6, gt=0, lt=1)
    """Share of the units hidden in each input, rounded up, independently; at least one is visible."""
    mask_size: int | None = setting(None, ge=1, le=512)
    """Side of a unit that is hidden as a whole, in pixels or voxels: it divides the side of an input and is a
    multiple of the side of a patch. Default: 32 pixels, 16 voxels."""

    kinds: ClassVar[tuple[str, ...]] = ("study", "volume")
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper(
            "Xie et al.",
            2022,
            "SimMIM: A Simple Framework for Masked Image Modeling",
            "CVPR, arXiv:2111.09886",
        ),
    )
    model: ClassVar[str] = "ray_mae.methods.simmim.tokens:SimmimTokens"
    losses: ClassVar[Mapping[str, str]] = {"reconstruction": "Hidden pixels or voxels"}

    @property
    def described(self) -> str:
        side = f" of side {self.mask_size}" if self.mask_size else ""
        masked = f"{self.mask_ratio:.0%} masked in units{side}{self.mask_described}"
        return masked + self.target_described("") + self.spread_described

    def unit(self, encoder: EncoderSettings) -> int:
        """Side of a unit, in pixels or voxels."""
        return self.mask_size or (32 if encoder.kind == "study" else 16)

    def units(self, encoder: EncoderSettings) -> tuple[int, ...]:
        """Units along each axis of an input."""
        return (encoder.input_size // self.unit(encoder),) * encoder.dimensions

    def default_encoder(self) -> VitSettings:
        return VitSettings()

    def default_optim(self, encoder: EncoderSettings) -> OptimConfig:
        """Of volumes as MDAE; the rate is absolute, since base_lr is for batches of hundreds."""
        if encoder.kind == "study":
            return OptimConfig()
        return OptimConfig(lr=3e-4, batch_size=32, micro_batch_size=2, steps=250_000)

    def model_of(self, encoder: EncoderSettings) -> str:
        return self.model if encoder.form == "tokens" else "ray_mae.methods.simmim.maps:SimmimMaps"

    def check(self, encoder: EncoderSettings, data: DataConfig) -> None:
        require_form(self, encoder)
        self.check_mask(encoder)
        self.check_target(encoder)
        require_no_film(self, encoder)
        size, unit = encoder.input_size, self.unit(encoder)
        side = encoder.size_name
        if encoder.form == "tokens":
            patch = cast(VitSettings, encoder).patch_size
            multiple("method.mask_size", unit, "encoder.patch_size", patch)
        multiple(side, size, "method.mask_size", unit)
        if size == unit:
            raise ValueError(
                f"method.mask_size ({unit}) must be smaller than {side} ({size}): one unit cannot be "
                "both hidden and visible"
            )
