"""What MVMAE-V2T means (methods of arXiv 2511.22294, and the defects its public code has)."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_mae.batch import StudyBatch
from ray_mae.methods.base import Losses
from ray_mae.methods.mvmae.losses import alignment
from ray_mae.methods.mvmae.model import ramp
from ray_mae.methods.parts.masking import some_of
from ray_mae.methods.parts.running_mean import RunningMean
from tests.batches import gradients, method, part, study_batch


def caption_of(losses: Losses) -> torch.Tensor:
    total, reports = losses.ratios["caption"]
    return total / reports


def test_the_loss_is_the_plain_sum_of_its_terms() -> None:
    losses = method(gamma=0.7, beta=20.0)(study_batch([2, 1, 3]), 100)
    parts = losses.parts
    expected = parts["reconstruction"] + 20.0 * parts["alignment"] + 0.7 * caption_of(losses)
    assert losses.total.item() == pytest.approx(expected.item(), rel=1e-5)


def test_gamma_zero_is_mvmae_without_a_captioner() -> None:
    with_text, without = method(gamma=1.0), method(gamma=0.0)
    without.load_state_dict(with_text.state_dict(), strict=False)
    batch = study_batch([2, 2])
    assert without.captioner is None
    both, image_only = with_text(batch, 100), without(batch, 100)
    torch.testing.assert_close(
        image_only.total, both.total - caption_of(both), rtol=1e-5, atol=1e-6
    )


def test_beta_zero_is_an_independent_mae_of_every_view() -> None:
    """The study's loss is then the mean of the losses of its views as studies of their own."""
    model, batch = method(beta=0.0, gamma=0.0), study_batch([3])
    alone = replace(
        batch,
        study=torch.arange(3),
        key=batch.key.repeat(3),
        draw=batch.draw.repeat(3),
        tokens=batch.tokens.repeat(3, 1),
        has_report=batch.has_report.repeat(3),
    )
    torch.testing.assert_close(model(batch, 100).total, model(alone, 100).total)


@pytest.mark.parametrize("memory", ["view", "study"])
def test_permuting_the_views_of_a_study_changes_nothing(memory: str) -> None:
    model, batch = method(caption_memory=memory), study_batch([3, 2])
    order = torch.tensor([2, 0, 1, 4, 3])
    permuted = replace(
        batch,
        images=batch.images[order],
        side=batch.side[order],
        view=batch.view[order],
        view_draw=batch.view_draw[order],
    )
    torch.testing.assert_close(
        gradients(model, batch), gradients(model, permuted), rtol=1e-3, atol=1e-5
    )


def test_the_same_image_mask_and_view_twice_is_aligned_perfectly() -> None:
    batch = study_batch([2])
    twin = replace(
        batch,
        images=batch.images[[0, 0]],
        view=batch.view[[0, 0]],
        view_draw=batch.view_draw[[0, 0]],
    )
    model = method()
    assert model(twin, 100).parts["alignment"].item() == pytest.approx(0, abs=1e-9)
    assert model(batch, 100).parts["alignment"].item() > 1e-6


@pytest.mark.parametrize("form", ["mse", "cosine", "infonce", "vicreg"])
def test_studies_with_one_view_are_finite_and_unaligned(form: str) -> None:
    losses = method(alignment=form)(study_batch([1, 1, 1]), 100)
    assert torch.isfinite(losses.total)
    if form != "vicreg":  # whose variance and covariance act on single views too
        assert losses.parts["alignment"].item() == 0


@pytest.mark.parametrize("form", ["mse", "cosine", "infonce", "vicreg"])
@pytest.mark.parametrize("beta", [0.0, 2.0])
def test_the_settings_say_whether_a_study_depends_on_the_others(form: str, beta: float) -> None:
    model, batch = method(alignment=form, beta=beta), study_batch([2, 3, 2])
    together, alone = model(batch, 100).each, model(part(batch, [0, 1]), 100).each
    same = torch.allclose(together[:2], alone, rtol=1e-4, atol=1e-5)
    assert model.settings.coupled != same


def test_a_lone_pair_without_negatives_has_finite_infonce_gradients() -> None:
    assert torch.isfinite(gradients(method(alignment="infonce"), study_batch([2]))).all()


def test_a_study_drawn_twice_is_no_negative_of_itself() -> None:
    z = torch.nn.functional.normalize(torch.randn(6, 8, generator=torch.Generator().manual_seed(0)))
    study = torch.tensor([0, 0, 1, 1, 2, 2])
    once = alignment(z[:4], study[:4], 2, "infonce", key=study[:4])
    again = alignment(z, study, 3, "infonce", key=torch.tensor([7, 7, 8, 8, 7, 7]))
    other = alignment(z, study, 3, "infonce", key=torch.tensor([7, 7, 8, 8, 9, 9]))
    torch.testing.assert_close(again[0], once[0])
    assert other[0] > once[0]


