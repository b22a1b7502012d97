"""Checkpoints whose norms are not 1 and whose biases are not 0: these would hide faults of folding."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ray_mae.config import PretrainConfig
from ray_mae.data.schema import NOUNS
from tests.records import write_state
from tests.settings import build_of, small
from tests.shards import write_shards, write_volume_shards

Write = Callable[..., Path]


def perturb(module: nn.Module, seed: int = 0) -> nn.Module:
    """Adds noise to every parameter, and to those of one dimension and to tables much of it."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            scale = 0.05 if parameter.ndim > 2 else 0.2
            parameter.add_(torch.randn(parameter.shape, generator=draw) * scale)
    return module


@pytest.fixture(scope="session")
def write_perturbed(tmp_path_factory: pytest.TempPathFactory) -> Write:
    """Writes a checkpoint of a tiny encoder: (method, settings) → its folder."""
    shards: dict[str, Path] = {}

    def write(method: str, **settings: Any) -> Path:
        run = small(method, **settings)
        kind = NOUNS[run["encoder"].kind]
        if kind not in shards:
            shards[kind] = tmp_path_factory.mktemp(kind) / "patients-of-st-elsewhere"
            make = write_volume_shards if kind == "volumes" else write_shards
            manifest = make(shards[kind], train=4, held_out=2)
            replace(manifest, dataset="st-elsewhere").write(shards[kind])
        folder = tmp_path_factory.mktemp("run-of-doctor-who")
        model = perturb(build_of(run, vocabulary=64))
        weights = {k: v.clone() for k, v in model.state_dict().items()}
        save_file(weights, folder / "model.safetensors")
        config = PretrainConfig(shards=shards[kind], output=folder, **run)
        write_state(folder, config, step=7, workers=1)
        return folder

    return write
