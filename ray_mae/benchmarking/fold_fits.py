"""Fits of the folds of small data sets: at the opening, since folds hold patients of the test split."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ray_mae.benchmarking.fit import groups_of
from ray_mae.benchmarking.fits import Group, Problem, fit_one, is_done
from ray_mae.benchmarking.folds import deal, fold_keys, split_of_fold, store_of_folds
from ray_mae.benchmarking.plan import Suite, inputs_of, keys_of
from ray_mae.benchmarking.ray_tasks import run_tasks
from ray_mae.benchmarking.records import FitKey, Predictions, SampleTable
from ray_mae.benchmarking.samples import TEST
from ray_mae.benchmarking.store import Store
from ray_mae.config.suite import SuiteConfig
from ray_mae.data.schema import SPLITS
from ray_mae.evaluate.heads.base import HeadFit
from ray_mae.evaluate.heads.registry import HEADS


def fit_folds(suite: Suite, small: Mapping[str, dict[str, Any]]) -> int:
    """Fits and tests all folds that are not there yet; returns how many were. Reads the opened samples."""
    keys = fold_keys(keys_of(suite), small, suite.config.views[0])
    inputs = {key: _inputs_of_fold(suite, key, small) for key in keys}
    store = store_of_folds(suite.config.output)
    waiting = [key for key in keys if not _is_done(suite.config, store, key, inputs[key])]
    groups = [(group, small) for group in groups_of(suite, waiting, inputs)]
    sizes = [len(group.keys) for group, _ in groups]
    run_tasks(_fit_group, groups, "fitted", "folds of small sets", sizes)
    return len(waiting)


def _inputs_of_fold(suite: Suite, key: FitKey, small: Mapping[str, dict[str, Any]]) -> str:
    text = json.dumps(small[key.cell.task], sort_keys=True)
    return hashlib.sha256(f"{inputs_of(suite, key)} {text}".encode()).hexdigest()


def _is_done(config: SuiteConfig, store: Store, key: FitKey, inputs: str) -> bool:
    dataset = config.tasks[key.cell.task].dataset
    return is_done(store, key, inputs) and (
        store.read_fit(key).status == "failed" or store.has_predictions(key, dataset, TEST)
    )


def _fit_group(at: tuple[Group, Mapping[str, dict[str, Any]]]) -> None:
    """Fits the folds of a group: each sees its own data alone, components and categories as well."""
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(1)
    group, small = at
    cell, config = group.keys[0].cell, group.config
    told, task = small[cell.task], config.tasks[cell.task]
    store = store_of_folds(config.output)
    table = Store(config.output).samples(task.dataset)
    dealt = {
        repeat: deal(
            table.patient, table.targets[cell.task], task.kind, told["folds"], told["seed"], repeat
        )
        for repeat in {key.draw // told["folds"] for key in group.keys}
    }
    with threadpool_limits(1):
        for key, inputs in zip(group.keys, group.inputs, strict=True):
            repeat, tested = divmod(key.draw, told["folds"])
            split = split_of_fold(dealt[repeat], tested, told["folds"])
            _fit_fold(store, group, replace(table, split=split), key, inputs)


def _fit_fold(store: Store, group: Group, table: SampleTable, key: FitKey, inputs: str) -> None:
    dataset = group.config.tasks[key.cell.task].dataset
    problem = Problem(group, table, dataset, SPLITS)
    fit_one(store, problem, key, inputs, dataset)
    fit = store.read_fit(key)
    if fit.status == "failed":
        return
    rows = problem.tested(external=False)
    train, _ = problem.rows(key)
    data = problem.inputs.fitted_to(train, problem.targets)
    head = HEADS[group.head].head
    found = HeadFit(fit.chosen, store.read_head(key))
    said = problem.inputs.predict(head, found, rows, problem.targets, data)
    store.write_predictions(key, dataset, TEST, fit.labels, Predictions(table.sample[rows], said))
