"""`--dry_run`: how many fits, hours and bytes a suite takes, from a few images and fits that are timed."""

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pyarrow as pa

from ray_mae.benchmarking.caches import caches_of, splits_of
from ray_mae.benchmarking.features import Cache, ViewEmbedder, collator_of
from ray_mae.benchmarking.finetuning import finetune_keys, trials_of
from ray_mae.benchmarking.fit import groups_of
from ray_mae.benchmarking.fits import is_done
from ray_mae.benchmarking.folds import fold_keys, store_of_folds
from ray_mae.benchmarking.plan import Suite, inputs_of, keys_of, look
from ray_mae.benchmarking.readers import HistogramRows, ShardBatches
from ray_mae.benchmarking.segmenting import bytes_of_models, segment_keys
from ray_mae.benchmarking.segmenting import trials_of as trials_of_segment
from ray_mae.benchmarking.small import small_tasks
from ray_mae.benchmarking.store import Store
from ray_mae.benchmarking.tuning import seeds_of_trials
from ray_mae.config.suite import SuiteConfig
from ray_mae.data.paths import real_path
from ray_mae.data.schema import Manifest
from ray_mae.evaluate.heads.base import Data, Kind, Tokens
from ray_mae.evaluate.heads.registry import HEADS

IMAGES = 256
"""That are measured of each encoder, at most."""


def forecast(config: SuiteConfig) -> dict[str, Any]:
    """Returns counts, hours on one worker, and bytes; nothing is written.

    Raises:
        FileNotFoundError, ValueError: something of the suite is not there, or does not go together.
    """
    suite = look(config)
    store, keys = Store(config.output), keys_of(suite)
    inputs = {key: inputs_of(suite, key) for key in keys}
    waiting = [key for key in keys if not is_done(store, key, inputs[key])]
    embedding, bytes_, widths = _embedding(suite)
    seconds = 0.0
    for group in groups_of(suite, waiting, inputs):
        width = widths.get(group.keys[0].encoder, 1)
        seconds += sum(_seconds(suite, key, width, len(group.labels)) for key in group.keys)
    folds = fold_keys(keys, small_tasks(suite), config.views[0])
    of_folds = store_of_folds(config.output)
    for key in folds:
        if not of_folds.has_fit(key):
            labels = len(suite.label_sets[key.cell.task].names)
            seconds += _seconds(suite, key, widths.get(key.encoder, 1), labels)
    tuned = finetune_keys(suite)
    heads = config.heads
    trials = sum(
        len(trials_of(heads.finetune, config.encoders[encoder].kind == "scratch"))
        * len(seeds_of_trials(suite, cell.task, heads.finetune))
        for cell, encoder in {(key.cell, key.encoder) for key in tuned}
    )
    segmented = segment_keys(suite)
    segmentations = len(segmented) + sum(
        len(trials_of_segment(heads.segment))
        * len(seeds_of_trials(suite, cell.task, heads.segment))
        for cell, _ in {(key.cell, key.encoder) for key in segmented}
    )
    return {
        "fits": len(keys) + len(tuned) + len(segmented),
        "fits_there": len(keys) - len(waiting),
        "fits_of_folds": len(folds),
        "fine_tunings": len(tuned) + trials,
        **({"segmentations": segmentations} if segmented else {}),
        "hours_embedding": round(embedding / 3600, 3),
        "hours_fits": round(seconds / 3600, 3),
        "hours_fine_tuning": "not measured: one epoch of `evaluate finetune` tells" if tuned else 0,
        **({"hours_segmentation": _OF_SEGMENT} if segmented else {}),
        "gigabytes": round(
            (bytes_ + _bytes_of_results(suite, [*keys, *folds]) + bytes_of_models(suite, segmented))
            / 1e9,
            3,
        ),
    }


_OF_SEGMENT = "not measured: a hundred steps of `evaluate segment` tell"


