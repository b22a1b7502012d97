"""`evaluate segment`: a U-Net from the encoder on label maps, beside the same network from scratch."""

import csv
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from ray_mae.checkpoint import format as ckpt
from ray_mae.cluster.runtime import cluster
from ray_mae.config import SegmentConfig, VolumeDataConfig
from ray_mae.config.base import to_dict
from ray_mae.data.kinds import of_encoder
from ray_mae.data.parallel_map import parallel_map
from ray_mae.data.schema import NOUNS, SPLITS, Manifest
from ray_mae.data.shard_set import ShardSet
from ray_mae.encoders.resenc_settings import ResEncSettings
from ray_mae.evaluate.cohort import read_cohort
from ray_mae.evaluate.metrics import patient_resamples
from ray_mae.evaluate.segment.crops import values_in
from ray_mae.evaluate.segment.dice import METRICS, over_volumes
from ray_mae.evaluate.segment.pictures import axial, outlines, plane_of
from ray_mae.evaluate.segment.training import Segmented, SegmentTask, segment
from ray_mae.evaluate.supervised.comparison import Measured, compare
from ray_mae.evaluate.supervised.report import Finding, write_comparison
from ray_mae.evaluate.supervised.runs import Run, run_all, runs_of

PICTURES = "pictures"
VOLUMES = "segment_volumes.csv"
"""Every test volume: start, seed, class, Dice and NSD."""


def evaluate_segment(config: SegmentConfig) -> dict[str, Any]:
    """Train from every start with every seed on label maps, and compare them on test patients.

    Writes segment.json, segment.csv, segment_volumes.csv, report.html, pictures, summary.json and
    the weights of each run, below models/; returns the summary. Raises ValueError or
    FileNotFoundError with what to do before any run starts, RuntimeError with the name of a run
    that failed.
    """
    began = time.time()
    manifest, facts = readable(config)
    with cluster(cpus=config.cpus_per_run + 1):
        task, left_out = task_of(config, manifest, facts)
        runs = runs_of(config)
        found = run_all(segment, runs, config, task, score="mean Dice")
    test = task.rows("test")
    weights = patient_resamples(task.cohort.patient[test], config.bootstrap, config.seeds[0])
    by_start: dict[str, list[dict[str, Measured]]] = {start: [] for start in config.compare}
    for run, one in zip(runs, found, strict=True):
        by_start[run.start].append(
            {"dice": over_volumes(one.dice, weights), "nsd": over_volumes(one.nsd, weights)}
        )
    classes = [f"label {value}" for value in task.values[1:]]
    _write_volumes(config.output / VOLUMES, task, runs, found, classes)
    finding = Finding(
        command="segment",
        title=f"Segmentation with {config.checkpoint.name} on {manifest.dataset}",
        lead=f"{len(classes)} classes on {len(test):,} test volumes that no training and no choice "
        "has seen.",
        main="dice",
        chance=None,
        comparison=compare(by_start, config.seeds, classes, METRICS),
        runs=list(zip(runs, (one.fit for one in found), strict=True)),
        samples_per_batch=config.batch_size,
        left_out=left_out,
        samples={split: len(task.rows(split)) for split in SPLITS},
        noun=NOUNS[manifest.kind],
        protocol=_protocol(config, task),
        limits=LIMITS,
        cautions=ckpt.cautions(config.checkpoint, config.shards),
        settings={"dataset": manifest.dataset, **to_dict(config)},
        pictures=_pictures(config, task, runs, found),
    )
    return write_comparison(config.output, finding, began)


def readable(config: SegmentConfig) -> tuple[Manifest, ckpt.EncoderFacts]:
    """The manifest and the encoder, if they are of volumes and what is wanted of them is there."""
    manifest, facts = Manifest.read(config.shards), ckpt.encoder_facts(config.checkpoint)
    kind = of_encoder(facts.settings)
    if manifest.kind != kind.name or facts.settings.form != "maps":
        raise ValueError(
            "segmentation is for volumes: "
            f"{config.shards} holds shards of kind {manifest.kind!r}, {config.checkpoint} an encoder "
            f"({facts.settings.name}) of {kind.noun}"
        )
    facts = replace(facts, settings=facts.settings.resized(config.crop_size))
    if config.init == "all" and (config.checkpoint / ckpt.EXPORTED).is_file():
        raise ValueError(
            f"init all needs the decoder, and {config.checkpoint} is an exported encoder: give the "
            "run it came from, or init encoder"
        )
    return manifest, facts


