"""Settings of GAN-MAE."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from ray_mae.config.base import setting
from ray_mae.config.sections import DataConfig, EncoderSettings, Paper, require_form
from ray_mae.methods.mae.settings import MaeSettings


@dataclass(frozen=True, kw_only=True)
class GanmaeSettings(MaeSettings):
    """GAN-MAE (Fei et al., CVPR 2023): MAE whose encoder also tells predicted patches from real ones."""

    name: Literal["ganmae"] = "ganmae"  # type: ignore[assignment]
    """The method; others have settings of their own: see `pretrain --method.name NAME --help`."""
    adversarial: float = setting(0.1, ge=0)
    """η: what the gradient of the discriminator's loss is multiplied by, and turned round, where it enters
    the predicted patches; it rises from 0 over the first third of the run. With 0 the encoder still learns
    to tell them apart, and the decoder is that of MAE."""
    label_smoothing: float = setting(0.1, ge=0, lt=1)
    """Share of the label of a patch, real or predicted, that is made even."""

    papers: ClassVar[tuple[Paper, ...]] = (
        Paper(
            "Fei et al.",
            2023,
            "Masked Auto-Encoders Meet Generative Adversarial Networks and Beyond",
            "CVPR",
        ),
        *MaeSettings.papers,
    )
    model: ClassVar[str] = "ray_mae.methods.ganmae.model:GanMae"
    losses: ClassVar[Mapping[str, str]] = {
        **MaeSettings.losses,
        "discriminator": "Real or predicted",
    }
    shown: ClassVar[tuple[str, ...]] = ("discriminator_accuracy",)

    @property
    def described(self) -> str:
        return f"{super().described}, η {self.adversarial:g}"

    def check(self, encoder: EncoderSettings, data: DataConfig) -> None:
        require_form(self, encoder, "tokens")
        super().check(encoder, data)
        if self.target != "pixels":
            raise ValueError(
                f"method.target must be pixels with method.name {self.name}, whose encoder judges them"
            )
        if self.decode_share < 1:
            raise ValueError(
                f"method.decode_share must be 1 with method.name {self.name}, which judges every hidden "
                f"patch, got {self.decode_share:g}"
            )
