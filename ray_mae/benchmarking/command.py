"""`benchmark`: fit, open and report, together or one by one."""

import time
from collections.abc import Callable
from typing import Any

from ray_mae.benchmarking.dry_run import forecast
from ray_mae.benchmarking.store import PLAN
from ray_mae.cluster.runtime import cluster
from ray_mae.config.suite import SuiteConfig
from ray_mae.lock import hold
from ray_mae.store import require_one_node, writes_to_stores
from ray_mae.summary import write_summary


@writes_to_stores(goes_on=True)
def benchmark(config: SuiteConfig) -> dict[str, Any]:
    """Fits, opens the test labels and reports.

    Args:
        config: of the suite.

    Returns:
        The summary, which summary.json holds, too.

    Raises:
        FileNotFoundError, ValueError: something of the suite is not there, or does not go together.
        InUseError: another command writes into the folder.
    """
    return _phases(config, "benchmark", ["fit", "open", "report"])


@writes_to_stores(goes_on=True)
def benchmark_fit(config: SuiteConfig) -> dict[str, Any]:
    """Embeds, fits and chooses on validation patients; no test label is read. Writes plan.json."""
    return _phases(config, "benchmark fit", ["fit"])


@writes_to_stores(goes_on=True)
def benchmark_open(config: SuiteConfig) -> dict[str, Any]:
    """Predicts test samples once, by the plan that `fit` wrote, and counts the opening."""
    return _phases(config, "benchmark open", ["open"])


@writes_to_stores(goes_on=True)
def benchmark_report(config: SuiteConfig) -> dict[str, Any]:
    """Makes every number and the page again from the stored rows, without shards, weights or Ray."""
    return _phases(config, "benchmark report", ["report"])


def _phases(config: SuiteConfig, command: str, phases: list[str]) -> dict[str, Any]:
    began = time.time()
    if config.dry_run:
        return {"command": command, **forecast(config)}
    if "fit" not in phases and not (config.output / PLAN).is_file():
        raise FileNotFoundError(
            f"{config.output / PLAN} is missing: run `ray-mae benchmark fit` first"
        )
    config.output.mkdir(parents=True, exist_ok=True)
    summary: dict[str, Any] = {"command": command}
    with hold(config.output, f"ray-mae {command}"):
        if {"fit", "open"} & {*phases}:
            with cluster(cpus=config.workers + 1):
                require_one_node(config.output)
                for phase in [p for p in phases if p != "report"]:
                    summary |= _work(phase)(config)
        if "report" in phases:
            summary |= _work("report")(config)
        summary["seconds"] = round(time.time() - began, 1)
        return write_summary(config.output, summary)


def _work(phase: str) -> Callable[[SuiteConfig], dict[str, Any]]:
    """The function of a phase, imported when it is its turn."""
    if phase == "fit":
        from ray_mae.benchmarking.fit import fit

        return fit
    if phase == "open":
        from ray_mae.benchmarking.open import open_tests

        return open_tests
    from ray_mae.benchmarking.report.command import report

    return report
