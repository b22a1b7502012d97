"""Settings of supervised pretraining."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from ray_mae.config.base import setting
from ray_mae.config.chexpert import CHEXPERT_LABELS
from ray_mae.config.sections import (
    DataConfig,
    EncoderSettings,
    LabelTargets,
    MethodSettings,
    OptimConfig,
    Paper,
    require_form,
)
from ray_mae.encoders.vit_settings import VitSettings
from ray_mae.methods.parts.checks import require_no_film

CHEXPERT = CHEXPERT_LABELS[1:]
"""The labels of studies where none are named: CheXpert's, without "No Finding", which follows from them."""


@dataclass(frozen=True, kw_only=True)
class SupervisedSettings(MethodSettings):
    """Labels of training patients, by one linear layer: mostly a later stage (arXiv 2303.13496)."""

    name: Literal["supervised"] = "supervised"
    """The method; others have settings of their own: see `pretrain --method.name NAME --help`."""
    labels: list[str] | None = field(default=None, metadata={"some": True})
    """Names of the labels. Of studies also names in other_labels, by default CheXpert's; of volumes they must
    be given, and NAME=VALUE is one value of a label against its others."""
    uncertain: Literal["zeros", "ones", "ignore"] = "ignore"
    """What an uncertain label of a study counts as; ignored it has no loss."""
    unmentioned: Literal["zeros", "ignore"] = "zeros"
    """What a label counts as that is not mentioned in a study; as of `evaluate probe`."""
    positive_most: float = setting(20.0, ge=1)
    """Limit of the weight of a label's positives, which is negatives over positives of the training split
    and at least 1; 1 weighs all alike."""
    pool: Literal["mean", "cls"] = "mean"
    """Of encoders with tokens: what the layer sees of a view, the mean over patches or the class token."""

    kinds: ClassVar[tuple[str, ...]] = ("study", "volume")
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper(
            "Singh et al.",
            2023,
            "The effectiveness of MAE pre-pretraining for billion-scale pretraining",
            "ICCV, arXiv:2303.13496",
        ),
    )
    model: ClassVar[str] = "ray_mae.methods.supervised.model:Supervised"
    losses: ClassVar[Mapping[str, str]] = {"labels": "Labels"}

    @property
    def names(self) -> tuple[str, ...]:
        """Of the L labels."""
        return CHEXPERT if self.labels is None else tuple(self.labels)

    @property
    def described(self) -> str:
        return (
            f"{len(self.names)} labels, uncertain {self.uncertain}, unmentioned {self.unmentioned}"
        )

    @property
    def targets(self) -> LabelTargets:
        return LabelTargets(
            self.names,
            self.uncertain,
            self.unmentioned,
            self.positive_most,
            named=self.labels is not None,
        )

    @property
    def label_uses(self) -> tuple[str, ...]:
        return (f"the loss itself, of {', '.join(self.names)} (method.name {self.name})",)

    def default_encoder(self) -> VitSettings:
        return VitSettings()

    def default_optim(self, encoder: EncoderSettings) -> OptimConfig:
        """Of a stage after another: a fifth of the rate, falling towards the input."""
        optim = OptimConfig(
            base_lr=3e-5, epochs=50, warmup=0.05, layer_decay=0.75, betas=(0.9, 0.999)
        )
        if encoder.kind == "study":
            return optim
        return replace(optim, lr=6e-5, batch_size=32, micro_batch_size=2, steps=50_000)

    def check(self, encoder: EncoderSettings, data: DataConfig) -> None:
        require_form(self, encoder)
        require_no_film(self, encoder)
        if self.labels is None and encoder.kind == "volume":
            raise ValueError("method.labels must name the labels of volumes that are learnt")
        if len({*self.names}) < len(self.names):
            raise ValueError(f"method.labels names a label twice: {', '.join(self.names)}")
        if self.pool == "cls" and encoder.form != "tokens":
            raise ValueError(f"method.pool cls: encoder.name {encoder.name} has no class token")
