"""R-MAE: maps of regions from visible patches, of superpixels or of stored label maps."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import pytest
import torch
from torch import Tensor, nn

from ray_mae.batch import VolumeBatch
from ray_mae.config import PlanConfig
from ray_mae.config.sections import EncoderSettings, VolumeDataConfig
from ray_mae.encoders.base import TokenEncoder
from ray_mae.encoders.patches import gather, patchify, unpatchify
from ray_mae.methods.base import Context
from ray_mae.methods.parts.inputs import Inputs, reader_of
from ray_mae.methods.parts.pixel_decoder import PixelDecoder
from ray_mae.methods.parts.superpixels import superpixels
from ray_mae.methods.rmae.model import Rmae
from ray_mae.methods.rmae.regions import STORED, RegionBranch, drawn
from ray_mae.methods.rmae.settings import RmaeSettings
from tests.batches import study_batch
from tests.settings import build_of, small
from tests.volume_batches import volume_batch


def rmae(**values: Any) -> Rmae:
    model = build_of(small("rmae", **values))
    assert isinstance(model, Rmae)
    return model


@dataclass(frozen=True, kw_only=True)
class CubeSettings(EncoderSettings):
    """Of an encoder of volumes with tokens."""

    name: Literal["cubes"] = "cubes"
    crop_size: int = 16

    dimensions: ClassVar[int] = 3
    form: ClassVar[str] = "tokens"

    @property
    def input_size(self) -> int:
        return self.crop_size


class Cubes(TokenEncoder):
    """Each patch by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.settings, self.prefix = CubeSettings(), 0
        self.patch = nn.Linear(4**3, 16)

    width, stride, patches, grid = 16, 4, 64, (4, 4, 4)  # type: ignore[assignment]

    def forward(
        self, x: Tensor, visible: Any = None, view: Any = None, masked: Any = None
    ) -> Tensor:
        return self.patch(gather(patchify(x, 4), visible))


def cubes(**values: Any) -> Rmae:
    """Of volumes, without augmentation but mirroring."""
    settings = RmaeSettings(region_width=16, region_depth=1, mask_ratio=0.5, **values)
    torch.manual_seed(0)
    encoder = Cubes()
    data = VolumeDataConfig(rotate_share=0.0, scale_share=0.0)
    context = Context(seed=0, steps=10, warmup_steps=1, data=data)
    shape = replace(settings.shape, heads=2)
    model = Rmae(
        settings, encoder, PixelDecoder(shape, encoder), reader_of(context, encoder.settings)
    )
    model.regions = RegionBranch(settings, encoder)
    return model


def test_without_a_weight_it_is_mae_to_the_bit() -> None:
    model, batch = rmae(region_weight=0.0), study_batch([2, 1])
    mae = build_of(small("mae"))
    assert model.state_dict().keys() == mae.state_dict().keys()
    assert all(torch.equal(w, mae.state_dict()[n]) for n, w in model.state_dict().items())
    for each in (model, mae):
        each(batch, 0).total.backward()
    assert torch.equal(model(batch, 0).total, mae(batch, 0).total)
    grads = {n: p.grad for n, p in mae.named_parameters()}
    assert all(torch.equal(p.grad, grads[n]) for n, p in model.named_parameters())
    assert model.flops(1, 1) == mae.flops(1, 1)


def test_its_encoder_and_decoder_begin_as_those_of_mae_and_its_pixels_are_the_same() -> None:
    model, mae, batch = rmae(), build_of(small("mae")), study_batch([2, 1])
    own = model.state_dict()
    assert all(torch.equal(w, own[n]) for n, w in mae.state_dict().items())
    losses = model(batch, 0)
    assert torch.equal(losses.parts["reconstruction"], mae(batch, 0).parts["reconstruction"])
    torch.testing.assert_close(losses.total.detach(), sum(losses.parts.values()))
    twice = rmae(region_weight=2.0)(batch, 0)
    torch.testing.assert_close(twice.total - losses.total, losses.parts["regions"])


