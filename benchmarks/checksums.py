"""What comparing the checksums of shards costs whoever reads them for the first time on a node.

    python -m benchmarks.checksums --output DIR [--rounds N] [--train STUDIES]

Batches of generated studies are read for one epoch as for training, as fast as one process can, in turn:
on a node that knows no checksum, so that every file is read once more in the background, and on one that
knows them all. Training asks for less than that, so this is the most that it can cost. DIR is best on the
storage in question.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from ray_mae.data.loading import integrity
from ray_mae.data.loading.order import Mixture
from ray_mae.data.loading.stream import Stream
from ray_mae.data.loading.study_collator import StudyCollator
from ray_mae.data.shard_set import ShardSet
from tests.shards import write_shards

BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--train", type=int, default=4000)
    arguments = parser.parse_args()
    shards, notes = arguments.output / "shards", arguments.output / "tmp"
    if not shards.is_dir():
        write_shards(shards, train=arguments.train, size=256, rows_per_shard=512)
    notes.mkdir(exist_ok=True)
    os.environ["TMPDIR"] = tempfile.tempdir = str(notes.resolve())
    size = sum(file.stat().st_size for file in shards.glob("train-*.parquet"))
    _read(shards)
    ratios, shares = [], []
    for turn in range(arguments.rounds):
        times = {}
        for unknown in (True, False) if turn % 2 else (False, True):
            integrity._CHECKS = integrity._Checks()  # as a process that starts
            for folder in notes.glob("ray_mae-checksums-*") if unknown else ():
                shutil.rmtree(folder)
            times[unknown] = _read(shards)
        ratios.append(times[True][0] / times[False][0])
        shares.append(times[True][1] / times[False][1] - 1)
        print(
            f"unknown {times[True][0]:6.2f} s, known {times[False][0]:6.2f} s, ratio {ratios[-1]:.3f}; "
            f"CPU {times[True][1]:6.2f} s and {times[False][1]:6.2f} s",
            flush=True,
        )
    print(
        f"{size / 1e6:.0f} MB of shards: median ratio of the times {statistics.median(ratios):.3f}, "
        f"{statistics.median(shares):+.1%} of CPU time, in one epoch of all"
    )


def _read(folder: Path) -> tuple[float, float]:
    """Seconds, and seconds of CPU, of one epoch."""
    shards = ShardSet.read(folder)
    stream = Stream(
        shards=shards,
        order=Mixture.of(shards, "train", seed=1, shuffle_window=512),
        collator=StudyCollator(max_views=3, seed=1),
        batch_size=BATCH,
        micro_batch_size=BATCH,
        workers=1,
        first_step=0,
        steps=shards.rows("train") // BATCH,
    )
    began, cpu = time.perf_counter(), time.process_time()
    for _ in stream.read(0, stream.steps):
        pass
    return time.perf_counter() - began, time.process_time() - cpu


if __name__ == "__main__":
    main()
