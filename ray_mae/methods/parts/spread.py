"""Terms that push the vectors of a batch apart, against collapse."""

import torch
from torch import Tensor

from ray_mae.methods.parts.collectives import gather_rows

EPS = 1e-8
"""Beside a distance, in its logarithm."""


def koleo(z: Tensor, key: Tensor) -> Tensor:
    """[N] −log of the distance to the nearest vector, all of length 1 (Sablayrolles et al. 2019, DINOv2).

    The nearest is sought among the rows of all workers, and gradients flow into both. Rows of the same sample
    are no neighbours: they are to be alike. 0, without gradient, where there is no row of another sample.

    Args:
        z: [N, D] vectors of any length; zero vectors have no direction.
        key: [N] int64 of each row's sample.
    """
    n = torch.nn.functional.normalize(z.float(), dim=-1)
    rows = gather_rows(n, key, key)
    every, same = rows.every, key[:, None] == rows.keys[None, :]  # [A, D], [N, A]
    with torch.no_grad():
        nearest = (n @ every.T).masked_fill(same, -2.0).argmax(1)  # [N], cosines are at least -1
    alone = same.all(1)
    # EPS also within the root, whose gradient is not finite where two vectors are equal
    distance = ((n - every[nearest]).square().sum(-1) + EPS**2).sqrt()
    return torch.where(alone, 0.0, -(distance + EPS).log())
