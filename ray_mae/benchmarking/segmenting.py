"""Segmentation in a suite: a U-Net from every encoder that can have one, beside the same from scratch.

Every start has the same trials and steps; validation volumes choose. Test volumes are outlined when the test
is opened, and every number of the page is of the rows that are stored of them.
"""

import json
import time
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from ray_mae.benchmarking.caches import tested_splits
from ray_mae.benchmarking.label_maps import classes_of, values_of
from ray_mae.benchmarking.plan import SEGMENT, Suite
from ray_mae.benchmarking.records import Cases, FitKey
from ray_mae.benchmarking.sources import IMAGELESS, OF_PIXELS
from ray_mae.benchmarking.store import Store
from ray_mae.benchmarking.tuning import (
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
from ray_mae.checkpoint.format import encoder_facts
from ray_mae.config import SegmentConfig, VolumeDataConfig
from ray_mae.config.suite import SegmentHead
from ray_mae.data.paths import real_path
from ray_mae.data.schema import Manifest
from ray_mae.data.shard_set import ShardSet
from ray_mae.evaluate.cohort import read_cohort
from ray_mae.evaluate.supervised.runs import Run
from ray_mae.files import write_whole


def segment_keys(suite: Suite) -> list[FitKey]:
    """Returns the keys of all segmentations: starts × numbers of labelled volumes × seeds."""
    config = suite.config
    return [
        key
        for name, task in config.tasks.items()
        if task.kind == "segmentation"
        for key in tuned_keys(
            suite,
            name,
            SEGMENT,
            [e for e in config.encoders if not why_not(suite, name, e)],
            config.heads.segment,
        )
    ]


def why_not(suite: Suite, task: str, encoder: str) -> str:
    """Why an encoder has no row in a task of segmentation; "" where it has."""
    entry, head = suite.config.encoders[encoder], suite.config.heads.segment
    kind = suite.kind_of(task)
    if entry.kind in (*IMAGELESS, *OF_PIXELS):
        return f"{entry.kind} has no network that a decoder could be put on"
    if entry.kind == "random":
        return "untrained weights are trained on label maps by an encoder of kind scratch"
    sources = suite.sources.get((encoder, kind))
    if not sources:
        return suite.unreadable.get((encoder, kind), f"it reads no {kind}")
    assert sources[0].path is not None
    settings = encoder_facts(sources[0].path).settings
    if settings.segmentation is None:
        return f"its network ({settings.name}) has no decoder of voxels"
    if head.encoders and encoder not in head.encoders and entry.kind != "scratch":
        return "not among heads.segment.encoders"
    return ""


def trials_of(settings: SegmentHead) -> list[dict[str, float]]:
    """Returns the settings to choose from, the same for every start, scratch as well."""
    return [{"lr": lr} for lr in settings.lr]


def segment_all(suite: Suite, keys: Sequence[FitKey]) -> int:
    """Runs the trials, chooses, and fits the seeds; what is there stays. Returns how many were fitted."""
    return tune(suite, keys, _HEAD)


def predict_segmented(suite: Suite) -> int:
    """Outlines the test volumes with every model, and stores how well; returns how many did it now."""
    # the tolerance is no matter of the fits: with another one they stay, and their cases are measured anew
    also = f" {suite.config.heads.segment.tolerance_mm:g} mm"
    return predict_tuned(suite, segment_keys(suite), predict_one, also)


def bytes_of_models(suite: Suite, keys: Sequence[FitKey]) -> int:
    """What the weights of all fits take, which are kept; those of trials are not."""
    import torch

    from ray_mae.evaluate.segment.model import Segmenter

    sizes: dict[str, int] = {}
    for key in keys:
        source = suite.sources[key.encoder, suite.kind_of(key.cell.task)][key.pretraining]
        if key.encoder not in sizes and source.path is not None:
            settings = encoder_facts(source.path).settings
            with torch.device("meta"):
                model = Segmenter(settings, [0, 1])
            sizes[key.encoder] = sum(p.nbytes for p in model.parameters())
    return sum(sizes[key.encoder] for key in keys)


# ----------------------------------------------------------------------------------------- in a task


def train(training: Training) -> float:
    """Trains once, unless that was done; returns the mean Dice on validation patients.

    What diverges is kept with its reason, as the failed row that it will be.
    """
    from ray_mae.evaluate.segment.training import SegmentTask, train_segmenter
    from ray_mae.evaluate.supervised.fit import Diverged

    if (score := earlier(training)) is not None:
        return score
    config, key, began = training.config, training.key, time.perf_counter()
    task = config.tasks[key.cell.task]
    shards = real_path(config.datasets[task.dataset].shards)
    shown = shown_to(training)
    settings = _settings(training)
    facts = encoder_facts(settings.checkpoint)
    problem = SegmentTask(
        shards,
        Manifest.read(shards),
        shown.cohort,
        np.asarray(~np.isnan(shown.targets).all(axis=1)),
        classes_of(task, training.labels),
        facts.settings.resized(settings.crop_size),
        cast(VolumeDataConfig, facts.data),
    )
    run = Run(settings.compare[0], key.seed, training.folder)
    run.folder.mkdir(parents=True, exist_ok=True)
    try:
        model, found = train_segmenter(run, settings, problem)
    except (Diverged, ValueError) as error:
        return note_failed(training, error)
    if training.kept:
        model.save(run.folder)
    result = {
        "score": found.validation.score,
        "model": str(run.folder.relative_to(training.folder)),
        **shown.counts,
        "dimensions": 0,
        "parameters": sum(p.numel() for p in model.parameters()),
        "samples_seen": found.batches * settings.batch_size,
        "seconds": round(time.perf_counter() - began, 2),
    }
    write_whole(training.result, json.dumps(result) + "\n")
    return float(found.validation.score)


def _settings(training: Training) -> SegmentConfig:
    config, head = training.config, training.config.heads.segment
    assert training.source.path is not None
    chosen: dict[str, Any] = training.settings
    return SegmentConfig(
        checkpoint=training.source.path,
        shards=real_path(config.datasets[config.tasks[training.key.cell.task].dataset].shards),
        output=training.folder,
        compare=["random" if training.scratch else "trained"],
        seeds=[training.key.seed],
        crop_size=training.source.crop_size,
        pictures=0,
        gpu=config.gpu,
        **{name: getattr(head, name) for name in _OF_HEAD},
        **chosen,
    )


_OF_HEAD = (
    *(
        "optimizer",
        "decay",
        "warmup",
        "clip",
        "weight_decay",
        "steps",
        "validate_every",
        "batch_size",
    ),
    *("foreground_share", "overlap", "tolerance_mm"),
)
"""Settings that every training of the head has."""


def predict_one(tested: Tested) -> None:
    """Outlines the test volumes of a data set with one model; a row for each volume and region."""
    from ray_mae.evaluate.segment.cases import COLUMNS, measure_case
    from ray_mae.evaluate.segment.model import load_segmenter
    from ray_mae.evaluate.segment.training import SegmentTask, classes_found
    from ray_mae.evaluate.supervised.fit import device_of_this_run

    config, key, store = tested.config, tested.key, Store(tested.config.output)
    fit, task = store.read_fit(key), config.tasks[key.cell.task]
    folder = config.output / fit.chosen["model"]
    model = load_segmenter(folder / json.loads((folder / "result.json").read_text())["model"])
    model.to(device_of_this_run())
    head = config.heads.segment
    shards = real_path(config.datasets[tested.dataset].shards)
    splits = tested_splits(config, tested.dataset)
    cohort = read_cohort(ShardSet.read(shards), splits)
    table = store.samples(tested.dataset)
    known = table.sample[~np.isnan(table.targets[key.cell.task]).all(axis=1)]
    problem = SegmentTask(
        shards,
        Manifest.read(shards),
        cohort,
        np.isin(cohort.name, known),
        tuple(model.values),
        model.settings,
        VolumeDataConfig(),
    )
    settings = SegmentConfig(
        checkpoint=folder, shards=shards, output=folder, overlap=head.overlap,
        batch_size=head.batch_size,
    )  # fmt: skip
    index = {value: i for i, value in enumerate(model.values)}
    regions = [[index[v] for v in values_of(task, name) if v in index] for name in fit.labels]
    rows, measured = [], []
    for split in splits:
        rows += problem.rows(split).tolist()
        for volume in problem.wholes(settings, split):
            found = classes_found(model, volume, settings)
            cases = [
                measure_case(
                    np.isin(found, region),
                    np.isin(volume.classes, region),
                    spacing_mm=volume.spacing_mm,
                    tolerance_mm=head.tolerance_mm,
                )
                for region in regions
            ]
            measured.append([[case[name] for name in COLUMNS] for case in cases])
    values = np.array(measured).reshape(len(rows), len(regions), len(COLUMNS))
    by_name = {name: values[:, :, i] for i, name in enumerate(COLUMNS)}
    said = Cases(cohort.name[rows], cohort.patient[rows], fit.labels, by_name)
    store.write_cases(key, tested.dataset, said, tested.shards)


_HEAD = Tuned(
    "segmentation",
    lambda config, encoder: trials_of(config.heads.segment),
    lambda config: config.heads.segment,
    train,
)
