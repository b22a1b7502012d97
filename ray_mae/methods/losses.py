"""The terms of the methods' losses, each one value per sample.

MVMAE: L_rec + β·L_align + γ·L_caption; MDAE: λ_m·L_masked + λ_v·L_visible, means over regions.

A mean over samples follows elsewhere, over all of them: a study that lacks something (a second
view, a report) counts as 0. So the gradient does not depend on how samples fall on workers.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ray_mae.batch import mean_per_study
from ray_mae.methods.collectives import gather_rows


class Losses(NamedTuple):
    """What a method's forward returns."""

    total: Tensor
    """Scalar: what is minimised."""
    parts: dict[str, Tensor]
    """Scalars by name, unweighted, for the record; without gradient."""
    counted: Mapping[str, Tensor] = MappingProxyType({})
    """[2] each: a sum over some of the samples and how many they were, for the record of their mean.

    To be added up over steps and workers before dividing; there is no mean where the count is 0.
    """


def reconstruction(pixels: Tensor, target: Tensor, norm_pix: bool = False) -> Tensor:
    """L_rec: [N] mean squared error over the hidden pixels [N, M, patch²] of each view."""
    pixels, target = pixels.float(), target.float()
    if norm_pix:  # MAE, section 3: each patch by its own mean and deviation
        target = (target - target.mean(-1, keepdim=True)) / (
            target.var(-1, keepdim=True) + 1e-6
        ).sqrt()
    if pixels.shape[1] == 0:  # nothing is hidden
        return pixels.new_zeros(pixels.shape[0])
    return (pixels - target).square().mean(dim=(1, 2))


def study_pairs(study: Tensor) -> tuple[Tensor, Tensor]:
    """P(i): each unordered pair of views of one study, as two index vectors [P]."""
    same = study[:, None] == study[None, :]  # [N, N]
    u, v = same.triu(diagonal=1).nonzero(as_tuple=True)
    return u, v


def alignment(
    z: Tensor,
    study: Tensor,
    studies: int,
    form: str = "mse",
    *,
    reduction: str = "mean",
    temperature: float = 0.07,
    key: Tensor | None = None,
) -> Tensor:
    """L_align (section 4.1): [S], how far apart the views of a study are; 0 with a single view.

    z: [N, D], one pooled vector per view; key: [N], the same wherever a study is drawn again, as at
    the border of two epochs (infonce only; default: no study is). Forms:
    mse: d_MSE of the L2-normalised vectors, mean over the study's pairs; with reduction "sum" the
    distance is summed over D, which is 2 − 2 cos. The paper's 1/(1−α) turns a mean over all
    positions into one over visible ones; the pooled mean is that already.
    cosine: 1 − cos. infonce: other studies' views are negatives. vicreg: Bardes et al. 2022.
    """
    z = z.float()
    u, v = study_pairs(study)
    if form == "vicreg":
        return vicreg(z, study, studies)
    n = F.normalize(z, dim=-1)
    if form == "infonce":
        return infonce(n, study, studies, temperature, study if key is None else key)
    if form == "cosine":
        distance = 1 - (n[u] * n[v]).sum(-1)
    else:
        squared = (n[u] - n[v]).square()
        distance = squared.mean(-1) if reduction == "mean" else squared.sum(-1)
    return mean_per_study(distance, study[u], studies)


def infonce(n: Tensor, study: Tensor, studies: int, temperature: float, key: Tensor) -> Tensor:
    """[S] contrastive loss over all views of the global micro-batch; 0 with a single view.

    n: [N, D] L2-normalised. Each view is an anchor; the study's other views are its positives
    and every view of another study, on any worker, a negative (van den Oord et al. 2018).
    A study that was drawn twice is no negative of itself.
    """
    every, owner, mine, keys = gather_rows(n, study, key)  # [A, D], [A] over all workers, [N], [A]
    logits = n @ every.T / temperature  # [N, A]
    positive = mine[:, None] == owner[None, :]
    itself = _itself(n.shape[0], every.shape[0], mine, owner)
    positive &= ~itself
    never = -1e9  # finite, so that an anchor without negatives has no NaN gradient
    again = key[:, None] == keys[None, :]  # the anchor itself, its study, and its study once more
    negatives = logits.masked_fill(again, never).logsumexp(1, keepdim=True)  # [N, 1]
    logits = logits.masked_fill(~positive, 0)
    loss = torch.logaddexp(logits, negatives) - logits  # [N, A] −log softmax against negatives
    count = positive.sum(1)
    per_view = torch.where(positive, loss, 0).sum(1) / count.clamp(min=1)  # [N]
    return mean_per_study(per_view, study, studies)


def _itself(n: int, every: int, mine: Tensor, owner: Tensor) -> Tensor:
    """[N, A] where an anchor meets itself: our rows are a run in the gathered ones."""
    first = int((owner == mine[0]).nonzero()[0])
    diagonal = torch.zeros(n, every, dtype=torch.bool, device=owner.device)
    index = torch.arange(n, device=owner.device)
    diagonal[index, first + index] = True
    return diagonal


def vicreg(z: Tensor, study: Tensor, studies: int) -> Tensor:
    """[S] invariance of pairs + variance and covariance over all workers' views (25 : 25 : 1).

    Divided by 25, so that β weighs the invariance. Bardes, Ponce, LeCun 2022, equations 1 to 6.
    """
    u, v = study_pairs(study)
    invariance = mean_per_study((z[u] - z[v]).square().mean(-1), study[u], studies)
    every, *_ = gather_rows(z, study, study)
    centred = every - every.mean(0)
    variance = (1 - (centred.square().mean(0) + 1e-4).sqrt()).clamp(min=0).mean()
    covariance = centred.T @ centred / max(1, every.shape[0] - 1)
    off = covariance - torch.diag(covariance.diagonal())
    return invariance + variance + off.square().sum() / z.shape[1] / 25


def caption(logits: Tensor, target: Tensor, pad: int) -> Tensor:
    """L_caption: [K] token-mean cross-entropy; logits [K, L, V], target [K, L]; pad counts not."""
    loss = F.cross_entropy(
        logits.float().flatten(0, 1), target.flatten(), ignore_index=pad, reduction="none"
    ).view_as(target)
    return loss.sum(1) / (target != pad).sum(1).clamp(min=1)


def region_mean(error: Tensor, region: Tensor) -> Tensor:
    """[B] mean of each sample's error [B, …] over its region [B, …] bool; 0 where that is empty.

    What lies outside the region has no effect, not even NaN.
    """
    total = torch.where(region, error, 0).flatten(1).sum(1)
    return total / region.flatten(1).sum(1).clamp(min=1)


_SMALLEST = 0.1
"""σ below which 1/σ² grows no further, or t near 0 would be all that counts."""


def noise_weight(sigma: Tensor, form: str = "dsm_clipped") -> Tensor:
    """w(σ) [B] of the visible loss, float32, before it is divided by its mean over t.

    sigma: [B] of x + σ z. With x₀ predicted, the score is (x̂ − x_t)/σ² (Tweedie), and denoising score
    matching weighted by σ² (Song and Ermon 2019) is 1/σ². dsm_clipped: 1/max(σ, 0.1)²; edm: that plus
    1 (Karras et al. 2022, equation 5 with σ_data 1); bounded: 1/(σ² + 1); none: 1.
    """
    sigma = sigma.float()
    if form == "none":
        return torch.ones_like(sigma)
    if form == "bounded":
        return 1 / (sigma.square() + 1)
    return 1 / sigma.clamp(min=_SMALLEST).square() + (1.0 if form == "edm" else 0.0)
