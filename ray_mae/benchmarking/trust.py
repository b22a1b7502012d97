"""What is measured beside the table when it is opened: what features know, robustness, agreement of scans."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_mae.benchmarking.agreement import agreement, scanner_attribute
from ray_mae.benchmarking.caches import frozen_tasks, with_tokens
from ray_mae.benchmarking.corruptions import STRENGTHS
from ray_mae.benchmarking.features import Cache, Features, cache_of, fill, mean_of_views
from ray_mae.benchmarking.fit import groups_of
from ray_mae.benchmarking.fits import Opening, predict_group
from ray_mae.benchmarking.knows import EVERYBODY, eta_squared, knows
from ray_mae.benchmarking.plan import Suite, keys_of
from ray_mae.benchmarking.ray_tasks import run_tasks
from ray_mae.benchmarking.records import ALL, FitKey, SampleTable
from ray_mae.benchmarking.sources import Source
from ray_mae.benchmarking.store import TRUST, Store
from ray_mae.config.suite import SuiteConfig
from ray_mae.data.schema import SPLITS
from ray_mae.evaluate.metrics import FloatArray, macro, measure, patient_resamples
from ray_mae.files import write_whole

HEALTHY = "No Finding"
"""Label within which an attribute is told, too."""
ROBUST = "linear"
"""The head of which robustness is measured: of all labelled studies and all views."""


def measure_trust(suite: Suite) -> None:
    """Measures what the suite asks for, and writes trust.json."""
    trust = suite.config.trust
    known, shares = _knows(suite) if trust.knows else ([], [])
    found: dict[str, list[dict[str, Any]]] = {
        "knows": known,
        "variance": shares,
        "robustness": _robustness(suite) if trust.corruptions else [],
        "agreement": list(_agreement(suite)) if trust.repeats else [],
    }
    text = json.dumps(_plain(found), indent=1)
    write_whole(suite.config.output / TRUST, text + "\n")


def _plain(value: Any) -> Any:
    """NaN as None."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and np.isnan(value) else value


def _seen(suite: Suite, dataset: str) -> Iterator[tuple[str, Source]]:
    """Encoders that look at a data set's images, and the source of their first pretraining."""
    for name in suite.config.encoders:
        sources = suite.sources.get((name, suite.kinds[dataset]), [])
        if sources and suite.config.encoders[name].kind != "scratch":
            yield name, sources[0]


def _cache(suite: Suite, dataset: str, source: Source) -> Cache:
    """Where the features of a data set are kept, with tokens or without."""
    tasks = frozen_tasks(suite.config)
    task = next((n for n, t in tasks.items() if dataset in (t.dataset, *t.tested_on)), None)
    kept = source if task is None else with_tokens(suite, source, task)
    return cache_of(suite.config, dataset, kept)


def _vectors(cache: Cache, table: SampleTable) -> NDArray[np.float32]:
    """[S, D] mean over the views of each sample."""
    features: Features = cache.read(table.sample, SPLITS, pool="mean")
    everything = np.ones(len(features.sample), bool)
    means, _ = mean_of_views(features, everything, len(table.sample))
    return means.get("mean", next(iter(means.values())))


@dataclass(frozen=True)
class _Asked:
    """An encoder on a data set, of which is asked what its features know: a value that is small to send."""

    config: SuiteConfig
    task: str
    dataset: str
    encoder: str
    cache: Cache


def _knows(suite: Suite) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Records of attributes told by a linear head, and of shares of variance: of the first task of labels of
    each data set."""
    asked, done = [], set()
    for task, entry in suite.config.tasks.items():
        if entry.kind == "labels" and entry.dataset not in done:
            done.add(entry.dataset)
            asked += [
                _Asked(
                    suite.config, task, entry.dataset, name, _cache(suite, entry.dataset, source)
                )
                for name, source in _seen(suite, entry.dataset)
            ]
    found = run_tasks(_known_by, asked, "asked what they know", "encoders", [1] * len(asked))
    return [r for told, _ in found for r in told], [r for _, shares in found for r in shares]


def _known_by(asked: _Asked) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Attributes told among everybody and within the healthy, and the variance between groups."""
    trust, seed = asked.config.trust, asked.config.statistics.seed
    table = Store(asked.config.output).samples(asked.dataset)
    labels, states = table.names[asked.task], table.targets[asked.task]
    among: dict[str, NDArray[np.bool_] | None] = {EVERYBODY: None}
    if HEALTHY in labels:
        among[HEALTHY] = states[:, labels.index(HEALTHY)] == 1
    else:
        among[f"without {labels[0]}"] = states[:, 0] == 0
    vectors = _vectors(asked.cache, table)
    attributes = {n: table.attributes[n] for n in trust.knows if n in table.attributes}
    of = {"encoder": asked.encoder, "dataset": asked.dataset}
    told = [
        {**of, **asdict(knows(
            vectors, name, values, table.patient, table.split, within=within, among=words, seed=seed,
        ))}
        for name, values in attributes.items()
        for words, within in among.items()
    ]  # fmt: skip
    groups = {**attributes, **_states(labels, states)}
    shares = eta_squared(vectors, groups, table.rows("train"))
    return told, [{**of, "group": name, **asdict(share)} for name, share in shares.items()]


