"""What a search spent, and what each of its trials was given."""

import json
from typing import Any

from ray_mae.data.schema import NOUNS, Manifest
from ray_mae.search.results import SearchRecord
from ray_mae.search.trial import Runs
from ray_mae.train.run_folder import PROBES
from ray_mae.train.setup import make_plan


def cost_of(record: SearchRecord) -> dict[str, float]:
    """Hours of trials. A whole run's share is what its start and its training would have taken."""
    trials = [*record.trials, *record.repeats]
    spent = sum(t.seconds for t in record.trials) / 3600
    full = sum(
        t.start_up_seconds + (t.seconds - t.start_up_seconds) * 100 / t.percent
        for t in record.trials
        if t.percent
    )
    return {
        "search_hours": spent,
        "repeat_hours": sum(t.seconds for t in record.repeats) / 3600,
        "hours_had_all_been_run_to_the_end": full / 3600,
        "start_up_share": sum(t.start_up_seconds for t in trials)
        / max(sum(t.seconds for t in trials), 1e-9),
    }


def budget_of(record: SearchRecord) -> dict[str, Any]:
    """Of each trial: steps, samples and epochs (lowest and highest over the trials); and whose data."""
    config = record.config
    manifest = Manifest.read(config.shards)
    runs = Runs(config)
    lengths = {  # what else is searched changes nothing of them
        json.dumps({k: v for k, v in t.values.items() if k.startswith("optim.")}): t.values
        for t in record.trials
        if t.values
    }
    plans = [
        make_plan(runs.config(values, record.output), manifest)
        for values in lengths.values() or [{}]
    ]
    # of trials that were stopped the folder may have been removed
    there = (t for t in record.trials if t.probes and (t.folder / PROBES).is_file())
    probed = next((t.probe() for t in there), None)
    return {
        "noun": NOUNS[manifest.kind],
        "dataset": manifest.dataset,
        **{
            name: sorted({min(of), max(of)})
            for name, of in (
                ("steps", [p.steps for p in plans]),
                ("samples", [p.samples for p in plans]),
                ("epochs", [round(p.epochs, 2) for p in plans]),
            )
        },
        "of_splits": {name: manifest.rows(name) for name in ("train", "val", "test")},
        "probe_samples": probed["samples"] if probed else {},
        "probe_patients": probed["patients"] if probed else {},
        "labels": list(probed["labels"]) if probed else [],
    }
