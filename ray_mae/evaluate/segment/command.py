"""`evaluate segment`: encoder and decoder on label maps, beside the same network from scratch."""

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ray_mae.checkpoint import format as ckpt
from ray_mae.cluster.runtime import cluster
from ray_mae.config import SegmentConfig, VolumeDataConfig
from ray_mae.data.kinds import of_encoder
from ray_mae.data.parallel_map import parallel_map
from ray_mae.data.paths import real_path
from ray_mae.data.schema import SPLITS, Manifest
from ray_mae.data.shard_set import ShardSet
from ray_mae.evaluate.cohort import read_cohort
from ray_mae.evaluate.segment.crops import values_in
from ray_mae.evaluate.segment.dice import METRICS, over_volumes
from ray_mae.evaluate.segment.pictures import axial, outlines, plane_of
from ray_mae.evaluate.segment.training import SegmentResult, SegmentTask, segment
from ray_mae.evaluate.supervised import driver
from ray_mae.evaluate.supervised.comparison import MetricValues
from ray_mae.evaluate.supervised.driver import Preparation
from ray_mae.evaluate.supervised.runs import Run
from ray_mae.files import replacing
from ray_mae.transforms import slices

PICTURES = "pictures"
VOLUMES = "segment_volumes.csv"
"""Every test volume: initialisation, seed, class, Dice and NSD."""


def evaluate_segment(config: SegmentConfig) -> dict[str, Any]:
    """Trains from every initialisation with every seed on label maps, and compares them on test patients.

    Writes segment.json, segment.csv, segment_volumes.csv, report.html, pictures, summary.json and
    the weights of each run, below models/.

    Args:
        config: settings of the command.

    Returns:
        The summary.

    Raises:
        FileNotFoundError, ValueError: with what to do, before any run starts.
        RuntimeError: with the name of a run that failed.
    """
    return driver.evaluate(Segmentation(config))


class Segmentation(driver.Evaluation[SegmentConfig, SegmentTask, SegmentResult]):
    """Label maps of volumes."""

    command = "segment"
    metrics = METRICS
    chance = None
    score = "mean Dice"
    limits = (
        driver.OTHER_HOSPITAL,
        driver.OTHER_TRAINING_SET,
        f"{driver.OTHER_BUDGET} nnU-Net's own training is longer, plans its network for the data "
        "and augments more.",
        "The archive's own grid: label maps were resampled with the volumes when they were ingested.",
        driver.FITNESS_FOR_CARE,
    )

    @contextmanager
    def prepare(self) -> Iterator[Preparation[SegmentTask]]:
        manifest, facts = readable(self.config)
        with cluster(cpus=self.config.cpus_per_run + 1):  # one for Ray Data
            yield prepare_label_maps(self.config, manifest, facts)

    @property
    def train(self) -> Callable[[Run, SegmentConfig, SegmentTask], SegmentResult]:
        return segment

    def measure(
        self, task: SegmentTask, result: SegmentResult, weights: NDArray
    ) -> dict[str, MetricValues]:
        return {
            "dice": over_volumes(result.dice, weights),
            "nsd": over_volumes(result.nsd, weights),
        }

    def rows(self, task: SegmentTask) -> list[str]:
        return [f"label {value}" for value in task.values[1:]]

    def title(self, task: SegmentTask) -> str:
        return f"Segmentation with {self.config.checkpoint.name} on {task.manifest.dataset}"

    def lead(self, task: SegmentTask) -> str:
        return (
            f"{len(task.values) - 1} classes on {len(task.rows('test')):,} test volumes that no "
            "training and no choice has seen."
        )

    def protocol(self, task: SegmentTask) -> dict[str, str]:
        config = self.config
        parts = (
            "encoder" if config.init == "encoder" else "encoder and decoder but for the last layer"
        )
        return {
            "Network": f"{task.settings.described}, with its decoder and {len(task.values)} classes. "
            f"trained starts at the checkpoint's {parts}, random at fresh weights; what is fresh, the "
            "order and the augmentation are the same in both for a seed.",
            "Budget": f"{config.steps:,} steps of {config.optimizer} with {config.batch_size} × "
            f"{config.accumulate} crops of {task.settings.input_size}³ each, for every start and seed; "
            f"validated every {config.validate_every:,}. Loss: Dice and cross-entropy.",
            "Choice": "the weights with the highest mean Dice on validation patients, of equal ones "
            "those with the lower loss. Test patients serve for the numbers alone.",
            "Scores": "by volume and class on the stored grid, windows overlapping by "
            f"{config.overlap:.0%}. A class that is neither there nor found has no score in a volume; "
            "one that is only there or only found has 0. NSD: share of the two surfaces that lies "
            f"within {config.tolerance_mm:g} mm of the other. The mean weighs each class alike.",
        }

    def write_more(
        self, task: SegmentTask, results: Sequence[tuple[Run, SegmentResult]]
    ) -> list[tuple[str, bytes]]:
        """segment_volumes.csv, and outlines in the first test volumes by the runs of the first seed."""
        _write_volumes(self.config.output / VOLUMES, task, results, self.rows(task))
        return _draw(self.config, task, results)


