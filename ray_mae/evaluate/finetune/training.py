"""One fine-tuning: an initialisation, a seed, a fixed number of steps."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit

from ray_mae.checkpoint.format import encoder_facts
from ray_mae.config import FinetuneConfig
from ray_mae.data.kinds import KINDS
from ray_mae.data.loading.order import Order
from ray_mae.data.schema import Manifest
from ray_mae.data.shard_set import ShardSet
from ray_mae.evaluate.baselines import TRAINED
from ray_mae.evaluate.cohort import Cohort
from ray_mae.evaluate.finetune.classifier import AnyBatch, Classifier, LayerDecay, bce
from ray_mae.evaluate.metrics import FloatArray, measure
from ray_mae.evaluate.samples import Samples, ahead
from ray_mae.evaluate.supervised.fit import Fit, Validation, device_of_this_run, fit, mixed
from ray_mae.evaluate.supervised.runs import Run
from ray_mae.inference.load import AnyEncoder, load_encoder, random_encoder


@dataclass(frozen=True)
class FinetuneTask:
    """What all runs of a fine-tuning share."""

    shards: Path
    manifest: Manifest
    cohort: Cohort
    labels: list[str]
    targets: FloatArray
    """[S, L] of the cohort's rows: 0, 1, NaN where ignored."""
    steps: int
    """Of the optimiser."""
    validate_at: set[int]

    def rows(self, split: str) -> NDArray[np.intp]:
        """The cohort's rows of a split of which a target is known."""
        return self.cohort.labelled(self.targets, split)


@dataclass(frozen=True)
class FinetuneResult:
    """What one run leaves for the driver."""

    fit: Fit
    logits: FloatArray
    """[T, L] float64 of the task's test rows."""
    validation: FloatArray
    """[V, L] the same of its validation rows, by which the weights were chosen."""


def finetune(run: Run, config: FinetuneConfig, task: FinetuneTask) -> FinetuneResult:
    """Train, keep the weights that are best on validation patients, predict the test patients."""
    torch.set_num_threads(config.cpus_per_run)
    device = device_of_this_run()
    model = classifier_of(run, config, task.labels).to(device)
    kind, size = KINDS[task.manifest.kind], model.encoder.settings.input_size
    shards = ShardSet.single(task.shards, task.manifest)
    samples = Samples(shards, task.cohort.location, config.batch_size, config.shuffle_window)
    targets = torch.from_numpy(task.targets.astype(np.float32))
    order = Order.of(task.manifest, "train", run.seed, config.shuffle_window)
    epochs = samples.draw(
        order, task.rows("train"), kind.supervised_collator(size, run.seed, config.max_views)
    )
    whole = kind.evaluation_collator(size, run.seed)

    def batches() -> Iterator[tuple[AnyBatch, torch.Tensor]]:
        for arrays, rows in ahead(epochs):
            yield kind.to_batch(arrays).to(device), targets[torch.from_numpy(rows)].to(device)

    def loss_of(batch: tuple[AnyBatch, torch.Tensor]) -> torch.Tensor:
        with mixed(config.precision, device):
            logits = model(batch[0])
        return bce(logits, batch[1], config.label_smoothing).mean()

    def logits_of(split: str) -> torch.Tensor:
        logits = [torch.zeros(0, len(task.labels))]  # of a split without rows
        with torch.inference_mode(), mixed(config.precision, device):
            for arrays, _ in samples.each(task.rows(split), whole):
                logits.append(model(kind.to_batch(arrays).to(device)).cpu())
        return torch.cat(logits)

    def validate() -> Validation:
        logits = logits_of("val")
        known = task.targets[task.rows("val")]
        loss = float(bce(logits, torch.from_numpy(known.astype(np.float32))).mean())
        return Validation(macro_auroc(known, logits.numpy()), loss)

    training = fit(
        model,
        config,
        batches(),
        loss_of,
        validate,
        steps=task.steps,
        validate_at=task.validate_at,
        layer_scale=LayerDecay(config.layer_decay, model.encoder.encoder),
        note=lambda record: run.note({**record, "steps": task.steps}),
    )
    model.save(run.folder, shards)
    test, val = (logits_of(split).double().numpy() for split in ("test", "val"))
    return FinetuneResult(training, test, val)


def classifier_of(run: Run, config: FinetuneConfig, labels: list[str]) -> Classifier:
    """The network of a run before its first step; heads of one seed are alike."""
    facts = encoder_facts(config.checkpoint)
    encoder: AnyEncoder
    if run.initialisation == TRAINED:
        encoder, _ = load_encoder(config.checkpoint, config.pool)
    else:
        encoder = random_encoder(
            facts.settings, run.seed, config.pool, data=facts.data, spacing_mm=facts.spacing_mm
        )
    encoder.resize(config.crop_size)
    for module in encoder.modules():
        if hasattr(module, "recompute"):
            module.recompute = config.activation_checkpointing  # type: ignore[assignment]
    if config.film_at_finetune == "drop":
        encoder.drop_film()
    encoder.requires_grad_(not config.freeze)
    torch.manual_seed(run.seed)
    return Classifier(
        encoder,
        labels,
        dropout=config.dropout,
        augment=encoder.augmentation if config.augment else None,
    )


def macro_auroc(target: FloatArray, logits: FloatArray) -> float:
    """Mean AUROC over labels; target: [S, L] with NaN where unknown."""
    values = []
    for i in range(target.shape[1]):
        known = ~np.isnan(target[:, i])
        z = logits[known, i].astype(np.float64)
        values.append(measure(target[known, i], expit(z), score=z)["auroc"][0])
    return float(np.mean(values))


def schedule(samples: int, config: FinetuneConfig) -> dict[str, Any]:
    """steps and validate_at: after each pass over the samples, and at the end."""
    per_pass = samples / (config.batch_size * config.accumulate)
    steps = config.steps or max(1, round(config.epochs * per_pass))
    passes = range(1, int(steps / per_pass) + 1)
    at = {min(steps, max(1, round(k * per_pass))) for k in passes} | {steps}
    return {"steps": steps, "validate_at": at}
