"""Small volume batches for tests."""

from dataclasses import replace

import torch

from ray_mae.batch import VolumeBatch
from ray_mae.config import MdaeConfig
from ray_mae.methods.mdae.model import Mdae, build_mdae


def volume_batch(samples: int, seed: int = 0, side: int = 16) -> VolumeBatch:
    """Random volumes, smooth enough to be learnt, every voxel valid."""
    g = torch.Generator().manual_seed(seed)
    coarse = torch.randn(samples, 1, 4, 4, 4, generator=g)
    voxels = torch.nn.functional.interpolate(coarse, size=[side] * 3, mode="trilinear")
    return VolumeBatch(
        voxels=voxels / voxels.std(),
        valid=torch.ones_like(voxels, dtype=torch.bool),
        key=torch.arange(samples),
        draw=torch.randint(-(2**62), 2**62, (samples,), generator=g),
    )


def some(batch: VolumeBatch, rows: list[int]) -> VolumeBatch:
    """Some of the batch's samples."""
    fields = ("voxels", "valid", "key", "draw")
    return replace(batch, **{name: getattr(batch, name)[rows] for name in fields})


def config(**settings: object) -> MdaeConfig:
    """A tiny network on crops of 16³, without augmentation."""
    small: dict = {
        "preset": "tiny",
        "crop_size": 16,
        "block_size": 4,
        "mirror": False,
        "rotate_share": 0.0,
        "scale_share": 0.0,
    }
    return MdaeConfig(**(small | settings))


def mdae(**settings: object) -> Mdae:
    """The method of `config`."""
    return build_mdae(config(**settings), seed=0)
