"""What batch-coupled losses need from the other workers; alone without a process group."""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.nn.functional import all_gather


def gather_rows(x: Tensor, study: Tensor, key: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gathers rows of all workers, differentiably: gradients are summed over the workers' losses.

    Args:
        x: [N, D]; N may differ between workers.
        study: [N] index within this worker's batch.
        key: [N] int64 of the sample.

    Returns:
        Every row [A, D] by rank, their studies [A] made unique over workers, ours [N], and their
        keys [A].
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return x, study, study, key
    world, rank = dist.get_world_size(), dist.get_rank()
    counts = [torch.zeros(1, dtype=torch.long, device=x.device) for _ in range(world)]
    dist.all_gather(counts, torch.tensor([x.shape[0]], device=x.device))
    longest = int(max(counts))
    padded = F.pad(x, (0, 0, 0, longest - x.shape[0]))
    mine = study + (rank << 32)
    marks = torch.stack([mine, key], dim=1)  # [N, 2]
    others = [torch.zeros(longest, 2, dtype=torch.long, device=x.device) for _ in range(world)]
    dist.all_gather(others, F.pad(marks, (0, 0, 0, longest - x.shape[0])))
    rows = all_gather(padded)
    lengths = [int(count) for count in counts]
    every = torch.cat([r[:k] for r, k in zip(rows, lengths, strict=True)])
    owner, keys = torch.cat([o[:k] for o, k in zip(others, lengths, strict=True)]).unbind(1)
    return every, owner, mine, keys
