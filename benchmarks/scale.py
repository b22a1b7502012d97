"""What grows with the archive: manifest, order and first batch, to 10 million studies and 100 million draws.

    python -m benchmarks.scale [--studies 10000,1000000,10000000] [--draws 100000000] [--no-ray]

The manifests are generated: every shard is the same small file of real rows under another name, so what is
read is real and what is counted is large. One process for each size. Memory is what the process holds more
than before, as the system says; the batch is the first that Ray Data hands over, from a cold start of the
dataset and with the position at the beginning or at the end of the draws.
"""

import argparse
import gc
import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq

from benchmarks.record import finish, parser_of

ROWS, PER_GROUP, BATCH = 512, 32, 256
"""Studies of a shard and of its row groups, as ingest writes them; of a step."""


def write_manifest(folder: Path, file: Path, images: int, studies: int) -> None:
    """A folder of shards with so many studies, all in one file that has many names."""
    from ray_mae.data.paths import sha256_of
    from ray_mae.data.schema import SCHEMA_VERSION, Manifest, Shard

    size, checksum = file.stat().st_size, sha256_of(file)
    groups = [PER_GROUP] * (ROWS // PER_GROUP)
    shards = []
    for i in range(-(-studies // ROWS)):
        name = f"train-{i:05d}.parquet"
        (folder / name).symlink_to(file)
        shards.append(Shard(name, "train", ROWS, [*groups], images, size, checksum))
    Manifest("study", "generated", SCHEMA_VERSION, shards).write(folder)


def write_shard(folder: Path) -> tuple[Path, int]:
    """A shard with row groups as ingest writes them; the file and its images."""
    from tests.shards import write_shards

    made = write_shards(folder, train=ROWS, held_out=0, rows_per_shard=ROWS).shards[0]
    file = folder / "shard.parquet"
    table = pq.read_table(folder / made.file)
    pq.write_table(
        table, file, row_group_size=PER_GROUP, write_page_checksum=True, use_dictionary=False
    )
    return file, made.images


def measure(folder: Path, draws: int, with_ray: bool) -> dict[str, float | str]:
    """Figures of one folder of shards."""
    from ray_mae.config import OptimConfig, PretrainConfig
    from ray_mae.data.shard_set import ShardSet
    from ray_mae.train.setup import make_plan, stream_of
    from tests.settings import sections

    steps = draws // BATCH
    config = PretrainConfig(
        **sections("mvmae", preset="tiny", gamma=0.0),
        shards=folder,
        output=folder / "unused",
        optim=OptimConfig(batch_size=BATCH, micro_batch_size=BATCH // 2, steps=steps),
    )
    held = memory()
    began = time.process_time()
    shards = ShardSet.read(folder)
    plan = make_plan(config, shards)
    read = time.process_time() - began
    began = time.process_time()
    stream = stream_of(config, plan, shards, None, 0)
    list(stream.order.locations(0, BATCH))
    ordered = time.process_time() - began
    began = time.process_time()
    for step in range(1, 9):
        list(stream.order.locations(step * BATCH, (step + 1) * BATCH))
    each = (time.process_time() - began) / 8
    began = time.process_time()
    list(stream.order.locations(draws - BATCH, draws))
    last = time.process_time() - began
    held = memory() - held
    sent = pickle.dumps(stream)
    began = time.process_time()
    pickle.loads(sent)
    unpickled = time.process_time() - began
    found: dict[str, float | str] = {
        "studies": shards.rows("train"),
        "manifest, MB": (folder / "manifest.json").stat().st_size / 1e6,
        "read it, s": read,
        "first order, s": ordered,
        "a step's order, ms": 1e3 * each,
        "order of the last step, s": last,
        "memory, MB": held / 1e6,
        "sent to tasks, MB": len(sent) / 1e6,
        "unpacked there, s": unpickled,
    }
    if with_ray:
        found |= first_batches(stream, steps)
    return found


def first_batches(stream: object, steps: int) -> dict[str, float | str]:
    """Seconds to the first batch at the beginning and at the end of the draws; what the driver then holds."""
    from dataclasses import replace

    import ray

    from ray_mae.cluster.runtime import cluster

    found: dict[str, float | str] = {}
    with cluster(cpus=2):
        warm = replace(stream, first_step=0, steps=8)  # type: ignore[type-var]
        next(iter(warm.dataset().iter_batches(batch_size=None)))  # type: ignore[attr-defined]
        for name, first in (("first", 0), ("last", steps - 64)):
            held, began = memory(), time.perf_counter()
            part = replace(stream, first_step=first)  # type: ignore[type-var]
            blocks = iter(part.dataset().iter_batches(batch_size=None))  # type: ignore[attr-defined]
            next(blocks)
            found[f"{name} batch, s"] = time.perf_counter() - began
            if name == "first":
                for _ in range(15):
                    next(blocks)
                found["driver then, MB more"] = (memory() - held) / 1e6
                used = ray.cluster_resources()["object_store_memory"]
                used -= ray.available_resources().get("object_store_memory", 0.0)
                found["object store, MB"] = used / 1e6
            del blocks
            gc.collect()
    return found


def memory() -> int:
    """Bytes of this process that no other one shares."""
    gc.collect()
    return int(psutil.Process(os.getpid()).memory_full_info().uss)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--studies", default="10000,1000000,10000000")
    parser.add_argument("--draws", type=int, default=100_000_000)
    parser.add_argument("--no-ray", action="store_true", help="no batches, order alone")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.folder:  # one size, in a process of its own
        print(json.dumps(measure(given.folder, given.draws, not given.no_ray)))
        return
    rows = []
    with tempfile.TemporaryDirectory() as place:
        file, images = write_shard(Path(place) / "source")
        for studies in map(int, given.studies.split(",")):
            folder = Path(place) / str(studies)
            folder.mkdir()
            write_manifest(folder, file, images, studies)
            words = [sys.executable, "-m", "benchmarks.scale", "--folder", str(folder)]
            words += ["--draws", str(given.draws), *(["--no-ray"] if given.no_ray else [])]
            done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
            rows.append(json.loads(done.stdout.strip().splitlines()[-1]))
            print(rows[-1], flush=True)
    finish(given, rows)


if __name__ == "__main__":
    main()
