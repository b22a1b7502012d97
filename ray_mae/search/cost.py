"""What a search cost, and the budget of each of its trials."""

import json
from typing import Any

from ray_mae.data.labels import policy_in_words
from ray_mae.data.schema import NOUNS
from ray_mae.data.shard_set import ShardSet
from ray_mae.search.results import SearchResult
from ray_mae.search.trial import Runs
from ray_mae.train.metrics.jsonl import read_jsonl
from ray_mae.train.run_folder import PROBES
from ray_mae.train.setup import make_plan


def cost_of(search: SearchResult) -> dict[str, float]:
    """Returns hours of trials, and the share of them (0 to 1) that starting took.

    Of a trial that was stopped early, the hours to its end are those of its start and of its training at
    the same pace.
    """
    trials = [*search.trials, *search.repeats]
    seconds = sum(t.seconds for t in search.trials)
    full = sum(
        t.start_up_seconds + (t.seconds - t.start_up_seconds) * 100 / t.percent
        for t in search.trials
        if t.percent
    )
    return {
        "search_hours": seconds / 3600,
        "repeat_hours": sum(t.seconds for t in search.repeats) / 3600,
        "hours_had_all_been_run_to_the_end": full / 3600,
        "start_up_share": sum(t.start_up_seconds for t in trials)
        / max(sum(t.seconds for t in trials), 1e-9),
    }


def budget_of(search: SearchResult) -> dict[str, Any]:
    """Returns steps, samples and epochs of a trial (lowest and highest over all), and the data it had."""
    config = search.config
    shards = ShardSet.read(config.folders, config.shares)
    runs = Runs(config)
    lengths = {  # what else is searched changes nothing of them
        json.dumps({k: v for k, v in t.values.items() if k.startswith("optim.")}): t.values
        for t in search.trials
        if t.values
    }
    plans = [
        make_plan(runs.config(values, search.output), shards) for values in lengths.values() or [{}]
    ]
    # of trials that were stopped the folder may have been removed
    with_folder = (t for t in search.trials if t.probes and read_jsonl(t.folder / PROBES))
    probe, of_probe = next((t.probe() for t in with_folder), None), config.run.probe
    return {
        "noun": NOUNS[shards.kind],
        "dataset": ", ".join(shards.names),
        **{
            name: sorted({min(of), max(of)})
            for name, of in (
                ("steps", [p.steps for p in plans]),
                ("samples", [p.samples for p in plans]),
                ("epochs", [round(p.epochs, 2) for p in plans]),
            )
        },
        "of_splits": {name: shards.rows(name) for name in ("train", "val", "test")},
        "probe_samples": probe["samples"] if probe else {},
        "probe_patients": probe["patients"] if probe else {},
        "labels": list(probe["labels"]) if probe else [],
        "policy": policy_in_words(of_probe.uncertain, of_probe.unmentioned)
        if shards.kind == "study"
        else "",
    }
