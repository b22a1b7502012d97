"""The command `predict`: new files → probabilities, and what could not be used."""

import csv
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from ray.data import ActorPoolStrategy, Dataset

from ray_mae.checkpoint.compatibility import require_compatible
from ray_mae.checkpoint.format import encoder_facts
from ray_mae.cluster.runtime import cluster, gpus_wanted
from ray_mae.config import PredictConfig
from ray_mae.data.ingest.quarantine_table import QuarantineTable
from ray_mae.data.ingest.shards import ShardPlan
from ray_mae.data.kinds import of_encoder, require_kind
from ray_mae.data.loading.integrity import check_sizes
from ray_mae.data.loading.stream import dataset_of
from ray_mae.data.paths import atomic_write, real_path, resolve_url
from ray_mae.data.quarantine import QuarantineRow
from ray_mae.data.schema import NOUNS, Manifest
from ray_mae.data.shard_set import ShardSet
from ray_mae.evaluate.finetune.classifier import classifier_labels
from ray_mae.evaluate.predict.batches import FACTS, NewFiles, OfShards, Predictor
from ray_mae.evaluate.predict.sources import format_of, read_source
from ray_mae.evaluate.predictions import FILE
from ray_mae.store import writes_to_stores
from ray_mae.summary import write_summary
from ray_mae.terminal import ProgressLine, console, warn

CSV, QUARANTINE = "predictions.csv", "quarantine.parquet"


@writes_to_stores()
def predict(config: PredictConfig) -> dict[str, Any]:
    """Writes the probability of each label in each study and view, or in each volume, of new files.

    predictions.parquet and predictions.csv have one row per label of a study (path and view are empty), of a
    view, or of a volume: study or volume, path, view, label, probability. A study's is by late fusion, as in
    `evaluate finetune`. Files that cannot be used stand in quarantine.parquet, with the reason.

    Args:
        config: settings of the command.

    Returns:
        The summary, which summary.json holds, too.

    Raises:
        FileNotFoundError: where there is no classifier or no source.
        ValueError: the source is none for this classifier, or not one of its files can be used.
    """
    began = time.time()
    config = replace(config, source=resolve_url(config.source))
    labels = classifier_labels(config.checkpoint)
    facts = encoder_facts(config.checkpoint)
    kind = of_encoder(facts.settings)
    form = format_of(config.source, config.format, kind.name)
    collator = kind.evaluation_collator(facts.settings.input_size, max_views=config.max_views)
    quarantine, listed, passed_over = QuarantineTable(), None, {}
    cautions: list[str] = []
    with cluster(cpus=config.workers + 1):
        if form == "shards":
            manifest = Manifest.read(config.source)
            require_kind(manifest.kind, kind.name, config.source, f"{config.checkpoint}")
            of_source = ShardSet.single(config.source, manifest)
            cautions = require_compatible(config.checkpoint, of_source, config.mismatch)
            warn(cautions)
            shards = [s for s in manifest.shards if s.split in config.splits]
            total = sum(shard.rows for shard in shards)
            check_sizes(real_path(config.source), manifest)
            calls: list[tuple] = [(asdict(shard),) for shard in shards]
            reader: Any = OfShards(real_path(config.source), collator, config.batch_size)
        else:
            progress = ProgressLine("listed", "files")
            source = read_source(config, form, kind.name, facts, progress.show)
            quarantine, listed = source.job.quarantine, source.job.listed
            passed_over = source.job.notes.get("files_passed_over", {})
            plans = list(source.job.plans)
            total = sum(len(plan.samples) for plan in plans)
            calls = [(_as_json(plan),) for plan in plans]
            reader = NewFiles(
                source.root, source.job.plan, source.names, collator, config.batch_size
            )
        console.print(
            f"{total:,} {kind.noun} of {config.source}, read as {form}: loading the classifier …"
        )
        found = _write(
            config, kind.name, labels, _results(config, reader, calls), total, quarantine
        )
    quarantined = {of: quarantine.reasons(of) for of in listed or {}}
    if listed is not None:
        quarantine.write(config.output / QUARANTINE, config.output)
        _check_nothing_is_lost(kind.name, listed, found, quarantine)
    if not found[kind.name]:
        reasons = next(iter(quarantined.values()), {})
        most = next(iter(reasons), "there are none")
        raise ValueError(
            f"not one {kind.name} of {config.source} could be used, most often for the reason {most!r}: "
            f"see {config.output / QUARANTINE}"
        )
    summary = {
        "command": "predict",
        "checkpoint": str(config.checkpoint),
        "format": form,
        NOUNS[kind.name]: found[kind.name],
        "views": found["view"] or None,
        "quarantined": quarantined,
        "files_passed_over": passed_over,
        "labels": labels,
        "cautions": cautions,
        "seconds": round(time.time() - began, 1),
        "files": [str(config.output / name) for name in (FILE, CSV)],
    }
    return write_summary(config.output, summary)


