"""What SimCLR means, for studies and for volumes."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ray_mae.methods.parts.contrastive import infonce
from ray_mae.methods.parts.crops import anatomy, cut, filled
from ray_mae.methods.parts.embedding import Projector, pooled
from ray_mae.methods.simclr.model import Simclr
from ray_mae.methods.simclr.pairs import CropPairs, ViewPairs, doubled
from tests.batches import study_batch
from tests.settings import build_of, small
from tests.volume_batches import volume_batch

T = 0.5


def simclr(name: str = "simclr", **values: Any) -> Simclr:
    model = build_of(small(name, **values))
    assert isinstance(model, Simclr)
    return model


def pairs_loss(z: Tensor, samples: list[int]) -> Tensor:
    """Of vectors of which each two are a pair, by sample."""
    key = torch.tensor(samples)
    return infonce(F.normalize(z, dim=-1), torch.arange(len(z)) // 2, T, key)


def test_two_pairs_have_the_loss_computed_by_hand() -> None:
    z = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [0.0, -1.0]])
    cosines = z @ z.T
    by_hand = []
    for a, partner in ((0, 1), (1, 0), (2, 3), (3, 2)):
        others = [math.exp(float(cosines[a, b]) / T) for b in range(4) if b != a]
        by_hand.append(math.log(sum(others)) - float(cosines[a, partner]) / T)
    torch.testing.assert_close(pairs_loss(z, [5, 5, 6, 6]), torch.tensor(by_hand))


@pytest.mark.parametrize("pairs", [1, 2])
def test_equal_vectors_have_the_loss_of_a_guess_among_the_positive_and_all_negatives(
    pairs: int,
) -> None:
    """log(2B − 1) of one pair a sample; crops of one's own sample beside the pair are no negatives."""
    B = 4
    samples = [i for i in range(B) for _ in range(2 * pairs)]
    loss = pairs_loss(torch.ones(len(samples), 3), samples)
    torch.testing.assert_close(loss, torch.full_like(loss, math.log(1 + 2 * pairs * (B - 1))))


def test_equal_positives_and_orthogonal_negatives_have_the_least_loss_that_orthogonal_ones_can_have() -> (
    None
):
    B = 5
    loss = pairs_loss(torch.eye(B).repeat_interleave(2, dim=0), [i for i in range(B) for _ in "ab"])
    least = math.log(1 + (2 * B - 2) * math.exp(-1 / T))
    torch.testing.assert_close(loss, torch.full_like(loss, least))


def test_what_is_of_one_sample_and_no_pair_has_no_gradient_of_its_own() -> None:
    """Neither another pair of the volume, nor the volume when it is drawn once more."""
    z = torch.randn(6, 4, requires_grad=True)
    pairs_loss(z, [7, 7, 7, 7, 8, 8])[0].backward()
    assert z.grad is not None
    assert not z.grad[2:4].any()
    assert z.grad[[0, 1, 4, 5]].any(1).all()


def test_alone_in_the_world_a_sample_has_no_loss_and_no_nan() -> None:
    z = torch.randn(4, 4, requires_grad=True)
    loss = pairs_loss(z, [7] * 4)
    loss.sum().backward()
    assert not loss.any()
    assert z.grad is not None
    assert z.grad.isfinite().all()


def test_views_are_cropped_twice_by_keys_of_their_own() -> None:
    batch, model = study_batch([2, 1]), simclr(intensities=0)
    pairs = model.pairs(batch)
    assert pairs.x.shape == (6, 1, 32, 32)
    assert pairs.group.tolist() == [0, 0, 1, 1, 2, 2]
    assert pairs.sample.tolist() == [0, 0, 0, 0, 1, 1]
    assert pairs.view is not None
    assert pairs.view.tolist() == batch.view.repeat_interleave(2).tolist()
    assert not torch.equal(pairs.x[0], pairs.x[1])
    assert isinstance(model.pairs, ViewPairs)
    torch.testing.assert_close(pairs.x[::2], model.pairs.views(batch).x)  # the first by its own key
    assert doubled(replace(batch, known_most=2)).known_most == 4
    together = simclr(positives="views").pairs(batch)
    assert together.group.tolist() == [0, 0, 0, 0, 1, 1]


def test_a_crop_may_be_smaller_than_those_of_other_methods() -> None:
    model = simclr(crop_scale=(0.2, 0.3))
    assert isinstance(model.pairs, ViewPairs)
    assert model.pairs.views.augment.crop_scale == (0.2, 0.3)
    assert not model.pairs.views.augment.flip


def crop_pairs(**values: Any) -> CropPairs:
    still = {"mirror": False, "rotate_share": 0.0, "scale_share": 0.0, "intensities": 0.0}
    maker = simclr("simclr resenc", **(still | values)).pairs
    assert isinstance(maker, CropPairs)
    return maker


def test_crops_of_a_pair_share_half_of_a_side_along_each_axis_and_lie_inside() -> None:
    maker = crop_pairs(crop_size=48, crop_side=16, pairs=3)
    where = torch.ones(20, 1, 48, 48, 48, dtype=torch.bool)
    starts = maker.starts(where, torch.arange(20))  # [20, 6, 3]
    assert starts.shape == (20, 6, 3)
    assert starts.min() >= 0
    assert starts.max() <= 32
    apart = (starts[:, 0::2] - starts[:, 1::2]).abs()
    assert apart.max() == 8
    assert len(apart.unique()) == 9
    assert {0, 32} <= {*starts[:, 0::2].unique().tolist()}


