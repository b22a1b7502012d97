"""Noise, hidden blocks and weights of MDAE."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_mae.methods.mdae.corruption import Corrupted, Corruption
from ray_mae.methods.mdae.losses import noise_weight
from ray_mae.methods.parts.losses import region_mean
from ray_mae.methods.parts.masking import random_blocks
from ray_mae.random_streams import Stream
from ray_mae.transforms import keyed_random as randomness
from ray_mae.transforms.keyed_random import normals, repeated
from tests.volume_batches import mdae

DRAW = torch.arange(64) * 7919 - 100


def corrupt(x: torch.Tensor, draw: torch.Tensor = DRAW, **changes: object) -> Corrupted:
    """By default as the paper, in blocks of 4³."""
    settings: dict = {
        "noise": "ve",
        "sigma_max": 1.0,
        "mask_ratio": (0.01, 0.99),
        "masking": "exact",
        "block_size": 4,
    }
    at = {name: changes.pop(name) for name in ("p", "t") if name in changes}
    return Corruption(**(settings | changes))(x, draw[: len(x)], **at)


def volumes(samples: int, side: int = 8) -> torch.Tensor:
    return torch.randn(samples, 1, side, side, side, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("noise", ["ve", "vp", "flow"])
@pytest.mark.parametrize("masking", ["exact", "bernoulli"])
def test_hidden_voxels_are_exactly_zero_and_come_in_whole_blocks(noise: str, masking: str) -> None:
    c = corrupt(volumes(8), noise=noise, masking=masking)
    assert (c.voxels[c.hidden] == 0).all()
    assert (c.voxels[~c.hidden] != 0).all()
    blocks = c.hidden.view(8, 2, 4, 2, 4, 2, 4).float()
    assert ((blocks.mean((2, 4, 6)) % 1) == 0).all()


@given(st.integers(2, 40), st.floats(0, 1), st.sampled_from(["exact", "bernoulli"]), st.integers(0))
@settings(max_examples=60, deadline=None)
def test_a_block_is_hidden_and_one_visible_unless_the_ratio_is_0_or_1(
    n: int, ratio: float, masking: str, key: int
) -> None:
    draw = torch.tensor([key % 2**60, -(key % 2**60) - 1])
    hidden = random_blocks(draw, n, torch.full((2,), ratio, dtype=torch.float64), masking)
    count = hidden.sum(1)
    if ratio in (0, 1):
        assert (count == n * ratio).all()
    else:
        assert ((count >= 1) & (count <= n - 1)).all()
        if masking == "exact":
            assert (count == min(max(1, int(n * ratio + 1e-6)), n - 1)).all()


def test_the_share_of_hidden_blocks_is_uniform_between_its_bounds() -> None:
    draw = torch.arange(3000) * 104729
    hidden = corrupt(
        torch.zeros(3000, 1, 10, 10, 10), draw, mask_ratio=(0.2, 0.6), block_size=2
    ).hidden
    share = hidden[:, 0, ::2, ::2, ::2].flatten(1).float().mean(1)
    assert share.min() >= 0.19
    assert share.max() <= 0.6
    assert share.mean().item() == pytest.approx(0.4, abs=0.01)
    assert share.std().item() == pytest.approx(0.4 / 12**0.5, rel=0.05)
    # and every block is hidden equally often
    assert hidden.float().mean(0).std() < 0.02


def test_bernoulli_blocks_vary_in_number() -> None:
    draw = torch.arange(2000) * 104729
    ratio = torch.full((2000,), 0.5)
    count = random_blocks(draw, 64, ratio, "bernoulli").sum(1).float()
    assert count.mean().item() == pytest.approx(32, abs=0.5)
    assert count.var().item() == pytest.approx(16, rel=0.15)
    assert (random_blocks(draw, 64, ratio).sum(1) == 32).all()


@pytest.mark.parametrize("sigma_max", [0.5, 1.5])
def test_the_variance_of_the_noise_at_each_voxel_is_sigma_squared(sigma_max: float) -> None:
    draw = torch.arange(4000) * 7919
    x = volumes(1, 4).expand(4000, -1, -1, -1, -1)
    c = corrupt(x, draw, sigma_max=sigma_max, p=0.0, t=0.8)
    noise = c.voxels - x
    torch.testing.assert_close(c.sigma, torch.full((4000,), 0.8 * sigma_max))
    assert noise.mean(0).abs().max() < 0.1 * sigma_max
    expected = torch.full((1, 4, 4, 4), (0.8 * sigma_max) ** 2)
    torch.testing.assert_close(noise.var(0), expected, rtol=0.15, atol=0)
    # drawn at random, the level belongs to the sample
    c = corrupt(volumes(20, 16), sigma_max=sigma_max, p=0.0)
    measured = (c.voxels - volumes(20, 16)).flatten(1).std(1)
    torch.testing.assert_close(measured, c.t * sigma_max, rtol=0.06, atol=0)


def test_vp_keeps_the_variance_and_flow_goes_straight_to_noise() -> None:
    x = volumes(16, 16)
    for t in (0.0, 0.3, 1.0):
        vp = corrupt(x, noise="vp", p=0.0, t=t).voxels
        assert vp.var().item() == pytest.approx(1, abs=0.02)
        assert (vp * x).mean().item() == pytest.approx((1 - t) ** 0.5, abs=0.02)
    pure = corrupt(x, noise="flow", p=0.0, t=1.0).voxels
    half = corrupt(x, noise="flow", p=0.0, t=0.5).voxels
    torch.testing.assert_close(half, (x + pure) / 2)
    torch.testing.assert_close(corrupt(x, noise="flow", p=0.0, t=0.0).voxels, x)


def test_without_noise_visible_voxels_are_as_they_were_and_t_says_so() -> None:
    x = volumes(8)
    c = corrupt(x, sigma_max=0.0)
    assert torch.equal(c.voxels, torch.where(c.hidden, 0.0, x))
    assert c.t.tolist() == [0] * 8


def test_a_sample_s_corruption_is_its_own_in_any_batch() -> None:
    x = volumes(12)
    whole = corrupt(x)
    part = corrupt(x[5:9], DRAW[5:9])
    for a, b in zip(whole, part, strict=True):
        assert torch.equal(a[5:9], b)
    assert whole.hidden.flatten(1).unique(dim=0).shape[0] == 12
    assert whole.t.unique().numel() == 12


def test_repeats_are_corruptions_of_their_own_and_the_first_is_the_sample_s() -> None:
    keys = repeated(DRAW[:5], 4)
    assert keys.unique().numel() == 20
    assert torch.equal(keys.view(5, 4)[:, 0], DRAW[:5])
    assert torch.equal(repeated(DRAW[:5], 1), DRAW[:5])
    assert torch.equal(repeated(DRAW[2:3], 4), keys.view(5, 4)[2])


def test_normal_numbers_are_normal() -> None:
    z = normals(torch.arange(1000), 501, Stream.NOISE)
    assert z.shape == (1000, 501)
    assert z.mean().item() == pytest.approx(0, abs=0.005)
    assert z.var().item() == pytest.approx(1, abs=0.01)
    assert (z**3).mean().item() == pytest.approx(0, abs=0.02)
    assert (z**4).mean().item() == pytest.approx(3, abs=0.05)
    assert 4 < z.abs().max() < 7
    correlation = torch.corrcoef(z.T) - torch.eye(501)
    assert correlation.abs().max() < 0.2


def test_normal_numbers_do_not_depend_on_how_many_are_made_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at_once = normals(DRAW, 100, Stream.NOISE)
    monkeypatch.setattr(randomness, "_CHUNK", 120)
    assert torch.equal(normals(DRAW, 100, Stream.NOISE), at_once)


@given(
    st.sampled_from(["dsm_clipped", "none", "edm", "bounded"]),
    st.sampled_from(["ve", "vp", "flow"]),
    st.one_of(st.just(0.0), st.floats(0.01, 1)),
)
@settings(max_examples=20, deadline=None)
def test_weights_have_mean_1_over_the_noise_levels(form: str, noise: str, sigma_max: float) -> None:
    model = mdae(weighting=form, noise=noise, sigma_max=sigma_max)
    t = torch.rand(200_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weight = noise_weight(model.corruption.sigma(t), form) / model.mean_weight
    assert weight.dtype == torch.float32
    assert weight.double().mean().item() == pytest.approx(1, rel=0.02)


@pytest.mark.parametrize("noise", ["ve", "vp", "flow"])
def test_sigma_is_the_noise_over_the_signal(noise: str) -> None:
    """Regression of x_t on x gives what x is multiplied with, and the rest is the noise."""
    x = volumes(4, 32)
    c = corrupt(x, DRAW[:4], noise=noise, p=0.0, t=0.3)
    scale = (c.voxels * x).mean() / x.square().mean()
    rest = (c.voxels - scale * x).std() / scale
    torch.testing.assert_close(c.sigma, rest.expand(4), rtol=0.02, atol=0)


def test_weights_are_those_of_the_papers_up_to_a_constant() -> None:
    sigma = torch.tensor([0.0, 0.05, 0.1, 0.2, 1.0])
    inverse = torch.tensor([100.0, 100.0, 100.0, 25.0, 1.0])
    torch.testing.assert_close(noise_weight(sigma), inverse)
    torch.testing.assert_close(noise_weight(sigma, "edm"), inverse + 1)
    torch.testing.assert_close(noise_weight(sigma, "bounded"), 1 / (sigma**2 + 1))


def test_what_lies_outside_a_region_has_no_effect_not_even_nan() -> None:
    error = torch.tensor([[1.0, 3.0, torch.nan], [torch.inf, 5.0, 7.0], [1.0, 1.0, 1.0]])
    region = torch.tensor([[True, True, False], [False, True, False], [False, False, False]])
    error.requires_grad_()
    mean = region_mean(error, region)
    assert mean.tolist() == [2, 5, 0]
    (gradient,) = torch.autograd.grad(mean.sum(), error)
    assert gradient.tolist() == [[0.5, 0.5, 0], [0, 1, 0], [0, 0, 0]]
