"""What a masked autoencoder means, of studies and volumes."""

from typing import Any

import pytest
import torch

from ray_mae.config import PlanConfig
from ray_mae.encoders.patches import patchify, unpatchify
from ray_mae.methods.mae.settings import MaeSettings
from ray_mae.methods.mae.tokens import MaeTokens
from ray_mae.methods.parts.losses import normalised, reconstruction, unnormalised
from tests import batches
from tests.batches import study_batch
from tests.settings import build, small

SAME = {"decoder_width": 32, "decoder_depth": 1, "decoder_heads": 2, "mask_ratio": 0.5}
"""Settings in which MAE and MVMAE do not differ."""


def mae(**values: Any) -> MaeTokens:
    model = build("mae", **({k: getattr(small("mae")["encoder"], k) for k in _SIZES} | values))
    assert isinstance(model, MaeTokens)
    return model


_SIZES = ("preset", "image_size", "patch_size", "width", "depth", "heads")


@pytest.mark.parametrize("norm_pix", [False, True])
def test_mvmae_without_alignment_and_reports_is_mae(norm_pix: bool) -> None:
    """Of views on their own: the same weights, masks, losses and gradients."""
    one = mae(norm_pix=norm_pix, **SAME)
    other = batches.method(beta=0.0, gamma=0.0, norm_pix=norm_pix)
    assert one.state_dict().keys() == other.state_dict().keys()
    other.load_state_dict(one.state_dict())
    batch = study_batch([2, 1, 3])
    assert torch.equal(one(batch, 100).total, other(batch, 100).total)
    one(batch, 100).total.backward()
    other(batch, 100).total.backward()
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ratio", "visible"), [(0.75, 4), (0.9, 1), (0.01, 15), (0.99, 1)], ids=str
)
def test_as_many_patches_are_visible_in_every_view(ratio: float, visible: int) -> None:
    shown, hidden = mae(mask_ratio=ratio).masks(study_batch([2, 3]).view_draw)
    assert shown.shape == (5, visible)
    assert hidden.shape == (5, 16 - visible)
    assert (torch.cat([shown, hidden], 1).sort(1).values == torch.arange(16)).all()


def test_normalised_patches_come_back() -> None:
    target = torch.randn(2, 3, 16) * 5 + 2
    torch.testing.assert_close(unnormalised(normalised(target), target), target)


def test_voxels_that_are_not_valid_do_not_count_and_patches_with_hardly_any_neither() -> None:
    pixels, target = torch.zeros(1, 3, 200), torch.ones(1, 3, 200)
    target[0, 1], target[0, 2] = 2.0, 3.0
    valid = torch.ones(1, 3, 200, dtype=torch.bool)
    torch.testing.assert_close(reconstruction(pixels, target, valid=valid)[0], torch.tensor(14 / 3))
    valid[0, 1, :150] = False  # 50 of it are left
    expected = torch.tensor((200 * 1 + 50 * 4 + 200 * 9) / 450)
    torch.testing.assert_close(reconstruction(pixels, target, valid=valid)[0], expected)
    valid[0, 1, 1:] = False  # one voxel of 200
    torch.testing.assert_close(reconstruction(pixels, target, valid=valid)[0], torch.tensor(5.0))
    assert reconstruction(pixels, target, valid=torch.zeros_like(valid))[0] == 0


def test_the_encoder_sees_no_hidden_pixel() -> None:
    model, batch = mae(crop_scale=(1.0, 1.0), jitter_share=0.0).eval(), study_batch([2], canvas=32)
    inputs = model.reader(batch)
    visible, hidden = model.masks(inputs.draw)
    tokens = model.encoder(inputs.x, visible, inputs.view)
    patches = patchify(inputs.x, 8)
    spoilt = unpatchify(
        patches.scatter(1, hidden[..., None].expand(-1, -1, 64), torch.nan), 8, (4, 4)
    )
    assert torch.equal(model.encoder(spoilt, visible, inputs.view), tokens)


def test_a_decoder_is_the_paper_s_and_never_wider_than_a_narrow_encoder() -> None:
    settings, sizes = MaeSettings(), {"width": None, "heads": None}
    base = settings.decoder_shape(small("mae", preset="base", **sizes)["encoder"])
    assert (base.width, base.depth, base.heads) == (512, 8, 16)
    tiny = settings.decoder_shape(small("mae", **sizes)["encoder"])
    assert (tiny.width, tiny.depth, tiny.heads) == (192, 4, 6)


def test_heads_that_do_not_divide_the_decoder_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"method\.decoder_width \(512\) must be a multiple of"):
        PlanConfig(samples=9, method=MaeSettings(decoder_heads=7)).check_sizes()
