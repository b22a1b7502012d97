"""Cross-entropies of a student with its teacher, and what keeps the teacher's outputs apart."""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from ray_mae.methods.parts.collectives import alone, sum_over_workers

ITERATIONS = 3
"""Of Sinkhorn and Knopp's."""
_NOWHERE = -1e4
"""A logarithm of nothing, which stays finite."""


def crop_pairs(targets: Sequence[Tensor], logs: Sequence[Tensor]) -> Tensor:
    """[N] mean cross-entropy over all pairs of a teacher's crop and another crop of the student.

    Args:
        targets: [N, K] each, distributions by the teacher's crops.
        logs: [N, K] each, logarithms of those by the student's, of which the first are the same crops.
    """
    total = torch.stack([*logs]).sum(0)
    pairs = len(targets) * (len(logs) - 1)
    each = [(p * (total - own)).sum(-1) for p, own in zip(targets, logs, strict=False)]
    return -torch.stack(each).sum(0) / pairs


def hidden_patches(targets: Tensor, logs: Tensor, counted: Tensor) -> Tensor:
    """[N] mean cross-entropy over the patches that count; 0 where none do.

    Args:
        targets: [N, M, K] distributions by the teacher.
        logs: [N, M, K] logarithms of the student's.
        counted: [N, M] bool.
    """
    each = torch.where(counted, -(targets * logs).sum(-1), 0.0)  # [N, M]
    return each.sum(1) / counted.sum(1).clamp(min=1)


@torch.no_grad()
def sinkhorn(logits: Tensor, counted: Tensor | None = None) -> Tensor:
    """[N, K] distributions that have as much of each prototype, over the rows of all workers.

    Rows and columns are made to have equal sums in turn, rows last (Cuturi 2013, as in SwAV), by logarithms:
    no sum is ever 0.

    Args:
        logits: [N, K] over the temperature.
        counted: [N] bool, the rows whose prototypes are to be equal; None: all.
    """
    q = logits.float()
    for _ in range(ITERATIONS):
        there = q if counted is None else torch.where(counted[:, None], q, _NOWHERE)
        top = there.amax(0)  # [K]
        if not alone():
            dist.all_reduce(top, dist.ReduceOp.MAX)
        q = q - (top + sum_over_workers((there - top).exp().sum(0)).log())
        q = q.log_softmax(1)
    return q.exp()


def entropy(p: Tensor) -> Tensor:
    """Of distributions [..., K] in nats: [...]."""
    return -torch.xlogy(p, p).sum(-1)


def partners(draw: Tensor, sample: Tensor, samples: int) -> Tensor:
    """[N] another input of the same sample for each input, evenly; of a sample with one, that.

    Args:
        draw: [N] uniform in [0, 1).
        sample: [N] index of each input's sample, non-decreasing.
        samples: how many.
    """
    number = sample.new_zeros(samples).index_add(0, sample, torch.ones_like(sample))  # [S]
    first = number.cumsum(0) - number
    n, begin = number[sample], first[sample]  # [N]
    place = torch.arange(len(sample), device=sample.device) - begin
    return begin + (place + 1 + (draw * (n - 1)).long()) % n
