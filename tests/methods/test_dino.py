"""DINO: pairs of crops, what the teacher is, and what keeps its outputs apart."""

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from ray_mae import load_encoder
from ray_mae.config import PretrainConfig
from ray_mae.methods.dino.crops import cube
from ray_mae.methods.dino.head import Prototypes
from ray_mae.methods.dino.losses import (
    crop_pairs,
    entropy,
    hidden_patches,
    partners,
    sinkhorn,
)
from ray_mae.methods.dino.model import Dino
from ray_mae.methods.parts.teacher import momentum_at
from ray_mae.train.checkpointing import begin_with
from tests.batches import study_batch
from tests.records import write_state
from tests.settings import build_of, small
from tests.shards import write_shards
from tests.volume_batches import volume_batch

K = 32
TAKEN = torch.tensor(True)
LAST = 100
"""Steps of the run of `build_of`."""


def dino(name: str = "dino", **values: Any) -> Dino:
    model = build_of(small(name, **values))
    assert isinstance(model, Dino)
    return model


def distributions(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).softmax(-1)


# -------------------------------------------------------------------------------------------- pairs


@pytest.mark.parametrize(("locals_", "pairs"), [(8, 18), (0, 2)])
def test_each_crop_of_the_teacher_meets_every_other_crop_of_the_student(
    locals_: int, pairs: int
) -> None:
    p, q = distributions(2, 3, K), distributions(2 + locals_, 3, K, seed=1).log()
    found = [
        -(p[i] * q[v]).sum(-1) for i, v in itertools.product(range(2), range(len(q))) if i != v
    ]
    assert len(found) == pairs
    torch.testing.assert_close(crop_pairs(p, q), torch.stack(found).mean(0))


@pytest.mark.parametrize(("ibot", "locals_"), [(0.0, 2), (1.0, 0)])
def test_with_prototypes_of_zero_the_loss_is_log_k(ibot: float, locals_: int) -> None:
    model = dino(ibot=ibot, hidden_share=1.0, locals=locals_)
    torch.nn.init.zeros_(model.head.prototypes.weight)
    model.begin()
    losses = model(study_batch([2, 1]), LAST)
    assert [*losses.parts.values()] == pytest.approx([math.log(K)] * len(losses.parts))


@pytest.mark.parametrize("name", ["dino", "dino primus"])
def test_at_a_random_start_the_loss_is_near_log_k(name: str) -> None:
    batch = study_batch([2, 1]) if name == "dino" else volume_batch(3)
    loss = dino(name, bottleneck=256)(batch, 0).parts["dino"]
    assert abs(float(loss) - math.log(K)) < 1


def test_a_view_may_agree_with_another_view_of_its_study() -> None:
    draw = torch.rand(3000, generator=torch.Generator().manual_seed(0))
    sample = torch.tensor([0, 1, 1, 1]).repeat(750).sort().values  # a study of 750, one of 2250
    other = partners(draw, sample, 2)
    assert torch.equal(sample[other], sample)
    assert not (other == torch.arange(3000)).any()
    alone = partners(torch.tensor([0.0, 0.999]), torch.tensor([0, 1]), 2)
    assert alone.tolist() == [0, 1]
    counts = partners(draw[:900], torch.arange(300).repeat_interleave(3), 300)
    places = (counts - torch.arange(900)) % 3
    assert 0.4 < float((places == 1).float().mean()) < 0.6


def test_of_studies_with_one_view_pairs_of_views_are_pairs_of_crops() -> None:
    one, two = study_batch([1, 1, 1]), study_batch([2, 2])
    losses = [
        [float(dino(pairs=p)(b, LAST).parts["dino"]) for p in ("crops", "views")]
        for b in (one, two)
    ]
    assert losses[0][0] == losses[0][1]
    assert losses[1][0] != losses[1][1]


# -------------------------------------------------------------------------------------------- crops