def _embedding(suite: Suite) -> tuple[float, float, dict[str, int]]:
    """Seconds and bytes of the embeddings that are missing, and lengths of vectors by encoder."""
    config, seconds, size = suite.config, 0.0, 0.0
    widths: dict[str, int] = {}
    for cache, name, dataset in caches_of(suite):
        manifest = Manifest.read(cache.shards)
        splits = splits_of(config, dataset)
        total = sum(manifest.rows(split) for split in splits)
        done, parts = 0, []
        began = time.perf_counter()
        for block in _blocks(cache, config, manifest, splits):
            parts.append(block)
            done += len(parts[-1]["sample"].unique())
            if done >= IMAGES:
                break
        spent = time.perf_counter() - began
        table = pa.concat_tables(parts)
        vectors = [c for c in table.column_names if "/vector:" in c]
        widths[name] = max(table.schema.field(c).type.list_size for c in vectors)
        if cache.missing(splits):
            seconds += spent / done * total
            size += table.nbytes / done * total
    return seconds, size, widths


def _blocks(
    cache: Cache, config: SuiteConfig, manifest: Manifest, splits: list[str]
) -> Iterator[pa.Table]:
    """Features of one batch after the other, in this process."""
    folder = real_path(cache.shards)
    shards = [shard for split in splits for shard in manifest.of_split(split)]
    if cache.source.kind == "histogram":
        histograms = HistogramRows(folder, manifest.kind, config.max_views)
        for shard in shards:
            yield from histograms.read(shard)
        return
    collator = collator_of(cache.source, config.max_views)
    reader = ShardBatches(folder, collator, config.batch_size, f"{manifest.kind}_id")
    embedder = ViewEmbedder([cache.source])
    for shard in shards:
        for block in reader.read(shard):
            yield embedder(block)


_MEASURED: dict[tuple, float] = {}


def _seconds(suite: Suite, key: Any, width: int, labels: int) -> float:
    """Of one fit, by a fit to random numbers of that size, at most a thousand rows and scaled up."""
    cell = key.cell
    table = suite.samples[suite.config.tasks[cell.task].dataset]
    there = int((table.split == "train").sum())
    n = min(cell.studies or there, there)
    small = min(n, 1000)
    at = (cell.head, small, width, labels)
    if at not in _MEASURED:
        rng = np.random.default_rng(0)
        entry = HEADS[cell.head]
        tokens = None
        if entry.needs == "tokens":
            side = suite.config.heads.grid
            values = rng.normal(size=(small, side**2, width)).astype(np.float16)
            tokens = Tokens(values, np.arange(small), np.zeros(small, np.intp))
        x = rng.normal(size=(small, width)).astype(np.float32)
        # something to learn and something not, as of labels: pure noise takes a solver far longer
        drawn = x @ rng.normal(size=(width, labels)) / width**0.5 + rng.normal(size=(small, labels))
        targets = (drawn > 0.7).astype(float)
        targets[0] = 1  # also of the fewest somebody has it
        data = Data(
            {"mean": x},
            targets,
            np.arange(small).astype(np.str_),
            tokens,
            cast(Kind, suite.config.tasks[cell.task].kind),
        )
        settings = suite.config.heads
        if entry.per_shots:
            settings = replace(settings, shots=[max(1, min(cell.studies, small // 8))])
        began = time.perf_counter()
        entry.head.fit(data, data, [str(i) for i in range(labels)], settings, 0)
        _MEASURED[at] = time.perf_counter() - began
    return _MEASURED[at] * n / small


def _bytes_of_results(suite: Suite, keys: list[Any]) -> float:
    """Of stored predictions: a float of each label and sample that is not trained on."""
    size = 0.0
    for key in keys:
        task = suite.config.tasks[key.cell.task]
        tables = [suite.samples[name] for name in {task.dataset, *task.tested_on}]
        rows = sum(int((table.split != "train").sum()) for table in tables)
        size += 4 * rows * len(suite.label_sets[key.cell.task].names)
    return size