def _as_json(plan: ShardPlan) -> str:
    return json.dumps(asdict(plan))


def _results(config: PredictConfig, reader: Any, calls: list[tuple]) -> Dataset | None:
    if not calls:
        return None
    return dataset_of(reader, calls, 8).map_batches(
        Predictor,
        fn_constructor_args=(config.checkpoint.resolve(),),
        batch_size=1,  # a row is a batch already
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=config.workers),
        num_gpus=1 if gpus_wanted(config.gpu) else 0,
        num_cpus=1,
    )


def _write(
    config: PredictConfig,
    kind: str,
    labels: list[str],
    results: Dataset | None,
    total: int,
    quarantine: QuarantineTable,
) -> dict[str, int]:
    """Writes the predictions as they come; returns how many samples and views there were."""
    words = pa.dictionary(pa.int32(), pa.string())
    schema = pa.schema(
        [
            (kind, pa.string()),
            ("path", pa.string()),
            ("view", words),
            ("label", words),
            ("probability", pa.float32()),
        ]
    )
    output = config.output
    found = {kind: 0, "view": 0}
    progress = ProgressLine("predicted", NOUNS[kind])
    with ExitStack() as stack:
        file, text = (
            stack.enter_context(atomic_write(output / name, output, private=True))
            for name in (FILE, CSV)
        )
        parquet = stack.enter_context(pq.ParquetWriter(file, schema, compression="zstd"))
        table = csv.writer(stack.enter_context(text.open("w", encoding="utf-8", newline="")))
        table.writerow(schema.names)
        for facts in _facts(results):
            for entry in facts["quarantined"]:
                quarantine.add(QuarantineRow(**entry))
            rows = [row for sample in facts["samples"] for row in _rows(sample, labels)]
            if not rows:
                continue
            found[kind] += len(facts["samples"])
            found["view"] += sum(len(sample["views"]) for sample in facts["samples"])
            table.writerows((*row[:-1], f"{row[-1]:.6f}") for row in rows)
            arrays = [
                pa.array(column, field.type)
                for column, field in zip(zip(*rows, strict=True), schema, strict=True)
            ]
            parquet.write_table(pa.Table.from_arrays(arrays, schema=schema))
            progress.show(found[kind], total)
    return found


def _facts(results: Dataset | None) -> Iterator[dict[str, Any]]:
    if results is not None:
        for row in results.iter_rows():
            yield json.loads(row[FACTS])


def _rows(sample: dict[str, Any], labels: list[str]) -> Iterator[tuple[Any, ...]]:
    """Of a sample as a whole, and of each of its views."""
    name = _text(sample["sample"])
    for of in (sample, *sample["views"]):
        for label, probability in zip(labels, of["probability"], strict=True):
            yield name, _text(of["path"]), of.get("view"), label, probability


def _text(name: str | None) -> str | None:
    """Names of files need not be valid text."""
    return name and name.encode(errors="replace").decode()


def _check_nothing_is_lost(
    kind: str, listed: dict[str, int], found: dict[str, int], quarantine: QuarantineTable
) -> None:
    """Raises RuntimeError unless every sample and image was predicted or kept aside."""
    for of, predicted in ((kind, found[kind]), ("image", found["view"])):
        if of in listed and listed[of] != predicted + quarantine.count(of):
            raise RuntimeError(
                f"{listed[of]} {of} entries were listed, but {predicted} predicted and "
                f"{quarantine.count(of)} quarantined: this is a defect of ray_mae, please report it"
            )
