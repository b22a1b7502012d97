"""A teacher: a network whose weights are a running mean of those of another one that is trained."""

import copy
import math
from typing import Any, Self

import torch
from torch import Tensor, nn

from ray_mae.methods.parts.precision import InFp32


class Teacher(InFp32):
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
        self.eval()

    @torch.no_grad()
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the network gives, without gradient."""
        device = next(self.network.buffers()).device.type
        if self.cast_to is None or not torch.amp.is_autocast_available(device):
            return self.network(*args, **kwargs)  # in fp32, or by an autocast that is around us
        with torch.autocast(device, self.cast_to):
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

    def train(self, mode: bool = True) -> Self:
        """Stays as in evaluation, whatever the module around it does."""
        return super().train(False)


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
