"""What failures cost a run: steps repeated, samples lost, seconds to the next step.

    python -m benchmarks.failures --output DIR [--only NAME …]

Each failure is done to a run of its own on generated volumes; its losses are compared with those of an
undisturbed run, step by step, and drawn beside them in DIR/losses.png. A file system of a few MB is
mounted for `full_disk`, which wants root.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import yaml

from benchmarks.curves import Curve, draw, losses
from ray_mae.checkpoint.format import last_committed, read_state
from ray_mae.cluster.runtime import cluster
from ray_mae.config import (
    CheckpointConfig,
    OptimConfig,
    PretrainConfig,
    ScalingConfig,
    TrackingConfig,
)
from ray_mae.config.base import to_dict
from ray_mae.train.metrics.jsonl import read_jsonl
from ray_mae.train.pretrain import pretrain
from ray_mae.train.run_folder import EVENTS, RunFolder
from tests.processes import kill_a_worker
from tests.settings import sections
from tests.shards import damage, write_volume_shards

STEPS, EVERY = 60, 10


@dataclass
class Outcome:
    """Of one failure."""

    done: str
    steps_repeated: int
    samples_lost: int | None
    """In whose place others were drawn, as the run says. None: its losses differ, so nothing is known."""
    seconds_to_next_step: float
    """From the end of the failure, or from the start of the same command again."""
    loss_differs: float
    """Largest relative difference of a step's loss from the undisturbed run's."""
    curve: Curve


class Run:
    """A pretraining in a thread, which can be looked at."""

    def __init__(self, config: PretrainConfig) -> None:
        self.config, self.error, self.began = config, "", time.monotonic()
        self._thread = Thread(target=self._train)
        self._thread.start()

    def _train(self) -> None:
        try:
            pretrain(self.config)
        except RuntimeError as error:
            self.error = f"{error}"

    def last_step(self) -> int:
        return max(losses(self.config.output), default=0)

    def until(self, what: Callable[[], Any]) -> float:
        """Wait for something of a run that goes on; the time then."""
        while not what() and self._thread.is_alive():
            time.sleep(0.05)
        return time.monotonic()

    def end(self) -> None:
        self._thread.join()


def outcome(run: Run, before: Path, done: str, seconds: float, repeated: int = 0) -> Outcome:
    """Of a run that came to its end."""
    ours, theirs = losses(run.config.output), losses(before)
    assert list(ours) == list(theirs), f"{run.error}: steps {list(ours)}"
    worst = max(abs(ours[step] / theirs[step] - 1) for step in theirs)
    summary = json.loads((run.config.output / "summary.json").read_text())
    lost = summary.get("unreadable_rows", 0 if worst < 1e-4 else None)
    curve = Curve.of(run.config.output)
    return Outcome(done, repeated, lost, round(seconds, 2), worst, curve)


def storage_away(config: PretrainConfig, before: Path) -> Outcome:
    """The run's folder is gone for ten seconds."""
    run = Run(config)
    run.until(lambda: last_committed(config.output))
    aside = config.output.with_name("aside")
    config.output.rename(aside)
    time.sleep(10)
    step = max(losses(aside))
    aside.rename(config.output)
    back = time.monotonic()
    seconds = run.until(lambda: run.last_step() > step) - back
    run.end()
    return outcome(run, before, "folder of the run gone for 10 s", seconds)


def full_disk(config: PretrainConfig, before: Path) -> Outcome:
    """A disk with room for two checkpoints and a half; then it gets more."""
    last = last_committed(before)
    assert last
    one = sum(path.stat().st_size for path in last.rglob("*") if path.is_file())
    disk = config.output
    disk.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "tmpfs", str(disk), "-o"]
    subprocess.run([*mount, f"size={int(2.5 * one)}"], check=True)
    try:
        config = replace(
            config, output=disk / "run", checkpoint=CheckpointConfig(every=EVERY, keep=None)
        )
        first = Run(config)
        first.end()
        print(first.error)
        saved = last_committed(config.output)
        repeated = first.last_step() - (read_state(saved)["step"] if saved else 0)
        subprocess.run([*mount, f"remount,size={20 * one}"], check=True)
        found = again(config, before, "disk full, then larger", repeated)
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
    return found


def damaged_shard_stop(config: PretrainConfig, before: Path) -> Outcome:
    """A shard is damaged; when the run has ended, it is restored."""
    file, config = damaged(config)
    first = Run(config)
    first.end()
    print(first.error)
    saved = last_committed(config.output)
    repeated = first.last_step() - (read_state(saved)["step"] if saved else 0)
    shutil.copyfile(before.with_name("volumes") / file.name, file)
    return again(config, before, "shard damaged (stop), then restored", repeated)


