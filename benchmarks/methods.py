"""What a step of each method takes beside plain MAE on the same encoder: CPU seconds, in turn in one process.

    python -m benchmarks.methods [--encoders vit resenc primus] [--methods simclr voco] [--preset NAME]
                                 [--side 64] [--samples 2] [--rounds 3] [--record]

Methods with their own settings and random weights; those that an encoder does not fit are left out. Plain MAE
of nnU-Net's encoder is MDAE's form of it, `pretrain_mae3d_large.yaml`. A step is forward and backward of
one micro-batch, with the making of its inputs. One thread, so that seconds are work and not waiting.
"""

import statistics
import time
from typing import Any

import torch

from benchmarks.record import Cell, finish, parser_of
from ray_mae.methods.base import Method
from ray_mae.methods.registry import METHODS
from tests.batches import VOCABULARY, study_batch
from tests.settings import build_of, sections
from tests.volume_batches import volume_batch

MAE_3D = {"sigma_max": 0.0, "lambda_visible": 0.0, "mask_ratio": (0.75, 0.75)}
FITTING: dict[str, dict[str, Any]] = {
    "mdae": MAE_3D,
    "mvmae": {"gamma": 0.0},
    "simclr": {"crop_side": 32},
}
"""Settings of methods beside their own."""
STEP = 100


def methods_of(encoder: str, values: dict[str, Any], names: list[str]) -> dict[str, Method]:
    """Those that fit an encoder of some settings, plain MAE first."""
    built: dict[str, Method] = {}
    for name in ("mdae", "mae", *names):
        more = FITTING.get(name, {})
        try:
            run = sections(f"{name} {encoder}", **values, **more)
            model = build_of(run, vocabulary=VOCABULARY)
        except ValueError:
            continue
        built.setdefault(name, model)
    return built


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--encoders", nargs="+", default=["vit", "resenc", "primus"])
    parser.add_argument("--methods", nargs="+", default=[*METHODS])
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--side", type=int, default=64, help="of images or crops")
    parser.add_argument("--samples", type=int, default=2, help="volumes, or studies of two views")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Cell]] = []
    for encoder in given.encoders:
        images = encoder in ("vit", "convnextv2")
        size = "image_size" if images else "crop_size"
        models = methods_of(encoder, {"preset": given.preset, size: given.side}, given.methods)
        batch: Any = volume_batch(given.samples, side=given.side)
        if images:
            batch = study_batch([2] * given.samples, canvas=round(1.2 * given.side))
        seconds: dict[str, list[float]] = {name: [] for name in models}
        for _ in range(given.rounds + 1):
            for name, model in models.items():
                began = time.process_time()
                model(batch, STEP).total.backward()
                seconds[name].append(time.process_time() - began)
        work = {name: model.flops(batch.inputs, batch.samples) for name, model in models.items()}
        step = {name: statistics.median(times[1:]) for name, times in seconds.items()}
        plain = next(iter(models))
        for name in models:
            rows.append(
                {
                    "encoder": encoder,
                    "method": f"{name}, plain MAE" if name == plain else name,
                    "CPU s a step": step[name],
                    "beside MAE": step[name] / step[plain],
                    "work beside MAE": work[name] / work[plain],
                }
            )
    finish(
        given,
        rows,
        f"Encoders of preset {given.preset}, inputs of side {given.side}, {given.samples} samples; the "
        f"median of {given.rounds} rounds.",
    )


if __name__ == "__main__":
    main()
