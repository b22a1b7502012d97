"""Terms that keep the vectors of an encoder apart: uniformity, SIGReg, KoLeo.

Each is one number of a whole micro-batch, over all workers: equal on all of them, and with a gradient whose mean
over the workers is that of one worker with all samples.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ray_mae.methods.base import Losses
from ray_mae.methods.parts.collectives import count_over_workers, gather_rows, sum_over_workers
from ray_mae.methods.parts.contrastive import study_pairs
from ray_mae.methods.parts.inputs import Inputs
from ray_mae.methods.parts.spread_settings import SpreadSettings
from ray_mae.transforms.keyed_random import DIRECTION, normals

KNOTS, LAST = 17, 3.0
"""At which SIGReg compares characteristic functions: from 0 to LAST, evenly."""
DIRECTIONS = 256
"""That it looks in, in each step others (LeJEPA's smallest published number)."""


def spread(losses: Losses, settings: SpreadSettings, z: Tensor, inputs: Inputs, step: int) -> Losses:
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
        terms["koleo"] = koleo(z, inputs)
    if not terms:
        return losses
    added = torch.stack([settings.spreads[name] * term for name, term in terms.items()]).sum()
    ratios = {name: torch.stack([t, torch.ones_like(t)]).detach() for name, t in terms.items()}
    each = None if losses.each is None else losses.each + added.detach()
    return Losses(losses.total + added, losses.parts, {**losses.ratios, **ratios}, each)


def uniformity(z: Tensor, inputs: Inputs) -> Tensor:
    """(1/M²) Σ_ij (ẑ_i · ẑ_j)² over the M vectors of all workers, each with itself too (U-MAE, section 4).

    Pairs of two vectors of one sample count as 0: an alignment wants them equal. The sum over all pairs is the
    squared norm of Σ_i ẑ_i ẑ_iᵀ [D, D], so that no vector has to travel.

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
    """How far the vectors are from a standard normal distribution, a mean over directions (LeJEPA, section 4).

    Epps and Pulley's statistic: B ∫ |φ_B(t) − e^{−t²/2}|² e^{−t²/2} dt over [−3, 3] by trapezoids, φ_B being
    the characteristic function of the B samples of all workers along a direction. Each sample counts once,
    with the mean over its inputs. It is about 1.05 where they are what they should be.

    Args:
        z: [N, D] a vector of each input.
        inputs: what they are of.
        step: which directions.
        directions: how many.
    """
    x, D = z.float(), z.shape[1]
    key = torch.full((1,), step, device=z.device)
    a = F.normalize(normals(key, D * directions, DIRECTION).view(D, directions), dim=0)
    t = torch.linspace(0, LAST, KNOTS, device=z.device)
    normal = torch.exp(-t.square() / 2)  # [K]: the characteristic function and the weight
    angle = (x @ a)[..., None] * t  # [N, directions, K]
    waves = torch.stack([angle.cos(), angle.sin()], dim=1)
    samples = count_over_workers(inputs.samples)
    real, imaginary = (
        sum_over_workers(inputs.per_sample(waves).sum(0)) / samples
    )  # [directions, K]
    error = (real - normal).square() + imaginary.square()
    weight = 2 * torch.full_like(t, LAST / (KNOTS - 1)) * normal
    weight = weight * torch.where((t == 0) | (t == LAST), 0.5, 1.0)
    return samples * (error * weight).sum(-1).mean()


def koleo(z: Tensor, inputs: Inputs) -> Tensor:
    """−mean log of the distance of each vector to the nearest of another sample (Sablayrolles et al. 2019).

    Vectors are L2-normalised, and neighbours are looked for on all workers. Inputs of one sample are no
    neighbours, and neither are those of the same sample drawn twice. Without any other sample it is 0.

    Args:
        z: [N, D] a vector of each input.
        inputs: what they are of.
    """
    n = F.normalize(z.float(), dim=-1)
    sample = sample_of(inputs)
    every, _, _, keys, _ = gather_rows(n, sample, inputs.key[sample])
    own = inputs.key[sample][:, None] == keys[None, :]  # [N, A]
    with torch.no_grad():
        nearest = (n @ every.T).masked_fill(own, -2).argmax(1)  # a cosine is never -2
    distance = F.pairwise_distance(n, every[nearest], eps=0)
    log = torch.where(own.all(1), 0, (distance + 1e-8).log())
    return -sum_over_workers(log.sum()) / count_over_workers(len(n))


def sample_of(inputs: Inputs) -> Tensor:
    """[N] index of each input's sample."""
    if inputs.sample is not None:
        return inputs.sample
    return torch.arange(inputs.samples, device=inputs.key.device)
