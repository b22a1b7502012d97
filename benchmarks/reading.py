"""Images read and packed a second by one core: `Stream.read`, as a task of Ray Data calls it.

    python -m benchmarks.reading --shards shards/png shards/zstd [--steps 12] [--rounds 2]

CPU seconds of one process. The first round compares each file with its checksum as well.
"""

import argparse
import json
import time
from pathlib import Path

from ray_mae.config import OptimConfig, PretrainConfig
from ray_mae.data.shard_set import ShardSet
from ray_mae.train.setup import make_plan, stream_of
from tests.settings import sections

BATCH = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=Path, nargs="+", required=True, help="of studies")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    for number in range(given.rounds):
        for folder in given.shards:
            config = PretrainConfig(
                **sections("mvmae", preset="tiny", gamma=0.0),
                shards=folder,
                output=Path("unused"),
                optim=OptimConfig(batch_size=BATCH, micro_batch_size=BATCH // 2, steps=given.steps),
            )
            shards = ShardSet.read(folder)
            stream = stream_of(config, make_plan(config, shards), shards, None, 0)
            began, images = time.process_time(), 0
            for block in stream.read(0, given.steps):
                images += json.loads(block["header"][0].as_py())["side"][1][0]
            speed = images / (time.process_time() - began)
            print(f"round {number + 1}, {folder}: {speed:7,.0f} images/s a core", flush=True)


if __name__ == "__main__":
    main()
