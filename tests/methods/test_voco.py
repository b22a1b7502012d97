"""What VoCo means."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ray_mae.methods.parts.inputs import Inputs
from ray_mae.methods.voco.losses import base_starts, overlaps, placement
from ray_mae.methods.voco.model import Voco
from tests.settings import build_of, small
from tests.volume_batches import volume_batch

STILL = {"mirror": False, "rotate_share": 0.0, "scale_share": 0.0, "intensities": 0.0}


def voco(name: str = "voco", **values: Any) -> Voco:
    model = build_of(small(name, **values))
    assert isinstance(model, Voco)
    return model


def inputs(model: Voco, samples: int = 3) -> Inputs:
    batch: Any = volume_batch(samples, side=model.encoder.settings.input_size)
    return model.crops(batch)


def test_the_label_is_the_share_of_voxels_in_each_base_crop() -> None:
    side, grid = 4, 3
    target = torch.tensor([[[0, 0, 0], [8, 8, 8], [3, 5, 1], [4, 7, 8]]])
    base = base_starts(grid, side, torch.device("cpu"))
    y = overlaps(target, base, side)
    for t, start in enumerate(target[0].tolist()):
        owner = torch.zeros(12, 12, 12, dtype=torch.long) - 1
        for k, (i, j, m) in enumerate(base.tolist()):
            owner[i : i + 4, j : j + 4, m : m + 4] = k
        i, j, m = start
        counts = owner[i : i + 4, j : j + 4, m : m + 4].flatten().bincount(minlength=27)
        torch.testing.assert_close(y[0, t], counts / side**3)
    torch.testing.assert_close(y.sum(-1), torch.ones(1, 4))  # at the rim, too


def test_targets_lie_anywhere_inside_and_labels_sum_to_1() -> None:
    model = voco("voco primus", target_crops=8, **STILL)
    placed = model.placed(replace(inputs(model, 6)))
    assert placed.x.shape == (6 * 16, 1, 8, 8, 8)
    assert placed.y.shape == (6, 8, 8)
    torch.testing.assert_close(placed.y.sum(-1), torch.ones(6, 8))
    assert len(placed.y.unique()) > 50


def test_base_crops_tile_the_volume_and_a_target_on_one_is_it() -> None:
    model = voco("voco primus", **STILL)
    given = inputs(model, 1)
    placed = model.placed(given)
    again = torch.zeros_like(given.x)
    for k, (i, j, m) in enumerate(base_starts(2, 8, torch.device("cpu")).tolist()):
        again[0, 0, i : i + 8, j : j + 8, m : m + 8] = placed.x[k, 0]
    assert torch.equal(again, given.x)


def test_a_volume_is_mirrored_as_a_whole_so_that_places_stay_true() -> None:
    """Or a target would be told to lie where its mirror image does."""
    plain = voco("voco primus", **STILL)
    mirrored = voco("voco primus", **(STILL | {"mirror": True}))
    batch: Any = volume_batch(8, side=16)
    x = mirrored.crops(batch)
    assert not torch.equal(x.x, plain.crops(batch).x)
    by_hand = plain.placed(replace(plain.crops(batch), x=x.x))
    assert torch.equal(mirrored.placed(x).x, by_hand.x)


def vectors(*cosines: float) -> Tensor:
    """[1, K, D]: with those cosines to the first axis."""
    rows = [[c, (1 - c * c) ** 0.5] for c in cosines]
    return torch.tensor([rows])


def test_a_likeness_that_is_the_overlap_has_no_loss_and_another_one_minus_the_logarithm() -> None:
    base = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    y, there = torch.tensor([[[0.6, 0.8]]]), torch.ones(1, 2, dtype=torch.bool)
    overlap, apart, regularisation = placement(vectors(0.6), base, y, there)
    torch.testing.assert_close(overlap, torch.zeros(1), atol=1e-5, rtol=0)
    assert not apart.any()
    assert not regularisation.any()  # of orthogonal base crops
    y = torch.tensor([[[0.5, 0.0]]])
    overlap, apart, _ = placement(vectors(0.6), base, y, there)
    torch.testing.assert_close(overlap, -torch.log(torch.tensor([0.9 + 1e-6])))
    torch.testing.assert_close(apart, torch.tensor([0.64]))


def test_base_crops_alike_are_punished_once_per_pair() -> None:
    base = torch.tensor([[[1.0, 0.0], [0.6, 0.8], [-1.0, 0.0]]])
    none = torch.zeros(1, 1, 3)
    _, _, regularisation = placement(vectors(1.0), base, none, torch.ones(1, 3, dtype=torch.bool))
    torch.testing.assert_close(regularisation, torch.tensor([0.36 / 3]))  # what is opposite is not


def test_base_crops_have_a_gradient_of_the_regularisation_alone() -> None:
    base, target = (torch.randn(2, n, 5).abs() for n in (4, 3))  # all alike in part
    base.requires_grad_()
    target.requires_grad_()
    y = F.one_hot(torch.tensor([[0, 1, 2], [3, 0, 1]]), 4).float()
    overlap, apart, regularisation = placement(target, base, y, torch.ones(2, 4, dtype=torch.bool))
    (overlap + apart).sum().backward(retain_graph=True)
    assert base.grad is None
    assert target.grad is not None
    assert target.grad.any(2).all()
    regularisation.sum().backward()
    assert base.grad is not None
    assert base.grad.any(2).all()


def test_empty_base_crops_count_in_no_term() -> None:
    base, target = (torch.randn(1, n, 5).abs() for n in (3, 2))
    y = torch.tensor([[[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]]])
    some = placement(target, base, y, torch.tensor([[True, True, False]]))
    without = placement(target, base[:, :2], y[..., :2], torch.ones(1, 2, dtype=torch.bool))
    for a, b in zip(some, without, strict=True):
        torch.testing.assert_close(a, b)
    nothing = placement(target, base, y, torch.zeros(1, 3, dtype=torch.bool))
    assert not any(term.any() for term in nothing)
    model = voco("voco primus", **STILL)
    given = inputs(model, 1)
    air = torch.where(torch.arange(16) < 8, given.x, given.x.min() - 1)
    assert model.placed(replace(given, x=air)).there[0].tolist() == [True, False] * 4


def test_what_does_not_fit_is_refused() -> None:
    for values, words in (
        ({"grid": 3}, "must be a multiple of method.grid"),
        ({"crop_size": 16}, "crop_size / method.grid does not fit encoder.name resenc"),
        ({"film": True}, "encoder.film must be false"),
    ):
        with pytest.raises(ValueError, match=words):
            voco(**values)
    with pytest.raises(ValueError, match="wants 3D input"):
        voco("voco vit")


def test_places_are_learnt() -> None:
    torch.manual_seed(0)
    model, batch = voco("voco primus", drop_path=0.0), volume_batch(3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    first = float(model(batch, 0).total.detach())
    for step in range(10):
        optimizer.zero_grad()
        model(batch, step).total.backward()
        optimizer.step()
    assert float(model(batch, 0).total.detach()) < 0.7 * first
