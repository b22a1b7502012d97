"""What SparK and FCMAE mean: MAE of encoders with maps."""

from dataclasses import replace
from math import prod
from typing import Any

import pytest
import torch
from torch import Tensor

from ray_mae.config import PlanConfig
from ray_mae.encoders.convnextv2_settings import ConvNextV2Settings
from ray_mae.encoders.patches import enlarge, patchify
from ray_mae.encoders.resenc_settings import ResEncSettings
from ray_mae.encoders.timm_settings import TimmSettings
from ray_mae.encoders.vit_settings import VitSettings
from ray_mae.methods.mae.maps import MaeMaps
from ray_mae.methods.mae.settings import MaeSettings
from ray_mae.methods.parts.losses import normalised
from ray_mae.transforms.images import whole
from tests.batches import study_batch
from tests.settings import build, small
from tests.volume_batches import volume_batch

STILL = {
    "mae convnextv2": {"crop_scale": (1.0, 1.0), "jitter_share": 0.0},
    "mae resenc": {"mirror": False, "rotate_share": 0.0, "scale_share": 0.0},
}
"""Data without augmentation."""


def made(name: str, **values: Any) -> MaeMaps:
    """On images of 64 px in four units of 32, or crops of 16³ in eight units of 8, half of them hidden."""
    run = small(name)
    sizes = (
        ("preset", "width", "image_size")
        if run["encoder"].kind == "study"
        else ("preset", "crop_size")
    )
    of_encoder = {key: getattr(run["encoder"], key) for key in sizes}
    of_method = {key: getattr(run["method"], key) for key in ("mask_ratio", "mask_size")}
    model = build(name, **(STILL[name] | of_encoder | of_method | values))
    assert isinstance(model, MaeMaps)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    return model


def batch_of(name: str) -> Any:
    return study_batch([2, 1], canvas=64) if name == "mae convnextv2" else volume_batch(3)


def pixels(model: MaeMaps, batch: Any) -> Tensor:
    return model.reader.plain(batch).x


both = pytest.mark.parametrize("name", STILL)


@pytest.mark.parametrize(
    ("name", "values", "seen"),
    [
        ("mae convnextv2", {"image_size": 224, "mask_ratio": 0.6}, 19),  # of 49, as FCMAE
        ("mae convnextv2", {"image_size": 224, "mask_ratio": 0.99}, 1),
        ("mae convnextv2", {"image_size": 128, "mask_size": 64}, 2),
        ("mae resenc", {"crop_size": 24, "mask_ratio": 0.6}, 10),
        ("mae resenc", {"crop_size": 24, "mask_ratio": 0.01}, 26),
    ],
)
def test_as_many_units_are_seen_in_every_input(name: str, values: Any, seen: int) -> None:
    model = made(name, **({"mask_size": None if "conv" in name else 8} | values))
    active, hidden = model.masks(torch.arange(5))
    assert active.units.flatten(1).sum(1).tolist() == [seen] * 5
    assert hidden.shape == (5, prod(model.grid) - seen)
    assert not active.units.flatten(1).gather(1, hidden).any()
    assert len({tuple(row.tolist()) for row in hidden}) > 1


