"""`benchmark fit`: embeds, draws, fits and chooses without a test label, and writes the plan."""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from ray_mae.benchmarking.caches import caches_of, splits_of, with_tokens
from ray_mae.benchmarking.exposure import ExposureSearch, on_ray
from ray_mae.benchmarking.features import Cache, cache_of, fill
from ray_mae.benchmarking.finetuning import finetune_all, finetune_keys
from ray_mae.benchmarking.fits import Group, fit_group, is_done
from ray_mae.benchmarking.left_out import left_out
from ray_mae.benchmarking.plan import (
    Suite,
    counts_of,
    hash_of,
    inputs_of,
    keys_of,
    look,
    unknown_attributes,
)
from ray_mae.benchmarking.ray_tasks import run_tasks
from ray_mae.benchmarking.records import FitKey
from ray_mae.benchmarking.segmenting import segment_all, segment_keys
from ray_mae.benchmarking.shared import fitted_elsewhere, in_words
from ray_mae.benchmarking.small import exposures_of_folds, small_tasks
from ray_mae.benchmarking.smoke import smoke_check
from ray_mae.benchmarking.store import PLAN, Store
from ray_mae.checkpoint.format import encoder_facts, find_checkpoint, fingerprint, read_config
from ray_mae.config.base import to_dict
from ray_mae.config.suite import SuiteConfig
from ray_mae.data.paths import resolve_url
from ray_mae.data.schema import Manifest
from ray_mae.evaluate.features import what_is_seen
from ray_mae.evaluate.heads.registry import HEADS
from ray_mae.files import write_whole
from ray_mae.open_weights.source import on_meta
from ray_mae.terminal import console, warn

TOGETHER = 20
"""Small fits in one task of Ray: reading the features takes longer than they do."""


def fit(config: SuiteConfig) -> dict[str, Any]:
    """Fits everything that the suite names and is not there yet; writes plan.json.

    Args:
        config: of the suite, on a Ray that is up.

    Returns:
        Counts for the summary.

    Raises:
        FileNotFoundError, ValueError: something of the suite is not there, or does not go together.
    """
    suite = look(config)
    warn([*unknown_attributes(suite), *in_words(suite)])
    store = Store(config.output)
    for name, table in suite.samples.items():
        store.write_samples(name, table, opened=False)
    keys, tuned, segmented = keys_of(suite), finetune_keys(suite), segment_keys(suite)
    costs = embed(suite)
    smoke = {name: smoke_check(suite, name) for name in config.encoders}
    warn([f"{name}: {facts['text']}" for name, facts in smoke.items() if facts.get("wrong")])
    inputs = {key: inputs_of(suite, key) for key in keys}
    waiting = [key for key in keys if not is_done(store, key, inputs[key])]
    if keys:
        console.print(f"{len(keys):,} fits, {len(keys) - len(waiting):,} of them there already")
    groups = list(groups_of(suite, waiting, inputs))
    run_tasks(fit_group, groups, "fitted", "fits", [len(group.keys) for group in groups])
    fitted = len(waiting) + finetune_all(suite, tuned) + segment_all(suite, segmented)
    every = [*keys, *tuned, *segmented]
    plan = write_plan(suite, every, costs, smoke)
    fits = [store.read_fit(key) for key in every]
    failed = [fit for fit in fits if fit.status == "failed"]
    warn([f"{len(failed)} fits failed, the first one: {f.reason}" for f in failed[:1]])
    return {
        "plan": plan["sha256"],
        "fits": len(fits),
        "fitted_now": fitted,
        "failed": len(failed),
        "trials": sum(len(fit.trials) for fit in fits),
    }


def embed(suite: Suite) -> dict[str, float]:
    """Embeds every data set with every encoder that some task asks for; returns seconds by encoder."""
    by_dataset: dict[str, list[tuple[Cache, str]]] = defaultdict(list)
    for cache, name, dataset in caches_of(suite):
        by_dataset[dataset].append((cache, name))
    seconds: dict[str, float] = defaultdict(float)
    for dataset, pairs in by_dataset.items():
        splits = splits_of(suite.config, dataset)
        spent = fill(suite.config, [cache for cache, _ in pairs], splits, dataset)
        for cache, name in pairs:
            seconds[name] += spent.get(cache.folder, 0.0)
    return seconds


def groups_of(suite: Suite, keys: Sequence[FitKey], inputs: dict[FitKey, str]) -> Iterator[Group]:
    """Keys that share features, some at a time."""
    config = suite.config
    together: dict[tuple, list[FitKey]] = defaultdict(list)
    for key in keys:
        cell = key.cell
        together[
            key.encoder, key.pretraining, cell.task, cell.head, cell.views, cell.held_out
        ].append(key)
    for (encoder, pretraining, task, *_), some in together.items():
        found = suite.sources.get((encoder, suite.kind_of(task)), [])
        cache = None
        if found:
            source = with_tokens(suite, found[pretraining], task)
            cache = cache_of(config, config.tasks[task].dataset, source)
        labels = suite.label_sets[task].names
        size = 1 if HEADS[some[0].cell.head].needs == "tokens" else TOGETHER
        for first in range(0, len(some), size):
            part = some[first : first + size]
            yield Group(config, part, [inputs[key] for key in part], labels, cache)


