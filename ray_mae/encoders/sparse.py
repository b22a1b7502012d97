"""Convolutions that do not see what is hidden: dense operations, masked after each of them.

SparK (Tian et al. 2023) and FCMAE (Woo et al. 2023) hide parts of the input of a convolutional network. A
plain convolution would fill them from their rims, layer by layer, and a norm would mix their statistics with
those of what is seen. Here every convolution and pool is followed by zeros where a site is hidden, and norms
know active sites alone: what a submanifold convolution computes, at the price of the dense one. Where all
sites are active, and outside of `seen`, the network is the dense one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ray_mae.encoders.patches import enlarge

_MASKED = (nn.Conv2d, nn.Conv3d, nn.AvgPool2d, nn.AvgPool3d)


class Active:
    """Which sites of a network's maps are seen, at every resolution.

    Args:
        units: [N, *grid] bool, True where a unit of the input is seen, at least one of each input. A unit is
            a square or cube whose side is a multiple of the network's stride, so that no site of any map
            belongs to two.
    """

    def __init__(self, units: Tensor) -> None:
        self.units = units
        self._sites: dict[tuple[int, ...], Tensor] = {}

    def at(self, sides: tuple[int, ...]) -> Tensor:
        """[N, 1, *sides] bool, of a map with these sides.

        Raises:
            ValueError: a site of the map would be of several units.
        """
        if sides not in self._sites:
            grid = self.units.shape[1:]
            times = {side // n for side, n in zip(sides, grid, strict=True)}
            if len(times) > 1 or any(side % n for side, n in zip(sides, grid, strict=True)):
                raise ValueError(
                    f"a map of {list(sides)} has sites of several units of a mask of {list(grid)}: a unit's "
                    "side must be a multiple of the encoder's stride"
                )
            self._sites[sides] = enlarge(self.units, times.pop())[:, None]
        return self._sites[sides]


_ACTIVE: ContextVar[Active | None] = ContextVar("active sites", default=None)


@contextmanager
def seen(active: Active | None) -> Iterator[None]:
    """Has masked operations see active sites alone; None: all.

    To be entered within whatever is computed again in the backward pass, which runs in a thread of its own.
    """
    token = _ACTIVE.set(active)
    try:
        yield
    finally:
        _ACTIVE.reset(token)


def sites(x: Tensor) -> Tensor | None:
    """[N, 1, *sides] bool of a map x [N, C, *sides]; None: all its sites are seen."""
    active = _ACTIVE.get()
    return None if active is None else active.at(tuple(x.shape[2:]))


def masked(x: Tensor) -> Tensor:
    """x [N, C, *sides] with 0 where a site is hidden."""
    where = sites(x)
    return x if where is None else torch.where(where, x, 0)


def mask_operations(module: nn.Module) -> None:
    """Has each convolution and pool of a network be followed by `masked`; names of weights stay."""
    for part in module.modules():
        if isinstance(part, _MASKED):
            part.register_forward_hook(_after)


def _after(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    return masked(output)


class _MaskedNorm(torch.autograd.Function):
    """Instance norm over active sites, which keeps nothing but its input for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, where: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> Tensor:
        hidden, count = ~where, where.sum(2, keepdim=True)  # [N, 1, L], [N, 1, 1]
        wide = x.to(torch.float32, copy=True).masked_fill_(hidden, 0)  # in place from here on
        mean = wide.sum(2, keepdim=True) / count  # [N, C, 1]
        wide.sub_(mean).masked_fill_(hidden, 0)
        length = torch.linalg.vector_norm(wide, dim=2, keepdim=True)
        scale = (length.square() / count + eps).rsqrt()
        ctx.save_for_backward(x, hidden, weight, count, mean, scale)
        wide.mul_(scale * weight[:, None]).add_(bias[:, None]).masked_fill_(hidden, 0)
        return wide.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, hidden, weight, count, mean, scale = ctx.saved_tensors
        y = x.to(torch.float32, copy=True).sub_(mean).mul_(scale).masked_fill_(hidden, 0)
        wide = grad.to(torch.float32, copy=True).masked_fill_(hidden, 0)
        shift = wide.sum(2, keepdim=True)  # [N, C, 1]
        slope = torch.einsum("ncl,ncl->nc", wide, y)[..., None]
        wide.sub_(y.mul_(slope / count)).sub_(shift / count).mul_(scale * weight[:, None])
        dx = wide.masked_fill_(hidden, 0).to(x.dtype)
        return dx, None, slope.sum((0, 2)), shift.sum((0, 2)), None


def masked_instance_norm(
    x: Tensor, where: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> Tensor:
    """Each channel by the mean and deviation of its own active sites, computed in float32.

    Args:
        x: [N, C, L], in any precision.
        where: [N, 1, L] bool, True where a site is active.
        weight: [C] float32, times which it is taken.
        bias: [C] float32, which is added.
        eps: added to the variance.

    Returns:
        [N, C, L] in the precision of x, 0 where a site is hidden.
    """
    normalised: Tensor = _MaskedNorm.apply(x, where, weight, bias, eps)
    return normalised


def fill(h: Tensor, token: Tensor, active: Active) -> Tensor:
    """A map h [N, C, *sides] with a learnt token [C] at the sites that are not seen, for a dense decoder."""
    token = token.to(h.dtype).view(-1, *[1] * (h.ndim - 2))  # [C, 1, …]
    return torch.where(active.at(tuple(h.shape[2:])), h, token)
