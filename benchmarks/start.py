"""From the command to the first step: seconds by milestone, and CPU seconds of all processes together.

    python -m benchmarks.start [--engines ddp,deepspeed] [--workers 2] [--rounds 3] [--against CHECKOUT]

`ray-mae pretrain` of a small MVMAE on generated shards, each time in fresh processes that start Ray as well.
CPU seconds are those of the command and of all that it starts until the first step: on a machine with few
cores they decide. --against: another checkout with an environment in .venv, measured in turn with this one.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.record import finish, parser_of
from ray_mae.train.metrics.jsonl import read_jsonl
from ray_mae.train.run_folder import EVENTS
from tests.shards import write_shards

SETTINGS = (
    "--encoder.preset tiny --encoder.image_size 128 --method.gamma 0 --optim.steps 3 --optim.batch_size 16 "
    "--optim.micro_batch_size 8 --scaling.gpu no --tracking.pictures 0"
).split()
MILESTONES = ("worker ready", "engine ready", "first step")


def start(python: str, shards: Path, output: Path, engine: str, workers: int) -> dict[str, float]:
    """Seconds until each milestone, and CPU seconds until the last."""
    words = [python, "-m", "ray_mae", "pretrain", *SETTINGS]
    words += ["--shards", str(shards), "--output", str(output)]
    words += ["--engine.name", engine, "--scaling.workers", str(workers)]
    began, spent = time.time(), {}
    with (output.parent / f"{output.name}.log").open("w") as log:
        command = subprocess.Popen(words, stdout=log, stderr=log, cwd=output.parent)
    tree = psutil.Process(command.pid)
    while command.poll() is None:
        for process in [tree, *_children(tree)]:
            try:
                times = process.cpu_times()
            except psutil.Error:
                continue
            spent[process.pid] = times.user + times.system
        if any(event["event"] == MILESTONES[-1] for event in read_jsonl(output / EVENTS)):
            break
        time.sleep(0.1)
    if command.wait():
        raise RuntimeError(Path(log.name).read_text())
    found = {e["event"]: e["time"] - began for e in read_jsonl(output / EVENTS)}
    return {name: found[name] for name in MILESTONES} | {"cpu": sum(spent.values())}


def _children(tree: psutil.Process) -> list[psutil.Process]:
    try:
        return tree.children(recursive=True)
    except psutil.Error:
        return []


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--engines", default="ddp,deepspeed")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--against", type=Path)
    given = parser.parse_args()
    codes = {"this": sys.executable}
    if given.against:
        codes[given.against.name] = str(given.against.absolute() / ".venv/bin/python")
    found: dict[tuple[str, str], list[dict[str, float]]] = {
        (engine, code): [] for engine in given.engines.split(",") for code in codes
    }
    with tempfile.TemporaryDirectory() as place:
        shards = Path(place) / "shards"
        write_shards(shards, train=64, size=128, rows_per_shard=64)
        for number in range(given.rounds):
            for (engine, code), runs in found.items():
                output = Path(place) / f"{engine}-{code}-{number}"
                runs.append(start(codes[code], shards, output, engine, given.workers))
                print(engine, code, json.dumps(runs[-1]), flush=True)
    rows = []
    for (engine, code), runs in found.items():
        median = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
        rows.append(
            {"engine": engine, "code": code}
            | {f"{name}, s": median[name] for name in MILESTONES}
            | {"CPU, s": median["cpu"]}
        )
    finish(given, rows, f"{given.workers} workers; medians of {given.rounds} starts.")


if __name__ == "__main__":
    main()
