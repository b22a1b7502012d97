"""What VideoMAC means: SparK, and agreement with the teacher's neighbouring slab."""

from typing import Any

import pytest
import torch

from ray_mae.config import PlanConfig
from ray_mae.encoders.convnextv2_settings import ConvNextV2Settings
from ray_mae.methods.mae.maps import MaeMaps
from ray_mae.methods.videomac.model import Videomac
from ray_mae.methods.videomac.settings import VideomacSettings
from tests.settings import build
from tests.volume_batches import volume_batch

STILL = {"mirror": False, "rotate_share": 0.0, "scale_share": 0.0}
SIZES = {"preset": "tiny", "crop_size": 16, "mask_size": 8, "mask_ratio": 0.5}
TAKEN = torch.tensor(True)


def videomac(**values: Any) -> Videomac:
    model = build("videomac", **(SIZES | STILL | values))
    assert isinstance(model, Videomac)
    return model


def gradient(model: MaeMaps, batch: Any) -> list[torch.Tensor]:
    model.zero_grad()
    model(batch, 0).total.backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def test_without_consistency_it_is_mae_to_the_bit_and_has_no_teacher() -> None:
    one, other, batch = videomac(gamma=0.0), build("mae resenc", **SIZES, **STILL), volume_batch(3)
    assert isinstance(other, MaeMaps)
    assert one.state_dict().keys() == other.state_dict().keys()
    assert torch.equal(one(batch, 0).total, other(batch, 0).total)
    assert all(map(torch.equal, gradient(one, batch), gradient(other, batch)))
    assert one.flops(2, 2) == other.flops(2, 2)
    assert videomac().flops(2, 2) == pytest.approx(4 / 3 * one.flops(2, 2))


@pytest.mark.parametrize("symmetric", [False, True])
def test_the_loss_is_the_error_and_the_weighed_distance_to_the_teacher(symmetric: bool) -> None:
    batch = volume_batch(3)
    plain = videomac(gamma=1.0, symmetric=symmetric)(batch, 0)
    heavy = videomac(gamma=3.0, symmetric=symmetric)(batch, 0)
    for losses, gamma in ((plain, 1.0), (heavy, 3.0)):
        expected = losses.parts["reconstruction"] + gamma * losses.parts["consistency"]
        torch.testing.assert_close(losses.total.detach(), expected)
    assert plain.parts == heavy.parts
    if not symmetric:
        mae = build("mae resenc", **SIZES, **STILL)(batch, 0)
        assert torch.equal(plain.parts["reconstruction"], mae.parts["reconstruction"])


def test_the_teachers_own_error_is_no_part_of_the_loss_and_it_has_no_gradient() -> None:
    """The paper adds it: a constant."""
    model, batch = videomac(), volume_batch(3)
    model(batch, 0).total.backward()
    assert not [n for n, _ in model.named_parameters() if n.startswith("teacher")]
    assert all(b.grad is None and not b.requires_grad for b in model.teacher.buffers())


def test_of_equal_slabs_student_and_teacher_agree_until_the_student_moves() -> None:
    model, batch = videomac(momentum=0.0), volume_batch(3)
    flat = batch.voxels[..., :1].expand_as(batch.voxels).clone()  # each slice as its neighbour
    batch.voxels.copy_(flat)
    assert model(batch, 0).parts["consistency"] < 1e-10
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    moved = model(batch, 0).parts["consistency"]
    assert moved > 1e-4
    model.after_step(1, torch.tensor(False))  # a step that was skipped
    assert model(batch, 0).parts["consistency"] == moved
    model.after_step(1, TAKEN)
    assert model(batch, 0).parts["consistency"] < 1e-3 * moved  # it follows all but wholly


def test_the_neighbour_is_so_many_slices_further_and_what_is_beyond_is_not_valid() -> None:
    model = videomac(most_slices=3)
    x = torch.arange(16.0).expand(64, 1, 4, 4, 16)
    other, valid = model.neighbour(x, torch.ones_like(x, dtype=torch.bool), torch.arange(64))
    away = (other - x)[:, 0, 0, 0, 0]
    assert set(away.tolist()) == {1, 2, 3}
    for i, n in enumerate(away.long().tolist()):
        assert valid[i].all(0).all(0).all(0).tolist() == [True] * (16 - n) + [False] * n
        assert (other - x)[i][valid[i]].eq(n).all()
    again, _ = model.neighbour(x[5:], torch.ones_like(x[5:], dtype=torch.bool), torch.arange(5, 64))
    assert torch.equal(again, other[5:])  # by its own key


def test_the_teachers_momentum_rises_over_the_run_and_does_not_begin_again() -> None:
    """In the authors' code it begins again with each epoch, and never leaves its first value."""
    model = videomac()
    values = [model.metrics(step)["teacher_momentum"] for step in range(0, 100, 5)]
    assert values == sorted(values)
    assert values[0] == pytest.approx(0.996, abs=1e-5)
    assert model.metrics(99)["teacher_momentum"] == 1.0


def test_weights_of_others_are_the_teachers_too() -> None:
    model, batch = videomac(), volume_batch(3)
    with torch.no_grad():
        model.encoder.stem.convs[0].conv.weight.add_(1.0)
    model.begin()
    own, teachers = dict(model.encoder.named_parameters()), dict(model.teacher.named_buffers())
    assert all(torch.equal(p, teachers[f"network.encoder.{n}"]) for n, p in own.items())
    assert model(batch, 0).total.isfinite()


def test_an_encoder_of_images_is_refused() -> None:
    config = PlanConfig(samples=9, method=VideomacSettings(), encoder=ConvNextV2Settings())
    with pytest.raises(ValueError, match="3D input, not 2D"):
        config.check_sizes()
