"""Settings of SimCLR."""

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
    require_form,
)
from ray_mae.encoders.vit_settings import VitSettings
from ray_mae.methods.parts.checks import require_no_film, require_side
from ray_mae.methods.parts.recipes import NNSSL_MAPS, NNSSL_TOKENS


@dataclass(frozen=True, kw_only=True)
class SimclrSettings(MethodSettings):
    """SimCLR (arXiv 2002.05709): two crops of one input agree, those of different samples differ."""

    name: Literal["simclr"] = "simclr"
    """The method; others have settings of their own: see `pretrain --method.name NAME --help`."""
    temperature: float | None = setting(None, gt=0)
    """Of the softmax over cosines. Default: 0.2 of studies; 0.5 of volumes, as nnssl, for small batches."""
    positives: Literal["crops", "views"] = "crops"
    """Of studies: what a crop is drawn to, the other one of its view or all others of its study."""
    crop_scale: tuple[float, float] = setting((0.2, 1.0), gt=0, le=1, rising=True)
    """Of studies: area of the random square crops over the largest square, in place of data.crop_scale. The
    paper's 0.08 would often lose what is small."""
    crop_side: int = setting(64, ge=8, le=512)
    """Of volumes: side of the crops that the encoder sees, in voxels; an even number. They are taken from
    the crop of encoder.crop_size that is read."""
    pairs: int = setting(2, ge=1, le=64)
    """Of volumes: pairs of crops of each volume. The crops of a pair share at least half of a side along each
    axis."""
    foreground: float = setting(0.25, ge=0, le=1)
    """Of volumes: the least share of voxels brighter than air in the first crop of a pair. The first of eight
    places that has it is taken, or else the fullest; 0 takes any."""
    intensities: float = setting(1.0, ge=0, le=10)
    """Factor of the shares of crops whose grey values are changed by noise, blur, brightness, contrast,
    resolution and gamma, beside what `data` changes; 1 is nnssl's, 0 changes none."""
    projector_width: int = setting(2048, ge=8)
    """Of the projector's hidden layers."""
    projector_output: int | None = setting(None, ge=8)
    """Length of the vectors that are compared. Default: 256 of studies; 2048 of volumes (nnssl)."""

    kinds: ClassVar[tuple[str, ...]] = ("study", "volume")
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper(
            "Chen et al.",
            2020,
            "A Simple Framework for Contrastive Learning of Visual Representations",
            "ICML, arXiv:2002.05709",
        ),
    )
    model: ClassVar[str] = "ray_mae.methods.simclr.model:Simclr"
    losses: ClassVar[Mapping[str, str]] = {"contrast": "Contrast of crops"}

    @property
    def described(self) -> str:
        temperature = f", temperature {self.temperature:g}" if self.temperature else ""
        what = "pairs of crops" if self.positives == "crops" else "all crops of a study"
        return f"{what} drawn together{temperature}"

    @property
    def coupled(self) -> bool:
        return True

    def temperature_of(self, encoder: EncoderSettings) -> float:
        """The temperature for such an encoder."""
        return self.temperature or (0.2 if encoder.kind == "study" else 0.5)

    def output_of(self, encoder: EncoderSettings) -> int:
        """Length of the vectors that are compared, for such an encoder."""
        return self.projector_output or (256 if encoder.kind == "study" else 2048)

    def default_encoder(self) -> VitSettings:
        return VitSettings()

    def default_optim(self, encoder: EncoderSettings) -> OptimConfig:
        """Of studies AdamW as contrastive ViTs are trained; of volumes nnssl's for either form."""
        if encoder.kind == "study":
            return OptimConfig(
                base_lr=5e-4, betas=(0.9, 0.999), clip=3.0, batch_size=512, epochs=300
            )
        if encoder.form == "tokens":
            return replace(NNSSL_TOKENS, micro_batch_size=4)
        return replace(NNSSL_MAPS, clip=0.1, micro_batch_size=4)

    def check(self, encoder: EncoderSettings, data: DataConfig) -> None:
        require_form(self, encoder, hides=False)
        require_no_film(self, encoder)
        if encoder.kind == "study":
            return
        if self.positives == "views":
            raise ValueError(
                "method.positives views is of studies: a volume has one view, so take crops"
            )
        if self.crop_side % 2:
            raise ValueError(
                f"method.crop_side ({self.crop_side}) must be even: pairs share half of it"
            )
        require_side("method.crop_side", self.crop_side, encoder)
