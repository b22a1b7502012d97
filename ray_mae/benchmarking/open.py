"""`benchmark open`: reads the test labels, predicts test samples once, and counts that it did."""

import getpass
import time
from typing import Any

from ray_mae.benchmarking.caches import with_tokens
from ray_mae.benchmarking.features import cache_of
from ray_mae.benchmarking.finetuning import finetune_keys, predict_finetuned
from ray_mae.benchmarking.fit import groups_of
from ray_mae.benchmarking.fits import Opening, predict_group
from ray_mae.benchmarking.fixed import require_fixed
from ray_mae.benchmarking.fold_fits import fit_folds
from ray_mae.benchmarking.plan import FIT, Suite, inputs_of, keys_of, look
from ray_mae.benchmarking.ray_tasks import run_tasks
from ray_mae.benchmarking.records import SampleTable
from ray_mae.benchmarking.samples import read_samples, read_targets, with_targets
from ray_mae.benchmarking.segmenting import predict_segmented, segment_keys
from ray_mae.benchmarking.store import OPENED, PLAN, Store
from ray_mae.benchmarking.trust import measure_trust
from ray_mae.config.base import to_dict
from ray_mae.config.suite import SuiteConfig
from ray_mae.data.schema import NOUNS
from ray_mae.terminal import console
from ray_mae.train.metrics.jsonl import append_jsonl

EVERY = ("train", "val", "test")


def open_tests(config: SuiteConfig) -> dict[str, Any]:
    """Predicts the test samples with every fit of the plan, and stores what is known of them.

    The plan's hash goes to opened.jsonl with the time; opening the same plan again finishes what is missing
    and counts as the same opening.

    Args:
        config: of the suite, on a Ray that is up.

    Returns:
        Counts for the summary.

    Raises:
        FileNotFoundError: there is no plan.
        ValueError: the suite is another one than the plan's.
    """
    store = Store(config.output)
    plan = store.plan
    suite = look(config)
    require_plan(suite, store)
    opened = store.opened()
    if not opened or opened[-1]["plan"] != plan["sha256"]:
        record = {
            "plan": plan["sha256"],
            "time": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
            "by": _user(),
        }
        append_jsonl(config.output / OPENED, record)
    for name in config.datasets:
        store.write_samples(name, opened_samples(suite, name))
    openings = list(_openings(suite))
    sizes = [len(opening.group.keys) for opening in openings]
    done = run_tasks(predict_group, openings, "predicted", "fits", sizes)
    tuned = predict_finetuned(suite) + predict_segmented(suite)
    folds = fit_folds(suite, plan.get("small", {}))
    console.print("trust: subgroups, what features know, robustness")
    measure_trust(suite)
    return {
        "plan": plan["sha256"],
        "opened": len(store.opened()),
        "predicted_now": sum(done) + tuned,
        "folds_fitted_now": folds,
        NOUNS["study"] if "study" in suite.kinds.values() else NOUNS["volume"]: {
            name: int((table.split == "test").sum()) for name, table in suite.samples.items()
        },
    }


def require_plan(suite: Suite, store: Store) -> None:
    """Raises ValueError where the suite compares other things, or a fit is missing or of other inputs."""
    require_fixed(to_dict(suite.config), store.plan["suite"], store.folder / PLAN)
    known = {planned.id for planned in list(store.keys())}
    for key in [*keys_of(suite), *finetune_keys(suite), *segment_keys(suite)]:
        if key.id not in known or store.read_fit(key).inputs != inputs_of(suite, key):
            raise ValueError(
                f"the suite is another one than that of {store.folder / 'plan.json'} (such as "
                f"{key.encoder} on {key.cell.task}, {key.cell.head}): run `ray-mae benchmark fit` again"
            )


def opened_samples(suite: Suite, name: str) -> SampleTable:
    """Who is in a data set, with the targets of all tasks that are fitted or tested on it."""
    config, entry = suite.config, suite.config.datasets[name]
    table = read_samples(entry)
    for task_name, task in config.tasks.items():
        if name not in (task.dataset, *task.tested_on):
            continue
        names = suite.label_sets[task_name].names
        splits = EVERY if name in task.tested_on else FIT
        targets, _, _ = read_targets(entry, table, task, splits, names)
        table = with_targets(table, task_name, targets, names)
    return table


def _openings(suite: Suite) -> Any:
    config = suite.config
    keys = keys_of(suite)
    for group in groups_of(suite, keys, {key: "" for key in keys}):
        first = group.keys[0]
        task = config.tasks[first.cell.task]
        found = suite.sources.get((first.encoder, suite.kind_of(first.cell.task)), [])
        for dataset in task.tested_on:
            if suite.kinds[dataset] != suite.kind_of(first.cell.task):
                continue
            cache = None
            if found:
                source = with_tokens(suite, found[first.pretraining], first.cell.task)
                cache = cache_of(config, dataset, source)
            yield Opening(group, dataset, cache)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container's user may have no name
        return "unknown"
