"""Test patients of one data set among those of another whom heads are fitted to or chosen by."""

from typing import Any

import numpy as np

from ray_mae.benchmarking.plan import FIT, Suite


def fitted_elsewhere(suite: Suite) -> dict[str, dict[str, dict[str, Any]]]:
    """Returns, by task and data set tested on, who of the test is fitted to or chosen by under the same name.

    Names of two public archives may be the same by chance, so that it is told, and scores without these
    samples are given, but nothing is refused.
    """
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name, task in suite.config.tasks.items():
        table = suite.samples[task.dataset]
        fitted = {*table.patient[np.isin(table.split, FIT)].tolist()}
        for dataset in task.tested_on:
            other = suite.samples[dataset]
            rows = other.rows("test")
            shared = rows[np.isin(other.patient[rows], sorted(fitted))]
            if len(shared):
                found.setdefault(name, {})[dataset] = {
                    "patients": len(np.unique(other.patient[shared])),
                    "of": len(np.unique(other.patient[rows])),
                    "samples": other.sample[shared].tolist(),
                }
    return found


def in_words(suite: Suite) -> list[str]:
    """A sentence for each."""
    return [
        f"tasks.{task}: {told['patients']:,} of {told['of']:,} test patients of {dataset} have the name of a "
        f"patient of {suite.config.tasks[task].dataset} whom heads are fitted to or chosen by"
        for task, by in fitted_elsewhere(suite).items()
        for dataset, told in by.items()
    ]