def test_a_study_without_a_report_gives_no_caption_gradient() -> None:
    model, batch = method(beta=0.0), study_batch([2, 2])
    silent = replace(batch, has_report=torch.tensor([True, False]))
    other_words = replace(silent, tokens=silent.tokens.clone())
    other_words.tokens[1, 1:-1] = 7
    torch.testing.assert_close(gradients(model, silent), gradients(model, other_words))
    # and the study that has one is not given the other's loss (a broadcast would)
    told = model.caption(*_tokens_of(model, silent), silent)
    assert told[1].item() == 0
    torch.testing.assert_close(told[0], model.caption(*_tokens_of(model, batch), batch)[0])


def _tokens_of(model, batch: StudyBatch):
    seen = {}
    original = model.captioner.forward

    def spy(text, tokens, index, view, *rest, **more):
        seen["tokens"], seen["index"] = tokens, index
        return original(text, tokens, index, view, *rest, **more)

    model.captioner.forward = spy
    model(batch, 0)
    model.captioner.forward = original
    return seen["tokens"].detach(), seen["index"]


def test_padding_is_neither_read_nor_predicted() -> None:
    model, batch = method(), study_batch([2, 1])
    batch.tokens[:, 6:] = 0
    batch.tokens[:, 5] = 3
    short = replace(batch, tokens=batch.tokens[:, :6])
    torch.testing.assert_close(
        gradients(model, batch), gradients(model, short), rtol=1e-3, atol=1e-5
    )


def test_the_end_of_the_report_is_a_target() -> None:
    model, batch = method(), study_batch([1])
    other_end = replace(batch, tokens=batch.tokens.clone())
    other_end.tokens[0, -1] = 9
    assert model(batch, 0).total.item() != pytest.approx(model(other_end, 0).total.item(), rel=1e-6)


def test_a_word_does_not_see_the_words_after_it() -> None:
    model, batch = method(), study_batch([1])
    later = replace(batch, tokens=batch.tokens.clone())
    later.tokens[0, 8:] = 11
    tokens, index = _tokens_of(model, batch)
    before = model.captioner(batch.tokens, tokens, index, batch.view)
    after = model.captioner(later.tokens, tokens, index, batch.view)
    torch.testing.assert_close(before[:, :8], after[:, :8])
    assert not torch.allclose(before[:, 8:], after[:, 8:])


def test_parallel_decoding_reads_no_words() -> None:
    model, batch = method(caption_parallel_share=1.0), study_batch([2])
    other = replace(batch, tokens=batch.tokens.clone())
    other.tokens[0, 4] = 9
    tokens, index = _tokens_of(model, batch)
    on = torch.ones(2, dtype=torch.bool)
    text, changed = (b.tokens[:, :-1][b.study] for b in (batch, other))
    torch.testing.assert_close(
        model.captioner(text, tokens, index, batch.view, parallel=on),
        model.captioner(changed, tokens, index, batch.view, parallel=on),
    )


def test_study_memory_reads_every_view_once() -> None:
    """Padding the packed views changes nothing: one study alone gives the same loss."""
    model, batch = method(caption_memory="study"), study_batch([3, 1])
    together = model.caption(*_tokens_of(model, batch), batch)
    alone = part(batch, [1])
    torch.testing.assert_close(together[1:], model.caption(*_tokens_of(model, alone), alone))


@given(st.lists(st.integers(1, 3), min_size=2, max_size=5), st.integers(0, 5))
@settings(max_examples=15, deadline=None)
def test_the_gradient_is_the_mean_over_studies_however_they_are_split(
    views: list[int], seed: int
) -> None:
    """What makes it independent of the number of workers: studies weigh the same, absent things 0."""
    model, batch = method(), study_batch(views, seed)
    batch.has_report[0] = False
    whole = gradients(model, batch)
    single = [gradients(model, part(batch, [s])) for s in range(len(views))]
    torch.testing.assert_close(whole, torch.stack(single).mean(0), rtol=1e-3, atol=1e-5)


def test_beta_is_exactly_zero_until_warm_up_ends_and_final_at_the_end() -> None:
    beta = ramp(2.0, start=10, end=100)
    assert all(beta(step) == 0.0 for step in range(11))
    assert 0 < beta(11) < beta(50) < beta(99) < 2.0
    assert beta(100) == pytest.approx(2.0)


def test_alignment_is_a_mean_over_the_pairs_that_exist() -> None:
    z = torch.nn.functional.normalize(torch.randn(3, 8), dim=-1)
    three = alignment(z, torch.tensor([0, 0, 0]), 1)
    pairs = [((z[i] - z[j]) ** 2).mean() for i, j in ((0, 1), (0, 2), (1, 2))]
    torch.testing.assert_close(three[0], torch.stack(pairs).mean())
    summed = alignment(z, torch.tensor([0, 0, 0]), 1, reduction="sum")
    cosine = alignment(z, torch.tensor([0, 0, 0]), 1, "cosine")
    torch.testing.assert_close(summed, three * 8)
    torch.testing.assert_close(summed, 2 * cosine)


