"""Records the golden runs: `python -m tests.golden.record [PART …]`.

Parts, in their order: archives, shards, losses, runs, embeddings. Without names all but archives, which
are drawn once: those that are committed stay as they are.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from safetensors.numpy import load_file, save_file

from ray_mae.cli import run
from tests.golden import measure as m
from tests.golden.drawing import draw_archives

PRUNED = "mdae_pruned"


@contextmanager
def shared_ray() -> Iterator[None]:
    import ray

    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    ray.init(address="local", num_cpus=m.CPUS, include_dashboard=False, log_to_driver=False)
    try:
        yield
    finally:
        ray.shutdown()


def archives(work: Path) -> None:
    """The input files."""
    folder = m.HERE / "archives"
    shutil.rmtree(folder, ignore_errors=True)
    draw_archives(folder)


def shards(work: Path) -> None:
    """ingest.json, and the shards that the runs are trained on."""
    found = {}
    with shared_ray():
        for name in m.ARCHIVES:
            output = work / f"ingest-{name}"
            run(m.ingest_command(name, m.HERE / "archives", output))
            found[name] = m.ingested(output)
            if name in m.KEPT:
                kept = m.HERE / "shards" / m.KEPT[name]
                shutil.rmtree(kept, ignore_errors=True)
                kept.mkdir(parents=True)
                for file in (
                    output / "manifest.json",
                    *map(output.joinpath, found[name]["shards"]),
                ):
                    shutil.copyfile(file, kept / file.name)
    write("ingest.json", found)


def losses(work: Path) -> None:
    """losses.json: every pretraining on one worker and on two."""
    found: dict[str, dict[str, Any]] = {}
    with shared_ray():
        for name, of in m.SHARDS.items():
            for workers in (1, 2):
                output = work / f"{name}-{workers}"
                run(m.pretrain_command(name, workers, m.HERE / "shards" / of, output))
                found.setdefault(name, {})[str(workers)] = by_figure(m.figures(output))
        weights = pruned(checkpoint_of(work / "mdae-2"), work / "pruned")
        output = work / PRUNED
        command = m.pretrain_command("mdae", 2, m.HERE / "shards" / "volumes", output)
        run([*command, "--weights", str(weights)])
        found[PRUNED] = {"2": by_figure(m.figures(output))}
    write("losses.json", found)


def runs(work: Path) -> None:
    """runs/….tar.xz: folders of runs that were killed between the checkpoints of steps 10 and 20."""
    for of, (name, workers, _) in m.STOPPED.items():
        output = work / f"stopped-{of}"
        command = m.pretrain_command(name, workers, m.HERE / "shards" / of, output)
        # pictures take time, so that there is some between the commit of one checkpoint and the next
        command += ["--tracking.pictures", "2", "--tracking.pictures_every", "1"]
        if of == "volumes":
            command += ["--weights", str(work / "pruned")]
        stop(command, output)
        m.pack_run(output, m.HERE / "runs" / f"{of}.tar.xz")


def embeddings(work: Path) -> None:
    """embeddings.json: what the encoders of the stopped runs say, and what `export` makes of them."""
    found: dict[str, Any] = {}
    with shared_ray():
        for of, formats in m.FORMATS.items():
            stopped = work / f"unpacked-{of}"
            m.unpack_run(m.HERE / "runs" / f"{of}.tar.xz", stopped)
            run(m.embed_command(stopped, m.HERE / "shards" / of, work / f"embed-{of}"))
            found[of] = {"embed": m.embedded(work / f"embed-{of}"), "export": {}}
            for form in formats:
                run(m.export_command(stopped, form, work / f"export-{form}"))
                found[of]["export"][form] = m.exported(work / f"export-{form}")
    write("embeddings.json", found)


def by_figure(records: list[dict[str, float]]) -> dict[str, list[float | None]]:
    """A list over the steps for each figure; None where a step has none."""
    names = sorted({name for record in records for name in record} - {"step"})
    return {name: [record.get(name) for record in records] for name in names}


def pruned(checkpoint: Path, folder: Path) -> Path:
    """A checkpoint with three quarters of the channels of its network at zero, for `--weights`.

    Zero weights have gradients of zero, so they stay as they are: the run's folder has the form of any
    other, and packs to a tenth.
    """
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(checkpoint, folder, ignore=shutil.ignore_patterns("deepspeed", "checksums"))
    weights = load_file(folder / "model.safetensors")
    for name, tensor in weights.items():
        for axis in range(min(2, tensor.ndim)):
            size = tensor.shape[axis]
            if size == 1 or (axis == 1 and name.endswith("time.mlp.0.weight")):
                continue
            # of a skip beside what comes from below, and of FiLM's scale and shift: two parts
            parts = 2 if ("film" in name and axis == 0) or joined(name, axis) else 1
            part = size // parts
            dead = np.arange(size) % part >= max(part // 4, 2)
            if size == 256:
                dead = np.arange(size) >= 16
            tensor[(slice(None),) * axis + (dead,)] = 0
    save_file(weights, folder / "model.safetensors")
    return folder


def joined(name: str, axis: int) -> bool:
    """Whether the channels along this axis are those of a skip beside those from below."""
    return axis == 1 and ".convs.0." in name and name.startswith("decoder.stages.")


def checkpoint_of(folder: Path) -> Path:
    """The last committed checkpoint of a run."""
    record = json.loads((folder / "checkpoint_manager_snapshot.json").read_text())
    record = json.loads(record) if isinstance(record, str) else record
    return folder / record["latest_checkpoint_result"]["checkpoint_dir_name"]


def stop(command: list[str], output: Path) -> None:
    """Start a run as a process of its own and kill all of it two steps or more after a checkpoint."""
    process = subprocess.Popen([sys.executable, "-m", "ray_mae", *command])
    while not _under_way(output):
        assert process.poll() is None, "the run ended before it could be stopped"
        time.sleep(0.01)
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for member in family:
        try:
            member.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    process.wait()
    steps = [record["step"] for record in m.figures(output)]
    committed = json.loads((checkpoint_of(output) / "state.json").read_text())["step"]
    assert committed == m.STOPPED_AT < steps[-1] < m.STEPS, (committed, steps)


def _under_way(output: Path) -> bool:
    if not (output / "checkpoint_manager_snapshot.json").is_file():
        return False
    lines = (output / "metrics.jsonl").read_text().count("\n")
    return lines >= m.STOPPED_AT + 2


def write(name: str, found: dict[str, Any]) -> None:
    """JSON with a list of numbers on one line."""
    text = json.dumps(found, default=float)
    parsed = json.loads(text, parse_float=lambda number: float(f"{float(number):.8g}"))
    (m.HERE / name).write_text(_lines(parsed) + "\n")


def _lines(value: Any, indent: int = 0) -> str:
    plain = json.dumps(value)
    if not isinstance(value, dict) or len(plain) + indent < 100:
        if isinstance(value, list) and value and isinstance(value[0], dict):
            rows = ",\n".join(" " * (indent + 1) + _lines(row, indent + 1) for row in value)
            return f"[\n{rows}\n{' ' * indent}]"
        return plain
    rows = ",\n".join(
        f"{' ' * (indent + 1)}{json.dumps(k)}: {_lines(v, indent + 1)}" for k, v in value.items()
    )
    return f"{{\n{rows}\n{' ' * indent}}}"


PARTS = (archives, shards, losses, runs, embeddings)


def main(names: list[str]) -> None:
    os.environ["RAY_MAE_PSEUDONYM_KEY"] = m.KEY
    work = Path(os.environ.get("GOLDEN_WORK") or tempfile.mkdtemp(prefix="golden-"))
    wanted = names or [part.__name__ for part in PARTS if part is not archives]
    for part in PARTS:
        if part.__name__ in wanted:
            part(work)


if __name__ == "__main__":
    main(sys.argv[1:])
