"""Settings of ConvNeXt V2, and the sizes that follow. Needs no PyTorch."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from ray_mae.config.base import setting
from ray_mae.config.sections import EncoderSettings, multiple

STRIDE = 32
"""Pixels per side of a point of the last map: a stem of 4, then three times 2."""
STAGES = 4

PRESETS: dict[str, tuple[int, tuple[int, ...]]] = {
    "atto": (40, (2, 2, 6, 2)),
    "femto": (48, (2, 2, 6, 2)),
    "pico": (64, (2, 2, 6, 2)),
    "nano": (80, (2, 2, 8, 2)),
    "tiny": (96, (3, 3, 9, 3)),
    "base": (128, (3, 3, 27, 3)),
    "large": (192, (3, 3, 27, 3)),
}
"""Channels of the first stage, of which each next one has twice as many, and blocks of each stage."""


@dataclass(frozen=True, kw_only=True)
class ConvNextV2Settings(EncoderSettings):
    """ConvNeXt V2 (Woo et al. 2023, arXiv 2301.00808) of grey images; it is not told their view."""

    name: Literal["convnextv2"] = "convnextv2"
    """The encoder; others have settings of their own: see `pretrain --encoder.name NAME --help`."""
    preset: Literal["atto", "femto", "pico", "nano", "tiny", "base", "large"] = "tiny"
    """Channels and blocks of the stages."""
    image_size: int = setting(224, ge=64, le=2048)
    """Side of the square crop the encoder sees, in pixels; a multiple of 32, at least twice that."""
    width: int | None = setting(None, ge=4)
    """Channels of the first stage, of which each next one has twice as many; default from the preset."""
    norm: Literal["points", "pooled"] = "points"
    """Where the last norm stands: before the mean over the points of the last map, as in a Vision
    Transformer, so that pretraining trains it; or after that mean, as in the authors' classifiers."""

    dimensions: ClassVar[int] = 2
    form: ClassVar[str] = "maps"
    network: ClassVar[str] = "ray_mae.encoders.convnextv2:ConvNextV2"
    changeable: ClassVar[tuple[str, ...]] = ("image_size", "norm")
    exports: ClassVar[tuple[str, ...]] = ("timm",)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each stage, the finest first."""
        first = self.width or PRESETS[self.preset][0]
        return tuple(first * 2**stage for stage in range(STAGES))

    @property
    def blocks(self) -> tuple[int, ...]:
        """Of each stage."""
        return PRESETS[self.preset][1]

    @property
    def input_size(self) -> int:
        return self.image_size

    @property
    def layers(self) -> int:
        return STAGES

    @property
    def why_not_pretrained(self) -> str:
        if self.norm == "points":
            return ""
        return "encoder.norm pooled is for evaluation: no pretraining would train that norm, take points"

    @property
    def default_pool(self) -> str:
        return "mean" if self.norm == "points" else "cls"

    @property
    def described(self) -> str:
        width = f" of width {self.width}" if self.width else ""
        return f"convnextv2 {self.preset}{width}, {self.image_size} px"

    def check(self) -> None:
        multiple("encoder.image_size", self.image_size, f"{STRIDE}, the encoder's stride", STRIDE)
