"""What VolumeFusion means, and that its decoder is kept."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from ray_mae.config import PretrainConfig
from ray_mae.data.schema import Manifest
from ray_mae.encoders.resenc import LAST_LAYER
from ray_mae.evaluate.segment.model import Segmenter
from ray_mae.exports.nnunet import network_weights
from ray_mae.methods.parts.inputs import Inputs
from ray_mae.methods.volumefusion.fusion import (
    class_maps,
    cross_entropy,
    dice_loss,
    partners,
    standardised,
)
from ray_mae.methods.volumefusion.model import Volumefusion
from ray_mae.methods.volumefusion.settings import VolumefusionSettings
from tests.records import write_state
from tests.settings import build_of, small
from tests.volume_batches import some, volume_batch

STILL = {"mirror": False, "rotate_share": 0.0, "scale_share": 0.0, "intensities": 0.0}


def fusion(**values: Any) -> Volumefusion:
    model = build_of(small("volumefusion", **values))
    assert isinstance(model, Volumefusion)
    return model


def inputs(model: Volumefusion, samples: int = 4) -> Inputs:
    batch: Any = volume_batch(samples)
    return model.crops(batch)


def runs(line: Tensor) -> int:
    """Length of the one run of true in a line."""
    return int(line.sum()) if line[line.nonzero()[0, 0] :][: int(line.sum())].all() else -1


def test_one_box_has_its_sides_within_bounds_and_lies_inside() -> None:
    settings = VolumefusionSettings(boxes=(1, 1), box_least=3, box_most=0.5, classes=2)
    classes = class_maps(torch.arange(300), 16, settings)[:, 0]
    assert classes.shape == (300, 16, 16, 16)
    boxes = [c for c in classes if c.any()]  # of class 1: about half
    assert 110 < len(boxes) < 190
    sides = torch.tensor(
        [[runs(c.amax(axes) > 0) for axes in ((1, 2), (0, 2), (0, 1))] for c in boxes]
    )
    volumes = torch.tensor([int(c.sum()) for c in boxes])
    assert torch.equal(sides.prod(1), volumes)  # each is a box
    assert sides.unique().tolist() == [3, 4, 5, 6, 7, 8]
    starts = torch.stack([c.nonzero().amin(0) for c in boxes])
    assert starts.min() == 0
    assert (starts + sides).max() == 16


def test_a_later_box_lies_over_an_earlier_one() -> None:
    """Boxes as large as the crop: the last one is all that is seen."""
    one = VolumefusionSettings(boxes=(1, 1), box_least=16, box_most=1.0, classes=20)
    many = replace(one, boxes=(6, 6))
    classes = class_maps(torch.arange(40), 16, many)
    assert (classes.flatten(1).amin(1) == classes.flatten(1).amax(1)).all()
    assert not torch.equal(classes, class_maps(torch.arange(40), 16, one))
    assert len(classes.unique()) > 10


def test_there_are_as_many_boxes_as_drawn_between_the_bounds() -> None:
    """Small boxes of a large crop hardly meet, so that their voxels tell their number."""
    settings = VolumefusionSettings(boxes=(2, 5), box_least=1, box_most=1 / 16, classes=20)
    classes = class_maps(torch.arange(300), 16, settings)  # boxes of one voxel
    numbers = (classes > 0).flatten(1).sum(1)  # those of class 0 are not seen
    assert numbers.max() == 5
    assert numbers.min() >= 1
    assert numbers.float().mean() == pytest.approx(3.5 * 19 / 20, abs=0.25)


def test_shares_are_those_of_the_classes_and_at_1_the_volume_is_itself() -> None:
    model = fusion(**STILL)
    given = inputs(model)
    fused = model.fused(given)
    own = standardised(given.x, torch.ones_like(given.x, dtype=torch.bool))
    other = own[partners(given.key)]
    assert fused.classes.unique().tolist() == [0, 1, 2, 3, 4]
    for kind in range(5):
        a = kind / 4
        where = fused.classes == kind
        torch.testing.assert_close(fused.x[where], (a * own + (1 - a) * other)[where])
    assert torch.equal(fused.x[fused.classes == 4], own[fused.classes == 4])
    assert torch.equal(fused.x[fused.classes == 0], other[fused.classes == 0])
    assert fused.counted.all()


def test_a_partner_is_another_sample_and_follows_from_the_keys_alone() -> None:
    for n in (2, 3, 5, 8):
        key = torch.randperm(n, generator=torch.Generator().manual_seed(n)) * 10
        partner = partners(key)
        assert (key[partner] != key).all()
        assert sorted(partner.tolist()) == list(range(n))
        turned = torch.randperm(n)
        of = dict(zip(key.tolist(), key[partner].tolist(), strict=True))
        again = key[turned][partners(key[turned])]
        assert {k: of[k] for k in key.tolist()} == dict(
            zip(key[turned].tolist(), again.tolist(), strict=True)
        )
    assert partners(torch.tensor([3, 3, 4, 4])).tolist() == [2, 3, 0, 1]  # one drawn twice


def test_alone_a_volume_is_mixed_with_itself_turned_around() -> None:
    model = fusion(**STILL)
    given = inputs(model, 1)
    fused = model.fused(given)
    own = standardised(given.x, torch.ones_like(given.x, dtype=torch.bool))
    turned = own.flip((2, 3, 4))
    assert torch.equal(fused.x[fused.classes == 0], turned[fused.classes == 0])
    assert torch.equal(fused.x[fused.classes == 4], own[fused.classes == 4])


def test_the_order_of_the_batch_changes_nothing() -> None:
    model, batch = fusion(), volume_batch(4)
    turned = some(batch, [2, 0, 3, 1])
    each, again = model(batch, 0).each, model(turned, 0).each
    torch.testing.assert_close(again, each[[2, 0, 3, 1]])


def test_brightness_tells_no_two_volumes_apart() -> None:
    x = inputs(fusion(**STILL)).x
    valid = torch.rand_like(x) < 0.7
    brighter = x * torch.tensor([1.0, 3.0, 0.2, 1.0]).view(4, 1, 1, 1, 1) + 5
    torch.testing.assert_close(standardised(brighter, valid), standardised(x, valid))
    assert not standardised(brighter, valid)[~valid].any()
    flat = torch.ones_like(x)
    assert not standardised(flat, valid).any()


def test_what_is_not_valid_in_either_counts_nowhere() -> None:
    model = fusion(**STILL)
    given = inputs(model, 2)
    valid = torch.ones_like(given.x, dtype=torch.bool)
    valid[0, ..., :3] = False
    valid[1, ..., 14:] = False
    counted = model.fused(replace(given, valid=valid)).counted
    assert not counted[..., :3].any()
    assert not counted[..., 14:].any()
    assert counted[..., 3:14].all()
    logits = torch.randn(2, 5, 16, 16, 16)
    classes = model.fused(given).classes
    other = torch.where(counted, logits, torch.randn_like(logits))
    for loss in (dice_loss, cross_entropy):
        torch.testing.assert_close(loss(other, classes, counted), loss(logits, classes, counted))


def test_perfect_logits_have_no_loss_and_equal_ones_the_logarithm_of_the_classes() -> None:
    classes = class_maps(torch.arange(3), 16, VolumefusionSettings())
    counted = torch.ones_like(classes, dtype=torch.bool)
    right = 50.0 * torch.zeros(3, 5, 16, 16, 16).scatter_(1, classes, 1.0)
    torch.testing.assert_close(dice_loss(right, classes, counted), torch.zeros(3))
    torch.testing.assert_close(cross_entropy(right, classes, counted), torch.zeros(3))
    equal = cross_entropy(torch.zeros_like(right), classes, counted)
    torch.testing.assert_close(equal, torch.full((3,), math.log(5)))


def test_soft_dice_is_that_computed_by_hand() -> None:
    logits = torch.tensor([2.0, 0.0, 1.0, -1.0]).view(1, 1, 2, 2, 1)
    logits = torch.cat([logits, -logits], dim=1)  # two classes
    classes = torch.tensor([0, 1, 1, 1]).view(1, 1, 2, 2, 1)
    p = logits.softmax(1)[0].flatten(1)  # [2, 4]
    q = torch.tensor([[1.0, 0, 0, 0], [0, 1, 1, 1]])
    dice = (2 * (p * q).sum(1) + 1e-5) / (p.sum(1) + q.sum(1) + 1e-5)
    found = dice_loss(logits, classes, torch.ones_like(classes, dtype=torch.bool))
    torch.testing.assert_close(found, 1 - dice.mean()[None])


def test_without_dice_the_loss_is_the_cross_entropy() -> None:
    losses = fusion(lambda_dice=0.0)(volume_batch(4), 0)
    assert torch.equal(losses.total.detach(), losses.parts["cross_entropy"])


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="box_least"):
        fusion(box_most=0.3)
    with pytest.raises(ValueError, match=r"encoder\.film must be false"):
        fusion(film=True)
    with pytest.raises(ValueError, match="wants maps, not tokens"):
        build_of(small("volumefusion primus"))


def test_nnunet_and_a_segmentation_take_the_decoder_but_for_its_last_layer(tmp_path: Path) -> None:
    run = small("volumefusion")
    model = build_of(run, seed=3)
    weights = {key: w.contiguous().clone() for key, w in model.state_dict().items()}
    save_file(weights, tmp_path / "model.safetensors")
    (tmp_path / "shards").mkdir()
    Manifest("volume", "generated", 1, []).write(tmp_path / "shards")
    config = PretrainConfig(shards=tmp_path / "shards", output=tmp_path, **run)
    write_state(tmp_path, config, step=1, workers=1)
    inner = [k for k in weights if k.startswith("decoder.") and LAST_LAYER not in k]
    assert inner
    theirs = network_weights(tmp_path, run["encoder"])
    segmenter = Segmenter(run["encoder"], [0, 7])
    segmenter.initialise_from(tmp_path, decoder=True)
    ours = segmenter.state_dict()
    for name in inner:
        assert torch.equal(theirs[name], weights[name])
        assert torch.equal(ours[name], weights[name])
    last = "decoder.seg_layers.2.weight"
    assert [len(w[last]) for w in (weights, theirs, ours)] == [5, 1, 2]
