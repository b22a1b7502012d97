"""A pool of nodes that grows from zero for a run, loses a node, and goes back to zero: the trace of it.

    python -m benchmarks.autoscaling [--command pretrain|ingest] [--no-kill]

The nodes are real raylets on this machine, started and ended by Ray's autoscaler.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import yaml
from PIL import Image

from ray_mae.checkpoint.format import last_committed, read_state
from ray_mae.train.metrics.jsonl import read_jsonl
from ray_mae.train.run_folder import EVENTS, METRICS
from tests.cluster.head import Head, head
from tests.shards import write_shards

# workers fit the nodes of one pool alone, as those with GPUs do; tasks that read data get the other
POOLS = {
    "train": {"resources": {"CPU": 2, "object_store_memory": 150_000_000}, "max_workers": 3},
    "cpu": {"resources": {"CPU": 1, "object_store_memory": 150_000_000}, "max_workers": 2},
}
RUN: dict[str, Any] = {
    "method": {"name": "mvmae", "decoder_width": 32, "decoder_depth": 1, "decoder_heads": 2, "gamma": 0.0},
    "encoder": {"name": "vit", "preset": "tiny", "image_size": 32, "patch_size": 8, "width": 32, "depth": 1,
                "heads": 2},
    "data": {"shuffle_window": 8},
    "optim": {"batch_size": 8, "micro_batch_size": 4, "base_lr": 0.05},
    "engine": {"precision": "fp32"},
    "scaling": {"workers": 2, "gpu": False, "cpus_per_worker": 2, "threads_per_worker": 1},
    "checkpoint": {"every": 10},
    "tracking": {"every": 1, "pictures": 0},
}  # fmt: skip


@dataclass
class Pool:
    """Nodes of a cluster over time, by type, as processes of this machine."""

    cluster: Head
    began: float = field(default_factory=time.monotonic)
    trace: list[tuple[float, dict[str, int]]] = field(default_factory=list)

    def raylets(self) -> list[tuple[str, psutil.Process]]:
        """Type and process of each node but the head."""
        found = []
        for process in self.cluster.process.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                kind = process.environ().get("RAY_NODE_TYPE_NAME")
                if process.name() == "raylet" and kind and process.status() != "zombie":
                    found.append((kind, process))
        return found

    def look(self) -> dict[str, int]:
        """Nodes by type; a change goes into the trace."""
        nodes = dict(Counter(kind for kind, _ in self.raylets()))
        if not self.trace or self.trace[-1][1] != nodes:
            self.trace.append((round(self.seconds(), 1), nodes))
        return nodes

    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self.began

    @contextmanager
    def watched(self) -> Iterator["Pool"]:
        """Look all the time of a block."""
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(0.5):
                self.look()

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield self
        finally:
            ended.set()
            watcher.join()


def command(cluster: Head, words: list[str]) -> subprocess.Popen[str]:
    """Python as a process that may join the cluster."""
    return subprocess.Popen(
        [sys.executable, *words],
        env=cluster.driver_environment() | {"PYTHONPATH": os.getcwd()},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def start_run(cluster: Head, folder: Path, steps: int, **changes: Any) -> subprocess.Popen[str]:
    """`ray-mae pretrain`; its shards and settings are made here."""
    if not (folder / "shards").is_dir():
        write_shards(folder / "shards")
    settings = {**RUN, **changes, "optim": {**RUN["optim"], "steps": steps}}
    (folder / "run.yaml").write_text(yaml.safe_dump(settings))
    words = f"pretrain --config {folder}/run.yaml --shards {folder}/shards --output {folder}/run"
    return command(cluster, ["-m", "ray_mae", *words.split()])


def start_ingest(cluster: Head, folder: Path, studies: int, side: int) -> subprocess.Popen[str]:
    """`ray-mae ingest` of an archive that is made here: one image under many names."""
    archive = folder / "archive"
    archive.mkdir()
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 256, (9, 9), dtype=np.uint8)).resize((side, side))
    smooth.save(archive / "0.png")
    for study in range(1, studies):
        os.link(archive / "0.png", archive / f"{study}.png")
    rows = [f"s{i},p{i},{i}.png,PA,FINDINGS: Clear." for i in range(studies)]
    (archive / "table.csv").write_text("\n".join(["study,patient,path,view,text", *rows, ""]))
    words = "ingest --archive table --insecure_pseudonyms true --studies_per_shard 8"
    words += f" --source {archive}/table.csv --output {folder}/shards"
    return command(cluster, ["-m", "ray_mae", *words.split()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--kill", type=bool, default=True, action=argparse.BooleanOptionalAction)
    parser.add_argument("--studies", type=int, default=300)
    parser.add_argument("--command", choices=["pretrain", "ingest"], default="pretrain")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, head(cpus=0, pools=POOLS) as cluster:
        folder, found = Path(temporary), {}
        with Pool(cluster).watched() as pool:
            if arguments.command == "ingest":
                job = start_ingest(cluster, folder, arguments.studies, 1500)
            else:
                job = start_run(cluster, folder, arguments.steps)
            said = threading.Thread(target=lambda: print(*job.stdout or "", sep="  ", end=""))
            said.start()
            if arguments.command == "pretrain" and arguments.kill:
                found = lose_a_node(pool, folder / "run", job)
            found |= {"exit": job.wait(), "over (s)": round(pool.seconds(), 1)}
            said.join()
            until = pool.seconds() + 120
            while pool.look() and pool.seconds() < until:
                time.sleep(0.5)
        if arguments.command == "pretrain":
            steps = [r["step"] for r in read_jsonl(folder / "run" / METRICS)]
            found["each step once in the figures"] = steps == list(range(1, arguments.steps + 1))
    print("nodes over time:")
    for seconds, nodes in pool.trace:
        print(f"{seconds:7.1f} s  {nodes or 'none'}")
    print(json.dumps(found, indent=1))


def lose_a_node(pool: Pool, run: Path, process: subprocess.Popen[str]) -> dict[str, Any]:
    """Kill the raylet of a training node after the second checkpoint; what it cost, in the end."""
    while (last := last_committed(run)) is None or read_state(last)["step"] < 20:
        if process.poll() is not None:
            raise RuntimeError("the run ended before a node was lost")
        time.sleep(0.1)
    victim = next(p for kind, p in pool.raylets() if kind == "train")
    victim.kill()
    killed = time.time()
    done = 0  # workers take some more steps before they notice
    starts = sum(e["event"] == "engine ready" for e in read_jsonl(run / EVENTS))
    while (
        len(ready := [e for e in read_jsonl(run / EVENTS) if e["event"] == "engine ready"])
        == starts
    ):
        if process.poll() is not None:
            raise RuntimeError("the run ended with the node")
        done = max([done, *(r["step"] for r in read_jsonl(run / METRICS)[-1:])])
        time.sleep(0.1)
    while not (again := [e for e in read_jsonl(run / EVENTS)
                         if e["event"] == "first step" and e["time"] > killed]):  # fmt: skip
        if process.poll() is not None:
            break
        time.sleep(0.1)
    return {
        "last step of the workers": done,
        "went on after step": ready[-1]["first_step"],
        "steps repeated": done - ready[-1]["first_step"],
        "from kill to next step (s)": round(again[0]["time"] - killed, 1) if again else None,
    }


if __name__ == "__main__":
    main()