def of_branch(model: Rmae) -> tuple[RegionBranch, dict[str, Tensor]]:
    """The branch and what it takes: two inputs, three regions, half of the patches seen."""
    g = torch.Generator().manual_seed(0)
    assert model.regions is not None
    order = torch.rand(2, 16, generator=g).argsort(1)
    return model.regions, {
        "seen": torch.rand(2, 3, 8, 64, generator=g) < 0.3,
        "tokens": torch.randn(2, 9, 32, generator=g),
        "visible": order[:, :8],
        "hidden": order[:, 8:],
    }


def test_permuting_regions_permutes_logits() -> None:
    branch, given = of_branch(rmae())
    order = torch.tensor([2, 0, 1])
    logits = branch(**given)
    assert logits.shape == (2, 3, 8, 64)
    permuted = branch(**given | {"seen": given["seen"][:, order]})
    torch.testing.assert_close(permuted, logits[:, order])
    assert (logits[:, 0] - logits[:, 1]).abs().max() > 1e-3


def test_the_branch_sees_nothing_of_hidden_patches() -> None:
    """Neither of the map nor of the image: what is hidden may be anything."""
    model, batch = rmae(), study_batch([2, 1], canvas=32)
    inputs = model.reader.plain(batch)
    found = model.decode(inputs)
    logits, maps = model._maps(found, inputs)
    assert model.regions is not None
    every = model.regions.targets(inputs)
    where = found.hidden[:, None, :, None].expand(-1, 3, -1, every.shape[-1])
    flipped = every.scatter(2, where, ~maps)
    model.regions.targets = lambda _: flipped  # type: ignore[method-assign]
    other, _ = model._maps(found, inputs)
    assert torch.equal(other, logits)


def test_a_map_of_ones_is_learnt() -> None:
    branch, given = of_branch(rmae())
    given["seen"][:] = True
    right = torch.ones(2, 3, 8, 64, dtype=torch.bool)
    optimizer = torch.optim.Adam(branch.parameters(), lr=1e-2)
    for _ in range(60):
        loss = branch.loss(branch(**given), right, None).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (branch(**given) > 0).all()


def inputs_of(x: Tensor, **more: Any) -> Inputs:
    keys = torch.arange(len(x))
    return Inputs(x, draw=keys + 7, key=keys, **more)


def squares() -> Tensor:
    """[2, 1, 32, 32]: a bright square on dark ground, at another place in each."""
    x = torch.full((2, 1, 32, 32), -1.0)
    x[0, :, 8:16, 8:16] = x[1, :, 16:32, 0:16] = 2.0
    return x


def test_superpixels_follow_edges_and_do_not_depend_on_who_else_is_there() -> None:
    x = squares()
    labels = superpixels(x, 4, 0.1)
    assert labels.shape == x.shape
    assert labels.min() >= 0
    assert labels.max() < 16
    for one, map_ in zip(labels, x, strict=True):
        for label in one.unique():
            assert map_[one == label].unique().numel() == 1
    assert torch.equal(superpixels(x[1:], 4, 0.1), labels[1:])
    round_ = superpixels(torch.zeros(1, 1, 32, 32), 4, 1.0)
    cells = torch.arange(16).view(1, 1, 4, 4).repeat_interleave(8, 2).repeat_interleave(8, 3)
    assert torch.equal(round_, cells)


def test_superpixels_of_volumes() -> None:
    x = torch.full((1, 1, 12, 12, 12), -1.0)
    x[..., 3:9, 2:8, 4:9] = 2.0
    labels = superpixels(x, 3, 0.1)
    assert labels.max() < 27
    assert all(x[labels == label].unique().numel() == 1 for label in labels.unique())


def test_regions_move_with_the_image() -> None:
    """They are of what the encoder sees: mirrored, those of the mirrored image."""
    x = squares() + 0.01 * torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    labels, mirrored = superpixels(x, 4, 0.4), superpixels(x.flip(-1), 4, 0.4)
    column = mirrored.flip(-1) % 4
    assert torch.equal(labels, mirrored.flip(-1) - column + (3 - column))