def task_of(
    config: SegmentConfig, manifest: Manifest, facts: ckpt.EncoderFacts
) -> tuple[SegmentTask, dict[str, str]]:
    """The task, and what is left out of it with the reason. Label maps are read by Ray Data.

    The classes are the values that the training volumes hold.
    """
    shards = config.shards.resolve()
    cohort = read_cohort(ShardSet.read(shards))
    items = [
        {"shards": str(shards), "file": shard.file, "groups": len(shard.row_groups)}
        for shard in manifest.shards
    ]
    by_file = {result["file"]: result["values"] for result in parallel_map(_named_values, items)}
    values = [held for shard in manifest.shards for held in by_file[shard.file]]
    labelled = np.array([held is not None for held in values])
    held_by = {
        split: {v for i in cohort.rows(split, labelled) for v in values[i]} for split in SPLITS
    }
    missing = [split for split in SPLITS if not len(cohort.rows(split, labelled))]
    if missing or not held_by["train"] - {0}:
        raise ValueError(
            f"{config.shards} holds no label map with more than background in {missing[0]}: ingest "
            "volumes with their segmentations"
            if missing
            else f"the label maps of {config.shards} hold nothing but background in train"
        )
    classes = (0, *sorted(held_by["train"] - {0}))
    left_out = {}
    if unlabelled := int((~labelled).sum()):
        left_out[f"{unlabelled} volumes"] = "no label map"
    for value in sorted((held_by["val"] | held_by["test"]) - set(classes)):
        left_out[f"label {value}"] = "not in the training volumes; counts as background"
    task = SegmentTask(
        shards,
        manifest,
        cohort,
        labelled,
        classes,
        cast(ResEncSettings, facts.settings),
        cast(VolumeDataConfig, facts.data),
    )
    return task, left_out


def _named_values(item: dict[str, Any]) -> dict[str, Any]:
    return {"file": item["file"], "values": values_in(item)}


def _pictures(
    config: SegmentConfig, task: SegmentTask, runs: Sequence[Run], found: Sequence[Segmented]
) -> list[tuple[str, bytes]]:
    """Titles and PNGs of the first test volumes, by the runs of the first seed; kept as files, too."""
    first = {
        run.start: one for run, one in zip(runs, found, strict=True) if run.seed == config.seeds[0]
    }
    folder = config.output / PICTURES
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    names = task.cohort.name[task.rows("test")]
    shown = min(config.pictures, len(names))
    for i, (name, volume) in enumerate(
        zip(names[:shown], task.wholes(config, "test"), strict=False)
    ):
        plane = plane_of(volume.classes)
        image = outlines(
            axial(volume.voxels, plane),
            axial(volume.classes, plane),
            {start: one.planes[i].T[::-1] for start, one in first.items()},
        )
        (folder / f"{i:02d}-{name}.png").write_bytes(image)
        scores = ", ".join(
            f"{start} {np.nanmean(one.dice[i]):.2f}"
            for start, one in first.items()
            if not np.isnan(one.dice[i]).all()
        )
        made.append((f"{name}, axial slice {plane}; mean Dice of the volume: {scores}", image))
    return made


def _write_volumes(
    path: Path,
    task: SegmentTask,
    runs: Sequence[Run],
    found: Sequence[Segmented],
    classes: Sequence[str],
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["start", "seed", "volume_id", "row", *METRICS])
        for run, one in zip(runs, found, strict=True):
            for i, name in enumerate(task.cohort.name[task.rows("test")]):
                for k, label in enumerate(classes):
                    scores = (one.dice[i, k], one.nsd[i, k])
                    said = ["" if np.isnan(score) else f"{score:.6f}" for score in scores]
                    rows.writerow([run.start, run.seed, name, label, *said])


def _protocol(config: SegmentConfig, task: SegmentTask) -> dict[str, str]:
    """How the numbers were made, for the page."""
    parts = "encoder" if config.init == "encoder" else "encoder and decoder but for the last layer"
    return {
        "Network": f"the U-Net of pretraining with {len(task.values)} classes. trained starts at the "
        f"checkpoint's {parts}, random at fresh weights; what is fresh, the order and the augmentation "
        "are the same in both for a seed.",
        "Budget": f"{config.steps:,} steps of {config.optimizer} with {config.batch_size} × "
        f"{config.accumulate} crops of {task.settings.crop_size}³ each, for every start and seed; "
        f"validated every {config.validate_every:,}. Loss: Dice and cross-entropy.",
        "Choice": "the weights with the highest mean Dice on validation patients, of equal ones those "
        "with the lower loss. Test patients serve for the numbers alone.",
        "Scores": "by volume and class on the stored grid, windows overlapping by "
        f"{config.overlap:.0%}. A class that is neither there nor found has no score in a volume; one "
        f"that is only there or only found has 0. NSD: share of the two surfaces that lies within "
        f"{config.tolerance_mm:g} mm of the other. The mean weighs each class alike.",
        "Intervals": f"percentiles 2.5 to 97.5 of {config.bootstrap:,} resamples of the test "
        "patients, of the mean over seeds; the same resamples for all runs, so that differences are "
        "paired. ± is the standard deviation over seeds.",
    }


LIMITS = [
    "Another hospital: training, validation and test patients come from the same archive.",
    "Another training set: the intervals cover the choice of test patients, the spread covers the "
    "seeds; both starts saw the same training patients.",
    "That random could not do better with a longer training or other settings: both starts had the "
    "same ones. nnU-Net's own training is longer, plans its network for the data and augments more.",
    "The archive's own grid: label maps were resampled with the volumes when they were ingested.",
    "Fitness for use in care. This is a figure of research.",
]
