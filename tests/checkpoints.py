"""Checkpoints of no training, for tests of what uses an encoder."""

from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from ray_mae.checkpoint.format import WEIGHTS
from ray_mae.config import PretrainConfig
from ray_mae.evaluate.supervised.fit import weights_of
from ray_mae.inference.load import random_encoder
from tests.records import write_state
from tests.settings import small


def write_checkpoint(folder: Path, shards: Path, name: str, **values: Any) -> Path:
    """A checkpoint after step 1 of an encoder with fresh weights.

    Args:
        folder: of the checkpoint; made where it is not there.
        shards: of the run; their manifest is read.
        name: of the method.
        values: see `tests.settings.small`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    run = small(name, **values)
    weights = weights_of(random_encoder(run["encoder"], seed=7).encoder)
    save_file({f"encoder.{k}": v for k, v in weights.items()}, folder / WEIGHTS)
    write_state(folder, PretrainConfig(shards=shards, output=folder, **run), step=1, workers=1)
    return folder
