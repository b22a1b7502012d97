"""The mean of vectors over the steps so far, to be taken off."""

import torch
import torch.distributed as dist
from torch import Tensor

from ray_mae.methods.parts.precision import InFp32


class RunningMean(InFp32):
    """Vectors minus their mean in the steps before, with recent steps counting more.

    The mean of a step is used after it alone, so a loss does not depend on who else is in the batch, and is
    the same on any number of workers.
    """

    mean: Tensor
    weight: Tensor

    def __init__(self, width: int, momentum: float) -> None:
        """width: of a vector; momentum: share of the mean that a step keeps."""
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("weight", torch.zeros(()))
        self._pending: Tensor | None = None  # [D + 1] sum and count of this step

    def forward(self, z: Tensor) -> Tensor:
        """[N, D] vectors minus the mean so far; at the first step there is none to take off."""
        if self.training:
            x = z.detach().float()
            total = torch.cat([x.sum(0), x.new_full((1,), len(x))])
            self._pending = total if self._pending is None else self._pending + total
        return z - self.value.to(z.dtype)

    @property
    def value(self) -> Tensor:
        """[D] the mean so far; 0 where there is none."""
        return self.mean / self.weight.clamp(min=1e-6)

    @torch.no_grad()
    def follow(self, taken: Tensor) -> None:
        """Takes in the vectors of the step that was done, of all workers.

        taken: scalar bool; where it is false the step was skipped, and the mean stays as it is.
        """
        total = self._pending
        if total is None:
            return
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(total)
        keep = self.momentum
        mean = keep * self.mean + (1 - keep) * (total[:-1] / total[-1])
        self.mean.copy_(torch.where(taken, mean, self.mean))
        self.weight.copy_(torch.where(taken, keep * self.weight + (1 - keep), self.weight))
        self._pending = None
