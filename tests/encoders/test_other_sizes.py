"""Encoders of tokens take crops of another size than that of their settings."""

from typing import Any

import pytest
import torch
from torch import nn

from ray_mae.encoders.registry import build_encoder
from tests.settings import small

NAMES = ["mae", "mae primus"]


def encoder_of(name: str, **values: Any) -> Any:
    torch.manual_seed(0)
    return build_encoder(small(name, **values)["encoder"]).eval()


@pytest.mark.parametrize("name", NAMES)
def test_a_smaller_crop_has_fewer_tokens(name: str) -> None:
    encoder = encoder_of(name)
    d = len(encoder.grid)
    x = torch.randn(2, 1, *[2 * encoder.stride] * d)
    tokens = encoder(x)
    assert tokens.shape == (2, encoder.prefix + 2**d, encoder.width)
    hidden = torch.ones(2, 2**d, dtype=torch.bool)
    masked = encoder(x, masked=(hidden, torch.zeros(encoder.width)))
    assert not torch.allclose(masked, tokens)
    assert masked.isfinite().all()
    visible = torch.tensor([[0, 1], [1, 2]])
    assert encoder(x, visible).shape == (2, encoder.prefix + 2, encoder.width)


def test_positions_of_another_grid_lie_between_those_of_the_own() -> None:
    """A table that is a plane stays that plane: bicubic interpolation is exact there."""
    encoder = encoder_of("mae", positions="learned", image_size=64)  # 8 x 8 patches
    place = (torch.arange(8) + 0.5) / 8  # of centres of patches
    plane = (place[:, None] + 10 * place).flatten()
    encoder.position = nn.Parameter(plane[:, None].expand(-1, encoder.width).clone())
    found = encoder.positions(4, 4)[:, 0].view(4, 4)
    centres = (torch.arange(4) + 0.5) / 4
    expected = centres[:, None] + 10 * centres
    torch.testing.assert_close(found[1:3, 1:3], expected[1:3, 1:3], rtol=0, atol=1e-4)
    assert encoder.positions(8, 8) is encoder.position


def test_a_learned_table_learns_from_crops_of_every_size() -> None:
    encoder = encoder_of("mae", positions="learned")
    encoder(torch.randn(1, 1, 16, 16))[:, 1:].square().cumsum(1).sum().backward()
    assert encoder.position.grad.abs().sum(1).min() > 0


def test_volumes_that_are_no_cubes_are_refused() -> None:
    encoder = encoder_of("mae primus")
    for sides in ((8, 8, 12), (6, 6, 6)):
        with pytest.raises(ValueError, match="equal multiples of 4 voxels"):
            encoder(torch.zeros(1, 1, *sides))
