"""`evaluate finetune`: the encoder trained on labels, beside the same network from scratch."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ray_mae.checkpoint.format import encoder_facts
from ray_mae.cluster.runtime import cluster
from ray_mae.config import FinetuneConfig
from ray_mae.data.kinds import KINDS, of_encoder, require_kind
from ray_mae.data.labels import policy_in_words
from ray_mae.data.paths import real_path
from ray_mae.data.schema import NOUNS, SPLITS, Manifest
from ray_mae.data.shard_set import ShardSet
from ray_mae.evaluate.calibration import temperature
from ray_mae.evaluate.cohort import (
    count_labels,
    describe_policy,
    hint_of_policy,
    read_cohort,
    too_rare,
)
from ray_mae.evaluate.finetune.training import FinetuneResult, FinetuneTask, finetune, schedule
from ray_mae.evaluate.predictions import Predictions
from ray_mae.evaluate.scores import SCORES, Evidence, evidence_of, score_label
from ray_mae.evaluate.supervised import driver
from ray_mae.evaluate.supervised.comparison import MetricValues
from ray_mae.evaluate.supervised.driver import Preparation
from ray_mae.evaluate.supervised.runs import Run


def evaluate_finetune(config: FinetuneConfig) -> dict[str, Any]:
    """Fine-tunes from every initialisation with every seed, and compares them on test patients.

    Writes finetune.json, finetune.csv, predictions.parquet, report.html, summary.json and the weights of
    each run, below models/.

    Args:
        config: settings of the command.

    Returns:
        The summary.

    Raises:
        FileNotFoundError, ValueError: with what to do, before any run starts.
        RuntimeError: with the name of a run that failed.
    """
    return driver.evaluate(Finetuning(config))


class Finetuning(driver.Evaluation[FinetuneConfig, FinetuneTask, FinetuneResult]):
    """Labels of studies or volumes."""

    command = "finetune"
    metrics = SCORES
    chance = 0.5
    score = "macro AUROC"
    limits = (
        driver.OTHER_HOSPITAL,
        driver.OTHER_TRAINING_SET,
        driver.OTHER_BUDGET,
        driver.FITNESS_FOR_CARE,
    )

    @contextmanager
    def prepare(self) -> Iterator[Preparation[FinetuneTask]]:
        preparation = prepare_labels(self.config)
        with cluster(cpus=self.config.cpus_per_run):
            yield preparation

    @property
    def train(self) -> Callable[[Run, FinetuneConfig, FinetuneTask], FinetuneResult]:
        return finetune

    def measure(
        self, task: FinetuneTask, result: FinetuneResult, weights: NDArray
    ) -> dict[str, MetricValues]:
        return measure_labels(task, result, weights)

    def evidence(self, task: FinetuneTask, weights: NDArray) -> list[Evidence]:
        rows = task.rows("test")
        patient, targets = task.cohort.patient[rows], task.targets[rows]
        return [evidence_of(targets[:, i], patient, weights) for i in range(targets.shape[1])]

    def rows(self, task: FinetuneTask) -> list[str]:
        return task.labels

    def write_more(
        self, task: FinetuneTask, results: Sequence[tuple[Run, FinetuneResult]]
    ) -> list[tuple[str, bytes]]:
        """predictions.parquet: what each run says of validation and test patients."""
        cohort, model = task.cohort, {"start": pa.string(), "seed": pa.int32()}
        with Predictions(self.config.output, f"{cohort.kind}_id", model) as predictions:
            for run, result in results:
                for split, logits in (("val", result.validation), ("test", result.logits)):
                    rows = task.rows(split)
                    who = cohort.name[rows], cohort.patient[rows], cohort.split[rows]
                    for i, label in enumerate(task.labels):
                        predictions.add(
                            *who, label, logits[:, i], task.targets[rows, i],
                            start=run.initialisation, seed=run.seed,
                        )  # fmt: skip
        return []

    def title(self, task: FinetuneTask) -> str:
        return f"Fine-tuning of {self.config.checkpoint.name} on {task.manifest.dataset}"

    def lead(self, task: FinetuneTask) -> str:
        return (
            f"{len(task.labels)} labels on {len(task.rows('test')):,} test "
            f"{NOUNS[task.manifest.kind]} that no training and no choice has seen."
        )

    def protocol(self, task: FinetuneTask) -> dict[str, str]:
        config = self.config
        what = "the head alone is trained" if config.freeze else "encoder and head are trained"
        return {
            "Network": f"the encoder, dropout {config.dropout:g}, one linear layer; {what}. "
            "trained starts at the checkpoint's weights, random at fresh ones; a seed has the same "
            "head, order and augmentation in both.",
            "Budget": f"{task.steps:,} steps of AdamW with {config.batch_size} × "
            f"{config.accumulate} {NOUNS[task.manifest.kind]} each, for every start and seed; "
            f"validated {len(task.validate_at)} times.",
            "Choice": "the weights with the highest mean AUROC on validation patients, of equal "
            "ones those with the lower loss. Test patients serve for the numbers alone.",
            "Seen": KINDS[task.manifest.kind].seen,
            "Labels": KINDS[task.manifest.kind].unlabelled
            or f"{policy_in_words(config.uncertain, config.unmentioned)}.",
        }


def prepare_labels(config: FinetuneConfig) -> Preparation[FinetuneTask]:
    """Returns the task, what each split holds, and the labels left out with the reason.

    Raises:
        FileNotFoundError: where there is no checkpoint or there are no shards.
        ValueError: where these do not go together, or no label can be learnt and tested.
    """
    manifest = Manifest.read(config.shards)
    settings = encoder_facts(config.checkpoint).settings.resized(config.crop_size)
    reader = f"the encoder of {config.checkpoint}"
    require_kind(manifest.kind, of_encoder(settings).name, config.shards, reader)
    cohort = read_cohort(ShardSet.read(config.shards), labels=config.labels)
    targets, names, left_out = cohort.targets(config)
    counts = {s: count_labels(targets, cohort.patient, cohort.split == s, names) for s in SPLITS}
    left_out |= too_rare(counts, config.min_positive)
    columns = [i for i, name in enumerate(names) if name not in left_out]
    if not columns:
        raise ValueError(
            f"no label can be learnt and tested: none has {config.min_positive} patients with a positive and "
            f"{config.min_positive} with a negative {manifest.kind} in each of train, val and test"
            f"{hint_of_policy(config)}; lower min_positive or bring more labelled patients"
        )
    targets = targets[:, columns]
    task = FinetuneTask(
        real_path(config.shards),
        manifest,
        cohort,
        [names[i] for i in columns],
        targets,
        **schedule(len(cohort.labelled(targets, "train")), config),
    )
    return Preparation(task, left_out, counts, describe_policy(manifest.kind, config))


def measure_labels(
    task: FinetuneTask, result: FinetuneResult, weights: NDArray
) -> dict[str, MetricValues]:
    """All SCORES of one run by label.

    Args:
        task: of the run.
        result: of the run; its validation patients choose the temperatures.
        weights: [T, R] of the resamples of the test patients.
    """
    test, val = task.rows("test"), task.rows("val")
    labels = []
    for i in range(len(task.labels)):
        y, y_val = task.targets[test, i], task.targets[val, i]
        known, known_val = ~np.isnan(y), ~np.isnan(y_val)
        cool = temperature(y_val[known_val], result.validation[known_val, i])
        patient = task.cohort.patient[test][known]
        labels.append(score_label(y[known], result.logits[known, i], patient, weights[known], cool))
    errors = np.array([one.error for one in labels])
    return {
        metric: MetricValues(
            np.array([one.value[metric] for one in labels]),
            np.stack([one.resampled[metric] for one in labels]),
            errors if metric == "auroc" else None,
        )
        for metric in SCORES
    }
