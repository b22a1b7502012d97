"""One trial: a whole pretraining, driven from a Tune trial, whose probes are Tune's results."""

import math
import os
import random
import sys
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from ray_mae.checkpoint.compatibility import require_compatible
from ray_mae.cluster.interruption import Interrupted
from ray_mae.config import PretrainConfig, TuneConfig
from ray_mae.config.base import to_dict
from ray_mae.config.parser import parse, parser_for
from ray_mae.config.urls import opened
from ray_mae.data.paths import is_remote
from ray_mae.data.shard_set import ShardSet
from ray_mae.methods.registry import as_general, config_class, search_of
from ray_mae.search.space import Parameter, describe, grid, with_values
from ray_mae.store import Mirror, storage_of
from ray_mae.train.metrics.jsonl import Tail, read_jsonl
from ray_mae.train.run_folder import METRICS, PROBES
from ray_mae.train.setup import make_plan

LOG = "log.txt"
"""What a trial's own process printed."""
NUMBER = "trial"
"""In Tune's settings of a trial, beside the searched ones: its number in the Optuna study."""


class Runs:
    """Makes all settings of a run from values of the searched ones."""

    def __init__(self, search: TuneConfig) -> None:
        self._search = search
        run = search.run
        self._cls = config_class(PretrainConfig, run.method.name, run.encoder.name)
        self._parser = parser_for(self._cls)
        self._shards = ShardSet.read(search.folders, search.shares)

    def config(self, values: dict[str, Any], output: Path) -> PretrainConfig:
        """Returns settings of a run. Raises ValueError, as `pretrain` would, where the values make none."""
        search = self._search
        settings = with_values(to_dict(search.run), values)
        settings |= shards_of(search) | {"output": str(output)}
        run = as_general(parse(self._parser, self._cls, settings))
        run.check_sizes()
        every = math.ceil(self.steps(run) / search.probes)
        return replace(
            run,
            # probed evenly; of a trial one checkpoint is enough to go on from
            checkpoint=replace(run.checkpoint, every=every, keep=1, keep_best=False),
            probe=replace(run.probe, every=1),
            tracking=replace(run.tracking, every=min(run.tracking.every, every)),
        )

    def steps(self, run: PretrainConfig) -> int:
        """Returns how many steps a run has."""
        return make_plan(run, self._shards).steps

    def check(self, parameters: list[Parameter], output: Path) -> None:
        """Raises ValueError where the space holds what makes no run: before any is started.

        Every value of each parameter, every point of the grids, and some mixtures of ends are tried.
        """
        samples = [*_one_at_a_time(parameters), *grid(parameters)]
        draw = random.Random(0)
        samples += [{p.name: draw.choice(p.values) for p in parameters} for _ in range(16)]
        for values in samples:
            full: dict[str, Any] = {}
            for parameter in parameters:
                if parameter.matters(full):
                    full[parameter.name] = values.get(parameter.name, parameter.values[0])
            try:
                run = self.config(full, output)
                if run.weights:
                    require_compatible(run.weights, self._shards, run.mismatch)
            except ValueError as error:
                raise ValueError(f"{error} (with {describe(full)}, which space allows)") from error


def shards_of(search: TuneConfig) -> dict[str, Any]:
    """Returns what the runs read, as plain values."""
    return {"shards": [str(path) for path in search.folders], "shares": search.shares}


def _one_at_a_time(parameters: list[Parameter]) -> list[dict[str, Any]]:
    """Returns each value of each parameter, with values of others with which it matters."""
    return [
        {**{other: choices[0] for other, choices in p.when}, p.name: value}
        for p in parameters
        for value in p.values
    ]