@both
@pytest.mark.parametrize("mask", ["hilbert", "block"])
def test_units_are_hidden_along_curves_and_in_blocks_as_patches_are(name: str, mask: str) -> None:
    model = made(name, mask=mask)
    active, hidden = model.masks(torch.arange(9))
    assert hidden.shape == (9, prod(model.grid) // 2)
    assert not torch.equal(active.units, made(name).masks(torch.arange(9))[0].units)
    assert model(batch_of(name), 0).total.isfinite()


@both
def test_the_loss_is_the_mean_error_of_normalised_hidden_units(name: str) -> None:
    for norm_pix in (True, False):
        model, batch = made(name, norm_pix=norm_pix), batch_of(name)
        x = pixels(model, batch)
        inputs = model.reader.plain(batch)
        active, _ = model.masks(inputs.draw)
        found = model.decoder(model.encoder.skips(x, active=active), active)
        outside = ~active.units.flatten(1)
        target = patchify(x, model.unit)
        target = normalised(target) if norm_pix else target
        error = (patchify(found, model.unit) - target).square()
        each = torch.stack([error[i][outside[i]].mean() for i in range(len(x))])
        torch.testing.assert_close(model(batch, 0).total, inputs.per_sample(each).mean())


@both
def test_what_is_hidden_is_a_target_and_nothing_else(name: str) -> None:
    """Its values reach the loss as targets alone, which have no gradient: the leak of code in use."""
    model, batch = made(name), batch_of(name)
    x = pixels(model, batch).requires_grad_(True)
    active, _ = model.masks(model.reader.plain(batch).draw)
    out = model.decoder(model.encoder.skips(x, active=active), active)
    out.square().sum().backward()
    outside = ~enlarge(active.units, model.unit)[:, None]
    assert x.grad[outside].eq(0).all()
    assert x.grad[~outside].ne(0).any()


@both
def test_every_token_in_the_place_of_what_is_hidden_is_trained_and_not_decayed(name: str) -> None:
    model = made(name)
    model(batch_of(name), 0).total.backward()
    tokens = {n: p for n, p in model.named_parameters() if n.startswith("decoder.hidden")}
    assert len(tokens) == (1 if name == "mae convnextv2" else len(model.encoder.channels))
    assert all(p.grad is not None and p.grad.ne(0).all() for p in tokens.values())
    assert model.no_weight_decay() == {*tokens}


def test_of_resenc_the_decoder_is_nnunets_and_is_exported_with_it() -> None:
    from ray_mae.encoders.resenc import encoder_and_decoder

    model = made("mae resenc")
    encoder, decoder = encoder_and_decoder(model.encoder.settings)
    names = {*model.decoder.state_dict()}
    assert {*encoder.state_dict()} == {*model.encoder.state_dict()}
    assert names - {*decoder.state_dict()} == {f"hidden.{i}" for i in range(4)}
    assert names >= {*decoder.state_dict()}


def test_anonymised_voxels_do_not_count_and_change_nothing_else() -> None:
    model, batch = made("mae resenc", norm_pix=False), volume_batch(3)
    batch.valid[:, :, 4:9, :, 2:] = False
    spoilt = replace(batch, voxels=torch.where(batch.valid, batch.voxels, 1e3))
    torch.testing.assert_close(model(spoilt, 0).total, model(batch, 0).total)


@both
def test_pictures_keep_what_is_visible_and_show_what_was_made_of_the_rest(name: str) -> None:
    model, batch = made(name).eval(), batch_of(name)
    (image,) = model.pictures(batch).images.values()
    assert 0 <= image.min() < image.max() <= 1
    if name == "mae convnextv2":
        masked, filled, original = (i.view(3, 1, 64, 64) for i in image.split(64, dim=1))
        active, _ = model.masks(batch.view_draw)
        shown = enlarge(active.units, 32)[:, None]
        torch.testing.assert_close(filled[shown], original[shown])
        torch.testing.assert_close(masked[shown], original[shown])
        assert not torch.allclose(filled[~shown], original[~shown])
        assert whole(batch, 64).shape == original.shape


def test_sizes_that_do_not_fit_are_refused_by_name() -> None:
    maps, units = ConvNextV2Settings(image_size=64), ResEncSettings(crop_size=64)
    for method, encoder, message in (
        (MaeSettings(mask_size=16), maps, r"mask_size \(16\) must be a multiple of 32"),
        (MaeSettings(mask_size=64), ConvNextV2Settings(image_size=96), r"image_size \(96\)"),
        (MaeSettings(mask_size=64), maps, r"must be smaller than encoder\.image_size \(64\)"),
        (MaeSettings(mask_ratio=0.9), units, "leaves one point"),
        (MaeSettings(), ResEncSettings(film=True), r"encoder\.film must be false"),
        (MaeSettings(decoder_width=64), units, r"method\.decoder_width mean"),
        (MaeSettings(decode_share=0.5), maps, r"method\.decode_share mean"),
        (MaeSettings(mask_size=32), VitSettings(), r"mask_size is for encoders with maps"),
        (MaeSettings(mask="sma"), maps, r"encoder\.name convnextv2 has none"),
        (MaeSettings(), TimmSettings(), "does not fit"),
        (MaeSettings(), replace(maps, norm="pooled"), r"encoder\.norm pooled is for evaluation"),
    ):
        with pytest.raises(ValueError, match=message):
            PlanConfig(samples=9, method=method, encoder=encoder).check_sizes()


@both
def test_a_few_steps_lower_the_loss(name: str) -> None:
    model, batch = made(name), batch_of(name)
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    losses = []
    for _ in range(10):
        loss = model(batch, 0).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]
