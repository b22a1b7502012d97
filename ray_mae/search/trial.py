"""One trial: a whole pretraining, driven from a Tune trial, whose probes are Tune's results."""

import math
import os
import random
import sys
import threading
import time
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

from ray_mae.config import PRETRAIN, TUNE, AnyPretrainConfig, AnyTuneConfig
from ray_mae.data.schema import Manifest
from ray_mae.parsing import parse, parser_for
from ray_mae.search.space import Parameter, with_values
from ray_mae.settings import from_dict, to_dict
from ray_mae.train.build import check_sizes
from ray_mae.train.plan import make_plan
from ray_mae.train.tracking import METRICS, PROBES, Tail, read_jsonl

LOG = "log.txt"
"""What a trial's own process printed."""
NUMBER = "trial"
"""In Tune's settings of a trial, beside the searched ones: its number in the study."""


class Runs:
    """From values of the searched settings to all settings of a run."""

    def __init__(self, search: AnyTuneConfig) -> None:
        self._search = search
        self._cls = PRETRAIN[search.run.method.name]
        self._parser = parser_for(self._cls)
        self._manifest = Manifest.read(search.shards)

    def config(self, values: dict[str, Any], output: Path) -> AnyPretrainConfig:
        """Raises ValueError, as `pretrain` would, where the values make no run."""
        search = self._search
        made = with_values(to_dict(search.run), values)
        made |= {"shards": str(search.shards), "output": str(output)}
        run = parse(self._parser, self._cls, made)
        check_sizes(run.method)
        steps = make_plan(run, self._manifest).steps
        return replace(
            run,
            # probed evenly; of a trial one checkpoint is enough to go on from
            checkpoint=replace(
                run.checkpoint, every=math.ceil(steps / search.probes), keep=1, keep_best=False
            ),
            probe=replace(run.probe, every=1),
        )

    def check(self, parameters: list[Parameter], output: Path) -> None:
        """Raise ValueError where the ends of the space make no run: before any is started."""
        draw = random.Random(0)
        for _ in range(max(16, 2 * max(len(p.values) for p in parameters))):
            values: dict[str, Any] = {}
            for parameter in parameters:
                if parameter.matters(values):
                    values[parameter.name] = draw.choice(parameter.values)
            try:
                self.config(values, output)
            except ValueError as error:
                raise ValueError(
                    f"{error} (with {_in_words(values)}, which space allows)"
                ) from error


def _in_words(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def run_trial(values: dict[str, Any], job: dict[str, Any]) -> None:
    """What Tune calls, in a process of its own. values: the searched settings and the trial's NUMBER.

    job: `search` (settings of the search as plain values) and `folder` (of the trials). The figures of
    each probe are reported as they come. They cannot go through Ray's TuneReportCallback: it hands on
    what the workers say at a checkpoint, before that is probed, and waits for ever where the trial
    reports as well.
    """
    os.environ.setdefault("RAY_TRAIN_ENABLE_STATE_TRACKING", "1")  # the dashboard is there
    number = values[NUMBER]
    search = from_dict(TUNE[job["search"]["run"]["method"]["name"]], job["search"])
    run = Runs(search).config(
        {k: v for k, v in values.items() if k != NUMBER}, trial_folder(job["folder"], number)
    )
    run.output.mkdir(parents=True, exist_ok=True)
    steps = make_plan(run, Manifest.read(run.shards)).steps
    probes = Tail(run.output / PROBES)
    training = _Training(run)
    last = 0
    while True:
        ended = training.wait(0.3)
        last = max([last, *_tell(probes, run, steps)])
        if ended:
            break
    training.raise_error()
    if (
        last < steps
    ):  # the probe failed, or died with an earlier start of this trial: see for ourselves
        _probe_last(run)
        _tell(probes, run, steps)


def _tell(probes: Tail, run: AnyPretrainConfig, steps: int) -> list[int]:
    """Report what the probe has found since the last call; returns the steps."""
    from ray import tune

    found = [record for record in probes.news() if "error" not in record]
    for record in found:
        tune.report(_result(record, run, steps))
    return [record["step"] for record in found]


def _probe_last(run: AnyPretrainConfig) -> None:
    """Probe the last checkpoint in this process. Raises what the probe raises."""
    import ray.train

    from ray_mae.evaluate.online import probe_checkpoint
    from ray_mae.train.checkpoint import last_committed

    probe_checkpoint(ray.train.Checkpoint(str(last_committed(run.output))), to_dict(run))


def trial_folder(folder: str | Path, number: int) -> Path:
    """Where the run of a trial is."""
    return Path(folder) / f"{number:04d}"


def _result(record: dict[str, Any], run: AnyPretrainConfig, steps: int) -> dict[str, Any]:
    """Tune's result from one line of the probe."""
    figures = [r for r in read_jsonl(run.output / METRICS) if r["step"] <= record["step"]]
    speeds = [r["samples_per_s"] for r in figures[1:] or figures]
    result = {
        "step": record["step"],
        "percent": 100 * record["step"] // steps,
        "auroc": record["probe_auroc"],
        "auroc_low": record["probe_auroc_low"],
        "auroc_high": record["probe_auroc_high"],
        "checkpoint_path": str(run.output / record["checkpoint"]),
    }
    if speeds:
        samples = steps * run.optim.batch_size
        result["hours"] = samples * sum(1 / s for s in speeds) / len(speeds) / 3600
        result["loss"] = figures[-1]["loss"]
    return result


class _Training:
    """`pretrain` in a thread, so that the trial's own thread can report."""

    def __init__(self, run: AnyPretrainConfig) -> None:
        self._run = run
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._train, daemon=True)
        self._thread.start()

    def _train(self) -> None:
        from ray_mae.run import pretrain

        # the process is this trial's alone
        sys.stdout = sys.stderr = (self._run.output / LOG).open("a", buffering=1)
        print(time.strftime("%F %T"))
        try:
            pretrain(self._run)
        except BaseException as error:
            traceback.print_exc()
            self._error = error

    def wait(self, seconds: float) -> bool:
        """Whether it has ended within the time."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def raise_error(self) -> None:
        if self._error:
            raise self._error
