"""Supervised pretraining: what the loss is of, and what it leaves out."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from ray_mae.batch import mean_per_study
from ray_mae.config import PlanConfig
from ray_mae.encoders.resenc_settings import ResEncSettings
from ray_mae.methods.supervised.model import Supervised, loss_of
from ray_mae.methods.supervised.settings import SupervisedSettings
from ray_mae.transforms.images import whole
from tests.batches import part, study_batch
from tests.settings import build_of, small
from tests.volume_batches import volume_batch

STILL: dict[str, Any] = {"crop_scale": (1.0, 1.0), "jitter_share": 0.0}


def supervised(name: str = "supervised", **values: Any) -> Supervised:
    model = build_of(small(name, **values))
    assert isinstance(model, Supervised)
    return model


def test_the_loss_is_that_of_the_mean_of_a_studys_logits() -> None:
    model, batch = supervised(**STILL), study_batch([2, 1], canvas=32)
    batch = replace(batch, target_weight=torch.ones_like(batch.target))
    tokens = model.encoder(whole(batch, 32), view=batch.view)
    logits = mean_per_study(model.classifier(tokens[:, 1:].mean(1)), batch.study, 2)
    expected = F.binary_cross_entropy_with_logits(logits, batch.target)
    torch.testing.assert_close(model(batch, 0).total, expected)


def test_a_mean_over_the_known_labels_of_each_sample() -> None:
    logits = torch.tensor([[0.0, 5.0, -3.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    target = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 0.0]])
    weight = torch.tensor([[4.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    log2 = torch.tensor(2.0).log()
    expected = torch.stack([4 * log2, log2, 0 * log2])
    torch.testing.assert_close(loss_of(logits, target, weight), expected)


@pytest.mark.parametrize("name", ["supervised", "supervised resenc"])
def test_what_is_not_known_has_no_gradient(name: str) -> None:
    batch: Any = study_batch([2, 1]) if name == "supervised" else volume_batch(2)
    model = supervised(name)
    unknown = replace(batch, target_weight=torch.zeros_like(batch.target_weight))
    model(unknown, 0).total.backward()
    assert not any(p.grad.any() for p in model.parameters() if p.grad is not None)
    model(replace(batch, target=None, target_weight=None), 0).total.backward()
    assert not any(p.grad.any() for p in model.parameters() if p.grad is not None)
    weight = torch.zeros_like(batch.target_weight)
    weight[:, 1] = 1
    model(replace(batch, target_weight=weight), 0).total.backward()
    assert model.classifier.weight.grad[1].any()
    assert not model.classifier.weight.grad[[0, 2]].any()


def test_a_label_that_can_be_seen_is_learnt() -> None:
    model, batch = supervised(**STILL), study_batch([1] * 4, canvas=32)
    bright = torch.arange(4) % 2
    target = bright.float()[:, None].expand(-1, 3)
    images = (40 + 120 * bright).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 32, 32)
    batch = replace(batch, images=images, target=target, target_weight=torch.ones(4, 3))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(15):
        loss = model(batch, 0).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1  # log 2 at first


def test_the_picture_says_what_is_predicted_and_what_is_true() -> None:
    model, batch = supervised().eval(), study_batch([2, 1], canvas=32)
    with torch.no_grad():
        model.classifier.bias.copy_(torch.tensor([-20.0, 0.0, 20.0]))
    batch = replace(
        batch,
        target=torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]),
        target_weight=torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]]),
    )
    (image,) = model.pictures(batch).images.values()
    assert image.shape == (64, 64)
    torch.testing.assert_close(
        image[32:, :32], model.pictures(part(batch, [1])).images.popitem()[1][:, :32]
    )
    cells = image[:, 32:]
    assert cells[0, 0] < 0.01
    assert cells[0, -1] > 0.99
    assert cells[31, [0, 15, 31]].tolist() == [1, 0, 0.5]
    assert not cells[63].any()


def test_settings_that_do_not_fit_are_refused_by_name() -> None:
    volumes = ResEncSettings()
    for method, encoder, message in (
        (SupervisedSettings(), volumes, r"method\.labels must name"),
        (SupervisedSettings(labels=["a"], pool="cls"), volumes, r"method\.pool cls"),
        (SupervisedSettings(labels=["a"]), ResEncSettings(film=True), r"encoder\.film"),
        (SupervisedSettings(labels=["a", "a"]), volumes, "names a label twice"),
    ):
        with pytest.raises(ValueError, match=message):
            PlanConfig(samples=9, method=method, encoder=encoder).check_sizes()
    with pytest.raises(ValueError, match=r"method\.labels must hold at least one"):
        PlanConfig(samples=9, method=SupervisedSettings(labels=[]))


def test_it_says_that_labels_are_read() -> None:
    config = PlanConfig(samples=9, method="supervised")
    assert "Edema" in config.label_uses[0]
