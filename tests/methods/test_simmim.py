"""What SimMIM means, for studies and for volumes."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from ray_mae.batch import StudyBatch
from ray_mae.config import PlanConfig
from ray_mae.encoders.patches import patchify, unpatchify
from ray_mae.encoders.resenc_settings import ResEncSettings
from ray_mae.encoders.timm_settings import TimmSettings
from ray_mae.encoders.vit_settings import VitSettings
from ray_mae.methods.base import Method
from ray_mae.methods.mdae.settings import MdaeSettings
from ray_mae.methods.mvmae.settings import MvmaeSettings
from ray_mae.methods.simmim.maps import SimmimMaps
from ray_mae.methods.simmim.settings import SimmimSettings
from ray_mae.methods.simmim.tokens import SimmimTokens
from ray_mae.transforms.images import PIXEL_MEAN, PIXEL_STD, whole
from tests.batches import part, study_batch
from tests.settings import SMALL, build
from tests.volume_batches import some, volume_batch

STILL = {"crop_scale": (1.0, 1.0), "jitter_share": 0.0}
"""Data of studies without augmentation."""


def simmim(**values: Any) -> SimmimTokens:
    """On images of 32 px in patches of 8, in units of 16: four of four patches."""
    model = build("simmim", **({"mask_size": 16, "mask_ratio": 0.5} | SMALL["vit"] | values))
    assert isinstance(model, SimmimTokens)
    return model


def simmim3d(**values: Any) -> SimmimMaps:
    """On crops of 16³ in blocks of 4³, without augmentation."""
    still = {"mask_size": 4, "mirror": False, "rotate_share": 0.0, "scale_share": 0.0}
    model = build("simmim resenc", **(still | SMALL["resenc"] | values))
    assert isinstance(model, SimmimMaps)
    return model


def gradients(model: Method, batch: Any) -> torch.Tensor:
    """All gradients of the loss in one vector."""
    model.zero_grad()
    model(batch, 0).total.backward()
    return torch.cat(
        [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in model.parameters()]
    )


def with_pixels(batch: StudyBatch, x: torch.Tensor) -> StudyBatch:
    """The batch with other images, normalised [N, 1, C, C]."""
    grey = ((x * PIXEL_STD + PIXEL_MEAN) * 255).round().clamp(0, 255)
    return replace(batch, images=grey.to(torch.uint8))


@pytest.mark.parametrize(("ratio", "units"), [(0.6, 10), (0.5, 8), (0.01, 1), (0.99, 15)], ids=str)
def test_as_many_whole_units_are_hidden_in_every_view(ratio: float, units: int) -> None:
    model = simmim(image_size=64, mask_ratio=ratio)
    hidden = model.hidden(study_batch([3, 2, 3]).view_draw)  # [8, 64], units of 2 × 2 patches
    assert hidden.sum(1).tolist() == [4 * units] * 8
    squares = hidden.view(8, 4, 2, 4, 2).transpose(2, 3).flatten(3)  # [8, 4, 4, 4]
    assert (squares.all(-1) == squares.any(-1)).all()
    assert len({tuple(row.tolist()) for row in hidden}) > 1


def test_of_49_units_30_are_hidden_as_in_the_paper() -> None:
    model = simmim(image_size=224, patch_size=16, mask_size=32, mask_ratio=0.6)
    assert (model.hidden(study_batch([1]).view_draw).sum(1) == 4 * 30).all()


def test_what_is_hidden_belongs_to_the_view_not_to_its_place_in_the_batch() -> None:
    model, batch = simmim(image_size=64), study_batch([2, 1, 2])
    torch.testing.assert_close(
        model.hidden(part(batch, [1, 2]).view_draw), model.hidden(batch.view_draw)[2:]
    )


def test_the_loss_is_the_mean_distance_of_hidden_pixels() -> None:
    model, batch = simmim(**STILL), study_batch([1], canvas=32)
    patches = patchify(whole(batch, 32), 8)
    hidden = model.hidden(batch.view_draw)
    tokens = model.encoder(whole(batch, 32), view=batch.view, masked=(hidden, model.mask))
    expected = (model.head(tokens[:, 1:]) - patches)[hidden].abs().mean()
    torch.testing.assert_close(model(batch, 0).total, expected)


def test_visible_pixels_are_no_target() -> None:
    """What the head makes of visible patches has no gradient."""
    model, batch = simmim(), study_batch([2, 1])
    made = []
    model.head.register_forward_hook(lambda _, __, out: (out.retain_grad(), made.append(out))[1])
    model(batch, 0).total.backward()
    hidden = model.hidden(batch.view_draw)
    assert made[0].grad[hidden].ne(0).all()
    assert made[0].grad[~hidden].eq(0).all()


def test_the_encoder_sees_the_token_and_not_the_hidden_patches() -> None:
    model, batch = simmim(**STILL), study_batch([2, 1], canvas=32)
    hidden = model.hidden(batch.view_draw)
    seen = []
    model.encoder.register_forward_hook(lambda _, __, out: seen.append(out))
    patches = patchify(whole(batch, 32), 8)
    for where in (hidden, ~hidden):
        other = torch.where(where[..., None], -patches, patches)
        model(with_pixels(batch, unpatchify(other, 8, (4, 4))), 0)
    model(batch, 0)
    of_other_hidden, of_other_visible, plain = seen
    # rounded otherwise, by the mean that contrast is changed about
    torch.testing.assert_close(of_other_hidden, plain, rtol=0, atol=1e-5)
    assert (of_other_visible - plain).abs().max() > 1e-3
    with torch.no_grad():
        model.mask.neg_()
    model(batch, 0)
    assert (seen[-1] - plain).abs().max() > 1e-3


def test_a_mean_over_views_then_over_studies() -> None:
    model, batch = simmim(), study_batch([3, 1])
    losses = model(batch, 0)
    assert losses.each is not None
    each = [model(part(batch, [s]), 0).total for s in range(2)]
    torch.testing.assert_close(losses.each, torch.stack(each).detach())
    torch.testing.assert_close(losses.total, torch.stack(each).mean())
    assert set(losses.parts) == set(SimmimSettings.losses)


def test_the_gradient_is_the_mean_over_studies_however_they_are_split() -> None:
    model, batch = simmim(), study_batch([2, 1, 3, 1])
    whole_batch = gradients(model, batch)
    for shares in ([[0], [1], [2], [3]], [[0, 3], [1, 2]]):
        parts = [gradients(model, part(batch, studies)) for studies in shares]
        torch.testing.assert_close(torch.stack(parts).mean(0), whole_batch, rtol=1e-3, atol=1e-5)


def test_a_unit_must_be_whole_patches_and_fit_the_image() -> None:
    sizes = VitSettings(image_size=224, patch_size=16)
    for size, message in (
        (24, r"method\.mask_size \(24\) must be a multiple of encoder\.patch_size, 16"),
        (48, r"encoder\.image_size \(224\) must be a multiple of method\.mask_size, 48"),
        (224, r"method\.mask_size \(224\) must be smaller than encoder\.image_size \(224\)"),
    ):
        with pytest.raises(ValueError, match=message):
            PlanConfig(
                samples=9, method=SimmimSettings(mask_size=size), encoder=sizes
            ).check_sizes()


def test_the_wrong_encoder_is_refused_by_name() -> None:
    for method, encoder, right in (
        (SimmimSettings(), TimmSettings(), "vit"),
        (MvmaeSettings(), ResEncSettings(), "vit"),
        (MdaeSettings(), VitSettings(), "resenc"),
    ):
        with pytest.raises(ValueError, match=rf"does not fit method\.name .*take {right}"):
            PlanConfig(samples=9, method=method, encoder=encoder).check_sizes()


def test_pictures_keep_what_is_visible() -> None:
    model, batch = simmim().eval(), study_batch([2], canvas=32)
    (image,) = model.pictures(batch).images.values()
    assert image.shape == (2 * 32, 3 * 32)
    assert 0 <= image.min() < image.max() <= 1
    _, filled, original = (patchify(i.view(2, 1, 32, 32), 8) for i in image.split(32, dim=1))
    hidden = model.hidden(batch.view_draw)
    torch.testing.assert_close(filled[~hidden], original[~hidden])
    assert not torch.allclose(filled[hidden], original[hidden])


@pytest.mark.parametrize(("ratio", "blocks"), [(0.6, 39), (0.001, 1), (0.999, 63)], ids=str)
def test_as_many_whole_blocks_are_hidden_in_every_volume(ratio: float, blocks: int) -> None:
    model, batch = simmim3d(mask_ratio=ratio), volume_batch(5)
    hidden = model.hidden(batch.draw)
    cubes = hidden.view(5, 4, 4, 4, 4, 4, 4).permute(0, 1, 3, 5, 2, 4, 6).flatten(4)
    assert (cubes.all(-1) == cubes.any(-1)).all()
    assert cubes.all(-1).flatten(1).sum(1).tolist() == [blocks] * 5
    torch.testing.assert_close(model.hidden(batch.draw[3:]), hidden[3:])


def test_points_of_the_last_map_become_cubes_of_voxels() -> None:
    model, s, grid = simmim3d(), 8, (2, 3, 4)
    model.head = torch.nn.Identity()
    volume = torch.randn(2, 1, *(s * side for side in grid))
    cubes = volume.view(2, 2, s, 3, s, 4, s).permute(0, 2, 4, 6, 1, 3, 5)  # [B, s, s, s, d, h, w]
    torch.testing.assert_close(model.values(cubes.reshape(2, s**3, *grid)), volume)


def test_only_hidden_and_valid_voxels_count() -> None:
    model, batch = simmim3d(), volume_batch(3)
    batch.valid[:, :, 4:9, :, 2:] = False
    hidden = model.hidden(batch.draw)
    counted = hidden & batch.valid
    x = torch.where(batch.valid, batch.voxels, 0.0)
    found = model.values(model.encoder.skips(torch.where(hidden, model.mask, x))[-1])
    each = torch.stack([(found[i] - x[i])[counted[i]].abs().mean() for i in range(3)])
    losses = model(batch, 0)
    torch.testing.assert_close(losses.total, each.mean())
    torch.testing.assert_close(losses.each, each.detach())


def test_voxels_that_are_not_valid_have_no_effect_not_even_nan() -> None:
    model, batch = simmim3d(mirror=True, rotate_share=0.5, scale_share=0.5), volume_batch(3)
    batch.valid[:, :, 4:9, :, 2:] = False
    spoilt = replace(batch, voxels=torch.where(batch.valid, batch.voxels, torch.nan))
    changed = replace(batch, voxels=torch.where(batch.valid, batch.voxels, 50.0))
    torch.testing.assert_close(gradients(model, spoilt), gradients(model, changed))
    assert torch.isfinite(gradients(model, spoilt)).all()


def test_a_volume_without_a_valid_voxel_counts_as_zero() -> None:
    model, batch = simmim3d(), volume_batch(2)
    batch.valid[1] = False
    torch.testing.assert_close(model(batch, 0).total, model(some(batch, [0]), 0).total / 2)
    assert torch.isfinite(gradients(model, batch)).all()


def test_the_encoder_sees_the_value_and_not_the_hidden_voxels() -> None:
    model, batch = simmim3d(), volume_batch(2)
    hidden = model.hidden(batch.draw)
    seen = []
    skips = model.encoder.skips
    model.encoder.skips = lambda x: (seen.append(x), skips(x))[1]
    model(batch, 0)
    model(replace(batch, voxels=torch.where(hidden, 9.0, batch.voxels)), 0)
    torch.testing.assert_close(seen[0], seen[1], rtol=0, atol=0)
    torch.testing.assert_close(seen[0][~hidden], batch.voxels[~hidden])
    assert (seen[0][hidden] == model.mask).all()


def test_the_gradient_is_the_mean_over_volumes_however_they_are_split() -> None:
    model, batch = simmim3d(), volume_batch(4)
    batch.valid[0, :, :8] = False
    whole_batch = gradients(model, batch)
    parts = [gradients(model, some(batch, rows)) for rows in ([0, 3], [1, 2])]
    mean = torch.stack(parts).mean(0)
    assert (mean - whole_batch).norm() < 1e-4 * whole_batch.norm()


def test_blocks_must_fit_the_crop_and_no_noise_level_is_told() -> None:
    for method, encoder, message in (
        (
            SimmimSettings(mask_size=12),
            ResEncSettings(crop_size=64),
            r"encoder\.crop_size \(64\) must be a multiple of method\.mask_size, 12",
        ),
        (
            SimmimSettings(mask_size=64),
            ResEncSettings(crop_size=64),
            r"method\.mask_size \(64\) must be smaller than encoder\.crop_size \(64\)",
        ),
        (SimmimSettings(), ResEncSettings(film=True), r"encoder\.film must be false"),
    ):
        with pytest.raises(ValueError, match=message):
            PlanConfig(samples=9, method=method, encoder=encoder).check_sizes()


def test_pictures_of_volumes_are_grey_values() -> None:
    model, batch = simmim3d().eval(), volume_batch(2)
    batch = replace(batch, voxels=batch.voxels * 700 + 3000)  # of any range
    (image,) = model.pictures(batch).images.values()
    assert image.shape == (2 * 96, 3 * 96)  # six pixels a voxel
    assert 0 <= image.min() < image.max() <= 1


BOTH = [(simmim, study_batch([2, 1, 3, 1])), (simmim3d, volume_batch(4))]


@pytest.mark.parametrize(("make", "batch"), BOTH, ids=["studies", "volumes"])
def test_the_same_draw_gives_the_same_loss_and_another_one_another(make: Any, batch: Any) -> None:
    model = make()
    draws = {n: getattr(batch, n) + 1 for n in ("draw", "view_draw") if hasattr(batch, n)}
    loss = model(batch, 0).total
    assert loss == make()(batch, 7).total
    assert loss != model(replace(batch, **draws), 0).total


@pytest.mark.parametrize(("make", "batch"), BOTH, ids=["studies", "volumes"])
def test_every_parameter_is_trained(make: Any, batch: Any) -> None:
    model = make()
    with torch.no_grad():
        for p in model.parameters():  # residual blocks begin with zeros
            p.add_(0.05 * torch.randn_like(p))
    model(batch, 0).total.backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize(("make", "batch"), BOTH, ids=["studies", "volumes"])
def test_a_few_steps_lower_the_loss(make: Any, batch: Any) -> None:
    model = make()
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    losses = []
    for _ in range(12):
        loss = model(batch, 0).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    assert losses[-1] < sum(losses[4:8]) / 4  # and goes on falling
