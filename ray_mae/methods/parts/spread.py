"""Terms that push the vectors of a batch apart, against collapse: uniformity, SIGReg, KoLeo.

Each is of a whole micro-batch, over all workers: the mean of the workers' gradients is that of one worker
with all samples.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ray_mae.methods.base import Losses
from ray_mae.methods.parts.collectives import count_over_workers, gather_rows, sum_over_workers
from ray_mae.methods.parts.contrastive import study_pairs
from ray_mae.methods.parts.inputs import Inputs
from ray_mae.methods.parts.spread_settings import SpreadSettings
from ray_mae.random_streams import Stream
from ray_mae.transforms.keyed_random import normals

EPS = 1e-8
"""Beside a distance, in its logarithm."""
KNOTS, LAST = 17, 3.0
"""At which SIGReg compares characteristic functions: from 0 to LAST, evenly."""
DIRECTIONS = 256
"""That it looks in, in each step others (LeJEPA's smallest published number)."""


def spread(
    losses: Losses, settings: SpreadSettings, z: Tensor, inputs: Inputs, step: int
) -> Losses:
    """Returns the losses with the terms that have a weight; without one they are untouched.

    Args:
        losses: of the method.
        settings: the weights.
        z: [N, D] a vector of each input.
        inputs: what they are of.
        step: optimiser steps done before, which decides what SIGReg looks at.
    """
    terms = {}
    if settings.uniformity:
        terms["uniformity"] = uniformity(z, inputs)
    if settings.sigreg:
        terms["sigreg"] = sigreg(z, inputs, step)
    if settings.koleo:
        terms["koleo"] = inputs.per_sample(koleo(z, inputs.key[sample_of(inputs)]))
    if not terms:
        return losses
    weighed = [settings.spreads[name] * term.expand(inputs.samples) for name, term in terms.items()]
    added = torch.stack(weighed).sum(0)  # [S]
    ratios = {n: torch.stack([t.sum(), torch.ones_like(t).sum()]) for n, t in terms.items()}
    return Losses(
        losses.total + added.mean(),
        losses.parts,
        {**losses.ratios, **{name: pair.detach() for name, pair in ratios.items()}},
        None if losses.each is None else losses.each + added.detach(),
    )


def uniformity(z: Tensor, inputs: Inputs) -> Tensor:
    """(1/M²) Σ_ij (ẑ_i · ẑ_j)² over the M vectors of all workers, each with itself too (U-MAE, section 4).

    Pairs of two vectors of one sample count as 0: an alignment wants them equal. The sum over all pairs is
    the squared norm of Σ_i ẑ_i ẑ_iᵀ [D, D], so that no vector has to travel.

    Args:
        z: [N, D] a vector of each input; their lengths do not matter.
        inputs: what they are of.
    """
    n = F.normalize(z.float(), dim=-1)
    u, v, together = study_pairs(sample_of(inputs), inputs.most)
    same = torch.where(together, (n[u] * n[v]).sum(-1).square(), 0).sum()
    sums = sum_over_workers(torch.cat([(n.T @ n).flatten(), 2 * same[None]]))
    return (sums[:-1].square().sum() - sums[-1]) / count_over_workers(len(n)) ** 2


def sigreg(z: Tensor, inputs: Inputs, step: int, directions: int = DIRECTIONS) -> Tensor:
    """How far vectors are from a standard normal distribution, a mean over directions (LeJEPA, section 4).

    Epps and Pulley's statistic: B ∫ |φ_B(t) − e^{−t²/2}|² e^{−t²/2} dt over [−3, 3] by trapezoids, φ_B
    being the characteristic function of the B samples of all workers along a direction. Each sample counts
    once, with the mean over its inputs. It is about 1.05 where they are what they should be.

    Args:
        z: [N, D] a vector of each input.
        inputs: what they are of.
        step: which directions.
        directions: how many.
    """
    x, D = z.float(), z.shape[1]
    key = torch.full((1,), step, device=z.device)
    a = F.normalize(normals(key, D * directions, Stream.DIRECTION).view(D, directions), dim=0)
    t = torch.linspace(0, LAST, KNOTS, device=z.device)
    normal = torch.exp(-t.square() / 2)  # [K]: the characteristic function and the weight
    angle = (x @ a)[..., None] * t  # [N, directions, K]
    waves = torch.stack([angle.cos(), angle.sin()], dim=1)
    samples = count_over_workers(inputs.samples)
    real, imaginary = sum_over_workers(inputs.per_sample(waves).sum(0)) / samples  # [directions, K]
    error = (real - normal).square() + imaginary.square()
    weight = 2 * torch.full_like(t, LAST / (KNOTS - 1)) * normal
    weight = weight * torch.where((t == 0) | (t == LAST), 0.5, 1.0)
    return samples * (error * weight).sum(-1).mean()


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


def sample_of(inputs: Inputs) -> Tensor:
    """[N] index of each input's sample."""
    if inputs.sample is not None:
        return inputs.sample
    return torch.arange(inputs.samples, device=inputs.key.device)
