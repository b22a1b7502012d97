"""Losses of pairs: what belongs together against all others of the batch."""

import torch
from torch import Tensor

from ray_mae.batch import mean_per_study
from ray_mae.methods.parts.collectives import gather_rows


def study_pairs(study: Tensor, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """P(i): each unordered pair of views of one study, as two index vectors [P], among others.

    Their number depends on shapes alone, so that nobody waits for the device: all pairs of views that are
    less than `most` apart, and [P] bool, which of them are of one study.

    study: [N], non-decreasing; most: views of a study at most.
    """
    index = torch.arange(study.shape[0], device=study.device)
    apart = range(1, min(most, study.shape[0]))
    u = torch.cat([index[:0], *(index[:-k] for k in apart)])
    v = torch.cat([index[:0], *(index[k:] for k in apart)])
    return u, v, study[u] == study[v]


def infonce(n: Tensor, group: Tensor, temperature: float, key: Tensor) -> Tensor:
    """[N] contrastive loss of each vector over all of the global micro-batch; 0 without a positive.

    n: [N, D] L2-normalised. Each is an anchor: the others of its group are its positives, and every vector of
    another sample, on any worker, a negative (van den Oord et al. 2018). What is of its own sample and not of
    its group is neither, and a sample that was drawn twice is no negative of itself.
    group: [N] index within this worker's batch, of one sample each; key: [N] int64 of the sample.
    """
    every, owner, mine, keys, first = gather_rows(n, group, key)  # [A, D], [A], [N], [A]
    logits = n @ every.T / temperature  # [N, A]
    positive = mine[:, None] == owner[None, :]
    own = first + torch.arange(n.shape[0], device=n.device)  # an anchor meets itself
    positive &= own[:, None] != torch.arange(every.shape[0], device=n.device)
    never = -1e9  # finite, so that an anchor without negatives has no NaN gradient
    again = key[:, None] == keys[None, :]  # the anchor itself, its sample, and its sample once more
    negatives = logits.masked_fill(again, never).logsumexp(1, keepdim=True)  # [N, 1]
    logits = logits.masked_fill(~positive, 0)
    loss = torch.logaddexp(logits, negatives) - logits  # [N, A] −log softmax against negatives
    count = positive.sum(1)
    return torch.where(positive, loss, 0).sum(1) / count.clamp(min=1)


def vicreg(
    z: Tensor, study: Tensor, studies: int, most: int, weight: Tensor | None = None
) -> Tensor:
    """[S] invariance of pairs + variance and covariance over all workers' views (25 : 25 : 1).

    Divided by 25, so that β weighs the invariance. Bardes, Ponce, LeCun 2022, equations 1 to 6.
    most: views of a study at most. weight: [S] of the studies' invariance. Variance and covariance are of all
    views, and no study's own.
    """
    u, v, together = study_pairs(study, most)
    invariance = mean_per_study((z[u] - z[v]).square().mean(-1), study[u], studies, together)
    if weight is not None:
        invariance = weight * invariance
    every = gather_rows(z, study, study).every
    centred = every - every.mean(0)
    variance = (1 - (centred.square().mean(0) + 1e-4).sqrt()).clamp(min=0).mean()
    covariance = centred.T @ centred / max(1, every.shape[0] - 1)
    off = covariance - torch.diag(covariance.diagonal())
    return invariance + variance + off.square().sum() / z.shape[1] / 25
