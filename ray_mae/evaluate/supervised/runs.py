"""One Ray task per initialisation and seed, and what a person sees of them meanwhile."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import ray
from ray.exceptions import RayTaskError

from ray_mae.cluster.runtime import gpus_wanted
from ray_mae.config import SupervisedConfig
from ray_mae.data.paths import is_remote
from ray_mae.files import write_whole
from ray_mae.store import remove_folder
from ray_mae.terminal import console
from ray_mae.train.metrics.jsonl import PARTS, append_jsonl, read_jsonl, rewrite_jsonl

MODELS = "models"
"""Folder of the runs: weights kept and history, in a folder of its own each."""
HISTORY = "history.jsonl"

R = TypeVar("R")


@dataclass(frozen=True)
class Run:
    """Which of the runs."""

    initialisation: str
    """trained or random"""
    seed: int
    output: Path
    """Of the whole evaluation."""

    @property
    def name(self) -> str:
        return f"{self.initialisation}-seed{self.seed}"

    @property
    def folder(self) -> Path:
        """Its weights and history."""
        return self.output / MODELS / self.name

    def note(self, record: dict[str, Any]) -> None:
        """One line of the history."""
        append_jsonl(self.folder / HISTORY, record)


def runs_of(config: SupervisedConfig) -> list[Run]:
    """Returns the runs of all initialisations and seeds, with empty folders for them."""
    output = config.output.resolve()
    runs = [Run(name, seed, output) for seed in config.seeds for name in config.compare]
    for run in runs:
        run.folder.mkdir(parents=True, exist_ok=True)
        (run.folder / HISTORY).unlink(missing_ok=True)
        remove_folder(run.folder / f"{HISTORY}{PARTS}")
    return runs


def run_all(
    work: Callable[..., R], runs: Sequence[Run], config: SupervisedConfig, *shared: Any, score: str
) -> list[R]:
    """Runs a task of Ray for each run, as many at a time as the cluster has room for.

    Args:
        work: called with the run, config and `shared`.
        runs: of which each has a folder.
        config: CPUs and GPU of a run.
        shared: further arguments, put into Ray's store once.
        score: printed name of the history's validation_score.

    Returns:
        What each run returned, in the order of `runs`.

    Raises:
        RuntimeError: with the name of the run that failed first.
    """
    gpus = 1 if gpus_wanted(config.gpu) else 0
    task = ray.remote(num_cpus=config.cpus_per_run, num_gpus=gpus)(work)
    common = [ray.put(value) for value in (config, *shared)]
    console.print(f"{len(runs)} runs: {', '.join(run.name for run in runs)}")
    pending = {task.remote(run, *common): run for run in runs}
    results: dict[str, R] = {}
    line = dict.fromkeys((run.name for run in runs), 0)  # of its history, the next to print
    look_s = 5.0 if is_remote(config.output) else 1.0
    while pending:
        done, _ = ray.wait(list(pending), num_returns=1, timeout=look_s)
        for run in runs:
            lines = read_jsonl(run.folder / HISTORY)
            for record in lines[line[run.name] :]:
                console.print(_line(run, record, score))
            line[run.name] = len(lines)
        for ref in done:
            run = pending.pop(ref)
            try:
                results[run.name] = ray.get(ref)
            except RayTaskError as error:
                for other in pending:
                    ray.cancel(other, force=True)
                (run.folder / "error.txt").write_text(f"{error}\n")
                cause = error.cause
                raise RuntimeError(
                    f"{run.name}: {cause} (in full: {run.folder / 'error.txt'})"
                ) from cause
    for run in runs:
        if is_remote(run.folder):
            rewrite_jsonl(run.folder / HISTORY)  # of its parts one object
    return [results[run.name] for run in runs]


def _line(run: Run, record: dict[str, Any], score: str) -> str:
    line = f"{run.name}: step {record['step']}/{record['steps']}"
    if "validation_score" in record:
        line += f"  loss {record['loss']:.4f}  validation {score} {record['validation_score']:.3f}"
    return line


def write_json(path: Path, value: Any) -> None:
    """JSON for people and programs; numbers that are not finite must be None already."""
    write_whole(path, json.dumps(value, indent=1, allow_nan=False) + "\n")
