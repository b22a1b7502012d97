"""A step of every method beside plain MAE of the same network: work, CPU seconds, activations.

    python -m benchmarks.methods [--kind studies|volumes] [--samples 16] [--rounds 3] [--record]

The settings are those of `benchmarks.family`, with random weights and samples. A step is forward and backward
of one micro-batch on one thread, in turn in one process, so that seconds are work and not waiting.
Activations are what `plan` forecasts: the most bytes alive beside weights and gradients. Compared is with
plain MAE, the first method of the same network.
"""

import statistics
import time
from collections.abc import Iterator
from typing import Any

import torch

from benchmarks.family import STUDIES, VOLUMES, Flags, words
from benchmarks.record import Cell, finish, parser_of
from ray_mae import cli
from ray_mae.config import PretrainConfig
from ray_mae.methods.base import Method
from ray_mae.train.forecast.activations import activation_bytes
from ray_mae.train.setup import method_of, plan_of
from tests.batches import VOCABULARY, study_batch
from tests.volume_batches import volume_batch

STEPS = 500
VIEWS = 2
KINDS = {"studies": STUDIES, "volumes": VOLUMES}


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--kind", choices=list(KINDS), default="studies")
    parser.add_argument("--samples", type=int, default=16, help="studies of two views, or volumes")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = [*_rows(KINDS[given.kind], given.samples, given.rounds)]
    finish(
        given,
        rows,
        f"{given.samples} {given.kind} of the family's size; the median of {given.rounds} rounds.",
        name=f"methods_{given.kind}",
    )


def _rows(family: dict[str, Flags], samples: int, rounds: int) -> Iterator[dict[str, Cell]]:
    configs = {name: _config(flags) for name, flags in family.items() if name != "supervised"}
    batches = {name: _batch(config, samples) for name, config in configs.items()}
    models = {name: _model(config) for name, config in configs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(rounds + 1):  # the first warms up
        for name, model in models.items():
            began = time.process_time()
            model(batches[name], STEPS).total.backward()
            seconds[name].append(time.process_time() - began)
    first: dict[str, tuple[float, float, float]] = {}
    for name, config in configs.items():
        batch = batches[name]
        with torch.device("meta"):
            shape = _model(config)
        found = (
            models[name].flops(batch.inputs, batch.samples) / 1e9,
            statistics.median(seconds[name][1:]),
            activation_bytes(shape, batch.to("meta"), "fp32") / 2**20,
        )
        plain = first.setdefault(config.encoder.name, found)
        yield {
            "method": name,
            "encoder": config.encoder.name,
            "GFLOP a step": found[0],
            "of the first": found[0] / plain[0],
            "CPU s a step": found[1],
            "CPU of the first": found[1] / plain[1],
            "activations, MiB": found[2],
            "activations of the first": found[2] / plain[2],
        }


def _config(flags: Flags) -> PretrainConfig:
    given = ["pretrain", "--shards", "s", "--output", "o", "--optim.steps", str(STEPS)]
    config: PretrainConfig = cli.parsed([*given, *words(flags)])[1]
    return config


def _model(config: PretrainConfig) -> Method:
    return method_of(config, plan_of(config, 1000, 1), None, vocabulary=VOCABULARY).train()


def _batch(config: PretrainConfig, samples: int) -> Any:
    size = config.encoder.input_size
    if config.kind == "volume":
        return volume_batch(samples, side=size)
    return study_batch([VIEWS] * samples, canvas=round(1.2 * size))


if __name__ == "__main__":
    main()
