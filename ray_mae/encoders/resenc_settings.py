"""Sizes of the U-Nets of volumes, from settings, and whether they fit together. Needs no PyTorch."""

from dataclasses import dataclass
from math import prod

from ray_mae.config import MdaeConfig
from ray_mae.encoders.vit_settings import multiple


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


def stages_of(config: MdaeConfig) -> Stages:
    """The preset's stages. Raises ValueError that names the settings which do not fit together."""
    stages = PRESETS[config.preset]
    crop, block = config.crop_size, config.block_size
    multiple("crop_size", crop, "block_size", block)
    multiple(
        "crop_size", crop, f"{stages.stride} (the stride of preset {config.preset})", stages.stride
    )
    if crop < 2 * stages.stride:  # instance norm has no variance of one voxel
        raise ValueError(
            f"method.crop_size ({crop}) must be at least {2 * stages.stride}, twice the stride of "
            f"method.preset {config.preset}"
        )
    if crop == block:
        raise ValueError(
            f"method.block_size ({block}) must be smaller than method.crop_size ({crop}): one block "
            "cannot be both hidden and visible"
        )
    if config.noise != "ve" and config.sigma_max > 1:
        raise ValueError(
            f"method.sigma_max ({config.sigma_max:g}) must be at most 1 with method.noise "
            f"{config.noise}: it is the largest share of noise"
        )
    low, high = config.mask_ratio
    if (config.lambda_masked == 0 or high == 0) and (config.lambda_visible == 0 or low == 1):
        raise ValueError(
            "method.lambda_masked, method.lambda_visible and method.mask_ratio leave nothing to learn"
        )
    return stages
