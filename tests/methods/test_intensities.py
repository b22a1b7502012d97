"""Changes of grey values, of images and of volumes."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ray_mae.transforms.intensities import (
    WAYS,
    IntensityChanges,
    blurred,
    coarsened,
    contrasted,
    noisy,
    powered,
)

NONE = replace(IntensityChanges(), zoom=(0.5, 0.8)).times(0)


def inputs(axes: int = 3, side: int = 12, samples: int = 6) -> Tensor:
    g = torch.Generator().manual_seed(0)
    return torch.randn(samples, 1, *[side] * axes, generator=g)


def keys(samples: int = 6) -> Tensor:
    return torch.arange(samples) * 7919 + 3


def amounts(value: float, x: Tensor) -> Tensor:
    return torch.full((len(x), *[1] * (x.ndim - 1)), value)


@pytest.mark.parametrize("axes", [2, 3])
def test_shares_of_0_change_nothing_to_the_bit(axes: int) -> None:
    x = inputs(axes)
    assert torch.equal(NONE(x, keys()), x)
    assert not torch.equal(IntensityChanges()(x, keys()), x)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("axes", [2, 3])
def test_each_way_changes_its_share_and_leaves_the_others_to_the_bit(way: str, axes: int) -> None:
    x, draw = inputs(axes, side=6, samples=200), keys(200)
    y = replace(NONE, **{way: 0.4})(x, draw)
    changed = (y != x).flatten(1).any(1)
    assert 60 < changed.sum() < 100
    assert y.isfinite().all()
    assert torch.equal(replace(NONE, **{way: 0.4})(x[50:], draw[50:]), y[50:])  # by the key alone
    assert (replace(NONE, **{way: 1.0})(x, draw) != x).flatten(1).any(1).all()


def test_nothing_is_made_of_inputs_that_are_all_one_value() -> None:
    x = torch.full((6, 1, 8, 8, 8), 2.0)
    every = IntensityChanges(noise=0).times(10)
    assert every(x, keys()).isfinite().all()
    torch.testing.assert_close(powered(x, amounts(1.4, x)), x)


def test_noise_has_the_variance_that_was_drawn() -> None:
    x = torch.zeros(2, 1, 40, 40, 40)
    y = noisy(x, torch.tensor([0.04, 0.1]).view(2, 1, 1, 1, 1), draw=keys(2))
    torch.testing.assert_close(y.flatten(1).var(1), torch.tensor([0.04, 0.1]), rtol=0.03, atol=0)


def test_contrast_keeps_the_mean_and_scales_the_deviation() -> None:
    x = inputs() + 3
    y = contrasted(x, amounts(0.8, x))
    torch.testing.assert_close(y.flatten(1).mean(1), x.flatten(1).mean(1))
    torch.testing.assert_close(y.flatten(1).std(1), 0.8 * x.flatten(1).std(1))


def test_gamma_keeps_mean_deviation_and_order_and_1_is_the_identity() -> None:
    x = inputs()
    y = powered(x, amounts(1.5, x))
    torch.testing.assert_close(y.flatten(1).mean(1), x.flatten(1).mean(1), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.flatten(1).std(1), x.flatten(1).std(1))
    assert torch.equal(y.flatten(1).argsort(1), x.flatten(1).argsort(1))
    torch.testing.assert_close(powered(x, amounts(1.0, x)), x, atol=1e-5, rtol=0)


@pytest.mark.parametrize("axes", [2, 3])
def test_blur_is_a_gaussian_and_keeps_what_is_constant(axes: int) -> None:
    x = torch.zeros(1, 1, *[15] * axes)
    x[(0, 0, *[7] * axes)] = 1
    y = blurred(x, amounts(1.0, x))[0, 0]
    middle = y[(7,) * axes]
    torch.testing.assert_close(y.sum(), torch.tensor(1.0))
    one = y[(8, *[7] * (axes - 1))] / middle
    torch.testing.assert_close(one, torch.tensor(-0.5).exp())
    torch.testing.assert_close(y[(7,) * (axes - 1) + (9,)] / middle, torch.tensor(-2.0).exp())
    flat = torch.full_like(x, 3.0)
    torch.testing.assert_close(blurred(flat, amounts(0.7, flat)), flat)


def test_a_low_resolution_of_1_is_the_identity_and_of_half_keeps_every_second_point() -> None:
    x = inputs(2, side=16)
    torch.testing.assert_close(coarsened(x, amounts(1.0, x)), x)
    y = coarsened(x, amounts(0.5, x))
    kept = x[..., 1::2, 1::2]
    cubic = torch.nn.functional.interpolate(kept, size=16, mode="bicubic", antialias=True)
    torch.testing.assert_close(y[..., 4:-4, 4:-4], cubic[..., 4:-4, 4:-4])
    flat = torch.full_like(x, 3.0)
    torch.testing.assert_close(coarsened(flat, amounts(0.6, flat)), flat)
