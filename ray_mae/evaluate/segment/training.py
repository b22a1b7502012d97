"""One training of a segmentation: an initialisation, a seed, a fixed number of steps."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from monai.losses.dice import DiceCELoss
from numpy.typing import NDArray

from ray_mae.batch import VolumeBatch
from ray_mae.config import SegmentConfig
from ray_mae.config.sections import EncoderSettings, VolumeDataConfig
from ray_mae.data.kinds import KINDS
from ray_mae.data.loading.order import Order
from ray_mae.data.schema import Manifest
from ray_mae.data.shard_set import ShardSet
from ray_mae.evaluate.baselines import TRAINED
from ray_mae.evaluate.cohort import Cohort
from ray_mae.evaluate.metrics import FloatArray
from ray_mae.evaluate.samples import Samples, ahead
from ray_mae.evaluate.segment.crops import LabelledCrops, Whole, whole_of
from ray_mae.evaluate.segment.dice import dice, surface_dice
from ray_mae.evaluate.segment.model import Segmenter
from ray_mae.evaluate.segment.pictures import plane_of
from ray_mae.evaluate.supervised.fit import Fit, Validation, device_of_this_run, fit, mixed
from ray_mae.evaluate.supervised.runs import Run
from ray_mae.transforms.volumes import VolumeAugmentation, clean


@dataclass(frozen=True)
class SegmentTask:
    """What all runs of a segmentation share."""

    shards: Path
    manifest: Manifest
    cohort: Cohort
    labelled: NDArray[np.bool_]
    """[S], the cohort's rows with a label map."""
    values: tuple[int, ...]
    """Of the K classes in the label maps, the background first."""
    settings: EncoderSettings
    """Of the encoder, with the crop of this task."""
    data: VolumeDataConfig
    """As of the pretraining."""

    def rows(self, split: str) -> NDArray[np.intp]:
        """The cohort's rows of a split that have a label map."""
        return self.cohort.rows(split, self.labelled)

    def samples(self, batch_size: int, shuffle_window: int) -> Samples:
        """What reads the volumes."""
        shards = ShardSet.single(self.shards, self.manifest)
        return Samples(shards, self.cohort.location, batch_size, shuffle_window)

    def wholes(self, config: SegmentConfig, split: str) -> Iterator[Whole]:
        """The volumes of a split."""
        for row in self.samples(1, config.shuffle_window).read(
            self.rows(split), LabelledCrops.columns
        ):
            yield whole_of(row, self.values)


@dataclass(frozen=True)
class SegmentResult:
    """What one run leaves for the driver: of the task's test volumes."""

    fit: Fit
    dice: FloatArray
    """[T, K − 1]; NaN where a class is neither there nor found."""
    nsd: FloatArray
    """[T, K − 1]"""
    planes: list[NDArray[np.uint8]]
    """[X, Y] classes found in the slices to be drawn."""


def segment(run: Run, config: SegmentConfig, task: SegmentTask) -> SegmentResult:
    """Train, keep the weights that are best on validation patients, segment the test patients."""
    model, training = train_segmenter(run, config, task)
    model.save(run.folder)
    scores: dict[str, list[FloatArray]] = {"dice": [], "nsd": []}
    planes: list[NDArray[np.uint8]] = []
    for volume in task.wholes(config, "test"):
        prediction = classes_found(model, volume, config)
        scores["dice"].append(dice(prediction, volume.classes, len(task.values)))
        scores["nsd"].append(
            surface_dice(
                prediction,
                volume.classes,
                len(task.values),
                spacing_mm=volume.spacing_mm,
                tolerance_mm=config.tolerance_mm,
            )
        )
        if len(planes) < config.pictures:
            planes.append(prediction[:, :, plane_of(volume.classes)])
    return SegmentResult(training, np.stack(scores["dice"]), np.stack(scores["nsd"]), planes)


