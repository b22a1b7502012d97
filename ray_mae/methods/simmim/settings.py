"""Settings of SimMIM."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, cast

from ray_mae.config.base import setting
from ray_mae.config.sections import (
    DataConfig,
    EncoderSettings,
    MethodSettings,
    Paper,
    multiple,
    require_form,
)
from ray_mae.encoders.vit_settings import VitSettings


@dataclass(frozen=True, kw_only=True)
class SimmimSettings(MethodSettings):
    """SimMIM of X-ray studies (arXiv 2111.09886): mask tokens in the encoder, L1, a linear head."""

    name: Literal["simmim"] = "simmim"
    """The method; others have settings of their own: see `pretrain --method.name NAME --help`."""
    mask_ratio: float = setting(0.6, gt=0, lt=1)
    """Share of the units hidden in each view, rounded up, independently per view; at least one is
    visible."""
    mask_size: int = setting(32, ge=2, le=512)
    """Side of a unit that is hidden as a whole, in pixels; a multiple of encoder.patch_size that divides
    encoder.image_size."""

    kind: ClassVar[str] = "study"
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper(
            "Xie et al.",
            2022,
            "SimMIM: A Simple Framework for Masked Image Modeling",
            "CVPR, arXiv:2111.09886",
        ),
    )
    model: ClassVar[str] = "ray_mae.methods.simmim.model:Simmim"
    losses: ClassVar[Mapping[str, str]] = {"reconstruction": "Hidden pixels"}

    @property
    def described(self) -> str:
        return f"{self.mask_ratio:.0%} masked in units of {self.mask_size} px"

    def default_encoder(self) -> VitSettings:
        return VitSettings()

    def check(self, encoder: EncoderSettings, data: DataConfig) -> None:
        require_form(self, encoder, "tokens")
        vit, unit = cast(VitSettings, encoder), self.mask_size
        image = vit.image_size
        multiple("method.mask_size", unit, "encoder.patch_size", vit.patch_size)
        multiple("encoder.image_size", image, "method.mask_size", unit)
        if image == unit:
            raise ValueError(
                f"method.mask_size ({unit}) must be smaller than encoder.image_size ({image}): one "
                "unit cannot be both hidden and visible"
            )
