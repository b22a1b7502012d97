"""Signs that an encoder gives every sample the same vector."""

import torch
from torch import Tensor, nn

from ray_mae.methods.parts.inputs import Inputs

FEWEST = 4
"""Vectors that an effective rank is computed of: of fewer it is small whatever the encoder does."""


def signs_of_collapse(z: Tensor, inputs: Inputs) -> dict[str, Tensor]:
    """Returns what `collapse_signs` does of views, and of volumes the effective rank alone.

    Vectors of instance-normalised channels are alike in every network of volumes, so cosines say nothing.

    Args:
        z: [N, D] a vector of each input.
        inputs: what they are of.
    """
    z = z.detach().float()
    if inputs.sample is None:
        return {"effective_rank": effective_rank(z)}
    return collapse_signs(z, inputs.sample)


def collapse_signs(z: Tensor, study: Tensor) -> dict[str, Tensor]:
    """Returns cosines of vectors of one study and of other studies, and the effective rank.

    A pair [2] each, as in `Losses.ratios`: with count 0 where there is nothing to compare.

    Args:
        z: [N, D] vectors.
        study: [N] index of each one's study.
    """
    n = nn.functional.normalize(z, dim=-1)
    cosine = n @ n.T
    same = study[:, None] == study[None, :]
    pairs = same & ~torch.eye(len(z), dtype=torch.bool, device=z.device)
    return {
        "cosine_same_study": torch.stack([(cosine * pairs).sum(), pairs.sum()]),
        "cosine_other_study": torch.stack([(cosine * ~same).sum(), (~same).sum()]),
        "effective_rank": effective_rank(z),
    }


def effective_rank(z: Tensor) -> Tensor:
    """[2]: exp of the entropy of the normalised singular values of z [N, D], and 1; or a count of 0.

    At most min(N - 1, D), since the mean is taken off (Roy and Vetterli 2007).
    """
    finite = z.isfinite().all()
    z = torch.where(finite, z, torch.zeros_like(z))  # a decomposition of others may raise
    s = torch.linalg.svdvals(z - z.mean(0))
    p = s / s.sum().clamp(min=1e-12)
    rank = torch.exp(-(p * p.clamp(min=1e-12).log()).sum())
    counts = finite & (len(z) >= FEWEST)
    return torch.stack([rank, torch.ones_like(rank)]) * counts
