"""Settings of SimMIM for volumes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, cast

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


@dataclass(frozen=True, kw_only=True)
class Simmim3dSettings(MethodSettings):
    """SimMIM of volumes (arXiv 2111.09886): a learnt value in hidden blocks, L1, a linear head."""

    name: Literal["simmim3d"] = "simmim3d"
    """The method; others have settings of their own: see `pretrain --method.name NAME --help`."""
    mask_ratio: float = setting(0.6, gt=0, lt=1)
    """Share of the blocks hidden in each crop, rounded down; at least one is hidden and one visible."""
    block_size: int = setting(16, ge=1, le=64)
    """Side of a hidden block, in voxels; divides encoder.crop_size."""

    kind: ClassVar[str] = "volume"
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper(
            "Xie et al.",
            2022,
            "SimMIM: A Simple Framework for Masked Image Modeling",
            "CVPR, arXiv:2111.09886",
        ),
    )
    model: ClassVar[str] = "ray_mae.methods.simmim3d.model:Simmim3d"
    losses: ClassVar[Mapping[str, str]] = {"reconstruction": "Hidden voxels"}

    @property
    def described(self) -> str:
        return f"{self.mask_ratio:.0%} masked in blocks of {self.block_size}³"

    def default_encoder(self) -> ResEncSettings:
        return ResEncSettings()

    def default_optim(self) -> OptimConfig:
        """Batch and length of MDAE; the rate is absolute, since base_lr is for batches of hundreds."""
        return OptimConfig(lr=3e-4, batch_size=32, micro_batch_size=2, steps=250_000)

    def check(self, encoder: EncoderSettings, data: DataConfig) -> None:
        require_form(self, encoder, "maps")
        if cast(ResEncSettings, encoder).film:
            raise ValueError(
                f"encoder.film must be false with method.name {self.name}, which has no noise level"
            )
        crop, block = encoder.input_size, self.block_size
        multiple("encoder.crop_size", crop, "method.block_size", block)
        if crop == block:
            raise ValueError(
                f"method.block_size ({block}) must be smaller than encoder.crop_size ({crop}): one "
                "block cannot be both hidden and visible"
            )