def train_segmenter(run: Run, config: SegmentConfig, task: SegmentTask) -> tuple[Segmenter, Fit]:
    """Train; returns the network with the weights that are best on validation patients.

    Raises Diverged if the loss is not finite. Test volumes are not read.
    """
    torch.set_num_threads(config.cpus_per_run)
    device = device_of_this_run()
    model = segmenter_of(run, config, task).to(device)
    augment = VolumeAugmentation.of(task.data)
    overlap_and_entropy = DiceCELoss(
        include_background=False, to_onehot_y=True, softmax=True, batch=True
    )
    collator = LabelledCrops(
        task.settings.input_size, task.values, config.foreground_share, seed=run.seed
    )
    samples = task.samples(config.batch_size, config.shuffle_window)
    order = Order.of(task.manifest, "train", run.seed, config.shuffle_window)
    epochs = samples.draw(order, task.rows("train"), collator)

    def batches() -> Iterator[tuple[VolumeBatch, torch.Tensor]]:
        for arrays, _ in ahead(epochs):
            classes = torch.from_numpy(arrays.pop("classes"))
            yield KINDS[task.manifest.kind].to_batch(arrays).to(device), classes.to(device)

    def loss_of(crops: tuple[VolumeBatch, torch.Tensor]) -> torch.Tensor:
        batch, classes = crops
        if config.augment:
            x, _ = augment(batch)
            classes = augment.labels(classes, batch.draw)
        else:
            x, _ = clean(batch)
        with mixed(config.precision, device):
            logits = model(x)  # [B, K, S, S, S]
        return overlap_and_entropy(logits, classes)

    def validate() -> Validation:
        scores, losses = [], []
        for volume in task.wholes(config, "val"):
            logits = logits_of(model, volume, config)  # [K, X, Y, Z]
            truth = torch.from_numpy(volume.classes.astype(np.int64)).to(device)
            losses.append(float(F.cross_entropy(logits[None], truth[None])))
            prediction = logits.argmax(0).cpu().numpy()
            scores.append(dice(prediction, volume.classes, len(task.values)))
        return Validation(mean_dice(np.stack(scores)), float(np.mean(losses)))

    every = range(config.validate_every, config.steps, config.validate_every)
    training = fit(
        model,
        config,
        batches(),
        loss_of,
        validate,
        steps=config.steps,
        validate_at={*every, config.steps},
        optimizer=config.optimizer,
        note=lambda record: run.note({**record, "steps": config.steps}),
    )
    return model, training


def logits_of(model: Segmenter, volume: Whole, config: SegmentConfig) -> torch.Tensor:
    """[K, X, Y, Z] of a whole volume, on the network's device."""
    device = next(model.parameters()).device
    x = torch.from_numpy(volume.voxels).to(device)
    with mixed(config.precision, device):
        return model.logits(x, overlap=config.overlap, windows=config.batch_size)


def classes_found(model: Segmenter, volume: Whole, config: SegmentConfig) -> NDArray[np.uint8]:
    """[X, Y, Z] the class of each voxel."""
    return logits_of(model, volume, config).argmax(0).cpu().numpy().astype(np.uint8)


def segmenter_of(run: Run, config: SegmentConfig, task: SegmentTask) -> Segmenter:
    """The network of a run before its first step; runs of one seed have the same fresh weights."""
    torch.manual_seed(run.seed)
    model = Segmenter(task.settings, list(task.values))
    if run.initialisation == TRAINED:
        model.initialise_from(config.checkpoint, decoder=config.init == "all")
    if config.film_at_finetune == "drop":
        model.drop_film()
    model.encoder.recompute = model.decoder.recompute = config.activation_checkpointing
    return model


def mean_dice(scores: FloatArray) -> float:
    """Mean over the classes of their mean over volumes; scores: [V, K − 1] with NaN."""
    known = ~np.isnan(scores)
    by_class = np.where(known, scores, 0).sum(0)[known.any(0)] / known.sum(0)[known.any(0)]
    return float(by_class.mean()) if len(by_class) else 0.0
