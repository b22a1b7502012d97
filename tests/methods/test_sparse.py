"""Encoders that do not see what is hidden, at any resolution."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ray_mae.encoders.base import MapEncoder
from ray_mae.encoders.convnextv2 import GlobalResponseNorm
from ray_mae.encoders.convnextv2_settings import ConvNextV2Settings
from ray_mae.encoders.registry import build_encoder
from ray_mae.encoders.resenc_settings import ResEncSettings
from ray_mae.encoders.sparse import Active, masked_instance_norm
from ray_mae.methods.mae.settings import MaeSettings
from ray_mae.methods.parts.masking import Masks

ENCODERS: dict[str, Any] = {
    "resenc": ResEncSettings(preset="tiny", crop_size=32),
    "convnextv2": ConvNextV2Settings(preset="atto", width=4, image_size=128),
    "convnextv2 pooled": ConvNextV2Settings(preset="atto", width=4, image_size=64, norm="pooled"),
}


@pytest.fixture(params=ENCODERS)
def encoder(request: pytest.FixtureRequest) -> MapEncoder:
    """With weights of which no layer gives zeros, nor leaves what it gets as it is."""
    torch.manual_seed(0)
    network = build_encoder(ENCODERS[request.param])
    assert isinstance(network, MapEncoder)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.2 * torch.randn(p.shape))
    return network


def inputs(encoder: MapEncoder) -> Tensor:
    settings = encoder.settings
    return torch.randn(2, 1, *[settings.input_size] * settings.dimensions)


def units(encoder: MapEncoder, ratio: float = 0.6) -> Tensor:
    """[2, *grid] bool, True where a unit as large as the stride is seen."""
    settings = encoder.settings
    grid = (settings.input_size // encoder.stride,) * settings.dimensions
    return ~Masks(MaeSettings(), grid, ratio).hidden(torch.tensor([3, 4]))


def test_what_is_hidden_changes_no_map_and_no_gradient(encoder: MapEncoder) -> None:
    """The test that code in use fails, whose input is not masked and whose deepest map has no mask at all."""
    x, active = inputs(encoder), Active(units(encoder))
    outside = ~active.at(tuple(x.shape[2:]))
    found = []
    for other in (x, torch.where(outside, 1e3 * torch.randn(x.shape), x)):
        encoder.zero_grad()
        given = other.requires_grad_(True)
        maps = encoder.skips(given, active=active)
        sum(h.square().mean() for h in maps).backward()
        assert given.grad is not None
        assert given.grad[outside].eq(0).all()
        assert given.grad[~outside].ne(0).float().mean() > 0.9
        grads = [p.grad for p in encoder.parameters() if p.grad is not None]
        found.append([*(h.detach() for h in maps), *(g.clone() for g in grads)])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_maps_are_zero_where_hidden_and_alive_where_seen(encoder: MapEncoder) -> None:
    shown = units(encoder)
    for h in encoder.skips(inputs(encoder), active=Active(shown)):
        points = h.shape[2] // shown.shape[1]
        assert h.ne(0).any(1).flatten(1).sum(1).tolist() == [
            int(n) * points ** (h.ndim - 2) for n in shown.flatten(1).sum(1)
        ]


def test_where_all_is_seen_it_is_the_dense_network(encoder: MapEncoder) -> None:
    x = inputs(encoder)
    found = []
    for active in (None, Active(torch.ones_like(units(encoder)))):
        encoder.zero_grad()
        maps = encoder.skips(x, active=active)
        sum(h.square().mean() for h in maps).backward()
        grads = [p.grad.clone() for p in encoder.parameters() if p.grad is not None]
        found.append((maps, grads))
    for a, b in zip(found[0][0], found[1][0], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    for a, b in zip(found[0][1], found[1][1], strict=True):
        assert (a - b).norm() <= 1e-4 * b.norm() + 1e-6


def test_the_mask_ends_with_the_pass_also_where_activations_are_computed_again(
    encoder: MapEncoder,
) -> None:
    x, active = inputs(encoder), Active(units(encoder))
    dense = encoder.skips(x)[-1]
    grads = []
    for again in (False, True):
        encoder.recompute = again
        encoder.zero_grad()
        loss = sum(h.square().mean() for h in encoder.skips(x, active=active))
        torch.testing.assert_close(encoder.skips(x)[-1], dense)  # before the backward pass
        loss.backward()
        grads.append([p.grad.clone() for p in encoder.parameters() if p.grad is not None])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_another_input_in_the_batch_and_its_mask_have_no_effect(encoder: MapEncoder) -> None:
    x, shown = inputs(encoder), units(encoder)
    both = encoder.skips(x, active=Active(shown))
    alone = encoder.skips(x[1:], active=Active(shown[1:]))
    for a, b in zip(both, alone, strict=True):
        torch.testing.assert_close(a[1:], b, rtol=1e-4, atol=1e-5)


def test_a_unit_smaller_than_the_stride_is_refused(encoder: MapEncoder) -> None:
    settings = encoder.settings
    grid = [2 * settings.input_size // encoder.stride] * settings.dimensions
    with pytest.raises(ValueError, match="multiple of the encoder's stride"):
        encoder.skips(inputs(encoder), active=Active(torch.ones(2, *grid, dtype=torch.bool)))


def test_the_norm_over_active_sites_is_that_of_these_sites_alone() -> None:
    where = (torch.arange(10) % 3 != 0).expand(2, 1, -1)
    weight, bias = torch.randn(3), torch.randn(3)
    slope = torch.randn(2, 3, 10)
    x = torch.randn(2, 3, 10)
    active = where[0, 0]
    found, expected = [], []
    for values in (x, x[:, :, active]):
        given = [t.clone().requires_grad_(True) for t in (values, weight, bias)]
        if values is x:
            y = masked_instance_norm(given[0], where, *given[1:], 1e-5)
            assert y[:, :, ~active].eq(0).all()
            y = y[:, :, active]
        else:
            y = F.instance_norm(given[0], weight=given[1], bias=given[2], eps=1e-5)
        (y * slope[:, :, active]).sum().backward()
        of_x, *others = (t.grad for t in given)
        of_x = of_x[:, :, active] if values is x else of_x
        (found if values is x else expected).extend([y.detach(), of_x, *others])
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_the_response_norm_is_the_papers_and_does_not_count_hidden_points() -> None:
    norm, x = GlobalResponseNorm(5), torch.randn(2, 4, 4, 5)
    with torch.no_grad():
        norm.weight.normal_()
        norm.bias.normal_()
    length = x.square().sum((1, 2), keepdim=True).sqrt()
    expected = norm.weight * (x * length / length.mean(-1, keepdim=True)) + norm.bias + x
    torch.testing.assert_close(norm(x), expected)
    wider = F.pad(x, (0, 0, 0, 3, 0, 2))  # hidden points around it
    torch.testing.assert_close(norm(wider)[:, :4, :4], norm(x))
