"""An encoder and a linear head that are trained together: one code for studies and volumes."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load_file, save
from torch import Tensor, nn

from ray_mae.batch import StudyBatch, VolumeBatch, mean_per_study
from ray_mae.checkpoint import format as ckpt
from ray_mae.config.urls import opened
from ray_mae.data.kinds import KINDS
from ray_mae.data.letterbox import flatten
from ray_mae.data.loading.volume_collator import crop_slices
from ray_mae.data.schema import VIEWS
from ray_mae.data.shard_set import ShardSet
from ray_mae.encoders.base import Encoder
from ray_mae.evaluate.metrics import FloatArray
from ray_mae.evaluate.supervised.fit import weights_of
from ray_mae.files import write_whole
from ray_mae.inference.load import AnyEncoder, load_encoder
from ray_mae.store import fetch

if TYPE_CHECKING:
    from ray_mae.inference.studies import FrozenStudyEncoder

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
        return self._logits(self.dropout(self.features(batch)))

    def fused_and_views(self, batch: AnyBatch) -> tuple[Tensor, Tensor]:
        """Logits [S, L] of each study and [N, L] of each view; of volumes the same twice."""
        if not isinstance(batch, StudyBatch):
            logits = self(batch)
            return logits, logits
        encoder = cast("FrozenStudyEncoder", self.encoder)
        of_views = self._logits(encoder.views(batch))
        return mean_per_study(of_views, batch.study, batch.samples), of_views

    def _logits(self, features: Tensor) -> Tensor:
        """The head in float32, also where the encoder runs in bf16: that knows few different logits, and
        ties do not rank."""
        with torch.autocast(features.device.type, enabled=False):
            logits: Tensor = self.head(features.float())
        return logits

    def features(self, batch: AnyBatch) -> Tensor:
        """[S, D] of each study or volume."""
        encoder: Any = self.encoder  # the one that reads this kind of batch
        return encoder.embed(batch, self.augment if self.training else None)

    def save(self, folder: Path, shards: ShardSet) -> None:
        """Write the files that `load_classifier` reads; `load_encoder` reads the encoder's alone.

        shards: that it learned from: new samples are to be stored as theirs are.
        """
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / ckpt.ENCODER, save(weights_of(self.encoder.encoder)))
        encoder = self.encoder
        ckpt.write_exported(
            folder,
            ckpt.EncoderFacts(encoder.settings, encoder.data, shards.spacing_mm, shards.form),
        )
        write_whole(folder / HEAD, save(weights_of(self.head)))
        facts = {"labels": self.labels, "pool": encoder.pool}
        write_whole(folder / CLASSIFIER, json.dumps(facts, indent=1) + "\n")


class FinetunedClassifier:
    """A fine-tuned classifier for use: decoded images or volumes in, probabilities out.

    Args:
        model: in evaluation mode; to move it to a GPU, `classifier.model.to("cuda")`.
        decoding: settings under which files become such images or volumes as it was trained on:
            `decode_image(path, **classifier.decoding)`, or `decode_volume`.
    """

    def __init__(self, model: Classifier, decoding: dict[str, Any]) -> None:
        self.model, self.decoding = model, decoding

    @property
    def labels(self) -> list[str]:
        """Names of the L outputs."""
        return self.model.labels

    def __call__(
        self, images: Sequence[NDArray] | NDArray, views: Sequence[str] | None = None
    ) -> FloatArray:
        """Returns the probability of each label in each image or volume.

        Args:
            images: N of them, or one. Images are grey uint8 [H, W] as of `decode_image`, of any size; volumes
                z-scores [X, Y, Z] as of `decode_volume`, of which the middle is seen.
            views: of images: frontal, lateral or unknown (the default).

        Returns:
            [N, L], or [L] for one.

        Raises:
            ValueError: something is no such image or view.
        """
        if isinstance(images, np.ndarray) and images.ndim == self._dimensions:
            return self([images], views)[0]
        return self._probabilities(list(images), views)[1]

    def study(self, images: Sequence[NDArray], views: Sequence[str] | None = None) -> FloatArray:
        """Returns the probability [L] of each label in a study, by late fusion as in `evaluate finetune`.

        Args:
            images: its views, as of the call.
            views: frontal, lateral or unknown for each.
        """
        return self._probabilities(list(images), views)[0][0]

    @property
    def _dimensions(self) -> int:
        return self.model.encoder.settings.dimensions

    def _probabilities(
        self, images: list[NDArray], views: Sequence[str] | None
    ) -> tuple[FloatArray, FloatArray]:
        """Of all images as one study, [1, L], and of each, [N, L]."""
        self._check(images)
        batch = self._volumes(images) if self._dimensions == 3 else self._study(images, views)
        batch = batch.to(next(self.model.parameters()).device)
        with torch.inference_mode():
            whole, each = self.model.fused_and_views(batch)
        return tuple(x.double().sigmoid().cpu().numpy() for x in (whole, each))  # type: ignore[return-value]

    def _check(self, images: list[NDArray]) -> None:
        kind = np.uint8 if self._dimensions == 2 else np.floating
        axes = "[H, W]" if self._dimensions == 2 else "[X, Y, Z]"
        if not images:
            raise ValueError("there is no image")
        for image in images:
            if image.ndim != self._dimensions or not np.issubdtype(image.dtype, kind):
                raise ValueError(
                    f"an array {axes} of {kind.__name__} is wanted, got {image.dtype} {list(image.shape)}"
                )

    def _study(self, images: list[NDArray], views: Sequence[str] | None) -> StudyBatch:
        names = ["unknown"] * len(images) if views is None else list(views)
        if len(names) != len(images) or not {*names} <= {*VIEWS}:
            raise ValueError(
                f"views must be one of {', '.join(VIEWS)} for each of {len(images)} images, got {names}"
            )
        pixels, shape = flatten(images)
        arrays: dict[str, NDArray] = {
            "pixels": pixels,
            "shape": shape,
            "study": np.zeros(len(images), np.int64),
            "view": np.array([VIEWS.index(name) for name in names]),
            **dict.fromkeys(("key", "draw"), np.zeros(1, np.int64)),
            "view_draw": np.zeros(len(images), np.int64),
            "tokens": np.zeros((1, 2), np.int64),
            "has_report": np.zeros(1, bool),
        }
        return KINDS["study"].to_batch(arrays)

    def _volumes(self, volumes: list[NDArray]) -> VolumeBatch:
        size = self.model.encoder.settings.input_size
        shape = (len(volumes), 1, size, size, size)
        voxels, valid = np.zeros(shape, np.float16), np.zeros(shape, bool)
        for i, volume in enumerate(volumes):
            source, target = crop_slices(volume.shape, size, None)
            voxels[i, 0][target], valid[i, 0][target] = volume[source], True
        keys = np.zeros(len(volumes), np.int64)
        arrays = {"voxels": voxels, "valid": valid, "key": keys, "draw": keys}
        return KINDS["volume"].to_batch(arrays)


def load_classifier(folder: Path | str) -> FinetunedClassifier:
    """Loads a fine-tuned classifier.

    Args:
        folder: models/START-seedN in the output of `ray-mae evaluate finetune`.

    Returns:
        It, on the CPU: called with decoded images it gives probabilities; `labels` names them.

    Raises:
        FileNotFoundError: where there is none.
    """
    folder = _fetched(opened(folder))
    return FinetunedClassifier(load_model(folder), ckpt.encoder_facts(folder).decoding)


def load_model(folder: Path) -> Classifier:
    """The network of a fine-tuned classifier, in evaluation mode, on the CPU; raises as `load_classifier`."""
    folder = _fetched(folder)
    facts = _facts_of(folder)
    encoder, _ = load_encoder(folder, facts["pool"])
    model = Classifier(encoder, facts["labels"])
    model.head.load_state_dict(load_file(folder / HEAD))
    return model.eval()


def classifier_labels(folder: Path) -> list[str]:
    """The labels of a fine-tuned classifier, without its weights; raises as `load_classifier`."""
    labels: list[str] = _facts_of(folder)["labels"]
    return labels


def _fetched(folder: Path) -> Path:
    """The folder, or of a URL a copy of what is read of it."""
    files = (ckpt.EXPORTED, ckpt.ENCODER, HEAD, CLASSIFIER)
    return fetch(opened(folder), files)


def _facts_of(folder: Path) -> dict[str, Any]:
    path = opened(folder) / CLASSIFIER
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: give a folder below models/ in the --output folder of "
            "`ray-mae evaluate finetune`"
        )
    facts: dict[str, Any] = json.loads(path.read_text())
    return facts


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
        return self.encoder.rate_of(inner, self.decay)