def run_trial(values: dict[str, Any], job: dict[str, Any]) -> None:
    """Pretrains with searched settings: Tune calls it, in a process of its own.

    The results of each probe are reported as they come. They cannot go through Ray's TuneReportCallback:
    it hands on what the workers report at a checkpoint, before that is probed, and waits for ever where
    the trial reports as well.

    Args:
        values: the searched settings and the trial's NUMBER.
        job: `search` (settings of the search as plain values), `folder` (of the trials) and `joined`
            (whether the cluster was there before the search, and may grow).
    """
    os.environ.setdefault("RAY_TRAIN_ENABLE_STATE_TRACKING", "1")  # the dashboard is there
    if job["joined"]:  # the driver has it in its environment, the nodes of a cluster perhaps not
        os.environ.setdefault("RAY_ADDRESS", "auto")
    number = values[NUMBER]
    search = search_of(job["search"])
    runs = Runs(search)
    settings = {k: v for k, v in values.items() if k != NUMBER}
    run = runs.config(settings, trial_folder(job["folder"], number))
    run.output.mkdir(parents=True, exist_ok=True)
    steps = runs.steps(run)
    probes = Tail(run.output / PROBES)
    # of an earlier start the last one alone: at the others nothing is left to decide
    last = max([0, *_report(probes.news()[-1:], run, steps)])
    training = _Training(run)
    while True:
        finished = training.wait(probes.every)
        last = max([last, *_report(probes.news(), run, steps)])
        if finished:
            break
    training.raise_error()
    if last < steps:  # the probe failed, or died with an earlier start of this trial: probe here
        _probe_last(run)
        _report(probes.news(), run, steps)


def _report(news: list[dict[str, Any]], run: PretrainConfig, steps: int) -> list[int]:
    """Reports records of the probe to Tune; returns their steps."""
    from ray import tune

    results = [record for record in news if "error" not in record]
    for record in results:
        tune.report(_result(record, run, steps))
    return [record["step"] for record in results]


def _probe_last(run: PretrainConfig) -> None:
    """Probes the last checkpoint in this process. Raises what the probe raises."""
    import ray.train

    from ray_mae.checkpoint.format import last_committed
    from ray_mae.evaluate.probe.online import probe_checkpoint

    last = last_committed(run.output)
    assert last is not None
    path, storage = storage_of(last)
    probe_checkpoint(ray.train.Checkpoint(path, filesystem=storage), to_dict(run))


def trial_folder(folder: str | Path, number: int) -> Path:
    """Returns the folder of a trial's run."""
    return opened(folder) / f"{number:04d}"


def _result(record: dict[str, Any], run: PretrainConfig, steps: int) -> dict[str, Any]:
    """Returns Tune's result from a line of the probe, with the checkpoint as Ray's own callback names it."""
    from ray.tune.integration.ray_train import CHECKPOINT_PATH_KEY

    metrics = [r for r in read_jsonl(run.output / METRICS) if r["step"] <= record["step"]]
    speeds = [r["samples_per_s"] for r in metrics[1:] or metrics]
    result = {
        "step": record["step"],
        "percent": 100 * record["step"] // steps,
        "auroc": record["probe_auroc"],
        "auroc_low": record["probe_auroc_low"],
        "auroc_high": record["probe_auroc_high"],
        CHECKPOINT_PATH_KEY: str(run.output / record["checkpoint"]),
    }
    samples = steps * run.optim.batch_size
    result["hours"] = samples * sum(1 / s for s in speeds) / len(speeds) / 3600
    result["loss"] = metrics[-1].get("loss")  # none where every step since was skipped
    return result


class _Training:
    """Runs `pretrain` in a thread, so that the trial's own thread can report."""

    def __init__(self, run: PretrainConfig) -> None:
        self._run = run
        self._mirror = Mirror(run.output) if is_remote(run.output) else None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._train, daemon=True)
        self._thread.start()

    def _train(self) -> None:
        from ray_mae.run import pretrain

        folder = self._run.output
        if self._mirror:
            self._mirror.fetch([LOG])
            self._mirror.start()
            folder = self._mirror.local
        # the process is this trial's alone
        sys.stdout = sys.stderr = (folder / LOG).open("a", buffering=1)
        print(time.strftime("%F %T"))
        try:
            pretrain(self._run)
        except (
            Interrupted
        ) as stopped:  # the search ends: it does not want to hear that this trial does
            print(stopped)
            threading.Event().wait()
        except BaseException as error:
            traceback.print_exc()
            self._error = error

    def wait(self, seconds: float) -> bool:
        """Returns whether it has ended within the time."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def raise_error(self) -> None:
        """Raises what `pretrain` raised, if anything."""
        if self._mirror:
            with suppress(OSError):  # the log alone
                self._mirror.put()
        if self._error:
            raise self._error