def write_plan(
    suite: Suite, keys: Sequence[FitKey], costs: dict[str, float], smoke: dict[str, Any]
) -> dict[str, Any]:
    """Writes plan.json: what is fixed before the test labels are opened."""
    config, store = suite.config, Store(suite.config.output)
    earlier = store.plan.get("encoders", {}) if (config.output / PLAN).is_file() else {}
    plan: dict[str, Any] = {
        "suite": to_dict(config),
        "code": version("ray-mae"),
        "label_sets": {
            name: {"labels": s.names, "left_out": s.left_out}
            for name, s in suite.label_sets.items()
        },
        "encoders": {
            name: _describe(suite, name, costs.get(name, 0.0), earlier.get(name, {}))
            for name in config.encoders
        },
        "datasets": {
            name: {
                "dataset": Manifest.read(entry.shards).dataset,
                "sha256": fingerprint(entry.shards),
                "counts": counts_of(suite.samples[name]),
                "flow": _flow(entry.shards),
            }
            for name, entry in config.datasets.items()
        },
        "exposure": exposures(suite),
        "fitted_elsewhere": fitted_elsewhere(suite),
        "small": (small := small_tasks(suite)),
        "exposure_of_folds": exposures_of_folds(suite, small),
        "smoke": smoke,
        "left_out": left_out(suite, keys),
        "fits": [asdict(key) for key in keys],
    }
    plan = json.loads(json.dumps(plan, default=str))
    plan["sha256"] = hash_of({**plan, "chosen": _chosen(store, keys)})
    write_whole(config.output / PLAN, json.dumps(plan, indent=1) + "\n")
    return plan


def _chosen(store: Store, keys: Sequence[FitKey]) -> list[Any]:
    """What validation chose: another choice is another plan."""
    fits = [store.read_fit(key) for key in keys]
    return [[fit.key.id, fit.status, json.dumps(fit.chosen, sort_keys=True)] for fit in fits]


_UNTRAINED = {"random": ", untrained", "scratch": ", trained on the labels alone"}
_BASELINES = {
    "pixels": "principal components of small images",
    "histogram": "histogram of intensities",
    "metadata": "what is known without the image",
    "prevalence": "the same for everybody",
}


def _describe(suite: Suite, name: str, cost: float, earlier: dict[str, Any]) -> dict[str, Any]:
    """What the page says of an encoder."""
    entry = suite.config.encoders[name]
    sources = [s for kind in ("study", "volume") for s in suite.sources.get((name, kind), ())]
    facts: dict[str, Any] = {
        "kind": entry.kind,
        "described": _BASELINES.get(entry.kind, ""),
        "pretraining_hours": 0.0,
        "seeds": max(1, len(sources)),
        "sha256": [source.weights for source in sources],
        "embedding_seconds": round(cost, 2) or earlier.get("embedding_seconds", 0.0),
    }
    if sources and sources[0].path is not None:
        settings = encoder_facts(sources[0].path).settings
        facts["described"] = f"{settings.described}{_UNTRAINED.get(entry.kind, '')}"
        network = on_meta(settings)
        facts["parameters"] = sum(p.numel() for p in network.parameters())
        facts["dimensions"] = network.width
        facts["sees"] = what_is_seen(sources[0].path, sources[0].crop_size, sources[0].sees)
        if entry.kind == "weights":
            hours = [pretraining_hours(source.path) for source in sources]
            facts["pretraining_hours"] = (
                None if None in hours else round(sum(filter(None, hours)) / len(hours), 4)
            )
    return facts


def pretraining_hours(path: Any) -> float | None:
    """Hours that our pretraining took, over its workers, by its summary; None of weights of others."""
    summary = path / "summary.json"
    if not summary.is_file():
        return None
    seconds = json.loads(summary.read_text()).get("seconds")
    if not isinstance(seconds, (int, float)):
        return None
    workers = read_config(find_checkpoint(path)).scaling.workers
    most = max(workers) if isinstance(workers, tuple) else workers
    return seconds * most / 3600


def _flow(shards: Any) -> dict[str, Any]:
    """What the ingest says went in and out."""
    summary = resolve_url(shards) / "summary.json"
    if not summary.is_file():
        return {}
    values = json.loads(summary.read_text())
    return {key: values[key] for key in ("flows", "quarantined") if key in values}


def exposures(suite: Suite) -> dict[str, dict[str, Any]]:
    """What each encoder's pretraining saw of each data set's test patients."""
    config = suite.config
    search = ExposureSearch(config.datasets, on_ray if config.trust.leaks else None)
    found: dict[str, dict[str, Any]] = {}
    for name, entry in config.encoders.items():
        found[name] = {}
        for task_name, task in config.tasks.items():
            kind = suite.kind_of(task_name)
            for dataset in task.tested_on:
                if dataset in found[name] or suite.kinds[dataset] != kind:
                    continue
                found[name][dataset] = asdict(search.exposure(entry, dataset))
    return found
