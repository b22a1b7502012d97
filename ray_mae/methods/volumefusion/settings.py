"""Settings of VolumeFusion."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from ray_mae.config.base import setting
from ray_mae.config.sections import (
    DataConfig,
    EncoderSettings,
    MethodSettings,
    OptimConfig,
    Paper,
    require_form,
)
from ray_mae.encoders.resenc_settings import ResEncSettings
from ray_mae.methods.parts.checks import require_no_film
from ray_mae.methods.parts.recipes import NNSSL_MAPS


@dataclass(frozen=True, kw_only=True)
class VolumefusionSettings(MethodSettings):
    """VolumeFusion (arXiv 2306.16925): a U-Net says of each voxel how two volumes are mixed."""

    name: Literal["volumefusion"] = "volumefusion"
    """The method; others have settings of their own: see `pretrain --method.name NAME --help`."""
    boxes: tuple[int, int] = setting((10, 39), ge=1, le=500, rising=True)
    """Boxes of a volume in which another one is mixed in, fewest and most; later ones lie over earlier."""
    box_least: int = setting(8, ge=1)
    """Shortest side of a box, in voxels."""
    box_most: float = setting(0.625, gt=0, le=1)
    """Longest side of a box over that of the crop."""
    classes: int = setting(5, ge=2, le=20)
    """Of boxes: in one of class k the share k / (classes - 1) is the volume's own, the rest the other one's.
    What is in no box is of class 0."""
    lambda_dice: float = setting(1.0, ge=0)
    """Weight of 1 - soft Dice beside the cross-entropy."""
    intensities: float = setting(1.0, ge=0, le=10)
    """Factor of the shares of volumes whose grey values are changed by noise, blur, brightness, contrast,
    resolution and gamma before they are mixed; 1 is nnssl's, 0 changes none."""

    kinds: ClassVar[tuple[str, ...]] = ("volume",)
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper(
            "Wang et al.",
            2023,
            "Volume Fusion-based Self-Supervised Pretraining for 3D Medical Image Segmentation",
            "arXiv:2306.16925",
        ),
    )
    model: ClassVar[str] = "ray_mae.methods.volumefusion.model:Volumefusion"
    losses: ClassVar[Mapping[str, str]] = {
        "cross_entropy": "Cross-entropy of classes",
        "dice": "1 - soft Dice",
    }

    @property
    def described(self) -> str:
        low, high = self.boxes
        return f"{low} to {high} boxes of another volume in {self.classes} classes"

    @property
    def coupled(self) -> bool:
        return True

    def longest(self, side: int) -> int:
        """Longest side of a box in a crop of a side, in voxels."""
        return int(self.box_most * side)

    def default_encoder(self) -> ResEncSettings:
        return ResEncSettings()

    def default_optim(self, encoder: EncoderSettings) -> OptimConfig:
        """nnssl's."""
        return NNSSL_MAPS

    def check(self, encoder: EncoderSettings, data: DataConfig) -> None:
        require_form(self, encoder, "maps", hides=False)
        if not isinstance(encoder, ResEncSettings):
            raise ValueError(
                f"method.name {self.name} trains a decoder, which encoder.name {encoder.name} has none "
                "of: take resenc"
            )
        require_no_film(self, encoder)
        if self.box_least > self.longest(encoder.crop_size):
            raise ValueError(
                f"method.box_least ({self.box_least}) must be at most method.box_most of encoder.crop_size, "
                f"{self.longest(encoder.crop_size)} voxels"
            )