def test_regions_are_drawn_once_each_unless_there_are_fewer() -> None:
    labels = STORED + superpixels(torch.zeros(40, 1, 32, 32), 4, 1.0)
    draw = torch.arange(40)
    chosen = drawn(labels, draw, 8, 4, 8)
    assert all(len({*row}) == 8 for row in chosen.tolist())
    assert len({*chosen.flatten().tolist()}) == 16
    assert torch.equal(drawn(labels[3:], draw[3:], 8, 4, 8), chosen[3:])
    few = torch.zeros(1, 1, 32, 32, dtype=torch.long)
    few[..., :8, :8], few[..., 8:16, :8], few[..., 20:22, :2] = 5, 255, 9  # less than a patch
    assert sorted(drawn(few, draw[:1], 4, 4, 8)[0].tolist()) == [5, 5, 255, 255]


def test_stored_maps_are_regions_and_those_without_have_superpixels() -> None:
    model, batch = cubes(regions=2), volume_batch(2)
    stored = torch.zeros(2, 1, 16, 16, 16, dtype=torch.uint8)
    stored[0, :, :8], stored[0, :, 8:, :8] = 200, 255
    batch = replace(batch, regions=stored)
    inputs = model.reader(batch)
    assert model.regions is not None
    assert inputs.regions is not None
    labels = model.regions.labels(inputs)
    assert labels.shape == (2, 1, 8, 8, 8)
    assert labels[0].unique().tolist() == [0, 200, 255]
    assert labels[1].min() >= STORED
    maps = model.regions.targets(inputs)  # [2, 2, 64, 8]
    whole = unpatchify(maps[0], 2, (4, 4, 4))
    assert sorted(m.sum().item() for m in whole) == [4 * 4 * 8, 4 * 8 * 8]
    # as the voxels are: mirrored by the same draw
    marked = replace(batch, voxels=stored.float(), valid=torch.ones_like(batch.valid))
    assert torch.equal(model.reader(marked).x, inputs.regions.float())


def test_volumes_are_trained_and_shown() -> None:
    model, batch = cubes(), volume_batch(3)
    batch.valid[:, :, :6] = False
    losses = model(batch, 0)
    losses.total.backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
    for name, image in model.pictures(batch).images.items():
        assert 0 <= image.min() < image.max() <= 1, name


def test_maps_do_not_count_where_nothing_is_valid() -> None:
    model, batch = cubes(), volume_batch(1)
    batch.valid[:, :, :8] = False
    inputs = model.reader.plain(batch)
    assert model.regions is not None
    hidden = torch.arange(64)[None]
    valid = model.regions.valid(inputs, hidden)
    assert valid is not None
    assert not valid[0, :32].any()
    assert valid[0, 32:].all()
    logits = torch.zeros(1, 4, 64, 8)
    maps = torch.zeros_like(logits, dtype=torch.bool)
    spoilt = logits.clone()
    spoilt[:, :, :32] = 50.0
    torch.testing.assert_close(
        model.regions.loss(spoilt, maps, valid), model.regions.loss(logits, maps, None)
    )


def test_settings_that_do_not_fit_are_refused_by_name() -> None:
    for values, message in (
        (
            {"region_cells": 6},
            r"image_size \(224\) must be a multiple of 12 \(2 × method\.region_cells\)",
        ),
        ({"region_width": 20}, r"method\.region_width \(20\) must be a multiple of 8"),
        ({"region_source": "stored"}, r"method\.region_source stored is for volumes"),
    ):
        with pytest.raises(ValueError, match=message):
            PlanConfig(samples=9, method=RmaeSettings(**values)).check_sizes()  # type: ignore[arg-type]


def test_maps_that_people_drew_are_labels_and_said_to_be_read() -> None:
    assert RmaeSettings(region_source="stored").label_uses
    assert not RmaeSettings().label_uses
    assert not RmaeSettings(region_source="stored", region_weight=0.0).label_uses


def test_a_batch_of_volumes_goes_to_a_device_with_or_without_label_maps() -> None:
    batch = volume_batch(2)
    assert batch.to("cpu").regions is None
    moved = replace(batch, regions=torch.ones_like(batch.valid, dtype=torch.uint8)).to("cpu")
    assert isinstance(moved, VolumeBatch)
    assert moved.regions is not None
    assert torch.equal(moved.known_draw, batch.draw)
