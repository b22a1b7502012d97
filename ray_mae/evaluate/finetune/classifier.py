"""An encoder and a linear head that are trained together: one code for studies and volumes."""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ray_mae.batch import StudyBatch, VolumeBatch, mean_per_study
from ray_mae.checkpoint import format as ckpt
from ray_mae.config import MdaeConfig, MvmaeConfig
from ray_mae.evaluate.supervised.fit import weights_of
from ray_mae.inference.studies import AnyEncoder, FrozenEncoder, load_encoder
from ray_mae.transforms.images import Augmentation, whole
from ray_mae.transforms.volumes import VolumeAugmentation, clean

HEAD, CLASSIFIER = "head.safetensors", "classifier.json"

AnyBatch = StudyBatch | VolumeBatch


class Classifier(nn.Module):
    """Encoder → dropout → one linear layer, shared by all views of a study.

    A study's logits are the mean of its views' logits (late fusion): for a linear head they are the
    logits of the mean of the views' vectors.
    """

    def __init__(
        self,
        encoder: AnyEncoder,
        labels: list[str],
        *,
        dropout: float = 0.0,
        augment: Augmentation | VolumeAugmentation | None = None,
    ) -> None:
        """labels: names of the outputs."""
        super().__init__()
        self.encoder, self.labels = encoder, labels
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(encoder.width, len(labels))
        nn.init.zeros_(self.head.bias)
        self.augment = augment

    def forward(self, batch: AnyBatch) -> Tensor:
        """Logits [S, L] float32; in training mode of augmented images."""
        features = self.features(batch)
        return self.head(self.dropout(features)).float()

    def features(self, batch: AnyBatch) -> Tensor:
        """[S, D] of each study or volume."""
        augment = self.augment if self.training else None
        if isinstance(batch, VolumeBatch):
            x, _ = augment(batch) if isinstance(augment, VolumeAugmentation) else clean(batch)
            return self.encoder.encoder(x)
        assert isinstance(self.encoder, FrozenEncoder)
        size = self.encoder.config.image_size
        images = augment(batch, size) if isinstance(augment, Augmentation) else whole(batch, size)
        return mean_per_study(self.encoder(images, batch.view), batch.study, batch.samples)

    def save(self, folder: Path) -> None:
        """Write the files that `load_classifier` reads; `load_encoder` reads the encoder's alone."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file(weights_of(self.encoder.encoder), folder / ckpt.ENCODER)
        ckpt.write_exported(folder, self.encoder.config, self.encoder.spacing_mm)
        save_file(weights_of(self.head), folder / HEAD)
        pool = self.encoder.pool if isinstance(self.encoder, FrozenEncoder) else "mean"
        (folder / CLASSIFIER).write_text(
            json.dumps({"labels": self.labels, "pool": pool}, indent=1) + "\n"
        )


def load_classifier(folder: Path | str) -> Classifier:
    """A fine-tuned classifier, in evaluation mode, on the CPU; `labels` names its outputs.

    folder: models/START-seedN in the output of `ray-mae evaluate finetune`. Raises FileNotFoundError.
    """
    path = Path(folder) / CLASSIFIER
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: give a folder below models/ in the --output folder of "
            "`ray-mae evaluate finetune`"
        )
    facts = json.loads(path.read_text())
    encoder, _ = load_encoder(folder, facts["pool"])
    model = Classifier(encoder, facts["labels"])
    model.head.load_state_dict(load_file(Path(folder) / HEAD))
    return model.eval()


def augmentation_of(config: MvmaeConfig | MdaeConfig) -> Augmentation | VolumeAugmentation:
    """As in pretraining; of studies with its default settings."""
    if isinstance(config, MdaeConfig):
        return VolumeAugmentation(
            config.mirror, config.rotate_share, config.scale_share, config.scale_range
        )
    return Augmentation()


def bce(logits: Tensor, target: Tensor, smoothing: float = 0.0) -> Tensor:
    """Binary cross-entropy [S] of logits [S, L], a mean over the known targets of each sample.

    target: [S, L] in [0, 1], NaN where unknown. A sample of which nothing is known gives 0.
    smoothing: targets are drawn to 0.5 by this share.
    """
    known = ~target.isnan()
    y = torch.where(known, target, 0.0)
    y = y * (1 - smoothing) + 0.5 * smoothing
    each = F.binary_cross_entropy_with_logits(logits, y, reduction="none") * known
    return each.sum(dim=1) / known.sum(dim=1).clamp(min=1)


@dataclass(frozen=True)
class LayerDecay:
    """Learning rates that fall from the head towards the input (Clark et al. 2020, BEiT)."""

    decay: float
    depth: int
    """Blocks of a ViT, or stages of a U-Net's encoder."""

    def __call__(self, name: str) -> float:
        """Scale of a parameter's learning rate: decay^(layers between it and the head)."""
        if not name.startswith("encoder."):
            return 1.0
        inner = re.search(r"\b(?:blocks|stages|film)\.(\d+)\.", name)
        first = any(f".{part}" in name for part in _FIRST)
        layer = int(inner[1]) + 1 if inner else 0 if first else self.depth + 1
        return self.decay ** (self.depth + 1 - layer)


_FIRST = ("patch.", "cls", "position", "view", "stem.", "time.")
"""What comes before the blocks; what else lies outside them, the last norm, comes after."""


def layer_decay_of(encoder: AnyEncoder, decay: float) -> LayerDecay:
    """For the encoder's depth."""
    if isinstance(encoder, FrozenEncoder):
        return LayerDecay(decay, len(encoder.encoder.body.blocks))
    return LayerDecay(decay, len(encoder.encoder.channels))


def with_crop(config: MvmaeConfig | MdaeConfig, crop_size: int | None) -> MvmaeConfig | MdaeConfig:
    """The method's settings with another crop. Raises ValueError where it does not fit."""
    if crop_size is None:
        return config
    if not isinstance(config, MdaeConfig):
        raise ValueError("crop_size is for volumes: images have the size of their pretraining")
    from ray_mae.encoders.resenc_settings import PRESETS

    stride = PRESETS[config.preset].stride
    if crop_size % stride or crop_size < 2 * stride:
        raise ValueError(
            f"crop_size must be a multiple of {stride}, the stride of preset {config.preset}, and at "
            f"least {2 * stride}, got {crop_size}"
        )
    return replace(config, crop_size=crop_size)