@pytest.mark.parametrize("name", ["dino", "dino primus"])
def test_crops_have_two_sizes_and_are_all_different(name: str) -> None:
    model = dino(name)
    batch = study_batch([2, 1]) if name == "dino" else volume_batch(3)
    wide, narrow = model.crops(batch)
    size = model.encoder.settings.input_size
    assert [c.x.shape[-1] for c in (*wide, *narrow)] == [size] * 2 + [size // 2] * 2
    assert not torch.equal(wide[0].x, wide[1].x)
    assert not torch.equal(narrow[0].x, narrow[1].x)
    again, _ = model.crops(batch)
    assert torch.equal(again[1].x, wide[1].x)


def test_crops_are_not_mirrored_in_pictures_with_letters_of_sides() -> None:
    """Volumes that are brighter on one side stay so."""
    model = dino("dino primus", rotate_share=0.0, scale_share=0.0)
    batch = volume_batch(16)
    batch.voxels[:] = torch.linspace(-1, 1, 16).view(-1, 1, 1)

    def sides(crops: Any) -> set[bool]:
        each = crops(batch)[0][0].x[:, 0].mean((2, 3))  # [N, S], along the first axis
        return {bool(row[-4:].mean() > row[:4].mean()) for row in each}

    assert sides(model.crops) == {False, True}
    assert sides(model.crops.lettered()) == {True}


def test_a_cube_is_where_it_was_asked_for() -> None:
    x = torch.arange(8.0).view(1, 1, 8, 1, 1) * 100 + torch.arange(8.0).view(1, 1, 1, 8, 1) * 10
    x = x + torch.arange(8.0).view(1, 1, 1, 1, 8)
    valid = torch.ones_like(x, dtype=torch.bool)
    valid[..., 7] = False
    corner = torch.tensor([[0.25, 0.0, 0.5]])  # from voxels 2, 0 and 4 on
    found, inside = cube(x, valid, corner, torch.tensor([0.5]), 4)
    torch.testing.assert_close(found[..., :3], x[:, :, 2:6, 0:4, 4:7])
    assert inside[..., :3].all()
    assert not inside[..., 3].any()
    assert not found[..., 3].any()


def test_the_size_of_local_crops_is_that_of_the_papers() -> None:
    settings = small("dino")["method"]
    assert settings.local_side(small("dino", image_size=224, patch_size=16)["encoder"]) == 96
    assert settings.local_side(small("dino", image_size=32, patch_size=32)["encoder"]) == 32


# ------------------------------------------------------------------------------------------ teacher


def test_the_teacher_follows_encoder_and_head_by_the_schedule() -> None:
    model = dino(momentum=0.9)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with torch.no_grad():
        for p in (*model.encoder.parameters(), *model.head.parameters()):
            p.add_(1.0)
    for step in (1, 2, 3):
        model.after_step(step, TAKEN)
    left = math.prod(momentum_at(step, LAST, 0.9) for step in (1, 2, 3))
    names = [
        *(f"teacher.network.{n}" for n, _ in model.encoder.named_parameters()),
        *(f"teacher_head.network.{n}" for n, _ in model.head.named_parameters()),
    ]
    for name in names:
        torch.testing.assert_close(
            model.get_buffer(name), before[name] + 1 - left, rtol=0, atol=1e-5
        )


def test_no_gradient_flows_through_the_teacher() -> None:
    model, batch = dino(), study_batch([2, 1])
    trained = {name.partition(".")[0] for name, _ in model.named_parameters()}
    assert trained == {"encoder", "head", "mask"}
    with torch.no_grad():
        tokens = model.teacher(model.crops.plain.plain(batch).x)
    assert not tokens.requires_grad
    model(batch, LAST).total.backward()
    assert all(buffer.grad is None for buffer in model.buffers())


def test_the_teachers_temperature_rises_from_its_first_to_its_last() -> None:
    model = dino(teacher_temperature=(0.04, 0.07), temperature_warmup=0.5)
    assert model.temperature(0) == 0.04
    assert model.temperature(25) == pytest.approx(0.055)
    assert model.temperature(50) == model.temperature(99) == 0.07
    assert dino(temperature_warmup=0.0).temperature(0) == 0.07


def test_prototypes_stay_as_they_are_in_the_first_steps() -> None:
    model, batch = dino(frozen_last=0.05), study_batch([2, 1])
    for step, moves in ((0, False), (4, False), (5, True)):
        model.zero_grad()
        model(batch, step).total.backward()
        gradient = model.head.prototypes.weight.grad
        assert gradient is not None  # which DDP waits for
        assert bool(gradient.any()) == moves
        assert all(p.grad is not None and p.grad.any() for p in model.head.layers.parameters())


def test_prototypes_know_directions_alone() -> None:
    layer, x = Prototypes(4, 3), torch.randn(5, 4)
    first = layer(x)
    assert first.abs().max() <= 1 + 1e-6
    with torch.no_grad():
        layer.weight.mul_(7.0)
    torch.testing.assert_close(layer(3 * x), first)


@pytest.mark.parametrize("keep", ["teacher", "student"])
def test_what_is_kept_is_evaluated_and_begun_with(keep: str, tmp_path: Path) -> None:
    model = dino(keep=keep)
    with torch.no_grad():
        for p in model.encoder.parameters():
            p.add_(0.1 * torch.randn(p.shape))
    module = model.teacher.network if keep == "teacher" else model.encoder
    kept = {name: w.clone() for name, w in module.state_dict().items()}
    write_shards(tmp_path / "shards", train=2, held_out=1)
    run = small("dino", keep=keep)
    config = PretrainConfig(shards=tmp_path / "shards", output=tmp_path, **run)
    weights = {name: w.contiguous().clone() for name, w in model.state_dict().items()}
    save_file(weights, tmp_path / "model.safetensors")
    write_state(tmp_path, config, step=1, workers=1)

    loaded = load_encoder(tmp_path)[0].encoder.state_dict()
    assert all(torch.equal(loaded[name], w) for name, w in kept.items())
    for name in ("simmim", "dino"):
        other: Any = build_of(small(name), seed=5)
        begin_with(other, tmp_path)
        began = other.encoder.state_dict()
        assert all(torch.equal(began[key], w) for key, w in kept.items())
        if name == "dino":  # its teacher begins as its student does
            taught = other.teacher.network.state_dict()
            assert all(torch.allclose(taught[key], w) for key, w in kept.items())


# ----------------------------------------------------------------------------------- hidden patches


def test_of_some_global_crops_some_patches_are_hidden_and_counted() -> None:
    model = dino(image_size=64, hidden_share=0.5, hidden_ratio=(0.1, 0.5))  # 64 patches
    wide, _ = model.crops(study_batch([16] * 8, canvas=8))
    hidden, order, counted = model.hiding(wide[0])
    number = hidden.sum(1)
    assert torch.equal(number, counted.sum(1))
    assert hidden.gather(1, order)[counted].all()
    some = number > 0
    assert 0.35 < float(some.float().mean()) < 0.65
    assert int(number[some].min()) >= 6
    assert int(number.max()) <= 32
    assert number[some].unique().numel() > 10


def test_blocks_are_hidden_together() -> None:
    shares = []
    for mask in ("block", "random"):
        model = dino(image_size=64, hidden_share=1.0, hidden_ratio=(0.3, 0.3), mask=mask)
        wide, _ = model.crops(study_batch([16] * 4, canvas=8))
        hidden = model.hiding(wide[0])[0].view(-1, 8, 8)
        assert torch.equal(hidden.flatten(1).sum(1), torch.full((64,), 19))
        beside = (hidden[..., 1:] & hidden[..., :-1]).sum() / hidden[..., :-1].sum()
        shares.append(float(beside))
    assert shares[0] > 0.6
    assert shares[1] < 0.4


def test_a_crop_of_which_nothing_is_hidden_has_no_loss_of_patches() -> None:
    p, q = distributions(2, 5, K), distributions(2, 5, K, seed=1).log()
    counted = torch.tensor([[True, True, False, False, False], [False] * 5])
    expected = -(p[0, :2] * q[0, :2]).sum(-1).mean()
    found = hidden_patches(p, q.masked_fill(~counted[..., None], torch.nan), counted)
    torch.testing.assert_close(found, torch.stack([expected, torch.zeros(())]))


def test_patches_without_anything_to_see_are_hidden_but_not_counted() -> None:
    model, batch = dino("dino primus", hidden_share=1.0), volume_batch(3)
    batch.valid[:] = False
    losses = model(batch, LAST)
    assert losses.parts["ibot"] == 0
    assert losses.total.isfinite()


def test_without_weight_nothing_is_hidden_and_nothing_is_left_of_ibot() -> None:
    model, batch = dino(ibot=0.0), study_batch([2, 1])
    assert "mask" not in dict(model.named_parameters())
    assert model.patch_centre is None
    losses = model(batch, LAST)
    assert losses.parts.keys() == {"dino"}
    shown = dino(hidden_share=0.5)
    assert losses.total != shown(batch, LAST).parts["dino"]  # which sees less


def test_koleo_is_added_with_its_weight() -> None:
    batch = study_batch([2, 1, 1])
    plain, with_koleo = dino()(batch, LAST), dino(koleo=0.3)(batch, LAST)
    value = with_koleo.ratios["koleo"][0] / with_koleo.ratios["koleo"][1]
    torch.testing.assert_close(with_koleo.total.detach(), plain.total.detach() + 0.3 * value)
    assert "koleo" not in plain.ratios


# ---------------------------------------------------------------------------------------- centring


def test_sinkhorn_gives_distributions_with_as_much_of_each_prototype() -> None:
    logits = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    q = sinkhorn(logits)
    torch.testing.assert_close(q.sum(1), torch.ones(64))
    torch.testing.assert_close(q.sum(0), torch.full((8,), 8.0), rtol=0.05, atol=0)


def test_sinkhorn_is_finite_where_all_want_one_prototype() -> None:
    logits = torch.zeros(6, 4)
    logits[:, 0] = 1 / 0.01 + 1  # the largest cosine at the lowest temperature
    q = sinkhorn(logits)
    torch.testing.assert_close(q, torch.full((6, 4), 0.25))


def test_rows_that_do_not_count_change_nothing_of_sinkhorns_others() -> None:
    logits = 5 * torch.randn(10, 4, generator=torch.Generator().manual_seed(0))
    counted = torch.arange(10) < 6
    torch.testing.assert_close(sinkhorn(logits, counted)[:6], sinkhorn(logits[:6]))
    assert sinkhorn(logits, torch.zeros(10, dtype=torch.bool)).isfinite().all()


def test_the_centre_follows_after_the_step_and_takes_away_what_all_have() -> None:
    model, batch = dino(centre_momentum=0.5), study_batch([2, 1, 3])
    assert model.centre is not None
    model.train()
    first = model(batch, LAST).total
    assert not model.centre.value.any()
    model.after_step(LAST, TAKEN)
    assert model.centre.value.any()
    assert model.patch_centre is not None
    assert model.patch_centre.value.any()
    assert model(batch, LAST).total != first


# ------------------------------------------------------------------------------------ collapse


def test_signs_tell_one_prototype_for_all_and_an_even_distribution_apart() -> None:
    model = dino()
    even, one = torch.full((6, K), 1 / K), torch.eye(K)[:1].expand(6, K)
    own = torch.eye(K)[:6]
    used, entropies, divergences = [], [], []
    for p in (even, one, own):
        loss = entropy(p)[:3]  # of a student that gives the same
        signs = {name: float(a / b) for name, (a, b) in model.signs(p, loss).items()}
        used.append(signs["prototypes_used"])
        entropies.append(signs["teacher_entropy"])
        divergences.append(signs["teacher_kl"])
    assert used == pytest.approx([K, 1, 6], rel=1e-4)
    assert entropies == pytest.approx([math.log(K), 0, 0], abs=1e-5)
    assert divergences == pytest.approx([0, 0, 0], abs=1e-5)


@pytest.mark.parametrize("centring", ["centre", "sinkhorn"])
def test_some_steps_lower_the_loss_and_do_not_collapse(centring: str) -> None:
    model, batch = dino(centring=centring, momentum=0.9), study_batch([1] * 16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses = []
    for step in range(1, 13):
        value = model(batch, step, True)
        optimizer.zero_grad()
        value.total.backward()
        optimizer.step()
        model.after_step(step, TAKEN)
        losses.append(float(value.parts["dino"]))
    assert losses[-1] < losses[0] - 0.05
    used, one = value.ratios["prototypes_used"]
    assert used / one > 3


# ------------------------------------------------------------------------------------------ settings


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"local_size": 12}, "method.local_size .12. must be a multiple of encoder.patch_size, 8"),
        ({"local_size": 40}, "method.local_size .40. must be at most encoder.image_size, 32"),
        ({"pairs": "views", "max_views": 1}, "wants a data.max_views of 2 or more"),
    ],
)
def test_settings_that_do_not_fit_are_refused_by_name(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        dino(**values)


def test_volumes_have_no_pairs_of_views() -> None:
    with pytest.raises(ValueError, match="pairs views is for studies"):
        dino("dino primus", pairs="views")


def test_networks_with_maps_are_refused() -> None:
    run = small("simmim resenc")
    with pytest.raises(ValueError, match="wants tokens, not maps"):
        small("dino")["method"].check(run["encoder"], run["data"])
