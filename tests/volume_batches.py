"""Small volume batches for tests."""

from dataclasses import replace
from typing import Any

import torch

from ray_mae.batch import VolumeBatch
from ray_mae.methods.base import Context
from ray_mae.methods.mdae.model import Mdae
from tests.batches import targets
from tests.settings import small

PLAIN: dict[str, Any] = {
    "block_size": 4,
    "mirror": False,
    "rotate_share": 0.0,
    "scale_share": 0.0,
}
"""Settings of MDAE for small crops, without augmentation."""


def volume_batch(samples: int, seed: int = 0, side: int = 16) -> VolumeBatch:
    """Random volumes, smooth enough to be learnt, every voxel valid."""
    g = torch.Generator().manual_seed(seed)
    coarse = torch.randn(samples, 1, 4, 4, 4, generator=g)
    voxels = torch.nn.functional.interpolate(coarse, size=[side] * 3, mode="trilinear")
    batch = VolumeBatch(
        voxels=voxels / voxels.std(),
        valid=torch.ones_like(voxels, dtype=torch.bool),
        key=torch.arange(samples),
        draw=torch.randint(-(2**62), 2**62, (samples,), generator=g),
    )
    return replace(batch, **targets(samples, g))


def some(batch: VolumeBatch, rows: list[int]) -> VolumeBatch:
    """Some of the batch's samples."""
    fields = ("voxels", "valid", "key", "draw", "target", "target_weight")
    return replace(batch, **{name: getattr(batch, name)[rows] for name in fields})


def config(**settings: Any) -> dict[str, Any]:
    """The sections of a run of MDAE: a tiny network on crops of 16³, without augmentation."""
    return small("mdae", **(PLAIN | settings))


def mdae(**settings: Any) -> Mdae:
    """The method of `config`."""
    run = config(**settings)
    context = Context(seed=0, steps=100, warmup_steps=10, data=run["data"])
    run["encoder"].check()
    run["method"].check(run["encoder"], run["data"])
    return Mdae.build(run["method"], run["encoder"], context)
