"""Grey values of images and volumes, changed at random: noise, blur, contrast, resolution, gamma.

The ways, their order and bounds are those by which nnssl's contrastive methods change volumes. Each is
computed of all inputs and kept of a share of them, by keys, so that no shape depends on a draw.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from ray_mae.random_streams import Stream
from ray_mae.transforms.images import cubic_weight
from ray_mae.transforms.keyed_random import normals, uniforms

WAYS = ("noise", "blur", "brightness", "contrast", "low_resolution", "gamma_inverted", "gamma")


@dataclass(frozen=True)
class IntensityChanges:
    """Shares of the inputs that are changed in each way, one after the other, and bounds of how much.

    A share 0 leaves the inputs as they are, to the bit. Where nnssl changes a share of the channels of a
    share of its samples, the product of both stands here.
    """

    noise: float = 0.1
    blur: float = 0.1
    brightness: float = 0.15
    contrast: float = 0.15
    low_resolution: float = 0.05
    gamma_inverted: float = 0.1
    gamma: float = 0.3

    variance: tuple[float, float] = (0.0, 0.1)
    """Of the noise; values have variance 1."""
    sigma: tuple[float, float] = (0.5, 1.0)
    """Of the blur, in pixels or voxels."""
    factor: tuple[float, float] = (0.75, 1.25)
    """Of brightness, and of contrast about the mean."""
    zoom: tuple[float, float] = (0.5, 1.0)
    """Points of a side at the low resolution, over those that it has."""
    power: tuple[float, float] = (0.7, 1.5)
    """Of gamma."""

    def times(self, factor: float) -> "IntensityChanges":
        """The same with every share times a factor, at most 1."""
        shares = {name: min(1.0, factor * getattr(self, name)) for name in WAYS}
        return replace(self, **shares)

    def __call__(self, x: Tensor, draw: Tensor) -> Tensor:
        """Inputs x [N, 1, *sides] float32, of two axes or three, changed by the keys draw [N]."""
        ways: list[tuple[float, tuple[float, float], Callable[[Tensor, Tensor], Tensor]]] = [
            (self.noise, self.variance, partial(noisy, draw=draw)),
            (self.blur, self.sigma, blurred),
            (self.brightness, self.factor, lambda x, factor: x * factor),
            (self.contrast, self.factor, contrasted),
            (self.low_resolution, self.zoom, coarsened),
            (self.gamma_inverted, self.power, lambda x, power: -powered(-x, power)),
            (self.gamma, self.power, powered),
        ]
        u = uniforms(draw, 2 * len(ways), Stream.CONTRAST)  # whether and how much, of each way
        u = u.view(*u.shape, *[1] * (x.ndim - 1))  # [N, 14, 1, …]
        for i, (share, (low, high), change) in enumerate(ways):
            if share > 0:
                amount = low + (high - low) * u[:, 2 * i + 1]  # [N, 1, …]
                x = torch.where(u[:, 2 * i] < share, change(x, amount), x)
        return x


def noisy(x: Tensor, variance: Tensor, *, draw: Tensor) -> Tensor:
    """x [N, 1, *sides] with normal noise of a variance [N, 1, …] each, by the keys draw [N]."""
    z = normals(draw, x[0].numel(), Stream.GRAIN).view_as(x)
    return torch.addcmul(x, variance.sqrt(), z)


def contrasted(x: Tensor, factor: Tensor) -> Tensor:
    """x [N, 1, *sides] with its distance from the input's mean times a factor [N, 1, …]."""
    mean = _mean(x)
    return (x - mean) * factor + mean


def powered(x: Tensor, power: Tensor) -> Tensor:
    """x [N, 1, *sides] as a power [N, 1, …] of its place between least and largest value.

    Each input keeps its mean and its deviation.
    """
    axes = tuple(range(1, x.ndim))
    low, high = x.amin(axes, keepdim=True), x.amax(axes, keepdim=True)
    y = ((x - low) / (high - low).clamp(min=1e-6)) ** power
    mean, y_mean = _mean(x), _mean(y)
    deviation, y_deviation = _mean((x - mean) ** 2).sqrt(), _mean((y - y_mean) ** 2).sqrt()
    return (y - y_mean) / y_deviation.clamp(min=1e-6) * deviation + mean


def blurred(x: Tensor, sigma: Tensor) -> Tensor:
    """x [N, 1, *sides] filtered along each axis by a Gaussian of a sigma [N, 1, …], in points each.

    At a rim the filter is what of it lies inside.
    """

    def rows(side: int) -> Tensor:
        place = torch.arange(side, device=x.device)
        apart = (place[:, None] - place).float()  # [side, side]
        weight = torch.exp(-0.5 * (apart / sigma.view(-1, 1, 1)) ** 2)
        return weight / weight.sum(-1, keepdim=True)

    return _along_axes(x, rows)


def coarsened(x: Tensor, zoom: Tensor) -> Tensor:
    """x [N, 1, *sides] at a resolution of zoom [N, 1, …], the nearest points, and back by a cubic filter."""

    def rows(side: int) -> Tensor:
        fewer = (zoom.view(-1, 1) * side).round().clamp(min=1)  # [N, 1] points of the side
        place = torch.arange(side, device=x.device)
        at = (place + 0.5) * fewer / side - 0.5  # [N, side], among the fewer points
        weights = x.new_zeros(len(x), side, side)
        for tap in (-1, 0, 1, 2):
            point = at.floor() + tap
            weight = cubic_weight((at - point).abs())
            point = point.clamp(min=0).minimum(fewer - 1)
            nearest = ((point + 0.5) * side / fewer).floor()  # of the points that there were
            weights += weight[..., None] * (nearest[..., None] == place)
        return weights

    return _along_axes(x, rows)


def _mean(x: Tensor) -> Tensor:
    """Of each input, [N, 1, …]."""
    return x.mean(tuple(range(1, x.ndim)), keepdim=True)


def _along_axes(x: Tensor, rows: Callable[[int], Tensor]) -> Tensor:
    """x [N, 1, *sides] times a matrix for each input and axis, rows(side) [N, side, side]."""
    for axis in range(2, x.ndim):
        last = x.movedim(axis, -1)
        product = last.flatten(1, -2) @ rows(x.shape[axis]).transpose(1, 2)
        x = product.view(last.shape).movedim(-1, axis)
    return x
