"""Masks, random numbers, patches, crops and positions."""

import pytest
import torch

from ray_mae.batch import mean_per_study
from ray_mae.encoders.patches import patchify, unpatchify
from ray_mae.encoders.vit import VisionTransformer, sincos_positions
from ray_mae.encoders.vit_settings import VitSettings
from ray_mae.methods.parts.losses import reconstruction
from ray_mae.methods.parts.masking import visible_count
from ray_mae.random_streams import Stream
from ray_mae.transforms.images import resample
from ray_mae.transforms.keyed_random import uniforms
from tests.settings import build


def test_visible_counts_are_those_of_the_papers() -> None:
    assert visible_count(196, 0.90) == 19
    assert visible_count(196, 0.75) == 49
    assert visible_count(196, 0.93) == 13
    assert visible_count(196, 0.999) == 1


def test_random_numbers_are_uniform_and_independent_of_each_other() -> None:
    u = uniforms(torch.arange(2000), 50, Stream.MASK)  # neighbouring keys
    assert u.min() >= 0
    assert u.max() < 1
    assert u.mean().item() == pytest.approx(0.5, abs=0.01)
    assert u.var().item() == pytest.approx(1 / 12, abs=0.002)
    correlation = torch.corrcoef(u.T) - torch.eye(50)
    assert correlation.abs().max() < 0.12
    assert torch.corrcoef(u[:50])[0, 1:].abs().max() < 0.6
    other = uniforms(torch.arange(2000), 50, Stream.MASK + 1)
    assert not torch.equal(u, other)


def test_patches_go_back_to_the_image() -> None:
    x = torch.randn(2, 1, 12, 12)
    patches = patchify(x, 4)
    assert patches.shape == (2, 9, 16)
    torch.testing.assert_close(patches[0, 1], x[0, 0, :4, 4:8].flatten())
    torch.testing.assert_close(unpatchify(patches, 4, (3, 3)), x)
    volume = torch.randn(2, 1, 4, 6, 8)
    patches = patchify(volume, 2)
    assert patches.shape == (2, 24, 8)
    torch.testing.assert_close(patches[0, 4], volume[0, 0, :2, 2:4, :2].flatten())
    torch.testing.assert_close(unpatchify(patches, 2, (2, 3, 4)), volume)


def test_only_visible_patches_reach_the_encoder() -> None:
    encoder = VisionTransformer(VitSettings(preset="tiny", image_size=32, patch_size=8))
    images, visible, view = torch.randn(1, 1, 32, 32), [0, 5, 6, 15], torch.tensor([0])
    tokens = encoder(images, torch.tensor([visible]), view)
    assert tokens.shape == (1, 1 + 4, 192)
    patches = patchify(images, 8)
    patches[:, [i for i in range(16) if i not in visible]] = torch.nan
    hidden = unpatchify(patches, 8, (4, 4))
    assert torch.equal(encoder(hidden, torch.tensor([visible]), view), tokens)


def test_positions_tell_all_patches_apart() -> None:
    assert sincos_positions((3, 3), 8).unique(dim=0).shape == (9, 8)
    assert sincos_positions((3, 4, 5), 20).unique(dim=0).shape == (60, 20)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"image_size": 30, "patch_size": 8}, r"image_size \(30\) .* encoder\.patch_size, 8"),
        ({"width": 190}, r"encoder\.width \(190\) .* encoder\.heads, 3"),
        ({"decoder_width": 66, "decoder_heads": 2}, r"decoder_width \(66\) .* 4 \(positions"),
        ({"caption_heads": 5}, r"encoder\.width \(192\) .* method\.caption_heads, 5"),
    ],
)
def test_sizes_must_fit_together(settings: dict[str, int], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        build("mvmae", **{"preset": "tiny", "caption_heads": 8, **settings})


def test_reconstruction_is_a_mean_over_hidden_pixels() -> None:
    prediction, target = torch.zeros(2, 3, 4), torch.ones(2, 3, 4)
    target[1] = 2
    torch.testing.assert_close(reconstruction(prediction, target), torch.tensor([1.0, 4.0]))
    assert reconstruction(prediction[:, :0], target[:, :0]).tolist() == [0, 0]


def test_normalised_patches_have_mean_0_and_variance_1() -> None:
    target = torch.randn(1, 5, 64) * 3 + 2
    zero = reconstruction(torch.zeros_like(target), target, norm_pix=True)
    assert zero.item() == pytest.approx(63 / 64, rel=1e-3)


def test_a_study_without_values_counts_as_zero() -> None:
    value, study = torch.tensor([1.0, 3.0, 5.0]), torch.tensor([0, 0, 2])
    assert mean_per_study(value, study, 3).tolist() == [2.0, 0.0, 5.0]


def test_resampling_the_whole_image_to_its_own_size_is_the_identity() -> None:
    image = torch.randint(0, 256, (1, 1, 24, 24), dtype=torch.uint8)
    box = torch.tensor([[0.0, 0.0, 24.0]])
    torch.testing.assert_close(resample(image, torch.tensor([24]), box, 24)[0], image[0] / 255)


def test_resampling_equals_torch_s_antialiased_bilinear() -> None:
    image = torch.randint(0, 256, (1, 1, 40, 40), dtype=torch.uint8)
    box = torch.tensor([[0.0, 0.0, 40.0]])
    ours = resample(image, torch.tensor([40]), box, 16)
    theirs = torch.nn.functional.interpolate(
        image / 255, size=(16, 16), mode="bilinear", antialias=True
    )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-3)


def test_a_small_image_on_a_large_canvas_is_not_mixed_with_what_is_outside() -> None:
    canvas = torch.full((1, 1, 64, 64), 255, dtype=torch.uint8)
    canvas[:, :, :20, :20] = 100
    ours = resample(canvas, torch.tensor([20]), torch.tensor([[0.0, 0.0, 20.0]]), 32)
    torch.testing.assert_close(ours, torch.full((1, 1, 32, 32), 100 / 255))
