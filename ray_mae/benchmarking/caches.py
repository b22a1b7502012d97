"""Which features a suite needs: of which encoder and data set, with tokens or without."""

from collections.abc import Iterator

from ray_mae.benchmarking.features import Cache, cache_of
from ray_mae.benchmarking.plan import Suite
from ray_mae.benchmarking.sources import Source
from ray_mae.config.suite import SuiteConfig, TaskEntry
from ray_mae.data.schema import Manifest


def splits_of(config: SuiteConfig, dataset: str) -> list[str]:
    """Splits of the shards that are embedded."""
    there = {shard.split for shard in Manifest.read(config.datasets[dataset].shards).shards}
    return [split for split in ("train", "val", "test") if split in there]


def tested_splits(config: SuiteConfig, dataset: str) -> list[str]:
    """Splits of the shards whose samples are tested: of an external data set all."""
    external = config.datasets[dataset].role == "external"
    return splits_of(config, dataset) if external else ["test"]


def frozen_tasks(config: SuiteConfig) -> dict[str, TaskEntry]:
    """Tasks that look at features: segmentation trains on the volumes themselves."""
    return {name: task for name, task in config.tasks.items() if task.kind != "segmentation"}


def caches_of(suite: Suite) -> Iterator[tuple[Cache, str, str]]:
    """All caches that the fits and the opening read, with the names of encoder and data set."""
    config, done = suite.config, set()
    frozen = frozen_tasks(config)
    for task_name, task in frozen.items():
        kind = suite.kind_of(task_name)
        for name in config.encoders:
            if config.encoders[name].kind == "scratch":
                continue
            for source in suite.sources.get((name, kind), ()):
                for dataset in dict.fromkeys([task.dataset, *task.tested_on]):
                    cache = cache_of(config, dataset, with_tokens(suite, source, task_name))
                    if cache.folder not in done:
                        done.add(cache.folder)
                        yield cache, name, dataset
    repeats = config.trust.repeats
    if repeats is None or any(repeats in (t.dataset, *t.tested_on) for t in frozen.values()):
        return
    for name, entry in config.encoders.items():
        for source in suite.sources.get((name, suite.kinds[repeats]), ())[:1]:
            if entry.kind != "scratch":
                yield cache_of(config, repeats, source), name, repeats


def with_tokens(suite: Suite, source: Source, task: str) -> Source:
    """The source, with tokens where a head of any task of its kind looks at them."""
    heads = suite.config.heads
    wanted = any(
        entry.kind in ("labels", "number") and "attentive" in (entry.heads or heads.use)
        for name, entry in suite.config.tasks.items()
        if suite.kind_of(name) == suite.kind_of(task)
    )
    tokens = wanted and source.path is not None and source.sees == "middle"
    return source.with_tokens(heads.grid) if tokens else source
