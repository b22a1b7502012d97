"""GAN-MAE: what is judged, and in which direction its gradient goes."""

from typing import Any

import pytest
import torch
from torch import Tensor

from ray_mae.encoders.patches import gather, patchify
from ray_mae.methods.ganmae.model import GanMae, turned
from tests.batches import study_batch
from tests.settings import build_of, small

BATCH = study_batch([2, 1, 3])


def gan(name: str = "ganmae", **values: Any) -> Any:
    return build_of(small(name, **({"mask_ratio": 0.75} | values)))


def gradients(model: Any, part: str, step: int = 100) -> Tensor:
    model.zero_grad()
    model(BATCH, step).total.backward()
    return torch.cat([p.grad.flatten() for p in getattr(model, part).parameters()])


def test_the_gradient_of_what_is_turned_is_the_negative_times_eta() -> None:
    """Against differences of the value itself."""
    x = torch.randn(5, dtype=torch.float64, requires_grad=True)

    def value(x: Tensor, eta: float | None = None) -> Tensor:
        return (x if eta is None else turned(x, eta)).sin().sum()

    assert torch.equal(value(x, 0.3), value(x))
    (slope,) = torch.autograd.grad(value(x, 0.3), x)
    small_ = 1e-6 * torch.eye(5, dtype=torch.float64)
    for i in range(5):
        rise = (value(x + small_[i]) - value(x - small_[i])).item() / 2e-6
        assert slope[i].item() == pytest.approx(-0.3 * rise, rel=1e-5)


def test_without_eta_the_decoder_learns_as_in_mae_and_the_encoder_also_to_judge() -> None:
    model, mae = gan(adversarial=0.0), gan("mae")
    missing = mae.load_state_dict(model.state_dict(), strict=False)
    assert not missing.missing_keys
    assert torch.equal(gradients(model, "decoder"), gradients(mae, "decoder"))
    assert not torch.equal(gradients(model, "encoder"), gradients(mae, "encoder"))
    assert not torch.equal(gradients(gan(), "decoder"), gradients(mae, "decoder"))


def test_the_gradient_that_is_added_to_the_decoder_grows_with_eta_over_a_third_of_the_run() -> None:
    """build_of makes a run of 100 steps."""
    model = gan(adversarial=0.6)
    plain, half, full = (gradients(model, "decoder", step) for step in (0, 17, 34))
    torch.testing.assert_close(half - plain, (full - plain) * 0.51, rtol=1e-2, atol=1e-6)
    assert model.eta(100) == model.eta(34) == 0.6
    assert model.metrics(17) == {"eta": pytest.approx(0.6 * 0.51)}


def test_what_was_seen_is_shown_bit_by_bit_and_the_rest_as_it_was_predicted() -> None:
    model = gan()
    inputs = model.reader(BATCH)
    found = model.decode(inputs)
    shown = patchify(model.completed(found, 0.1), 8)
    assert torch.equal(gather(shown, found.visible), gather(found.patches, found.visible))
    hidden, true = gather(shown, found.hidden), gather(found.patches, found.hidden)
    assert not torch.equal(hidden, true)
    # of the mean and deviation that the true patch has, but for those of the prediction itself
    back = (hidden - true.mean(-1, keepdim=True)) / true.std(-1, keepdim=True)
    torch.testing.assert_close(back, found.pixels, atol=1e-3, rtol=1e-3)


def test_it_is_real_what_was_visible() -> None:
    """4 of 16 patches are: with a head that always says real, the accuracy is that of a coin."""
    model = gan(label_smoothing=0.0)
    with torch.no_grad():
        model.judge.weight.zero_()
        model.judge.bias.fill_(20.0)
    losses = model(BATCH, 100)
    total, count = losses.ratios["discriminator_accuracy"]
    assert count == 6
    assert total / count == pytest.approx(0.5)
    assert losses.parts["discriminator"].item() == pytest.approx(20 * 12 / 16, rel=1e-3)


def test_smoothing_makes_certainty_cost_something() -> None:
    model = gan(label_smoothing=0.1)
    with torch.no_grad():
        model.judge.weight.zero_()
        model.judge.bias.zero_()
    assert model(BATCH, 100).parts["discriminator"].item() == pytest.approx(0.6931, rel=1e-3)


def test_it_learns_to_tell_real_from_predicted() -> None:
    model = gan(adversarial=0.0)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for step in range(25):
        losses = model(BATCH, step)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
    total, count = losses.ratios["discriminator_accuracy"]
    assert total / count > 0.9


@pytest.mark.parametrize(
    ("values", "message"),
    [({"decode_share": 0.5}, "decode_share"), ({"target": "hog"}, "method.target")],
)
def test_what_it_cannot_do_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gan(**values)


def test_an_encoder_of_maps_is_refused() -> None:
    with pytest.raises(ValueError, match="tokens, not maps"):
        gan("ganmae resenc")


def test_it_costs_a_pass_over_everything_more_than_mae() -> None:
    model, mae = gan(), gan("mae")
    assert isinstance(model, GanMae)
    more = model.flops(1, 0) - mae.flops(1, 0)
    assert more == pytest.approx(3 * model.encoder.flops(1 + 16))
