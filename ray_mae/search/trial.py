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
from ray_mae.config.base import from_dict, to_dict
from ray_mae.config.parser import parse, parser_for
from ray_mae.data.schema import Manifest
from ray_mae.search.space import Parameter, grid, in_words, with_values
from ray_mae.train.metrics.jsonl import Tail, read_jsonl
from ray_mae.train.run_folder import METRICS, PROBES
from ray_mae.train.setup import check_sizes, make_plan

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
        every = math.ceil(self.steps(run) / search.probes)
        return replace(
            run,
            # probed evenly; of a trial one checkpoint is enough to go on from
            checkpoint=replace(run.checkpoint, every=every, keep=1, keep_best=False),
            probe=replace(run.probe, every=1),
            tracking=replace(run.tracking, every=min(run.tracking.every, every)),
        )

    def steps(self, run: AnyPretrainConfig) -> int:
        """How many it has."""
        return make_plan(run, self._manifest).steps

    def check(self, parameters: list[Parameter], output: Path) -> None:
        """Raise ValueError where the space holds what makes no run: before any is started.

        Every value of each parameter, every point of the grids, and some mixtures of ends are tried.
        """
        tried = [*_one_at_a_time(parameters), *grid(parameters)]
        draw = random.Random(0)
        tried += [{p.name: draw.choice(p.values) for p in parameters} for _ in range(16)]
        for values in tried:
            filled: dict[str, Any] = {}
            for parameter in parameters:
                if parameter.matters(filled):
                    filled[parameter.name] = values.get(parameter.name, parameter.values[0])
            try:
                self.config(filled, output)
            except ValueError as error:
                raise ValueError(
                    f"{error} (with {in_words(filled)}, which space allows)"
                ) from error


def _one_at_a_time(parameters: list[Parameter]) -> list[dict[str, Any]]:
    """Each value of each parameter, with values of others with which it matters."""
    return [
        {**{other: wanted[0] for other, wanted in p.when}, p.name: value}
        for p in parameters
        for value in p.values
    ]


def run_trial(values: dict[str, Any], job: dict[str, Any]) -> None:
    """What Tune calls, in a process of its own. values: the searched settings and the trial's NUMBER.

    job: `search` (settings of the search as plain values), `folder` (of the trials) and `joined` (whether
    the cluster is somebody's, and may grow). The figures of
    each probe are reported as they come. They cannot go through Ray's TuneReportCallback: it hands on
    what the workers say at a checkpoint, before that is probed, and waits for ever where the trial
    reports as well.
    """
    os.environ.setdefault("RAY_TRAIN_ENABLE_STATE_TRACKING", "1")  # the dashboard is there
    if job["joined"]:  # the driver has it in its environment, the nodes of a cluster perhaps not
        os.environ.setdefault("RAY_ADDRESS", "auto")
    number = values[NUMBER]
    search = from_dict(TUNE[job["search"]["run"]["method"]["name"]], job["search"])
    runs = Runs(search)
    searched = {k: v for k, v in values.items() if k != NUMBER}
    run = runs.config(searched, trial_folder(job["folder"], number))
    run.output.mkdir(parents=True, exist_ok=True)
    steps = runs.steps(run)
    probes = Tail(run.output / PROBES)
    # of an earlier start the last one alone: at the others nothing is left to decide
    last = max([0, *_tell(probes.news()[-1:], run, steps)])
    training = _Training(run)
    while True:
        ended = training.wait(0.3)
        last = max([last, *_tell(probes.news(), run, steps)])
        if ended:
            break
    training.raise_error()
    if (
        last < steps
    ):  # the probe failed, or died with an earlier start of this trial: see for ourselves
        _probe_last(run)
        _tell(probes.news(), run, steps)


def _tell(news: list[dict[str, Any]], run: AnyPretrainConfig, steps: int) -> list[int]:
    """Report records of the probe; returns their steps."""
    from ray import tune

    found = [record for record in news if "error" not in record]
    for record in found:
        tune.report(_result(record, run, steps))
    return [record["step"] for record in found]


def _probe_last(run: AnyPretrainConfig) -> None:
    """Probe the last checkpoint in this process. Raises what the probe raises."""
    import ray.train

    from ray_mae.checkpoint.format import last_committed
    from ray_mae.evaluate.probe.online import probe_checkpoint

    probe_checkpoint(ray.train.Checkpoint(str(last_committed(run.output))), to_dict(run))


def trial_folder(folder: str | Path, number: int) -> Path:
    """Where the run of a trial is."""
    return Path(folder) / f"{number:04d}"


def _result(record: dict[str, Any], run: AnyPretrainConfig, steps: int) -> dict[str, Any]:
    """Tune's result from one line of the probe, with the checkpoint as Ray's own callback names it."""
    from ray.tune.integration.ray_train import CHECKPOINT_PATH_KEY

    figures = [r for r in read_jsonl(run.output / METRICS) if r["step"] <= record["step"]]
    speeds = [r["samples_per_s"] for r in figures[1:] or figures]
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
    result["loss"] = figures[-1].get("loss")  # none where every step since was skipped
    return result


class _Training:
    """`pretrain` in a thread, so that the trial's own thread can report."""

    def __init__(self, run: AnyPretrainConfig) -> None:
        self._run = run
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._train, daemon=True)
        self._thread.start()

    def _train(self) -> None:
        from ray_mae.pretrain import pretrain

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
