"""Terms that push vectors apart."""

import math

import pytest
import torch

from ray_mae.methods.parts.spread import koleo


def keys(*values: int) -> torch.Tensor:
    return torch.tensor(values)


def test_koleo_is_minus_the_log_of_the_distance_to_the_nearest() -> None:
    z = torch.tensor([[2.0, 0], [0, 3.0], [-1.0, 0]])  # at 0, 90 and 180 degrees
    expected = torch.full((3,), -math.log(math.sqrt(2)))
    torch.testing.assert_close(koleo(z, keys(1, 2, 3)), expected)


def test_koleo_has_no_neighbour_of_the_same_sample() -> None:
    z = torch.tensor([[1.0, 0], [1.0, 0.01], [0, 1.0]])
    near, far = koleo(z, keys(1, 2, 3))[0], koleo(z, keys(1, 1, 3))[0]
    assert near > 4
    assert far == pytest.approx(-math.log(math.sqrt(2)), abs=1e-6)


def test_koleo_is_0_without_gradient_where_there_is_no_other_sample() -> None:
    z = torch.randn(3, 4, requires_grad=True)
    value = koleo(z, keys(5, 5, 5))
    value.sum().backward()
    assert z.grad is not None
    assert not value.any()
    assert not z.grad.any()


def test_koleo_of_equal_vectors_is_finite_and_so_is_its_gradient() -> None:
    z = torch.ones(4, 8, requires_grad=True)
    value = koleo(z, torch.arange(4))
    value.sum().backward()
    assert z.grad is not None
    assert value.isfinite().all()
    assert value.min() > 10
    assert z.grad.isfinite().all()


def test_a_step_along_koleo_moves_vectors_apart() -> None:
    torch.manual_seed(0)
    z = (torch.randn(1, 16) + 0.1 * torch.randn(12, 16)).requires_grad_()
    key, distances = torch.arange(12), []
    for _ in range(20):
        n = torch.nn.functional.normalize(z.detach(), dim=-1)
        distances.append(float(torch.pdist(n).min()))
        (gradient,) = torch.autograd.grad(koleo(z, key).mean(), z)
        z = (z - 0.5 * gradient).detach().requires_grad_()
    assert distances[-1] > 3 * distances[0]


@pytest.mark.parametrize("scale", [1e-2, 1e3])
def test_koleo_knows_directions_alone(scale: float) -> None:
    torch.manual_seed(0)
    z = torch.randn(6, 5)
    torch.testing.assert_close(koleo(scale * z, torch.arange(6)), koleo(z, torch.arange(6)))
