"""Settings of VoCo."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from ray_mae.config.base import setting
from ray_mae.config.sections import (
    DataConfig,
    EncoderSettings,
    MethodSettings,
    OptimConfig,
    Paper,
    multiple,
    require_form,
)
from ray_mae.encoders.resenc_settings import ResEncSettings
from ray_mae.methods.parts.checks import require_no_film, require_side
from ray_mae.methods.parts.recipes import NNSSL_MAPS


@dataclass(frozen=True, kw_only=True)
class VocoSettings(MethodSettings):
    """VoCo (arXiv 2402.17300): a crop's likeness to parts of its volume says how it overlaps them."""

    name: Literal["voco"] = "voco"
    """The method; others have settings of their own: see `pretrain --method.name NAME --help`."""
    grid: int = setting(2, ge=2, le=8)
    """Base crops along each axis: they tile the crop of encoder.crop_size that is read, so that their side is
    crop_size / grid."""
    target_crops: int = setting(4, ge=1, le=64)
    """Crops at random places whose overlap with the base crops is told."""
    lambda_regularisation: float = setting(1.0, ge=0)
    """Weight of the term that keeps the base crops of a volume apart."""
    intensities: float = setting(1.0, ge=0, le=10)
    """Factor of the shares of crops whose grey values are changed by noise, blur, brightness, contrast,
    resolution and gamma; 1 is nnssl's, 0 changes none."""
    projector_width: int = setting(2048, ge=8)
    """Of the projector's hidden layers."""
    projector_output: int = setting(2048, ge=8)
    """Length of the vectors that are compared."""

    kinds: ClassVar[tuple[str, ...]] = ("volume",)
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper(
            "Wu et al.",
            2024,
            "VoCo: A Simple-yet-Effective Volume Contrastive Learning Framework for 3D Medical Image "
            "Analysis",
            "CVPR, arXiv:2402.17300",
        ),
    )
    model: ClassVar[str] = "ray_mae.methods.voco.model:Voco"
    losses: ClassVar[Mapping[str, str]] = {
        "overlap": "Overlap with base crops",
        "apart": "Likeness without overlap",
        "regularisation": "Likeness of base crops",
    }

    @property
    def described(self) -> str:
        return f"{self.target_crops} crops placed among {self.grid}³ base crops"

    def side(self, encoder: EncoderSettings) -> int:
        """Of a crop, in voxels."""
        return encoder.input_size // self.grid

    def default_encoder(self) -> ResEncSettings:
        return ResEncSettings(crop_size=128)

    def default_optim(self, encoder: EncoderSettings) -> OptimConfig:
        """Of maps nnssl's; of tokens the authors' of a SwinUNETR."""
        if encoder.form == "maps":
            return replace(NNSSL_MAPS, clip=0.0, micro_batch_size=4)
        return OptimConfig(
            lr=1e-4,
            betas=(0.9, 0.999),
            weight_decay=0.1,
            warmup=0.02,
            batch_size=32,
            micro_batch_size=4,
            steps=250_000,
        )

    def check(self, encoder: EncoderSettings, data: DataConfig) -> None:
        require_form(self, encoder, hides=False)
        require_no_film(self, encoder)
        multiple("encoder.crop_size", encoder.input_size, "method.grid", self.grid)
        require_side("encoder.crop_size / method.grid", self.side(encoder), encoder)
