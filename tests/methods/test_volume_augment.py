"""Turning, scaling and mirroring of volumes on the device."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_mae.transforms.volumes import VolumeAugmentation, resample, rotations
from tests.volume_batches import some, volume_batch

NOTHING = VolumeAugmentation(mirror=False, rotate_share=0.0, scale_share=0.0)
MIRROR = replace(NOTHING, mirror=True)


def test_switched_off_a_crop_stays_as_it_is() -> None:
    batch = volume_batch(4)
    x, valid = NOTHING(batch)
    assert torch.equal(x, batch.voxels)
    assert torch.equal(valid, batch.valid)


def test_without_mirroring_left_stays_left() -> None:
    """The left half is bright: however turned and scaled, it keeps the centre of mass on its side."""
    batch = volume_batch(64)
    batch.voxels.zero_()
    batch.voxels[:, :, :6] = 1
    turning = VolumeAugmentation(mirror=False, rotate_share=1.0, scale_share=1.0)
    for augmentation, sides in ((turning, 1), (replace(turning, mirror=True), 2)):
        x, _ = augmentation(batch)
        left = x[:, :, :8].sum((1, 2, 3, 4)) > x[:, :, 8:].sum((1, 2, 3, 4))
        assert left.unique().numel() == sides
        assert left[0] or sides == 2


def test_mirroring_gives_all_eight_orientations_alike() -> None:
    one = volume_batch(1, side=4)
    batch = some(one, [0] * 800)
    batch = replace(batch, draw=torch.arange(800) * 7919)
    batch.valid[:, :, 0, 0, 0] = False
    x, valid = MIRROR(batch)
    found, count = x.flatten(1).unique(dim=0, return_counts=True)
    axes = [[a for i, a in enumerate((1, 2, 3)) if n >> i & 1] for n in range(8)]
    expected = torch.stack([NOTHING(batch)[0][0].flip(a).flatten() for a in axes]).unique(dim=0)
    assert torch.equal(found, expected)
    assert count.min() > 60
    assert (x[~valid] == 0).all()  # what is not valid moved along
    assert (valid.flatten(1).sum(1) == 63).all()


def test_the_shares_are_those_asked_for() -> None:
    batch = replace(some(volume_batch(1, side=4), [0] * 1000), draw=torch.arange(1000) * 7919)
    for changes, share in (
        ({"rotate_share": 0.2}, 0.2),
        ({"scale_share": 0.2}, 0.2),
        ({"rotate_share": 0.2, "scale_share": 0.2}, 0.36),
    ):
        x, _ = replace(NOTHING, **changes)(batch)
        changed = (x != batch.voxels).flatten(1).any(1).float().mean().item()
        assert changed == pytest.approx(share, abs=0.05)


@given(st.tuples(*[st.floats(-0.6, 0.6)] * 3))
@settings(max_examples=20, deadline=None)
def test_rotations_are_rotations(angles: tuple[float, float, float]) -> None:
    (R,) = rotations(torch.tensor([angles]))
    torch.testing.assert_close(R @ R.T, torch.eye(3))
    assert torch.linalg.det(R).item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_quarter_turn_moves_every_voxel_to_its_place(axis: int) -> None:
    x = volume_batch(1, side=8).voxels
    angles = torch.zeros(1, 3)
    angles[0, axis] = torch.pi / 2
    turned, valid = resample(x, torch.ones_like(x, dtype=torch.bool), rotations(angles))
    # axes of a grid are (W, H, D), those of the array (D, H, W)
    plane = [4 - (axis + 1) % 3, 4 - (axis + 2) % 3]
    either = [torch.rot90(x, k, plane) for k in (1, -1)]
    assert valid.all()
    assert min((turned - r).abs().max() for r in either) < 1e-4


def test_scaling_is_about_the_centre_and_what_comes_from_outside_is_invalid() -> None:
    ramp = (torch.arange(16.0) - 7.5).view(1, 1, 16, 1, 1).expand(1, 1, 16, 16, 16).clone()
    every = torch.ones_like(ramp, dtype=torch.bool)
    enlarged, valid = resample(ramp, every, torch.eye(3)[None] / 2)
    assert valid.all()
    torch.testing.assert_close(enlarged, ramp / 2)
    reduced, valid = resample(ramp, every, torch.eye(3)[None] * 2)
    inside = torch.zeros_like(every)
    inside[..., 4:12, 4:12, 4:12] = True
    assert torch.equal(valid, inside)
    torch.testing.assert_close(reduced, torch.where(inside, 2 * ramp, 0.0))


def test_scales_lie_in_their_range_half_above_1() -> None:
    augmentation = replace(NOTHING, scale_share=1.0, scale_range=(0.5, 2.0))
    warp, _ = augmentation._warps(torch.arange(1000) * 7919)
    scale = 1 / warp[:, 0, 0]
    assert scale.min() >= 0.5
    assert scale.max() <= 2
    assert (scale > 1).float().mean().item() == pytest.approx(0.5, abs=0.05)


def test_nan_where_not_valid_never_comes_into_the_picture() -> None:
    batch = volume_batch(8)
    batch.valid[:, :, :5] = False
    batch.voxels[:, :, :5] = torch.nan
    clean = replace(batch, voxels=batch.voxels.nan_to_num(123.0))
    always = VolumeAugmentation(rotate_share=1.0, scale_share=1.0)
    x, valid = always(batch)
    same, _ = always(clean)
    assert torch.equal(x, same)
    assert (x[~valid] == 0).all()
    assert x[valid].abs().max() < 10


def test_the_augmentation_belongs_to_the_sample_s_key() -> None:
    batch = volume_batch(20)
    always = VolumeAugmentation()
    x, valid = always(batch)
    rows = [3, 11, 17]
    torch.testing.assert_close(always(some(batch, rows)), (x[rows], valid[rows]))
    again, _ = always(replace(batch, draw=batch.draw + 1))
    assert not torch.equal(again, x)
