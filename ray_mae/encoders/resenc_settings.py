"""Settings of nnU-Net's residual encoder, and the sizes that follow. Needs no PyTorch."""

from dataclasses import dataclass, replace
from math import prod
from typing import ClassVar, Literal, Self

from ray_mae.config.base import setting
from ray_mae.config.sections import EncoderSettings


@dataclass(frozen=True)
class Stages:
    """The resolution stages of a residual-encoder U-Net, the finest first."""

    features: tuple[int, ...]
    """Channels."""
    blocks: tuple[int, ...]
    """Residual blocks of the encoder."""
    strides: tuple[int, ...]

    @property
    def stride(self) -> int:
        """Voxels per side of one voxel of the last stage."""
        return prod(self.strides)


_HALVING = (1, 2, 2, 2, 2, 2)

PRESETS: dict[str, Stages] = {
    # two blocks in the last stages: after a single one the instance norm leaves no mean to pool
    "tiny": Stages((8, 16, 32, 64), (1, 1, 2, 2), (1, 2, 2, 2)),
    "base": Stages((16, 32, 64, 128, 160, 160), (1, 3, 4, 6, 6, 6), _HALVING),
    "large": Stages((32, 64, 128, 256, 320, 320), (1, 3, 4, 6, 6, 6), _HALVING),
}
"""large: nnU-Net's ResEnc-L as pretrained by nnssl; base: the same at half its width."""


@dataclass(frozen=True, kw_only=True)
class ResEncSettings(EncoderSettings):
    """Residual encoder of nnU-Net's U-Net (Isensee et al. 2024), of volumes with one channel."""

    name: Literal["resenc"] = "resenc"
    """The encoder; others have settings of their own: see `pretrain --encoder.name NAME --help`."""
    preset: Literal["tiny", "base", "large"] = "large"
    """Stages; large is nnU-Net's ResEnc-L."""
    crop_size: int = setting(160, ge=16, le=512)
    """Side of the random crop, in voxels; a multiple of the network's stride, at least twice that."""
    film: bool = False
    """Tell the network a noise level by FiLM, where the method has one; False leaves it to guess."""

    dimensions: ClassVar[int] = 3
    form: ClassVar[str] = "maps"
    network: ClassVar[str] = "ray_mae.encoders.resenc:ResEnc"
    changeable: ClassVar[tuple[str, ...]] = ("crop_size", "film")
    exports: ClassVar[tuple[str, ...]] = ("nnunet", "monai")
    segmentation: ClassVar[str | None] = "ray_mae.encoders.resenc:encoder_and_decoder"

    @property
    def stages(self) -> Stages:
        """The preset's."""
        return PRESETS[self.preset]

    @property
    def input_size(self) -> int:
        return self.crop_size

    @property
    def layers(self) -> int:
        return len(self.stages.features)

    @property
    def described(self) -> str:
        return f"resenc {self.preset}, crops of {self.crop_size}³"

    def check(self) -> None:
        stride = self.stages.stride
        # instance norm has no variance of one voxel
        if self.crop_size % stride or self.crop_size < 2 * stride:
            raise ValueError(
                f"crop_size ({self.crop_size}) must be a multiple of {stride}, the stride of "
                f"encoder.preset {self.preset}, and at least {2 * stride}"
            )

    def resized(self, size: int | None) -> Self:
        if size is None:
            return self
        other = replace(self, crop_size=size)
        other.check()
        return other

    def without_film(self) -> Self:
        return replace(self, film=False)
