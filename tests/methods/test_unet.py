"""The ResEnc U-Net with FiLM."""

import pytest
import torch
from dynamic_network_architectures.architectures.unet import ResidualEncoderUNet
from torch.utils.flop_counter import FlopCounterMode

from ray_mae.encoders.resenc import InstanceNorm, ResEnc, architecture, fold_film, residual_unet
from ray_mae.encoders.resenc_settings import PRESETS
from tests.volume_batches import config, mdae, volume_batch


def fresh_encoder() -> ResEnc:
    return ResEnc(config()["encoder"])


def test_film_at_initialisation_is_the_identity() -> None:
    told, untold = mdae(), mdae(film=False)
    missing = untold.load_state_dict(told.state_dict(), strict=False)
    assert not missing.missing_keys
    x, t = volume_batch(2).voxels, torch.tensor([0.1, 0.9])
    first = told.reconstruct(x, t)
    assert torch.equal(first, told.reconstruct(x, 1 - t))
    assert torch.equal(first, untold.reconstruct(x, t))


def test_once_trained_film_tells_the_noise_level_to_every_stage() -> None:
    model = mdae()
    x, t = volume_batch(2).voxels, torch.tensor([0.1, 0.9])
    stages = [*model.encoder.film, *model.decoder.film]
    assert len(stages) == 4 + 3
    for film in stages:
        before = model.reconstruct(x, t)
        torch.nn.init.normal_(film.project.weight, std=0.05)
        after = model.reconstruct(x, t)
        assert (before - after).abs().max() > 1e-4
    swapped = model.reconstruct(x, t.flip(0))
    assert ((swapped - after).abs().amax((1, 2, 3, 4)) > 1e-4).all()


def train_film(*networks: torch.nn.Module) -> None:
    for network in networks:
        for film in network.film:
            torch.nn.init.normal_(film.project.weight, std=0.1)
            torch.nn.init.normal_(film.project.bias, std=0.3)


def test_folded_film_changes_nothing_at_noise_level_0() -> None:
    model = mdae()
    train_film(model.encoder, model.decoder)
    x, t = volume_batch(2).voxels, torch.zeros(2)
    before, features = model.reconstruct(x, t), model.encoder(x)
    fold_film(model.encoder, model.decoder)
    assert not any("film" in name or "time" in name for name in model.state_dict())
    torch.testing.assert_close(model.reconstruct(x, t), before, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.encoder(x), features, rtol=1e-4, atol=1e-5)
    fold_film(model.encoder, model.decoder)  # there is nothing left to fold


def test_nnu_net_s_network_loads_the_weights_strictly_and_computes_the_same() -> None:
    model = mdae()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.01 * torch.randn_like(p))
    ours = model.encoder.state_dict()
    weights = {k: v for k, v in ours.items() if k.startswith(("stem.", "stages."))}
    assert {k.split(".")[0] for k in ours.keys() - weights} == {"time", "film"}
    plan = architecture(PRESETS["tiny"]) | {"norm_op": torch.nn.InstanceNorm3d}
    theirs = ResidualEncoderUNet(1, num_classes=1, **plan)
    theirs.encoder.load_state_dict(weights, strict=True)
    x = volume_batch(2).voxels
    for a, b in zip(theirs.encoder(x), model.encoder.skips(x, None), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)

    decoder = {k: v for k, v in model.decoder.state_dict().items() if not k.startswith("film.")}
    outcome = theirs.decoder.load_state_dict(decoder, strict=False)
    assert not outcome.unexpected_keys
    unknown = ("encoder.", "seg_layers.0.", "seg_layers.1.")  # the encoder again; deep supervision
    assert all(k.startswith(unknown) for k in outcome.missing_keys)
    torch.testing.assert_close(
        theirs(x), model.decoder(model.encoder.skips(x, None), None), rtol=1e-4, atol=1e-4
    )


def test_large_is_resenc_l() -> None:
    with torch.device("meta"):
        net = residual_unet(PRESETS["large"])
        parameters = sum(p.numel() for p in net.parameters())
    assert parameters == pytest.approx(102e6, rel=0.02)  # nnU-Net's ResEncL of six stages
    assert net.encoder.output_channels == [32, 64, 128, 256, 320, 320]