def damaged_shard_skip(config: PretrainConfig, before: Path) -> Outcome:
    """A shard is damaged and left out."""
    _, config = damaged(config)
    run = Run(replace(config, data=replace(config.data, corrupt="skip")))
    run.end()
    return outcome(run, before, "shard damaged (skip)", 0.0)


def damaged(config: PretrainConfig) -> tuple[Path, PretrainConfig]:
    """A damaged file, and the run with a copy of the shards that has it."""
    shards = config.output.with_name(f"{config.output.name}-volumes")
    shutil.copytree(config.folders[0], shards)
    file = shards / "train-00001.parquet"
    damage(file)
    return file, replace(config, shards=shards)


def again(config: PretrainConfig, before: Path, done: str, repeated: int) -> Outcome:
    """The same command once more, to its end."""

    def starts() -> int:
        return sum(e["event"] == "first step" for e in read_jsonl(config.output / EVENTS))

    had = starts()
    run = Run(config)
    seconds = run.until(lambda: starts() > had) - run.began
    run.end()
    return outcome(run, before, done, seconds, repeated)


def killed_worker(config: PretrainConfig, before: Path) -> Outcome:
    """SIGKILL to one of two workers."""
    run = Run(config)
    run.until(lambda: run.last_step() > EVERY + EVERY // 2)
    at = run.last_step()
    kill_a_worker()
    began = time.monotonic()
    starts = partial(events, config, "first step")
    seconds = run.until(lambda: len(starts()) > 1) - began
    saved = events(config, "engine ready")[-1]["first_step"]
    run.end()
    return outcome(run, before, "SIGKILL of a worker", seconds, repeated=at - saved)


def killed_driver(config: PretrainConfig, before: Path) -> Outcome:
    """SIGKILL to the command and all that it started; then the same command again."""
    file = config.output.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(to_dict(config)))
    program = Path(sys.executable).parent / "ray-mae"
    command = [str(program), "pretrain", "--config", str(file)]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
    while max(losses(config.output), default=0) <= EVERY + EVERY // 2:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    at = max(losses(config.output))
    saved = last_committed(config.output)
    repeated = at - (read_state(saved)["step"] if saved else 0)
    return again(config, before, "SIGKILL of the driver and all its processes", repeated)


def other_workers(config: PretrainConfig, before: Path) -> Outcome:
    """Ended in the middle; gone on with one worker instead of two."""
    first = Run(config)
    first.until(lambda: first.last_step() > EVERY + EVERY // 2)
    RunFolder.begin(config.output, patience=10)
    first.end()
    saved = last_committed(config.output)
    repeated = first.last_step() - (read_state(saved)["step"] if saved else 0)
    alone = replace(config, scaling=replace(config.scaling, workers=1))
    return again(alone, before, "gone on with 1 worker instead of 2", repeated)


def events(config: PretrainConfig, name: str) -> list[dict[str, Any]]:
    """Of the run, by name."""
    return [e for e in read_jsonl(config.output / EVENTS) if e["event"] == name]


FAILURES = (
    killed_worker,
    killed_driver,
    other_workers,
    storage_away,
    full_disk,
    damaged_shard_stop,
    damaged_shard_skip,
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=[f.__name__ for f in FAILURES])
    arguments = parser.parse_args()
    output = arguments.output.resolve()
    write_volume_shards(output / "volumes")
    config = PretrainConfig(
        shards=output / "volumes",
        output=output / "undisturbed",
        **sections("mdae", preset="tiny", crop_size=16, block_size=4, shuffle_window=8),
        optim=OptimConfig(batch_size=4, micro_batch_size=2, steps=STEPS, optimizer="sgd", lr=0.02),
        scaling=ScalingConfig(workers=2, cpus_per_worker=0.5),
        checkpoint=CheckpointConfig(every=EVERY),
        tracking=TrackingConfig(every=1, pictures=0),
    )
    with cluster(cpus=3):
        pretrain(config)
        found = [
            failure(replace(config, output=output / failure.__name__), config.output)
            for failure in FAILURES
            if failure.__name__ in arguments.only
        ]
    draw(Curve.of(config.output), {one.done: one.curve for one in found}, output / "losses.png")
    for one in found:
        print(json.dumps({k: v for k, v in asdict(one).items() if k != "curve"}))


if __name__ == "__main__":
    main()
