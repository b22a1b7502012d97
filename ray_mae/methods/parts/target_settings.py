"""Settings of what is predicted of hidden patches, for methods that have a choice."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self, cast

from ray_mae.config.base import setting
from ray_mae.config.sections import EncoderSettings, MethodSettings, multiple
from ray_mae.encoders.vit_settings import VitSettings


@dataclass(frozen=True, kw_only=True)
class TargetSettings(MethodSettings):
    """What is predicted of hidden patches: pixels alone is the method as its paper has it."""

    target: Literal["pixels", "hog", "features", "teacher"] = "pixels"
    """What is predicted of hidden patches. hog: histograms of gradients (MaskFeat, arXiv 2112.09133).
    features: tokens of a frozen encoder that sees the whole input (MAETok, arXiv 2502.03444). teacher: those
    of a running mean of the encoder itself (data2vec, arXiv 2202.03555; I-JEPA, arXiv 2301.08243)."""
    pixel_weight: float = setting(0.0, ge=0)
    """Weight of the pixels beside another target, whose own is 1; with 0 they are not predicted."""
    hog_cell: int = setting(8, ge=2)
    """hog only: side of a cell, in pixels or voxels; it divides that of a patch."""
    features: Path | None = None
    """features only: the frozen encoder, as a run, a checkpoint, an exported folder or weights of others,
    where every worker can read it. It is no part of the checkpoints, so it has to stay there."""
    teacher_momentum: float = setting(0.996, ge=0, lt=1)
    """teacher only: share of its weights that a step keeps at first; it rises to 1 at the last step."""

    @property
    def predicts_pixels(self) -> bool:
        """Whether pixels are predicted, alone or beside something else."""
        return self.target == "pixels" or self.pixel_weight > 0

    @property
    def frozen_encoder(self) -> Path | None:
        return self.features if self.target == "features" else None

    def resolved(self) -> Self:
        return replace(self, features=self.features and self.features.resolve())

    def target_described(self, pixels: str) -> str:
        """What is predicted, for `described`, with a comma before it where there is something to say.

        pixels: what they are called; "" says nothing of pixels alone.
        """
        if self.target == "pixels":
            return pixels and f", {pixels}"
        what: str = self.target
        if self.frozen_encoder:
            what += f" of {self.frozen_encoder.name}"
        beside = f" and {self.pixel_weight:g} × {pixels or 'pixels'}" if self.pixel_weight else ""
        return f", {what}{beside}"

    def check_target(self, encoder: EncoderSettings) -> None:
        """Raises ValueError, naming settings, where target and encoder do not fit together."""
        if self.target == "pixels":
            return
        if encoder.form != "tokens":
            raise ValueError(
                f"method.target {self.target} is for encoders with tokens, and {encoder.name} gives "
                f"{encoder.form}: take pixels"
            )
        if self.target == "hog":
            patch = cast(VitSettings, encoder).patch_size
            multiple("encoder.patch_size", patch, "method.hog_cell", self.hog_cell)
        if self.target == "features" and self.features is None:
            raise ValueError(
                "method.target features needs method.features: a run, an exported encoder, or weights "
                "of others"
            )
