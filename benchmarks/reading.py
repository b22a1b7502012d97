"""Images and crops of volumes read and packed a second by one core: `Stream.read`, as Ray Data calls it.

    python -m benchmarks.reading --shards shards/png shards/zstd shards/brains [--steps 12] [--rounds 3]

CPU seconds of one process; of each folder the best round, all in turn. The first round compares each file
with its checksum as well. Bytes are those of the blocks that travel to the training.
"""

import time
from pathlib import Path

from benchmarks.record import Cell, finish, parser_of
from ray_mae.config import OptimConfig, PretrainConfig
from ray_mae.data.kinds import KINDS
from ray_mae.data.loading.stream import Stream, from_block
from ray_mae.data.shard_set import ShardSet
from ray_mae.train.setup import make_plan, stream_of
from tests.settings import sections

STUDIES, VOLUMES = 64, 8
"""Samples of a step."""


def stream(shards: ShardSet, steps: int, crop: int) -> Stream:
    """The batches of a pretraining on these shards. crop: side, of volumes."""
    if shards.kind == "study":
        values, batch = sections("mvmae", preset="tiny", gamma=0.0), STUDIES
    else:
        values, batch = sections("mdae", preset="tiny", crop_size=crop), VOLUMES
    config = PretrainConfig(
        **values,
        shards=shards.paths[0],
        output=Path("unused"),
        optim=OptimConfig(batch_size=batch, micro_batch_size=batch // 2, steps=steps),
    )
    return stream_of(config, make_plan(config, shards), shards, None, 0)


def measure(wanted: Stream) -> tuple[int, int, float, float]:
    """Inputs, bytes of their blocks, CPU seconds of reading, and of making batches of the blocks."""
    inputs, size, spent = 0, 0, [0.0, 0.0]
    kind = KINDS[wanted.shards.kind]
    began = time.process_time()
    for block in wanted.read(0, wanted.steps):
        spent[0] += time.process_time() - began
        began = time.process_time()
        inputs += kind.to_batch(from_block(block)).inputs
        size += block.nbytes
        spent[1] += time.process_time() - began
        began = time.process_time()
    return inputs, size, *spent


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--shards", type=Path, nargs="+", required=True, help="folders of shards")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--crops", default="96,160", help="sides of crops of volumes, in voxels")
    given = parser.parse_args()
    cases: dict[str, Stream] = {}
    for folder in given.shards:
        shards = ShardSet.read(folder)
        crops = [0] if shards.kind == "study" else map(int, given.crops.split(","))
        for crop in crops:
            name = f"{folder.name}, {f'crops of {crop}³' if crop else 'images'}"
            cases[name] = stream(shards, given.steps, crop)
    best: dict[str, tuple[int, int, float, float]] = {}
    for _ in range(given.rounds):
        for name, wanted in cases.items():
            found = measure(wanted)
            best[name] = min(found, best.get(name, found), key=lambda one: one[2])
    rows: list[dict[str, Cell]] = [
        {
            "shards": name,
            "read and packed, a second and core": inputs / reading,
            "KiB of a block, an input": size / inputs / 1024,
            "made a batch, a second and core": inputs / batching,
        }
        for name, (inputs, size, reading, batching) in best.items()
    ]
    finish(
        given,
        rows,
        "Reading is done by tasks of Ray Data, batches are made by the worker that trains.",
    )


if __name__ == "__main__":
    main()
