"""The terms of MVMAE's loss beside the reconstruction, each one value per study."""

import torch.nn.functional as F
from torch import Tensor

from ray_mae.batch import mean_per_study
from ray_mae.methods.parts.contrastive import infonce, study_pairs, vicreg


def alignment(
    z: Tensor,
    study: Tensor,
    studies: int,
    form: str = "mse",
    *,
    reduction: str = "mean",
    temperature: float = 0.07,
    key: Tensor | None = None,
    weight: Tensor | None = None,
    most: int | None = None,
) -> Tensor:
    """L_align (section 4.1): [S], how far apart the views of a study are; 0 with a single view.

    z: [N, D], one pooled vector per view; key: [N], the same wherever a study is drawn again, as at
    the border of two epochs (infonce only; default: no study is).
    most: views of a study at most; None: all could be of one.
    weight: [S] factor of each study's term. Of infonce it is that of its anchors, and other studies stand in
    their denominators as before; of vicreg that of the invariance alone.
    Forms:
    centred: as mse; the caller has taken the mean of all studies off.
    mse: d_MSE of the L2-normalised vectors, mean over the study's pairs; with reduction "sum" the
    distance is summed over D, which is 2 − 2 cos. The paper's 1/(1−α) turns a mean over all
    positions into one over visible ones; the pooled mean is that already.
    cosine: 1 − cos. infonce: other studies' views are negatives. vicreg: Bardes et al. 2022.
    """
    z, most = z.float(), z.shape[0] if most is None else most
    if form == "vicreg":
        return vicreg(z, study, studies, most, weight)
    n = F.normalize(z, dim=-1)
    if form == "infonce":
        each = infonce(n, study, temperature, study if key is None else key)  # [N]
        return weighted(mean_per_study(each, study, studies), weight)
    u, v, together = study_pairs(study, most)
    if form == "cosine":
        distance = 1 - (n[u] * n[v]).sum(-1)
    else:
        squared = (n[u] - n[v]).square()
        distance = squared.mean(-1) if reduction == "mean" else squared.sum(-1)
    return weighted(mean_per_study(distance, study[u], studies, together), weight)


def weighted(terms: Tensor, weight: Tensor | None) -> Tensor:
    """Terms of studies [S] times their weights, or untouched where there are none."""
    return terms if weight is None else weight * terms


def caption(logits: Tensor, target: Tensor, pad: int) -> Tensor:
    """L_caption: [K] token-mean cross-entropy; logits [K, L, V], target [K, L]; pad counts not."""
    loss = F.cross_entropy(
        logits.float().flatten(0, 1), target.flatten(), ignore_index=pad, reduction="none"
    ).view_as(target)
    return loss.sum(1) / (target != pad).sum(1).clamp(min=1)