def test_masks_and_crops_belong_to_the_view_not_to_its_place_in_the_batch() -> None:
    model, batch = method(), study_batch([2, 1, 2])
    images = model.reader(batch).x
    torch.testing.assert_close(model.reader(part(batch, [1, 2])).x, images[2:])


def test_a_share_of_the_hidden_patches_is_decoded_in_training_and_all_of_them_otherwise() -> None:
    whole, some = method(gamma=0.0), method(gamma=0.0, decode_share=0.25)
    some.load_state_dict(whole.state_dict())
    seen: list[int] = []
    some.decoder.register_forward_hook(lambda _, args, out: seen.append(out.shape[1]))
    batch = study_batch([2, 1, 3])
    hidden = some.encoder.patches - some.masks.visible
    drawn = [replace(batch, view_draw=batch.view_draw + n) for n in range(100)]
    means = [
        torch.stack([model(b, 100).parts["reconstruction"] for b in drawn]).mean().item()
        for model in (some, whole)
    ]
    assert set(seen) == {round(0.25 * hidden)}
    # mask tokens attend one another, so it is another task for the decoder, but hardly
    assert means[0] == pytest.approx(means[1], rel=0.05)
    some.eval(), whole.eval()
    assert torch.equal(some(batch, 100).total, whole(batch, 100).total)
    assert seen[-1] == hidden


def test_what_is_decoded_belongs_to_the_view_and_not_to_its_mask() -> None:
    draw = torch.arange(40) * 7919
    hidden = torch.arange(12).expand(40, 12) + 100
    some = some_of(draw, hidden, 4)
    assert torch.equal(some_of(draw[5:9], hidden[5:9], 4), some[5:9])
    assert all(len(set(row)) == 4 and sorted(row) == row for row in some.tolist())
    counts = torch.bincount(some.flatten() - 100, minlength=12)
    assert (counts - 40 * 4 / 12).abs().max() < 10  # any of them, as often as another


def test_activation_checkpointing_changes_no_gradient() -> None:
    plain, batch = method(), study_batch([2, 1])
    recomputing = method()
    recomputing.encoder.body.recompute = recomputing.decoder.body.recompute = True
    torch.testing.assert_close(gradients(plain, batch), gradients(recomputing, batch))


def test_greedy_reports_begin_and_end() -> None:
    model, batch = method().eval(), study_batch([2, 1])
    shown = model.pictures(batch, lambda ids: " ".join(map(str, ids)))
    (image,) = shown.images.values()
    assert image.shape == (3 * 32, 3 * 32)
    assert len(shown.texts) == 2
    assert all(text["generated"].startswith("2") for text in shown.texts)


def test_pictures_of_normalised_patches_are_grey_values_again() -> None:
    model, batch = method(norm_pix=True).eval(), study_batch([1])
    with torch.no_grad():
        model.decoder.pixels.weight.zero_()
        model.decoder.pixels.bias.zero_()  # predicts each patch's mean
    (image,) = model.pictures(batch).images.values()
    _, filled, original = image.split(32, dim=1)
    torch.testing.assert_close(filled.mean(), original.mean(), rtol=1e-2, atol=1e-2)


def test_what_all_studies_share_does_not_make_a_centred_alignment_small() -> None:
    """Vectors that differ from one large common vector by noise alone: for mse they are aligned."""
    noise = torch.randn(8, 16, generator=torch.Generator().manual_seed(0))
    z, study = noise + 100.0, torch.arange(8) // 2
    centre = RunningMean(16, momentum=0.9)
    for _ in range(3):
        centre(z)
        centre.follow(torch.tensor(True))
    centred = alignment(centre(z), study, 4, "centred").mean()
    torch.testing.assert_close(centred, alignment(noise - noise.mean(0), study, 4).mean())
    assert centred > 1000 * alignment(z, study, 4).mean()


def test_a_running_mean_follows_after_the_step_and_is_part_of_the_checkpoint() -> None:
    model, batch = method(alignment="centred"), study_batch([2, 3])
    first = model(batch, 100).parts["alignment"]
    torch.testing.assert_close(model(batch, 100).parts["alignment"], first)
    model.after_step(1, torch.tensor(True))
    second = model(batch, 100).parts["alignment"]
    assert second != first
    twin = method(alignment="centred")
    twin.load_state_dict(model.state_dict())
    torch.testing.assert_close(twin(batch, 100).parts["alignment"], second)
    twin.eval()
    twin(batch, 100)
    twin.train()
    twin.after_step(2, torch.tensor(True))  # of the two batches in training alone
    assert int(twin.centre.weight * 1000) == 190


