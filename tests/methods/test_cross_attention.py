"""Decoders that look at other views (CAV-MAE), or at what was seen alone (CrossMAE)."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ray_mae.batch import StudyBatch
from ray_mae.methods.mvmae.model import Mvmae
from ray_mae.methods.parts.cross_attention import Together
from tests.batches import VOCABULARY, gradients, method, part, study_batch
from tests.settings import build_of, small
from tests.waits import Waits, on_device

BATCH = study_batch([2, 1, 3])
PLAIN = {"gamma": 0.0, "beta": 0.0}


def cross(trained: bool = True, **values: Any) -> Mvmae:
    """With a cross-view decoder whose branch, which begins with nothing, gives something."""
    model = method(cross_view=True, **(PLAIN | values))
    assert model.decoder.others is not None
    if trained:
        g = torch.Generator().manual_seed(1)
        for layer in model.decoder.others.layers:
            nn.init.normal_(layer.proj.weight, std=0.5, generator=g)  # type: ignore[union-attr, arg-type]
    return model


def losses(model: Mvmae, batch: StudyBatch) -> Tensor:
    """[S]"""
    each = model(batch, 100).each
    assert each is not None
    return each.detach()


def changed(batch: StudyBatch, views: list[int]) -> StudyBatch:
    images = batch.images.clone()
    images[views] = 255 - images[views]
    return replace(batch, images=images)


def test_it_begins_as_mvmae_to_the_bit() -> None:
    plain, model = method(**PLAIN), cross(trained=False)
    own = plain.state_dict()
    assert all(torch.equal(model.state_dict()[key], weight) for key, weight in own.items())
    assert torch.equal(losses(model, BATCH), losses(plain, BATCH))
    v2t = {"gamma": 1.0, "beta": 2.0}
    assert torch.equal(losses(cross(False, **v2t), BATCH), losses(method(**v2t), BATCH))


def test_a_study_with_one_view_is_that_of_mvmae_to_the_bit_whatever_was_learnt() -> None:
    plain, model = method(**PLAIN), cross()
    single = study_batch([1, 1, 1])
    assert torch.equal(losses(model, single), losses(plain, single))
    mixed, without = losses(model, BATCH), losses(plain, BATCH)
    torch.testing.assert_close(mixed[1], without[1], rtol=1e-5, atol=1e-6)
    assert (mixed - without).abs()[[0, 2]].min() > 1e-4
    slope = gradients(model, single)
    assert slope.isfinite().all()


def test_a_view_is_decoded_with_the_others_of_its_study_and_with_no_other_study() -> None:
    model = cross()
    before = losses(model, BATCH)
    after = losses(model, changed(BATCH, [3, 4, 5]))  # of the third study
    assert torch.equal(after[:2], before[:2])
    assert after[2] != before[2]


def test_the_gradient_flows_to_what_the_encoder_saw_of_the_other_view() -> None:
    model, two = cross(), study_batch([2])
    inputs = model.reader(two)  # type: ignore[arg-type]
    tokens = model.encoder(inputs.x, torch.tensor([[0, 3], [1, 2]]), two.view).detach()
    tokens.requires_grad_()
    together = Together(two.study, 1, 2)
    visible, hidden = torch.tensor([[0, 3], [1, 2]]), torch.tensor([[5], [6]])
    first = model.decoder(tokens, visible, hidden, two.view, together)[0]
    (slope,) = torch.autograd.grad(first.square().sum(), tokens)
    assert slope[0].any()
    assert slope[1].any()
    alone = model.decoder(tokens, visible, hidden, two.view)[0]
    (slope,) = torch.autograd.grad(alone.square().sum(), tokens)
    assert slope[0].any()
    assert not slope[1].any()


def test_the_order_of_the_other_views_does_not_matter() -> None:
    model = cross()
    three = study_batch([3])
    order = torch.tensor([2, 0, 1])
    again = replace(
        three,
        images=three.images[order],
        view=three.view[order],
        view_draw=three.view_draw[order],
    )
    torch.testing.assert_close(losses(model, again), losses(model, three))


def test_a_batch_may_be_split_and_nobody_waits() -> None:
    model = cross()
    whole = losses(model, BATCH)
    alone = torch.cat([losses(model, part(BATCH, [s])) for s in range(3)])
    torch.testing.assert_close(alone, whole, rtol=1e-4, atol=1e-5)
    batch = on_device(BATCH)
    with Waits(model, batch) as waits:
        model(batch, 100).total.backward()
    assert waits.found == []
    assert [k for k, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_the_record_says_what_the_other_views_tell_in_held_out_losses() -> None:
    """Of the two studies that have some; nothing at the start."""
    for model, told in ((cross(trained=False), False), (cross(), True)):
        assert "cross_view_gain" not in model(BATCH, 100).ratios
        total, count = model.eval()(BATCH, 100).ratios["cross_view_gain"]
        assert count == 2
        assert bool(total) == told
    assert "cross_view_gain" not in method(**PLAIN).eval()(BATCH, 100).ratios


def test_activation_checkpointing_changes_no_gradient() -> None:
    for name, values in (("mvmae", {"cross_view": True}), ("mae", {"decoder": "cross"})):
        one, other = (
            build_of(small(name, **values), vocabulary=VOCABULARY, recompute=recompute)
            for recompute in (False, True)
        )
        found = [gradients(model, BATCH) for model in (one, other)]  # type: ignore[arg-type]
        torch.testing.assert_close(*found)


def test_what_it_costs_more_is_a_small_share() -> None:
    plain, model = (
        build_of(small("mvmae", **PLAIN, cross_view=on), vocabulary=VOCABULARY)
        for on in (False, True)
    )
    assert 1 < model.flops(1, 1) / plain.flops(1, 1) < 1.5


# ------------------------------------------------------------------------- attention to what was seen


def decoded(model: Any, hidden: Tensor) -> Tensor:
    inputs = model.reader(BATCH)
    visible, _ = model.masks(inputs.draw)
    tokens = model.encoder(inputs.x, visible, inputs.view)
    return model.decoder(tokens, visible, hidden, inputs.view)


def test_with_cross_attention_each_hidden_patch_is_predicted_alone() -> None:
    model: Any = build_of(small("mae", decoder="cross"))
    _, hidden = model.masks(BATCH.view_draw)
    every = decoded(model, hidden)
    torch.testing.assert_close(decoded(model, hidden[:, 2:4]), every[:, 2:4])
    order = torch.randperm(hidden.shape[1])
    torch.testing.assert_close(decoded(model, hidden[:, order]), every[:, order])
    among: Any = build_of(small("mae"))  # MAE's patches look at each other
    assert not torch.allclose(decoded(among, hidden[:, 2:4]), decoded(among, hidden)[:, 2:4])


def test_a_share_of_the_patches_has_the_loss_of_all_on_average_with_cross_attention() -> None:
    settings = {"decoder": "cross", "mask_ratio": 0.75}
    whole = build_of(small("mae", **settings))
    some = build_of(small("mae", **settings, decode_share=0.25))
    batch = study_batch([1] * 64)
    found = some(batch, 0).each
    full = whole(batch, 0).each
    assert found is not None
    assert full is not None
    difference = (found - full).detach()
    assert difference.abs().max() > 0
    assert difference.mean().abs() < 3 * difference.std() / len(difference) ** 0.5


def test_cross_attention_trains_every_parameter_and_costs_less() -> None:
    model, plain = build_of(small("mae", decoder="cross")), build_of(small("mae"))
    model(BATCH, 0).total.backward()
    assert [k for k, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert model.flops(1, 0) < plain.flops(1, 0)
