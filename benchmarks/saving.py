"""What checkpoints cost a run, copied while training goes on and with training waiting.

    python -m benchmarks.saving --output DIR [--every STEPS] [--steps STEPS] [--preset base]

One run each on generated volumes, with the same settings. DIR is best on the storage in question.
"""

import argparse
import json
from pathlib import Path

from ray_mae.checkpoint.format import last_committed
from ray_mae.cluster.runtime import cluster
from ray_mae.config import (
    CheckpointConfig,
    OptimConfig,
    PretrainConfig,
    ScalingConfig,
    TrackingConfig,
)
from ray_mae.train.pretrain import pretrain
from tests.settings import sections
from tests.shards import write_volume_shards


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--crop_size", type=int, default=16)
    arguments = parser.parse_args()
    write_volume_shards(arguments.output / "volumes")
    with cluster(cpus=3):
        for upload in ("wait", "async"):
            run = arguments.output / upload
            summary = pretrain(
                PretrainConfig(
                    shards=arguments.output / "volumes",
                    output=run,
                    **sections(
                        "mdae",
                        preset=arguments.preset,
                        crop_size=arguments.crop_size,
                        block_size=4,
                        shuffle_window=8,
                    ),
                    optim=OptimConfig(
                        batch_size=4,
                        micro_batch_size=2,
                        steps=arguments.steps,
                        optimizer="sgd",
                        lr=1e-3,
                    ),
                    scaling=ScalingConfig(workers=2, cpus_per_worker=0.5),
                    checkpoint=CheckpointConfig(every=arguments.every, upload=upload),
                    tracking=TrackingConfig(every=1, pictures=0),
                )
            )
            last = last_committed(run)
            assert last
            size = sum(path.stat().st_size for path in last.rglob("*") if path.is_file())
            names = ("saving", "saving_s", "upload_s")
            figures = {name: round(summary["last"][name], 4) for name in names}
            print(json.dumps({"upload": upload, "MB": round(size / 1e6, 1), **figures}))


if __name__ == "__main__":
    main()
