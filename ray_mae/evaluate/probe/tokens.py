"""Tokens of frozen encoders, pooled to a small grid: what an attentive head looks at."""

from math import isqrt
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ray_mae.batch import StudyBatch
from ray_mae.data.kinds import of_encoder
from ray_mae.data.schema import VIEWS
from ray_mae.evaluate.heads.base import Tokens
from ray_mae.transforms.images import whole
from ray_mae.transforms.volumes import clean

GRID, GRID_3D = 7, 4
"""Tokens along each side of an image, and of a volume, at most."""


def read_tokens(encoder: Any, reader: Any, rows: NDArray[np.intp]) -> Tokens:
    """Tokens of the samples in these rows; `sample` counts them from 0.

    Args:
        encoder: frozen, of studies or volumes.
        reader: `evaluate.samples.Samples`.
        rows: of its cohort.

    Raises:
        ValueError: where they are not finite.
    """
    kind = of_encoder(encoder.settings)
    collator = kind.evaluation_collator(encoder.settings.input_size)
    values, sample, view, before = [], [], [], 0
    with torch.inference_mode():
        for arrays, _ in reader.each(rows, collator):
            batch = kind.to_batch(arrays)
            of_study = isinstance(batch, StudyBatch)
            tokens = of_images(encoder, batch) if of_study else of_volumes(encoder, batch)
            values.append(tokens.half().numpy())
            n = len(tokens)
            sample.append(before + (batch.study.numpy() if of_study else np.arange(n)))
            view.append(batch.view.numpy() if of_study else np.full(n, VIEWS.index("unknown")))
            before += batch.samples
    together = np.concatenate(values)
    if not np.isfinite(together).all():
        raise ValueError(
            "the encoder's tokens are not finite: the training diverged; lower optim.lr, or set optim.clip"
        )
    return Tokens(together, np.concatenate(sample), np.concatenate(view))


def of_images(encoder: Any, batch: StudyBatch) -> Tensor:
    """[N, T, D] of each view, without the class token."""
    images = whole(batch, encoder.settings.image_size, encoder.settings.sight)
    tokens = encoder.tokens(images, batch.view)[:, 1:].float()
    side = isqrt(tokens.shape[1])
    grid = tokens.mT.unflatten(2, (side, side))
    return F.adaptive_avg_pool2d(grid, min(GRID, side)).flatten(2).mT


def of_volumes(encoder: Any, batch: Any) -> Tensor:
    """[B, T, D] of the last map of each volume."""
    network = encoder.encoder
    last = network.last_map(clean(batch)[0].to(network.dtype))
    depth, height, width = (min(GRID_3D, side) for side in last.shape[2:])
    return F.adaptive_avg_pool3d(last, (depth, height, width)).flatten(2).mT
