"""What batch-coupled losses need from the other workers; alone without a process group."""

from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.nn.functional import all_gather, all_reduce


class Rows(NamedTuple):
    """Rows of all workers, by rank."""

    every: Tensor
    """[A, D]"""
    owner: Tensor
    """[A] their studies, made unique over workers."""
    mine: Tensor
    """[N] the studies of this worker's rows, in the same way."""
    keys: Tensor
    """[A] keys of their samples."""
    first: int
    """Where this worker's rows begin."""


def gather_rows(x: Tensor, study: Tensor, key: Tensor) -> Rows:
    """Gathers rows of all workers, differentiably: gradients are summed over the workers' losses.

    Args:
        x: [N, D]; N may differ between workers.
        study: [N] index within this worker's batch.
        key: [N] int64 of the sample.
    """
    if alone():
        return Rows(x, study, study, key, 0)
    rank = dist.get_rank()
    lengths = gather_numbers(x.shape[0])
    longest = max(lengths)
    padded = F.pad(x, (0, 0, 0, longest - x.shape[0]))
    mine = study + (rank << 32)
    marks = torch.stack([mine, key], dim=1)  # [N, 2]
    others = [torch.zeros(longest, 2, dtype=torch.long, device=x.device) for _ in lengths]
    dist.all_gather(others, F.pad(marks, (0, 0, 0, longest - x.shape[0])))
    rows = all_gather(padded)
    every = torch.cat([r[:k] for r, k in zip(rows, lengths, strict=True)])
    owner, keys = torch.cat([o[:k] for o, k in zip(others, lengths, strict=True)]).unbind(1)
    return Rows(every, owner, mine, keys, sum(lengths[:rank]))


def alone() -> bool:
    """Whether there are no other workers."""
    return not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1


def sum_over_workers(x: Tensor) -> Tensor:
    """Adds up tensors of one shape of the workers, differentiably: gradients are summed over their losses."""
    return x if alone() else all_reduce(x)


def count_over_workers(number: int) -> int:
    """Adds up a whole number of each worker, as `gather_numbers` does."""
    return number if alone() else sum(gather_numbers(number))


def gather_numbers(number: int) -> list[int]:
    """Returns a whole number of each worker, by rank, beside their devices: nobody waits for those.

    The process group of a run on GPUs has gloo, too, for what lies on the CPU.
    """
    numbers = torch.zeros(dist.get_world_size(), dtype=torch.long)
    numbers[dist.get_rank()] = number
    dist.all_reduce(numbers)
    return numbers.tolist()
