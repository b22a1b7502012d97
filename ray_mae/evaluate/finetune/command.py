"""`evaluate finetune`: the encoder trained on labels, beside the same network from scratch."""

import time
from typing import Any

import numpy as np

from ray_mae.checkpoint.format import cautions, encoder_facts
from ray_mae.cluster.runtime import cluster
from ray_mae.config import FinetuneConfig
from ray_mae.config.base import to_dict
from ray_mae.data.kinds import KINDS, of_encoder, require_kind
from ray_mae.data.schema import NOUNS, SPLITS, Manifest
from ray_mae.data.shard_set import ShardSet
from ray_mae.evaluate.cohort import SplitCount, count_labels, read_cohort, too_rare
from ray_mae.evaluate.finetune.training import Task, finetune, schedule
from ray_mae.evaluate.metrics import METRICS, FloatArray, measure, patient_resamples
from ray_mae.evaluate.supervised.comparison import Measured, compare
from ray_mae.evaluate.supervised.report import Finding, write_comparison
from ray_mae.evaluate.supervised.runs import run_all, runs_of


def evaluate_finetune(config: FinetuneConfig) -> dict[str, Any]:
    """Fine-tune from every start with every seed, and compare them on test patients.

    Writes finetune.json, finetune.csv, report.html, summary.json and the weights of each run, below
    models/; returns the summary. Raises ValueError or FileNotFoundError with what to do before any
    run starts, RuntimeError with the name of a run that failed.
    """
    began = time.time()
    task, counts, left_out = task_of(config)
    runs = runs_of(config)
    with cluster(cpus=config.cpus_per_run):
        found = run_all(finetune, runs, config, task, score="macro AUROC")
    test = task.rows("test")
    weights = patient_resamples(task.cohort.patient[test], config.bootstrap, config.seeds[0])
    by_start: dict[str, list[dict[str, Measured]]] = {start: [] for start in config.compare}
    for run, one in zip(runs, found, strict=True):
        by_start[run.start].append(measured(task.targets[test], one.probability, weights))
    noun = NOUNS[task.manifest.kind]
    finding = Finding(
        command="finetune",
        title=f"Fine-tuning of {config.checkpoint.name} on {task.manifest.dataset}",
        lead=f"{len(task.labels)} labels on {len(test):,} test {noun} that no training and no "
        "choice has seen.",
        main="auroc",
        chance=0.5,
        comparison=compare(by_start, config.seeds, task.labels, METRICS),
        runs=list(zip(runs, (one.fit for one in found), strict=True)),
        samples_per_batch=config.batch_size,
        left_out=left_out,
        counts=counts,
        noun=noun,
        protocol=protocol(config, task, noun),
        limits=LIMITS,
        cautions=cautions(config.checkpoint, config.shards),
        settings={"dataset": task.manifest.dataset, **to_dict(config)},
    )
    return write_comparison(config.output, finding, began)


def task_of(config: FinetuneConfig) -> tuple[Task, dict[str, SplitCount], dict[str, str]]:
    """The task, what each split holds, and the labels left out with the reason."""
    manifest = Manifest.read(config.shards)
    settings = encoder_facts(config.checkpoint).settings.resized(config.crop_size)
    reader = f"the encoder of {config.checkpoint}"
    require_kind(manifest.kind, of_encoder(settings).name, config.shards, reader)
    cohort = read_cohort(ShardSet.read(config.shards))
    targets, names, left_out = cohort.targets(config.uncertain)
    counts = {s: count_labels(targets, cohort.patient, cohort.split == s, names) for s in SPLITS}
    left_out |= too_rare(counts, config.min_positive)
    learnt = [i for i, name in enumerate(names) if name not in left_out]
    if not learnt:
        raise ValueError(
            f"no label can be learnt and tested: none has {config.min_positive} positive and "
            f"{config.min_positive} negative {NOUNS[manifest.kind]} in each of train, val and test; "
            "lower min_positive or bring more labels"
        )
    targets = targets[:, learnt]
    task = Task(
        config.shards.resolve(),
        manifest,
        cohort,
        [names[i] for i in learnt],
        targets,
        **schedule(len(cohort.labelled(targets, "train")), config),
    )
    return task, counts, left_out


def measured(
    targets: FloatArray, probability: FloatArray, weights: np.ndarray
) -> dict[str, Measured]:
    """All METRICS of one run by label; targets and probability [T, L], weights [T, R]."""
    values: dict[str, list[FloatArray]] = {metric: [] for metric in METRICS}
    spread: dict[str, list[FloatArray]] = {metric: [] for metric in METRICS}
    for i in range(targets.shape[1]):
        known = ~np.isnan(targets[:, i])
        y, p = targets[known, i], probability[known, i]
        whole, resampled = measure(y, p), measure(y, p, weights[known])
        for metric in METRICS:
            values[metric].append(whole[metric][0])
            spread[metric].append(resampled[metric])
    return {m: Measured(np.array(values[m]), np.stack(spread[m])) for m in METRICS}


def protocol(config: FinetuneConfig, task: Task, noun: str) -> dict[str, str]:
    """How the numbers were made, for the page."""
    uncertain = {
        "zeros": "counts as negative",
        "ones": "counts as positive",
        "ignore": "is ignored",
    }
    what = "the head alone is trained" if config.freeze else "encoder and head are trained"
    return {
        "Network": f"the encoder, dropout {config.dropout:g}, one linear layer; {what}. "
        "trained starts at the checkpoint's weights, random at fresh ones; a seed has the same head, "
        "order and augmentation in both.",
        "Budget": f"{task.steps:,} steps of AdamW with {config.batch_size} × {config.accumulate} "
        f"{noun} each, for every start and seed; validated {len(task.validate_at)} times.",
        "Choice": "the weights with the highest mean AUROC on validation patients, of equal ones "
        "those with the lower loss. Test patients serve for the numbers alone.",
        "Labels": KINDS[task.manifest.kind].unlabelled
        or f"not mentioned counts as negative; uncertain {uncertain[config.uncertain]}.",
        "Intervals": f"percentiles 2.5 to 97.5 of {config.bootstrap:,} resamples of the test "
        "patients, of the mean over seeds; the same resamples for all runs, so that differences are "
        "paired. ± is the standard deviation over seeds.",
    }


LIMITS = [
    "Another hospital: training, validation and test patients come from the same archive.",
    "Another training set: the intervals cover the choice of test patients, the spread covers the "
    "seeds; both starts saw the same training patients.",
    "That random could not do better with a longer training or other settings: both starts had the "
    "same ones.",
    "Fitness for use in care. This is a figure of research.",
]