def test_norms_of_bf16_values_have_float32_statistics() -> None:
    x = (torch.randn(2, 4, 16, 16, 16) + 100).bfloat16()
    norm = InstanceNorm(4, affine=True).bfloat16()
    y = norm(x)
    assert y.dtype == torch.bfloat16
    exact = torch.nn.functional.instance_norm(x.float())
    torch.testing.assert_close(y.float(), exact, rtol=2**-8, atol=1e-3)


@pytest.mark.parametrize("samples", [1, 3])
def test_norms_have_the_gradient_of_pytorch_s_in_any_layout(samples: int) -> None:
    x, g = torch.randn(2, samples, 4, 6, 6, 6)
    ours, theirs = InstanceNorm(4, affine=True), torch.nn.InstanceNorm3d(4, affine=True)
    expected = x.clone().requires_grad_()
    theirs(expected).backward(g)
    for layout in (torch.contiguous_format, torch.channels_last_3d):
        a = x.clone(memory_format=layout).requires_grad_()
        ours.zero_grad()
        y = ours(a)
        assert y.is_contiguous(memory_format=torch.channels_last_3d)
        y.backward(g.contiguous(memory_format=layout))
        torch.testing.assert_close(a.grad, expected.grad)
        torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)


def test_features_are_those_of_noise_level_0_one_vector_per_volume() -> None:
    encoder = fresh_encoder().eval()
    x = volume_batch(3).voxels
    features = encoder(x)
    assert features.shape == (3, encoder.width)
    torch.testing.assert_close(features, encoder(x, t=None))  # untrained FiLM
    torch.nn.init.normal_(encoder.film[-1].project.weight, std=0.1)
    assert (encoder(x) - encoder(x, t=None)).abs().max() > 1e-3
    assert (encoder(x) - encoder(x, t=0.7)).abs().max() > 1e-3
    torch.testing.assert_close(encoder(x)[1:], encoder(x[1:]), rtol=1e-4, atol=1e-5)


def test_volumes_that_do_not_fit_the_stride_are_refused() -> None:
    encoder = fresh_encoder()
    with pytest.raises(
        ValueError, match=r"multiples of 8, and at least 16 voxels, got \[16, 16, 20\]"
    ):
        encoder(torch.zeros(1, 1, 16, 16, 20))


def test_the_pretrained_encoder_is_what_the_encoder_alone_loads() -> None:
    model = mdae()
    weights = model.state_dict()
    kept = {k.removeprefix("encoder."): v for k, v in weights.items() if k.startswith("encoder.")}
    encoder = fresh_encoder()
    encoder.load_state_dict(kept)
    x = volume_batch(1).voxels
    torch.testing.assert_close(encoder(x), model.encoder(x))


@pytest.mark.parametrize(("preset", "side", "repeats"), [("tiny", 24, 1), ("base", 64, 2)])
def test_operations_are_those_that_pytorch_counts(preset: str, side: int, repeats: int) -> None:
    with torch.device("meta"):
        model = mdae(preset=preset, crop_size=side, block_size=8, mask_repeats=repeats)
        x = torch.zeros(repeats, 1, side, side, side)
        with FlopCounterMode(display=False) as counter:
            model.reconstruct(x, torch.zeros(repeats)).sum().backward()
    assert model.flops(images=1, samples=1) == pytest.approx(counter.get_total_flops(), rel=0.03)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"crop_size": 24, "block_size": 16}, r"crop_size \(24\) .* method\.block_size, 16"),
        ({"crop_size": 20}, r"crop_size \(20\) .* 8, the stride of encoder\.preset tiny"),
        ({"preset": "large", "crop_size": 32}, r"crop_size \(32\) must be .* at least 64"),
        ({"block_size": 16}, r"block_size \(16\) must be smaller than encoder\.crop_size"),
        ({"noise": "vp", "sigma_max": 1.5}, r"sigma_max \(1\.5\) must be at most 1 .* vp"),
        ({"mask_ratio": (0, 0), "lambda_visible": 0}, "nothing to learn"),
        ({"mask_ratio": (1, 1), "lambda_masked": 0}, "nothing to learn"),
    ],
)
def test_settings_that_do_not_fit_together_are_named(
    settings: dict[str, object], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        mdae(**settings)
