"""An encoder and a linear head that are trained together: one code for studies and volumes."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ray_mae.batch import StudyBatch, VolumeBatch
from ray_mae.checkpoint import format as ckpt
from ray_mae.encoders.base import Encoder
from ray_mae.evaluate.supervised.fit import weights_of
from ray_mae.inference.load import AnyEncoder, load_encoder

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
        augment: Any = None,
    ) -> None:
        """labels: names of the outputs; augment: see `embed` of the encoder."""
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
        encoder: Any = self.encoder  # the one that reads this kind of batch
        return encoder.embed(batch, self.augment if self.training else None)

    def save(self, folder: Path) -> None:
        """Write the files that `load_classifier` reads; `load_encoder` reads the encoder's alone."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file(weights_of(self.encoder.encoder), folder / ckpt.ENCODER)
        encoder = self.encoder
        ckpt.write_exported(
            folder, ckpt.EncoderFacts(encoder.settings, encoder.data, encoder.spacing_mm)
        )
        save_file(weights_of(self.head), folder / HEAD)
        facts = {"labels": self.labels, "pool": encoder.pool}
        (folder / CLASSIFIER).write_text(json.dumps(facts, indent=1) + "\n")


def load_classifier(folder: Path | str) -> Classifier:
    """Loads a fine-tuned classifier.

    Args:
        folder: models/START-seedN in the output of `ray-mae evaluate finetune`.

    Returns:
        It, in evaluation mode, on the CPU; `labels` names its outputs.

    Raises:
        FileNotFoundError: where there is none.
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
    encoder: Encoder

    def __call__(self, name: str) -> float:
        """Scale of a parameter's learning rate: decay^(layers between it and the head)."""
        inner = name.removeprefix("encoder.encoder.")
        if inner == name:
            return 1.0
        return self.decay ** (self.encoder.depth + 1 - self.encoder.layer_of(inner))
