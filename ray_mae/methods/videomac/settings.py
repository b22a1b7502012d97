"""Settings of VideoMAC."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from ray_mae.config.base import setting
from ray_mae.config.sections import DataConfig, EncoderSettings, Paper, require_form
from ray_mae.encoders.resenc_settings import ResEncSettings
from ray_mae.methods.mae.settings import MaeSettings


@dataclass(frozen=True, kw_only=True)
class VideomacSettings(MaeSettings):
    """VideoMAC (arXiv 2402.19082): MAE of a network that convolves, which agrees with the teacher's of a slab
    a few slices away."""

    name: Literal["videomac"] = "videomac"  # type: ignore[assignment]
    """The method; others have settings of their own: see `pretrain --method.name NAME --help`."""
    gamma: float = setting(1.0, ge=0)
    """Weight of the consistency; 0 is `mae`, to the bit, without a teacher."""
    most_slices: int = setting(3, ge=1, le=16)
    """How many slices the neighbour is away along the axis from foot to head, at most; 1 to so many, at
    random."""
    symmetric: bool = False
    """Also the other way round, each with half the weight, at twice the cost; the paper goes one way."""
    momentum: float = setting(0.996, ge=0, le=1)
    """Of the teacher at the start; it rises to 1 by half a cosine over the run."""

    kinds: ClassVar[tuple[str, ...]] = ("volume",)
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper(
            "Pei et al.",
            2024,
            "VideoMAC: Video Masked Autoencoders Meet ConvNets",
            "CVPR, arXiv:2402.19082",
        ),
    )
    model: ClassVar[str] = "ray_mae.methods.videomac.model:Videomac"
    losses: ClassVar[Mapping[str, str]] = {
        "reconstruction": "Hidden patches",
        "consistency": "Agreement with the teacher's neighbour",
    }

    @property
    def described(self) -> str:
        way = ", both ways" if self.symmetric else ""
        return f"{super().described}, γ {self.gamma:g} of slabs up to {self.most_slices} slices away{way}"

    def default_encoder(self) -> ResEncSettings:  # type: ignore[override]
        return ResEncSettings()

    def model_of(self, encoder: EncoderSettings) -> str:
        return self.model

    def check(self, encoder: EncoderSettings, data: DataConfig) -> None:
        require_form(self, encoder, "maps")
        super().check(encoder, data)
