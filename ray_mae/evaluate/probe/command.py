"""`evaluate probe`: frozen features of a checkpoint, probed and reported."""

import itertools
import time
from pathlib import Path
from typing import Any

import pyarrow as pa

from ray_mae.checkpoint import format as ckpt
from ray_mae.checkpoint.compatibility import cautions
from ray_mae.cluster.runtime import cluster
from ray_mae.config import ProbeConfig
from ray_mae.config.base import to_dict
from ray_mae.data.schema import NOUNS, Manifest
from ray_mae.data.shard_set import ShardSet
from ray_mae.evaluate.baselines import PIXELS, RANDOM, TRAINED
from ray_mae.evaluate.cohort import describe_policy, read_cohort
from ray_mae.evaluate.features import matrix, what_is_seen
from ray_mae.evaluate.metrics import FloatArray
from ray_mae.evaluate.predictions import Predictions
from ray_mae.evaluate.probe.embedding import embed_cohort, in_order_of
from ray_mae.evaluate.probe.labelled import ProbeData, draws_of, needed_splits, probeable
from ray_mae.evaluate.probe.linear import pixel_components, probe
from ray_mae.evaluate.probe.report import write_report
from ray_mae.evaluate.probe.result import ONE_SEED, ProbeResult
from ray_mae.store import writes_to_stores
from ray_mae.summary import write_summary
from ray_mae.terminal import ProgressLine, warn
from ray_mae.train.metrics.jsonl import read_jsonl
from ray_mae.train.run_folder import METRICS, PROBES, REPORTS, last_pictures


@writes_to_stores()
def evaluate_probe(config: ProbeConfig) -> dict[str, Any]:
    """Probes the trained encoder, a random one and raw pixels on the same samples.

    Writes probe.json, probe.csv, predictions.parquet, report.html and summary.json.

    Args:
        config: settings of the command.

    Returns:
        The summary.

    Raises:
        FileNotFoundError: where there is no checkpoint or there are no shards.
        ValueError: where these do not go together, or no label can be probed.
    """
    began = time.time()
    manifest = Manifest.read(config.shards)
    notes = cautions(config.checkpoint, config.shards, config.mismatch)
    warn(notes)
    splits = needed_splits({shard.split for shard in manifest.shards}, config)
    cohort = read_cohort(ShardSet.read(config.shards), splits, config.labels)
    targets, names, no_classes = cohort.targets(config)
    data = ProbeData(targets, names, cohort.patient, cohort.split)
    _, rare = probeable(data, config)  # before hours of embedding
    with cluster(cpus=config.workers + 1):
        kinds = [TRAINED, RANDOM, PIXELS]
        table = embed_cohort(config.checkpoint, config.shards, splits, cohort, config, kinds)
    end_of_embedding = time.time()
    data = in_order_of(table, cohort, data)
    matrices = {name: matrix(table[name]) for name in kinds}
    matrices[PIXELS] = pixel_components(matrices[PIXELS], data.split, config.pca, config.seed)
    heads = len(matrices) * (len(names) - len(rare)) * len(draws_of(data, config))
    model = {"features": pa.string(), "draw": pa.int32()}
    with Predictions(config.output, table.column_names[0], model) as predictions:
        progress = ProgressLine("probed", "labels")
        done = itertools.count(1)

        def keep(features: str, draw: int, label: str, logits: FloatArray) -> None:
            target = data.targets[:, list(names).index(label)]
            predictions.add(
                table.column(0).to_numpy(), data.patient, data.split, label, logits, target,
                features=features, draw=draw,
            )  # fmt: skip
            progress.show(next(done), heads)

        result = probe(matrices, data, config, keep)
    result.left_out.update(no_classes)
    run = _run_of(config.checkpoint)
    paths = write_report(
        config.output,
        result,
        title=f"Probe of {config.checkpoint.name} on {manifest.dataset}",
        settings={
            "dataset": manifest.dataset,
            "probe": to_dict(config),
            "pretraining": _training_settings(config.checkpoint),
        },
        curves=read_jsonl(run / METRICS) if run else None,
        probes=read_jsonl(run / PROBES) if run else (),
        pictures=last_pictures(run) if run else (),
        captions=read_jsonl(run / REPORTS) if run else None,
        cautions=notes,
        kind=manifest.kind,
        sees=what_is_seen(config.checkpoint, config.crop_size, config.sees),
    )
    summary = {
        "command": "evaluate probe",
        "checkpoint": str(config.checkpoint),
        "sees": what_is_seen(config.checkpoint, config.crop_size, config.sees),
        NOUNS[manifest.kind]: {name: count.studies for name, count in result.counts.items()},
        **_not_used(data, result),
        "macro_auroc": {
            name: score.macro["auroc"].describe() for name, score in result.features.items()
        },
        "difference_of_trained": {
            name: difference.describe() for name, difference in result.differences.items()
        },
        "one_seed": ONE_SEED,
        "labels": result.labels,
        "constant": result.constants,
        "too_few_to_tell": result.too_few,
        **describe_policy(manifest.kind, config),
        "left_out": result.left_out,
        "cautions": notes,
        "C_at_edge": result.edges(),
        "seconds": round(time.time() - began, 1),
        "seconds_embedding": round(end_of_embedding - began, 1),
        "report": str(paths["html"]),
        "predictions": str(predictions.path),
    }
    return write_summary(config.output, summary)


def _not_used(data: ProbeData, result: ProbeResult) -> dict[str, Any]:
    """How many studies train_studies leaves out, in the first draw; nothing where it leaves out none."""
    left = len(data.split) - sum(count.studies for count in result.counts.values())
    return {"left_out_by_train_studies": left} if left else {}


def _run_of(checkpoint: Path) -> Path | None:
    """The folder of the run that a checkpoint belongs to; None for an exported encoder."""
    try:
        return ckpt.find_checkpoint(checkpoint).resolve().parent
    except FileNotFoundError:
        return None


def _training_settings(checkpoint: Path) -> dict[str, Any]:
    try:
        state = ckpt.read_state(ckpt.find_checkpoint(checkpoint))
    except FileNotFoundError:
        return {}
    return {"step": state["step"], **state["config"]}