def test_a_first_crop_holds_anatomy_where_there_is_some() -> None:
    maker = crop_pairs(crop_size=48, crop_side=16, foreground=0.25)
    where = torch.zeros(20, 1, 48, 48, 48, dtype=torch.bool)
    where[..., :24] = True  # half of the places have none
    share = filled(where, maker.starts(where, torch.arange(20))[:, 0::2], 16)
    assert (share >= 0.25).float().mean() > 0.95
    anywhere = crop_pairs(crop_size=48, crop_side=16, foreground=0.0)
    share = filled(where, anywhere.starts(where, torch.arange(20))[:, 0::2], 16)
    assert (share == 0).float().mean() > 0.1
    nowhere = torch.zeros_like(where)
    assert maker.starts(nowhere, torch.arange(20)).shape == (20, 4, 3)


def test_crops_are_what_lies_at_their_place_and_are_counted_alike() -> None:
    x = volume_batch(2, side=12).voxels
    start = torch.tensor([[[0, 3, 6], [2, 2, 2]], [[6, 6, 6], [1, 0, 5]]])
    cubes = cut(x, start, 6)
    shares = filled(x > 0, start, 6)
    for b in range(2):
        for k in range(2):
            i, j, m = start[b, k].tolist()
            cube = x[b, 0, i : i + 6, j : j + 6, m : m + 6]
            assert torch.equal(cubes[2 * b + k, 0], cube)
            assert shares[b, k] == pytest.approx(float((cube > 0).float().mean()))


def test_air_is_no_anatomy_whatever_the_scale() -> None:
    x = torch.full((2, 1, 32, 32, 32), -3.0)
    x[..., 8:24] = torch.randn(2, 1, 32, 32, 16, generator=torch.Generator().manual_seed(0))
    x[1] = 100 * x[1] + 7
    found = anatomy(x)
    assert not found[..., :8].any()
    assert found[..., 8:24].float().mean() > 0.98
    valid = torch.zeros_like(found)
    assert not anatomy(x, valid).any()


@pytest.mark.parametrize("name", ["simclr resenc", "simclr primus"])
def test_pairs_of_a_volume_are_rows_of_it(name: str) -> None:
    model = simclr(name)
    pairs = model.pairs(volume_batch(3, side=model.encoder.settings.input_size))
    side = model.settings.crop_side
    assert pairs.x.shape == (12, 1, side, side, side)
    assert pairs.sample.tolist() == [i for i in range(3) for _ in range(4)]
    assert pairs.group.tolist() == [i // 2 for i in range(12)]
    assert pairs.view is None


def test_all_stages_of_maps_are_pooled() -> None:
    model = simclr("simclr resenc")
    x = torch.randn(2, 1, 16, 16, 16)
    h = pooled(model.encoder, x)
    assert h.shape == (2, 8 + 16 + 32 + 64)
    torch.testing.assert_close(h[:, :8], model.encoder.skips(x)[0].mean((2, 3, 4)))  # type: ignore[operator]


def test_views_may_be_seen_by_an_encoder_with_maps() -> None:
    model, batch = simclr("simclr convnextv2", projector_width=32), study_batch([2, 1])
    losses = model(batch, 0)
    losses.total.backward()
    assert losses.total > 0
    assert all(p.grad is not None for p in model.parameters())
    assert model.projector.layers[0].in_features == sum((4, 8, 16, 32))


def test_the_projector_norms_each_vector_as_the_norm_of_nnssl_does() -> None:
    """PyTorch reads [N, C] as one sample of N channels, so an InstanceNorm1d norms each vector."""
    projector, h = Projector(12, 8, 4), torch.randn(5, 12)
    norm = nn.InstanceNorm1d(len(h))
    first, second, last = projector.layers
    by_hand = last(F.relu(norm(second(F.relu(norm(first(h)))))))
    torch.testing.assert_close(projector(h), by_hand)
    assert projector.flops == 2 * (12 * 8 + 8 * 8 + 8 * 4)


def test_what_does_not_fit_is_refused() -> None:
    for values, words in (
        ({"crop_side": 32}, "at most encoder.crop_size"),
        ({"crop_side": 20}, "multiple of 8"),
        ({"crop_side": 9}, "must be even"),
        ({"positives": "views"}, "has one view"),
        ({"film": True}, "encoder.film must be false"),
    ):
        with pytest.raises(ValueError, match=words):
            simclr("simclr resenc", **values)
    with pytest.raises(ValueError, match=r"multiple of encoder\.patch_size"):
        simclr("simclr primus", crop_side=10)


@pytest.mark.parametrize("name", ["simclr", "simclr resenc"])
def test_two_pairs_are_learnt_apart(name: str) -> None:
    """Training on one batch falls below the loss of a guess."""
    torch.manual_seed(0)
    model = simclr(name, temperature=0.2)
    side = model.encoder.settings.input_size
    batch = study_batch([1, 1, 1]) if name == "simclr" else volume_batch(3, side=side)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    first = float(model(batch, 0).total.detach())
    for step in range(8):
        optimizer.zero_grad()
        model(batch, step).total.backward()
        optimizer.step()
    assert float(model(batch, 0).total.detach()) < 0.7 * first