def test_a_running_mean_is_kept_in_fp32_whatever_the_weights_are() -> None:
    centre = RunningMean(4, momentum=0.999).bfloat16()
    for _ in range(20):
        centre(torch.full((2, 4), 3.0))
        centre.follow(torch.tensor(True))
    torch.testing.assert_close(centre.weight, torch.tensor(1 - 0.999**20))
    torch.testing.assert_close(centre.mean, torch.full((4,), 3 * (1 - 0.999**20)))


# ------------------------------------------------------------------------------------ rare findings

FORMS = ["mse", "centred", "cosine", "infonce", "vicreg"]
WEIGHTS = torch.tensor([0.5, 3.0, 0.25])


@pytest.mark.parametrize("form", FORMS)
def test_weights_of_one_and_none_are_the_same_to_the_bit(form: str) -> None:
    model, batch = method(alignment=form, rare_power=0.5, rare_terms="both"), study_batch([2, 3, 1])
    ones = replace(batch, study_weight=torch.ones(3))
    assert torch.equal(gradients(model, ones), gradients(model, batch))
    assert torch.equal(model(ones, 100).total, model(batch, 100).total)


def test_without_a_power_no_label_is_read() -> None:
    settings = method().settings
    assert settings.study_weights is None
    assert settings.label_uses == ()
    told = method(rare_power=-0.5, rare_terms="both").settings
    assert told.study_weights == (-0.5, 10.0)
    assert "alignment and reconstruction (method.rare_power -0.5)" in told.label_uses[0]


@pytest.mark.parametrize("form", ["mse", "centred", "cosine", "infonce"])
@pytest.mark.parametrize("terms", ["alignment", "reconstruction", "both"])
def test_a_study_weighs_in_the_terms_that_are_named_and_in_no_other(form: str, terms: str) -> None:
    model = method(alignment=form, rare_power=1.0, rare_terms=terms, gamma=0.0)
    batch = study_batch([2, 3, 2])
    alone = {
        "alignment": method(alignment=form, gamma=0.0, beta=2.0)(batch, 100).parts["alignment"],
        "reconstruction": model(batch, 100).parts["reconstruction"],
    }
    heavy = model(replace(batch, study_weight=torch.full((3,), 3.0)), 100)
    for name, value in alone.items():
        factor = 3.0 if terms in (name, "both") else 1.0
        torch.testing.assert_close(heavy.parts[name], factor * value, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("form", ["mse", "cosine", "infonce"])
def test_the_gradient_of_a_rare_study_is_its_weight_times_that_of_before(form: str) -> None:
    """Also where the others are negatives: the anchor's term has the weight, and not the denominators."""
    batch, rng = study_batch([2, 3, 2]), torch.Generator().manual_seed(0)
    z = torch.randn(7, 8, generator=rng)

    def terms(weight: torch.Tensor | None) -> list[torch.Tensor]:
        found = []
        for study in range(3):
            here = z.clone().requires_grad_()
            alignment(here, batch.study, 3, form, key=batch.study, weight=weight)[study].backward()
            assert here.grad is not None
            found.append(here.grad)
        return found

    for weighted, plain, weight in zip(terms(WEIGHTS), terms(None), WEIGHTS, strict=True):
        torch.testing.assert_close(weighted, weight * plain)


def test_of_vicreg_the_invariance_has_the_weight_and_the_spread_has_none() -> None:
    z, study = (
        torch.randn(5, 8, generator=torch.Generator().manual_seed(0)),
        torch.tensor([0, 0, 1, 1, 2]),
    )
    plain, heavy = (alignment(z, study, 3, "vicreg", weight=w) for w in (None, WEIGHTS))
    invariance = torch.stack([(z[0] - z[1]).square().mean(), (z[2] - z[3]).square().mean()])
    torch.testing.assert_close(heavy[:2] - plain[:2], (WEIGHTS[:2] - 1) * invariance)
    assert heavy[2] == plain[2]  # a single view has no invariance


def test_a_weighted_batch_may_be_split_over_workers() -> None:
    model = method(rare_power=0.5, rare_terms="both")
    batch = replace(study_batch([2, 1, 3, 2]), study_weight=torch.tensor([0.5, 3.0, 0.25, 1.0]))
    halves = [part(batch, [0, 1]), part(batch, [2, 3])]
    assert halves[1].study_weight is not None
    together = sum(gradients(model, half) for half in halves) / 2
    torch.testing.assert_close(together, gradients(model, batch), rtol=1e-4, atol=1e-6)


def test_a_weight_of_an_alignment_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match=r"method.rare_power \(0.5\) weights the alignment, which"):
        method(rare_power=0.5, beta=0.0)
    method(rare_power=0.5, beta=0.0, rare_terms="reconstruction")
