"""Fine-tuning in a suite: six trials for every start, then fresh seeds of the one that validation chose."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ray_mae.benchmarking.caches import tested_splits
from ray_mae.benchmarking.plan import FINETUNE, Suite
from ray_mae.benchmarking.records import FitKey, Predictions
from ray_mae.benchmarking.store import Store
from ray_mae.benchmarking.tuning import (
    VALIDATION,
    Tested,
    Training,
    Tuned,
    earlier,
    note_failed,
    predict_tuned,
    shown_to,
    tune,
    tuned_keys,
)
from ray_mae.config import FinetuneConfig
from ray_mae.config.suite import FinetuneHead, SuiteConfig
from ray_mae.data.loading.stream import from_block
from ray_mae.data.paths import real_path
from ray_mae.data.schema import Manifest
from ray_mae.evaluate.supervised.runs import Run
from ray_mae.files import write_whole


def finetune_keys(suite: Suite) -> list[FitKey]:
    """Returns the keys of all fine-tunings: starts × label counts × seeds."""
    config = suite.config
    return [
        key
        for name, task in config.tasks.items()
        if task.kind == "labels"
        and not task.leave_out
        and FINETUNE in (task.heads or config.heads.use)
        for key in tuned_keys(suite, name, FINETUNE, starts_of(config), config.heads.finetune)
    ]


def starts_of(config: SuiteConfig) -> list[str]:
    """Names of the encoders that are fine-tuned, in the order of the suite."""
    named = config.heads.finetune.encoders
    return [n for n, e in config.encoders.items() if n in named or e.kind == "scratch"]


def trials_of(settings: FinetuneHead, scratch: bool) -> list[dict[str, float]]:
    """Returns the settings to choose from, as many for every start.

    A pretrained start tries learning rates around the centre with each layer decay. Scratch has no layers
    that know anything, and needs longer: it tries its own learning rates with more epochs instead.
    """
    rates = [settings.lr / 3, settings.lr, settings.lr * 3]
    if not scratch:
        return [
            {"lr": lr, "layer_decay": decay, "epochs": settings.epochs}
            for lr in rates
            for decay in settings.layer_decay
        ]
    rates = [settings.scratch_lr / 3, settings.scratch_lr, settings.scratch_lr * 3]
    spans = np.geomspace(1, settings.longer, len(settings.layer_decay)).tolist()
    return [
        {"lr": lr, "layer_decay": 1.0, "epochs": settings.epochs * span}
        for lr in rates
        for span in spans
    ]


def finetune_all(suite: Suite, keys: Sequence[FitKey]) -> int:
    """Runs the trials, chooses, and fits the seeds; what is there stays. Returns how many were fitted."""
    return tune(suite, keys, _HEAD)


def predict_finetuned(suite: Suite) -> int:
    """Predicts test samples with every fine-tuned model; returns how many did it now."""
    return predict_tuned(suite, finetune_keys(suite), predict_one)


# ----------------------------------------------------------------------------------------- in a task


def train(training: Training) -> float:
    """Trains once, unless that was done; returns the score on validation patients.

    What diverges or has too few patients is kept with its reason, as the failed row that it will be.
    """
    from ray_mae.evaluate.finetune.training import FinetuneTask, finetune, schedule
    from ray_mae.evaluate.supervised.fit import Diverged

    if (score := earlier(training)) is not None:
        return score
    config, key, began = training.config, training.key, time.perf_counter()
    shards = real_path(config.datasets[config.tasks[key.cell.task].dataset].shards)
    shown = shown_to(training)
    chosen: dict[str, Any] = training.settings
    assert training.source.path is not None
    settings = FinetuneConfig(
        checkpoint=training.source.path,
        shards=shards,
        output=training.folder,
        compare=["random" if training.scratch else "trained"],
        seeds=[key.seed],
        crop_size=training.source.crop_size,
        batch_size=config.heads.finetune.batch_size,
        max_views=min(config.max_views, 16),
        gpu=config.gpu,
        **chosen,
    )
    training.folder.mkdir(parents=True, exist_ok=True)
    problem = FinetuneTask(
        shards,
        Manifest.read(shards),
        shown.cohort,
        training.labels,
        shown.targets,
        **schedule(shown.counts["train_studies"], settings),
    )
    run = Run(settings.compare[0], key.seed, training.folder)
    run.folder.mkdir(parents=True, exist_ok=True)
    try:
        found = finetune(run, settings, problem)
    except (Diverged, ValueError) as error:
        return note_failed(training, error)
    val = problem.rows("val")
    np.savez(
        training.folder / VALIDATION,
        sample=shown.cohort.name[val],
        values=found.validation.astype(np.float32),
    )
    result = {
        "score": found.fit.validation.score,
        "model": str(run.folder.relative_to(training.folder)),
        **shown.counts,
        "dimensions": 0,
        "parameters": _parameters(run.folder),
        "samples_seen": found.fit.batches * settings.batch_size,
        "seconds": round(time.perf_counter() - began, 2),
    }
    write_whole(training.result, json.dumps(result) + "\n")
    return float(found.fit.validation.score)


def _parameters(folder: Path) -> int:
    from ray_mae.evaluate.finetune.classifier import load_model

    return sum(p.numel() for p in load_model(folder).parameters())


def predict_one(tested: Tested) -> None:
    """Predicts the test samples of a data set with one model."""
    import torch

    from ray_mae.benchmarking.readers import ShardBatches
    from ray_mae.data.kinds import KINDS
    from ray_mae.evaluate.finetune.classifier import load_model

    config, key, store = tested.config, tested.key, Store(tested.config.output)
    fit = store.read_fit(key)
    folder = config.output / fit.chosen["model"]
    model = load_model(folder / json.loads((folder / "result.json").read_text())["model"])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device)
    entry = config.datasets[tested.dataset]
    manifest = Manifest.read(entry.shards)
    kind = KINDS[manifest.kind]
    collator = kind.evaluation_collator(model.encoder.settings.input_size, 0, config.max_views)
    reader = ShardBatches(
        real_path(entry.shards), collator, config.batch_size, f"{manifest.kind}_id"
    )
    names: list[str] = []
    logits = []
    for shard in [
        s for split in tested_splits(config, tested.dataset) for s in manifest.of_split(split)
    ]:
        for block in reader.read(shard):
            names += json.loads(block["samples"][0].as_py())
            with torch.inference_mode():
                logits.append(model(kind.to_batch(from_block(block)).to(device)).float().cpu())
    said = Predictions(np.array(names), torch.cat(logits).numpy())
    store.write_predictions(key, tested.dataset, "test", fit.labels, said, tested.shards)


_HEAD = Tuned(
    "fine-tuning",
    lambda config, encoder: trials_of(
        config.heads.finetune, config.encoders[encoder].kind == "scratch"
    ),
    lambda config: config.heads.finetune,
    train,
)
