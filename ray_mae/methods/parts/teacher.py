"""A teacher: a network whose weights are a running mean of those of another one that is trained."""

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class Teacher(nn.Module):
    """An exponential moving average of a network, which begins as its equal and has no gradient.

    Its weights are buffers in fp32 whatever the precision of the run, since in bf16 a change by less than
    half a last bit is rounded away: with a momentum of 0.996 it would stand still. They are part of the
    checkpoint, no engine divides or rounds them, and they are equal on all workers, as what they follow is.
    It computes in the precision of the run, without dropping paths.

    Args:
        source: the network that it follows, whose weights it copies.
    """

    def __init__(self, source: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(source)
        for module in self.network.modules():
            for name, parameter in [*module.named_parameters(recurse=False)]:
                delattr(module, name)
                module.register_buffer(name, parameter.detach().float().clone())
        self._low: torch.dtype | None = None
        """Of the passes, where the module around it was cast to it."""
        self.eval()

    @torch.no_grad()
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the network gives, without gradient."""
        if self._low is None:  # or as it is around us
            return self.network(*args, **kwargs)
        device = next(self.network.buffers()).device.type
        with torch.autocast(device, self._low):
            return self.network(*args, **kwargs)

    @torch.no_grad()
    def follow(self, source: nn.Module, momentum: float, taken: Tensor) -> None:
        """Each weight w becomes momentum · w + (1 - momentum) · the source's; other buffers are copied.

        To be called in `Method.after_step`.

        Args:
            source: the network that it follows, in any precision.
            momentum: share that is kept; 0 copies the source.
            taken: of `after_step`; where it is false nothing changes.
        """
        trained = dict(source.named_parameters())
        share = (1 - momentum) * taken.float()
        now = trained | dict(source.named_buffers())
        for name, buffer in self.network.named_buffers():
            if name in trained:
                buffer.lerp_(now[name].float(), share)
            else:
                buffer.copy_(torch.where(taken, now[name], buffer))

    def train(self, mode: bool = True) -> "Teacher":
        """Stays as in evaluation, whatever the module around it does."""
        return super().train(False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Teacher":
        """Moves to another device, but keeps the precision: of `to`, `bfloat16` and their like."""

        def moved(tensor: Tensor) -> Tensor:
            new = fn(tensor)
            if new.dtype == tensor.dtype:
                return new
            self._low = new.dtype
            return tensor.to(new.device)

        return super()._apply(moved, recurse)


def momentum_at(step: int, steps: int, first: float) -> float:
    """Returns the momentum of a teacher after `step` of `steps` optimiser steps of a run.

    From `first` to 1 by half a cosine (Grill et al. 2020, BYOL), over all of the run: it does not begin again
    with an epoch.

    Args:
        step: optimiser steps done.
        steps: of the whole run.
        first: momentum at the start.
    """
    share = min(1.0, step / max(1, steps))
    return 1 - (1 - first) * (1 + math.cos(math.pi * share)) / 2