def readable(config: SegmentConfig) -> tuple[Manifest, ckpt.EncoderFacts]:
    """The manifest and the encoder, with the crop of the task.

    Raises:
        FileNotFoundError: where there is no checkpoint or there are no shards.
        ValueError: where these are not of volumes, or the checkpoint lacks what is wanted of it.
    """
    manifest, facts = Manifest.read(config.shards), ckpt.encoder_facts(config.checkpoint)
    kind = of_encoder(facts.settings)
    if manifest.kind != kind.name or facts.settings.segmentation is None:
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


def prepare_label_maps(
    config: SegmentConfig, manifest: Manifest, facts: ckpt.EncoderFacts
) -> Preparation[SegmentTask]:
    """Returns the task, and what is left out of it with the reason. Label maps are read by Ray Data.

    The classes are the values that the training volumes hold.

    Raises:
        ValueError: where a split has no label map, or those of the training volumes are empty.
    """
    shards = real_path(config.shards)
    cohort = read_cohort(ShardSet.read(shards))
    items = [{"shards": str(shards), "shard": asdict(shard)} for shard in manifest.shards]
    by_file = {result["file"]: result["values"] for result in parallel_map(_named_values, items)}
    values = [of_row for shard in manifest.shards for of_row in by_file[shard.file]]
    labelled = np.array([of_row is not None for of_row in values])
    by_split = {
        split: {v for i in cohort.rows(split, labelled) for v in values[i]} for split in SPLITS
    }
    missing = [split for split in SPLITS if not len(cohort.rows(split, labelled))]
    if missing or not by_split["train"] - {0}:
        raise ValueError(
            f"{config.shards} holds no label map with more than background in {missing[0]}: ingest "
            "volumes with their segmentations"
            if missing
            else f"the label maps of {config.shards} hold nothing but background in train"
        )
    classes = (0, *sorted(by_split["train"] - {0}))
    left_out = {}
    if unlabelled := int((~labelled).sum()):
        left_out[f"{unlabelled} volumes"] = "no label map"
    for value in sorted((by_split["val"] | by_split["test"]) - set(classes)):
        left_out[f"label {value}"] = "not in the training volumes; counts as background"
    data = cast(VolumeDataConfig, facts.data)
    task = SegmentTask(shards, manifest, cohort, labelled, classes, facts.settings, data)
    return Preparation(task, left_out)


def _named_values(item: dict[str, Any]) -> dict[str, Any]:
    return {"file": item["shard"]["file"], "values": values_in(item)}


def _draw(
    config: SegmentConfig, task: SegmentTask, results: Sequence[tuple[Run, SegmentResult]]
) -> list[tuple[str, bytes]]:
    """Titles and PNGs of the first test volumes, by the runs of the first seed; kept as files, too."""
    first = {run.initialisation: result for run, result in results if run.seed == config.seeds[0]}
    folder = config.output / PICTURES
    folder.mkdir(parents=True, exist_ok=True)
    pictures = []
    names = task.cohort.name[task.rows("test")]
    count = min(config.pictures, len(names))
    for i, (name, volume) in enumerate(
        zip(names[:count], task.wholes(config, "test"), strict=False)
    ):
        plane = plane_of(volume.classes)
        image = outlines(
            axial(volume.voxels, plane),
            axial(volume.classes, plane),
            {initialisation: slices.axial(one.planes[i]) for initialisation, one in first.items()},
        )
        (folder / f"{i:02d}-{name}.png").write_bytes(image)
        scores = ", ".join(
            f"{initialisation} {np.nanmean(one.dice[i]):.2f}"
            for initialisation, one in first.items()
            if not np.isnan(one.dice[i]).all()
        )
        pictures.append(
            (
                f"{name}, axial slice {plane} ({slices.CONVENTION}); mean Dice of the volume: {scores}",
                image,
            )
        )
    return pictures


def _write_volumes(
    path: Path,
    task: SegmentTask,
    results: Sequence[tuple[Run, SegmentResult]],
    classes: Sequence[str],
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as whole, whole.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["start", "seed", "volume_id", "row", *METRICS])
        for run, result in results:
            for i, name in enumerate(task.cohort.name[task.rows("test")]):
                for k, label in enumerate(classes):
                    scores = (result.dice[i, k], result.nsd[i, k])
                    cells = ["" if np.isnan(score) else f"{score:.6f}" for score in scores]
                    rows.writerow([run.initialisation, run.seed, name, label, *cells])
