"""How a run ends: what is printed, the exit code, after how long, and how many steps are lost.

    python -m benchmarks.ends --output DIR [--only NAME …]

Each end is given to a run of its own, started by `ray-mae pretrain` on generated volumes with two workers.
Then checkpoints are damaged, one file at a time, and the same command goes on. A row of JSON for each.
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
from pathlib import Path

import psutil
import yaml

from benchmarks.curves import losses
from ray_mae.checkpoint.format import last_committed, read_state
from ray_mae.checkpoint.integrity import DAMAGED
from ray_mae.config import (
    CheckpointConfig,
    OptimConfig,
    PretrainConfig,
    ScalingConfig,
    TrackingConfig,
)
from ray_mae.config.base import to_dict
from tests.settings import sections
from tests.shards import write_volume_shards

EVERY, AT = 50, 70
"""Steps between checkpoints, and the step after which an end is given."""
STOPPED_S = 130
LIMIT_S = 400


@dataclass
class End:
    """Of one run."""

    done: str
    exit_code: int | None
    """None: it went on."""
    seconds: float
    """From what was done to the end."""
    steps_lost: int
    """Steps with metrics that no checkpoint holds."""
    said: list[str]
    """Lines printed after it was done."""


class Command:
    """`ray-mae pretrain` with settings of a file, and what it has said."""

    def __init__(self, config: PretrainConfig) -> None:
        self.config = config
        file = config.output.with_suffix(".yaml")
        file.write_text(yaml.safe_dump(to_dict(config)))
        self._said = config.output.with_suffix(".txt")
        program = Path(sys.executable).parent / "ray-mae"
        with self._said.open("a") as said:
            self.process = subprocess.Popen(
                [str(program), "pretrain", "--config", str(file)],
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def until_step(self, step: int) -> None:
        """Waits until metrics of a step are there."""
        while max(losses(self.config.output), default=0) < step:
            if self.process.poll() is not None:
                raise RuntimeError(f"the run ended too early: {self.lines()[-3:]}")
            time.sleep(0.05)

    def lines(self) -> list[str]:
        return self._said.read_text(errors="replace").splitlines()

    def child(self, name: str) -> psutil.Process:
        """The last process that it started whose command line holds a name."""
        found = psutil.Process(self.process.pid).children(recursive=True)
        return [p for p in found if name in " ".join(p.cmdline())][-1]

    def end(self, done: str, before: int, began: float) -> End:
        """Waits for its end, and for that of its processes."""
        code = self.process.wait(LIMIT_S)
        seconds = time.monotonic() - began
        saved = last_committed(self.config.output)
        kept = read_state(saved)["step"] if saved else 0
        reached = max(losses(self.config.output), default=0)
        said = [line for line in self.lines()[before:] if not line.startswith("step ")]
        return End(done, code, round(seconds, 1), max(reached - kept, 0), said)

    def close(self) -> None:
        """Ends what is left of it."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def ended(config: PretrainConfig, done: str, end: Callable[[Command], None]) -> End:
    """A run to which an end is given."""
    command = Command(config)
    try:
        command.until_step(AT)
        before, began = len(command.lines()), time.monotonic()
        end(command)
        return command.end(done, before, began)
    finally:
        command.close()


def stopped_worker(config: PretrainConfig) -> End:
    """A worker that hangs for two minutes, and comes back; then the run is ended by SIGTERM."""
    command = Command(config)
    try:
        command.until_step(AT)
        before, began = len(command.lines()), time.monotonic()
        worker = command.child("RayTrainWorker")
        worker.suspend()
        time.sleep(STOPPED_S)
        worker.resume()
        reached = max(losses(config.output))
        command.until_step(reached + 20)
        said = [line for line in command.lines()[before:] if not line.startswith("step ")]
        return End(
            f"a worker stopped for {STOPPED_S} s",
            command.process.poll(),
            round(time.monotonic() - began, 1),
            0,
            said,
        )
    finally:
        command.close()


def killed(name: str) -> Callable[[Command], None]:
    return lambda command: command.child(name).kill()


def signalled(signum: signal.Signals) -> Callable[[Command], None]:
    return lambda command: command.process.send_signal(signum)


ENDS: dict[str, tuple[str, Callable[[Command], None]]] = {
    "sigterm": ("SIGTERM", signalled(signal.SIGTERM)),
    "sigint": ("SIGINT", signalled(signal.SIGINT)),
    "sigusr1": ("SIGUSR1", signalled(signal.SIGUSR1)),
    "sighup": ("SIGHUP", signalled(signal.SIGHUP)),
    "controller": ("SIGKILL of Ray Train's controller", killed("TrainController")),
    "raylet": ("SIGKILL of the raylet", killed("raylet/raylet")),
    "gcs": ("SIGKILL of the control store", killed("gcs_server")),
}


def damaged(config: PretrainConfig) -> None:
    """One file after the other of the last of two checkpoints is changed; the same command goes on."""
    config = replace(config, optim=replace(config.optim, steps=2 * EVERY))
    whole = config.output
    Command(config).process.wait()
    last = last_committed(whole)
    assert last is not None
    names = sorted(str(p.relative_to(last)) for p in last.rglob("*") if p.is_file())
    changes: list[tuple[str, Callable[[Path], None]]] = [(n, flip) for n in names]
    changes.append(("model.safetensors", cut))
    for i, (name, change) in enumerate(changes):
        output = config.output.with_name(f"damaged-{i}")
        shutil.copytree(whole, output, symlinks=True)
        change(output / last.name / name)
        command, began = Command(replace(config, output=output)), time.monotonic()
        try:
            end = command.end(f"{change.__name__} {name}", 0, began)
        finally:
            command.close()
        kept = [p.name for p in output.iterdir() if p.name.startswith(DAMAGED)]
        lines = [line for line in end.said if "damaged" in line or "warning" in line]
        show(replace(end, said=[*lines[:2], f"kept aside: {kept}"]))


def show(end: End) -> None:
    print(json.dumps(asdict(end), ensure_ascii=False), flush=True)


def flip(path: Path) -> None:
    """One bit in the middle of a file is turned round."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    """A file loses its second half."""
    os.truncate(path, path.stat().st_size // 2)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=[*ENDS, "stopped", "damaged"])
    arguments = parser.parse_args()
    output = arguments.output.resolve()
    write_volume_shards(output / "volumes")
    config = PretrainConfig(
        shards=output / "volumes",
        output=output / "run",
        **sections("mdae", preset="tiny", crop_size=16, block_size=4, shuffle_window=8),
        optim=OptimConfig(
            batch_size=4, micro_batch_size=2, steps=1_000_000, optimizer="sgd", lr=0.001
        ),
        scaling=ScalingConfig(workers=2, cpus_per_worker=0.5),
        checkpoint=CheckpointConfig(every=EVERY),
        tracking=TrackingConfig(every=1, pictures=0),
    )
    for name in arguments.only:
        run = replace(config, output=output / name)
        if name == "stopped":
            show(stopped_worker(run))
        elif name == "damaged":
            damaged(run)
        else:
            show(ended(run, *ENDS[name]))


if __name__ == "__main__":
    main()
