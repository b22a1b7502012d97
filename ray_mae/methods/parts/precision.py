"""Modules that stay precise where an engine rounds what is around them."""

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn


class InFp32(nn.Module):
    """Keeps the precision of its buffers, whatever the module around it is cast to.

    For running means: in bf16 a change by less than half a last bit is rounded away.
    """

    def __init__(self) -> None:
        super().__init__()
        self.cast_to: torch.dtype | None = None
        """Precision of what is around it; None: that has not been cast."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moves to another device, but not to another precision: of `to`, `bfloat16` and their like."""

        def moved(tensor: Tensor) -> Tensor:
            new = fn(tensor)
            if new.dtype == tensor.dtype:
                return new
            self.cast_to = new.dtype
            return tensor.to(new.device)

        return super()._apply(moved, recurse)