def _states(labels: list[str], states: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
    """[S] of each label 0 or 1, None where unknown."""
    found = {}
    for label, column in zip(labels, states.T, strict=True):
        known = ~np.isnan(column)
        found[label] = np.full(len(column), None, dtype=object)
        found[label][known] = column[known].astype(int)
    return found


def _agreement(suite: Suite) -> Iterator[dict[str, Any]]:
    """Agreement of features over scanners, of the people who were scanned on several."""
    dataset = suite.config.trust.repeats
    assert dataset is not None
    table = suite.samples[dataset]
    name = scanner_attribute(table.attributes, dataset)
    scanner = table.attributes[name]
    known = np.array([value is not None for value in scanner])
    for encoder, source in _seen(suite, dataset):
        vectors = _vectors(_cache(suite, dataset, source), table)
        found = agreement(vectors[known], table.patient[known], scanner[known].astype(str))
        yield {"encoder": encoder, "dataset": dataset, "scanner": name, **asdict(found)}


# --------------------------------------------------------------------------------------- robustness


def _robustness(suite: Suite) -> list[dict[str, Any]]:
    """Macro AUROC on changed test images minus that on the images as they are."""
    config, store = suite.config, Store(suite.config.output)
    keys = [
        key
        for key in keys_of(suite)
        if key.cell.head == ROBUST
        and (key.cell.views, key.cell.studies, key.cell.held_out) == ("all", ALL, "")
        and suite.sources.get((key.encoder, suite.kind_of(key.cell.task)))
        and config.tasks[key.cell.task].dataset in config.tasks[key.cell.task].tested_on
        and store.read_fit(key).status != "failed"
    ]
    openings, wanted = [], []
    caches: dict[tuple[str, str, int], list[Cache]] = {}
    for group in groups_of(suite, keys, dict.fromkeys(keys, "")):
        (key, *_) = group.keys
        task = config.tasks[key.cell.task]
        kind = suite.kind_of(key.cell.task)
        source = with_tokens(
            suite, suite.sources[key.encoder, kind][key.pretraining], key.cell.task
        )
        for name in [c for c in config.trust.corruptions if _applies(c, kind)]:
            for strength in range(1, STRENGTHS + 1):
                changed = replace(source, corruption=f"{name}:{strength}")
                cache = cache_of(config, task.dataset, changed)
                caches.setdefault((task.dataset, name, strength), []).append(cache)
                suffix = f"~{name}-{strength}"
                openings.append(Opening(group, task.dataset, cache, suffix=suffix))
                wanted.append((group.keys, task.dataset, name, strength, suffix))
    for (dataset, change, strength), some in caches.items():
        fill(config, some, ["test"], f"{dataset}, {change} {strength}")
    sizes = [len(opening.group.keys) for opening in openings]
    run_tasks(predict_group, openings, "predicted", "changed images", sizes)
    return _losses(suite, wanted)


def _applies(corruption: str, kind: str) -> bool:
    from ray_mae.benchmarking.corruptions import IMAGES, VOLUMES

    return corruption in (IMAGES if kind == "study" else VOLUMES)


def _losses(suite: Suite, wanted: list[tuple]) -> list[dict[str, Any]]:
    """A record for each encoder, task and change: over its pretrainings, paired by patients."""
    by: dict[tuple, list[FitKey]] = {}
    for keys, dataset, name, strength, suffix in wanted:
        at = (keys[0].encoder, keys[0].cell.task, dataset, name, strength, suffix)
        by.setdefault(at, []).extend(keys)
    store, records = Store(suite.config.output), []
    settings = suite.config.statistics
    for (encoder, task, dataset, name, strength, suffix), keys in by.items():
        table = store.samples(dataset)
        pairs = [
            [
                _macro(store, table, key, task, data, settings.resamples, settings.seed)
                for data in (dataset, f"{dataset}{suffix}")
            ]
            for key in keys
        ]
        if not all(len(values) for pair in pairs for values in pair):
            continue  # no label has both classes among the test samples
        clean, changed = (np.mean([pair[i] for pair in pairs], axis=0) for i in (0, 1))
        low, high = np.nanquantile((changed - clean)[1:], [0.025, 0.975])
        records.append(
            {
                "encoder": encoder,
                "task": task,
                "dataset": dataset,
                "change": name,
                "strength": strength,
                "clean": float(clean[0]),
                "changed": float(changed[0]),
                "difference": float(changed[0] - clean[0]),
                "low": float(low),
                "high": float(high),
            }
        )
    return records


def _macro(
    store: Store,
    table: SampleTable,
    key: FitKey,
    task: str,
    dataset: str,
    resamples: int,
    seed: int,
) -> FloatArray:
    """[1 + R] macro AUROC of a fit: of the test samples, then of each resample of their patients.

    Empty where no label has both classes among them.
    """
    said = store.predictions(key, dataset, "test")
    place = {name: i for i, name in enumerate(table.sample.tolist())}
    rows = np.array([place[name] for name in said.sample.tolist()])
    targets = table.targets[task][rows]
    weights = patient_resamples(table.patient[rows], resamples, seed)
    weights = np.concatenate([np.ones((len(rows), 1), weights.dtype), weights], axis=1)
    values = []
    for i in range(targets.shape[1]):
        known = ~np.isnan(targets[:, i])
        if len(np.unique(targets[known, i])) == 2:
            y, score = targets[known, i], said.values[known, i].astype(np.float64)
            values.append(measure(y, score, weights[known])["auroc"])
    return macro(np.stack(values)) if values else np.empty(0)
