"""Settings of Primus, a transformer of volumes, and the sizes that follow. Needs no PyTorch."""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

from ray_mae.config.base import setting
from ray_mae.config.sections import EncoderSettings, multiple
from ray_mae.encoders.vit_settings import Shape

MLP_RATIO = 8 / 3
"""Of Primus: its gated MLP has as many weights as a plain one of ratio 4."""

PRESETS: dict[str, Shape] = {
    "tiny": Shape(192, 6, 4, MLP_RATIO),
    "S": Shape(396, 12, 6, MLP_RATIO),
    "B": Shape(792, 12, 12, MLP_RATIO),
    "M": Shape(864, 16, 12, MLP_RATIO),
    "L": Shape(1056, 24, 16, MLP_RATIO),
}
"""All but tiny are those of the paper."""

LAYER_SCALE = 0.1
"""Of the branches of its blocks, at first."""
AXES, PAIR = 3, 2
"""Of a volume; channels that a rotary position turns together."""


@dataclass(frozen=True, kw_only=True)
class PrimusSettings(EncoderSettings):
    """Primus (Wald et al. 2025, arXiv 2503.01835): a transformer of volumes with one channel."""

    name: Literal["primus"] = "primus"
    """The encoder; others have settings of their own: see `pretrain --encoder.name NAME --help`."""
    preset: Literal["tiny", "S", "B", "M", "L"] = "M"
    """Width, depth and heads; OpenMind's is M."""
    crop_size: int = setting(160, ge=16, le=512)
    """Side of the random crop, in voxels; a multiple of patch_size, at least twice that."""
    patch_size: int = setting(8, ge=2, le=32)
    """Side of a patch, in voxels, a power of two: 8 as published, 16 for an eighth of the tokens."""
    width: int | None = setting(None, ge=12)
    """Width of a token; default from the preset."""
    depth: int | None = setting(None, ge=1)
    """Blocks; default from the preset."""
    heads: int | None = setting(None, ge=1)
    """Attention heads; default from the preset. Width over heads is a multiple of 6."""
    plain: bool = False
    """The blocks of a plain ViT (Dosovitskiy et al. 2021) in the place of Primus': no rotary positions, no
    gated MLP, no norms within attention and MLP, no layer scale."""
    drop_path: float = setting(0.2, ge=0, lt=1)
    """In pretraining: share of the samples that pass the last block's branches by, falling to 0 at the first
    block (Huang et al. 2016); nnssl has 0.2."""

    dimensions: ClassVar[int] = 3
    form: ClassVar[str] = "tokens"
    attends: ClassVar[bool] = True
    network: ClassVar[str] = "ray_mae.encoders.primus:Primus"
    exports: ClassVar[tuple[str, ...]] = ("nnunet",)
    segmentation: ClassVar[str | None] = "ray_mae.encoders.primus:encoder_and_decoder"

    @property
    def shape(self) -> Shape:
        """The preset's, with single values overridden."""
        shape = PRESETS[self.preset].override(self.width, self.depth, self.heads)
        return replace(shape, mlp_ratio=4.0) if self.plain else shape

    @property
    def side(self) -> int:
        """Patches along each axis."""
        return self.crop_size // self.patch_size

    @property
    def input_size(self) -> int:
        return self.crop_size

    @property
    def layers(self) -> int:
        return self.shape.depth

    @property
    def described(self) -> str:
        shape, size = self.shape, str(self.preset)
        if shape != replace(PRESETS[size], mlp_ratio=shape.mlp_ratio):
            size = f"of width {shape.width}, depth {shape.depth}, heads {shape.heads}"
        plain = " with a plain ViT's blocks" if self.plain else ""
        return f"primus {size}{plain}, crops of {self.crop_size}³, patches of {self.patch_size}³"

    def check(self) -> None:
        shape, patch = self.shape, self.patch_size
        multiple("encoder.crop_size", self.crop_size, "encoder.patch_size", patch)
        if self.crop_size == patch:
            raise ValueError(
                f"encoder.crop_size ({patch}) must be at least twice encoder.patch_size: one token has no "
                "other to attend to"
            )
        if patch & (patch - 1):
            raise ValueError(
                f"encoder.patch_size ({patch}) must be a power of two: a segmentation doubles its way up"
            )
        multiple("encoder.width", shape.width, "encoder.heads", shape.heads)
        if not self.plain:  # each axis turns pairs of a third of a head's channels
            multiple(
                "encoder.width / encoder.heads",
                shape.width // shape.heads,
                f"{AXES * PAIR} (rotary positions of three axes)",
                AXES * PAIR,
            )

    def resized(self, size: int | None) -> Self:
        if size is None:
            return self
        other = replace(self, crop_size=size)
        other.check()
        return other
