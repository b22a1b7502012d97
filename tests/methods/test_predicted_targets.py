"""What is predicted beside pixels: the histograms of MaskFeat, and tokens of a teacher."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ray_mae.checkpoint.encoders import read_encoder
from ray_mae.config import PretrainConfig
from ray_mae.config.registry import load
from ray_mae.encoders.registry import build_encoder
from ray_mae.encoders.timm_settings import TimmSettings
from ray_mae.exports.origin import origin_of
from ray_mae.methods.base import Context, Method
from ray_mae.methods.parts.hog import BINS, hog
from ray_mae.methods.parts.inputs import Inputs
from ray_mae.methods.parts.targets import Frozen, Hog, forward_flops
from ray_mae.train.optim import parameter_groups
from tests import batches
from tests.batches import study_batch
from tests.records import write_state
from tests.settings import build_of, sections, small
from tests.shards import write_shards
from tests.waits import Waits, on_device

TAKEN = torch.ones((), dtype=torch.bool)
METHODS = ["mae", "simmim"]


def images(*sides: int, seed: int = 0) -> Tensor:
    return torch.randn(1, 1, *sides, generator=torch.Generator().manual_seed(seed))


def inputs_of(x: Tensor, valid: Tensor | None = None) -> Inputs:
    index = torch.arange(len(x))
    return Inputs(x, index, index, valid=valid)


def model_of(name: str, frozen: Any = None, **values: Any) -> Method:
    run = small(name, **values)
    context = Context(seed=0, steps=100, warmup_steps=10, data=run["data"], frozen=frozen)
    run["method"].check(run["encoder"], run["data"])
    model: Method = load(run["method"].model_of(run["encoder"])).build(
        run["method"], run["encoder"], context
    )
    return model


# ------------------------------------------------------------------------------------ histograms


def test_a_histogram_is_of_eight_pixels_and_nine_angles_and_of_length_1() -> None:
    found = hog(images(224, 224), 8)
    assert found.shape == (1, 1, 9, 28, 28)
    assert found.min() >= 0
    assert found.max() <= 1
    torch.testing.assert_close(found.norm(dim=2), torch.ones(1, 1, 28, 28))


def test_a_flat_image_gives_zeros_that_do_not_count() -> None:
    found = hog(torch.full((1, 1, 16, 16), 3.0), 8)
    assert not found.any()
    values, counted = Hog(16, 8, 2)(inputs_of(torch.full((1, 1, 16, 16), 3.0)))
    assert not values.any()
    assert not counted.any()


def test_scale_and_shift_of_grey_values_do_not_matter() -> None:
    x = images(32, 32)
    torch.testing.assert_close(hog(2 * x + 3, 8), hog(x, 8), atol=1e-4, rtol=1e-4)


def test_an_edge_fills_one_bin_and_turned_by_90_degrees_another_four_or_five_further() -> None:
    edge = torch.zeros(1, 1, 16, 16)
    edge[..., 4:] = 1.0  # vertical, within a cell
    upright, lying = (hog(x, 8)[0, 0, :, 0, 0] for x in (edge, edge.transpose(2, 3)))
    for one in (upright, lying):
        assert sorted(one.tolist()) == [0] * (BINS - 1) + [1]
    apart = abs(int(upright.argmax()) - int(lying.argmax()))
    assert apart in (4, 5)


def test_an_angle_and_its_opposite_are_one_bin() -> None:
    x = images(16, 16)
    torch.testing.assert_close(hog(-x, 8), hog(x, 8), atol=0.05, rtol=0)


def test_a_patch_has_its_cells_by_row_column_and_bin() -> None:
    """36 numbers of a patch of 16 pixels: 2 × 2 cells × 9 bins."""
    x = images(32, 48)
    target, cells = Hog(16, 8, 2), hog(x, 8)
    assert target.width == 36
    values, counted = target(inputs_of(x))
    assert values.shape == counted.shape == (1, 6, 36)
    assert counted.all()
    patch = values[0, 4].view(2, 2, 9)  # the second row, the second column
    for row in (0, 1):
        for column in (0, 1):
            assert torch.equal(patch[row, column], cells[0, 0, :, 2 + row, 2 + column])


def test_a_volume_has_three_planes_and_each_sees_its_own_edges() -> None:
    target = Hog(16, 8, 3)
    assert target.width == 216
    x = images(32, 16, 16)
    values, _ = target(inputs_of(x))
    assert values.shape == (1, 2, 216)
    edge = torch.zeros(1, 1, 16, 16, 16)
    edge[:, :, 4:] = 1.0  # across the first axis: nothing in the plane of the other two
    planes = hog(edge, 8)[0, :, :, 0, 0, 0]  # [(0, 1), (0, 2), (1, 2)], 9 bins each
    assert planes[0].max() == planes[1].max() == 1
    assert not planes[2].any()


def test_a_slice_of_a_volume_that_does_not_change_along_an_axis_is_an_image() -> None:
    x = images(16, 16)
    deep = x[..., None].expand(-1, -1, -1, -1, 8)
    torch.testing.assert_close(hog(deep, 8)[:, 0, ..., 0], hog(x, 8)[:, 0])


def test_cells_that_are_not_wholly_valid_do_not_count() -> None:
    x = images(16, 16, 16)
    valid = torch.ones_like(x, dtype=torch.bool)
    valid[0, 0, 3, 3, 3] = False
    counted = Hog(16, 8, 3)(inputs_of(x, valid))[1].view(8, 27)
    assert not counted[0].any()
    assert counted[1:].all()


# ------------------------------------------------------------------------------------- in methods


@pytest.mark.parametrize("name", METHODS)
def test_pixels_alone_is_the_method_without_and_beside_another_target_they_are_added(
    name: str,
) -> None:
    batch = study_batch([2, 1, 3, 2])
    plain, alone = model_of(name), model_of(name, target="hog")
    both = model_of(name, target="hog", pixel_weight=0.5)
    pixels, hog_, sum_ = (m(batch, 5) for m in (plain, alone, both))
    assert "pixels" not in pixels.ratios.keys() | hog_.ratios.keys()
    assert sum_.ratios["pixels"][1] == 8
    torch.testing.assert_close(sum_.parts["reconstruction"], hog_.parts["reconstruction"])
    assert sum_.total > hog_.total
    torch.testing.assert_close(sum_.total, hog_.total + 0.5 * pixels.total)
    assert not any("pixels" in key for key in alone.state_dict())
    assert hog_.total != pixels.total


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("target", ["hog", "teacher"])
def test_a_target_trains_every_parameter_and_nobody_waits(name: str, target: str) -> None:
    model = model_of(name, target=target)
    batch = on_device(study_batch([2, 1, 3, 2]))
    with Waits(model, batch) as waits:
        model(batch, 5).total.backward()
    assert waits.found == []
    without = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []
    assert model.pictures(batch).images
    assert target in model.settings.described  # type: ignore[union-attr, operator]


@pytest.mark.parametrize("name", METHODS)
def test_a_teacher_follows_the_encoder_and_is_in_the_checkpoint(name: str) -> None:
    model = model_of(name, target="teacher", teacher_momentum=0.5)
    own, key = model.encoder.body.blocks[0].mlp.fc1.weight, "body.blocks.0.mlp.fc1.weight"  # type: ignore[union-attr, operator, index]
    (name_,) = (
        k for k in model.state_dict() if "teacher" not in k and k.endswith("network.encoder." + key)
    )
    before = model.state_dict()[name_].clone()
    assert torch.equal(before, own)
    with torch.no_grad():
        own += 1.0
    model.after_step(1, ~TAKEN)
    assert torch.equal(model.state_dict()[name_], before)
    model.after_step(1, TAKEN)
    moved = model.state_dict()[name_] - before
    assert 0.45 < moved.mean() < 0.55
    model.begin()
    assert torch.equal(model.state_dict()[name_], own)
    assert model.follows
    assert not model_of(name, target="hog").follows


@pytest.mark.parametrize("name", METHODS)
def test_a_run_with_a_teacher_goes_on_as_if_nothing_had_happened(name: str) -> None:
    batch = study_batch([2, 1, 3])

    def advance(model: Method, step: int) -> Tensor:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        optimizer.zero_grad()
        loss = model(batch, step).total
        loss.backward()
        optimizer.step()
        model.after_step(step + 1, TAKEN)
        return loss.detach()

    model = model_of(name, target="teacher")
    advance(model, 0)
    again = model_of(name, target="teacher")
    again.load_state_dict({key: tensor.clone() for key, tensor in model.state_dict().items()})
    for step in (1, 2):
        assert torch.equal(advance(again, step), advance(model, step))


def test_what_a_teacher_gives_is_normalised() -> None:
    model: Any = model_of("mae", target="teacher")
    inputs = model.reader(study_batch([2, 1]))
    values, counted = model.prediction.target(inputs)
    assert not values.requires_grad
    assert counted.all()
    torch.testing.assert_close(values.mean(-1), torch.zeros(3, 16), atol=1e-5, rtol=0)
    torch.testing.assert_close(values.var(-1, unbiased=False), torch.ones(3, 16), atol=1e-2, rtol=0)


def frozen_encoder(**sizes: Any) -> nn.Module:
    torch.manual_seed(5)
    return build_encoder(sections("mvmae", **(_TINY | sizes))["encoder"])


_TINY = {"preset": "tiny", "image_size": 32, "patch_size": 8, "width": 16, "depth": 1, "heads": 2}


def test_a_frozen_encoder_is_no_part_of_what_is_trained_saved_or_moved_on() -> None:
    teacher: Any = frozen_encoder()
    model = model_of("mae", frozen=teacher, target="features", features="somewhere")
    plain = model_of("mae", target="hog")
    extra = set(model.state_dict()) - set(plain.state_dict())
    assert extra == {"prediction.head.2.weight", "prediction.head.2.bias"} | {
        k for k in extra if k.startswith("prediction.head.0")
    }
    trained = {id(p) for g in parameter_groups(model, 0.1) for p in g["params"]}
    assert not trained & {id(p) for p in teacher.parameters()}
    before = [p.clone() for p in teacher.parameters()]
    batch = study_batch([2, 1, 3])
    first = model(batch, 5)
    first.total.backward()
    model.after_step(1, TAKEN)
    assert all(torch.equal(a, b) for a, b in zip(before, teacher.parameters(), strict=True))
    assert not model.follows
    rounded = model.bfloat16()(batch, 5).total  # it goes along, and stays in fp32
    torch.testing.assert_close(rounded, first.total, rtol=0.05, atol=0)
    assert model.flops(1, 0) - plain.flops(1, 0) == pytest.approx(forward_flops(teacher, 16))


@pytest.mark.parametrize(
    ("sizes", "advice"),
    [({"image_size": 48}, r"6 × 6 patches.* 4 × 4.*image_size 48"), ({"patch_size": 16}, "2 × 2")],
)
def test_grids_that_do_not_agree_are_refused_with_sizes(sizes: dict[str, int], advice: str) -> None:
    encoder: Any = model_of("mae").encoder
    frozen: Any = frozen_encoder(**sizes)
    with pytest.raises(ValueError, match=advice):
        Frozen(frozen, encoder)


def test_an_encoder_of_another_size_with_as_many_patches_sees_the_input_resized() -> None:
    encoder: Any = model_of("mae").encoder
    frozen: Any = frozen_encoder(image_size=56, patch_size=14)
    values, _ = Frozen(frozen, encoder)(inputs_of(images(32, 32)))
    assert values.shape == (1, 16, 16)


@pytest.mark.slow  # importing timm
def test_a_network_of_timm_teaches_too_and_nobody_waits_for_its_grey_values() -> None:
    sizes = {"img_size": 64, "in_chans": 1, "embed_dim": 32, "depth": 1, "num_heads": 2}
    settings = TimmSettings(
        architecture="vit_tiny_patch16_224", arguments=json.dumps(sizes), image_size=64
    )
    frozen: Any = build_encoder(settings)
    assert not {"mean", "std"} & frozen.state_dict().keys()
    model: Any = model_of("mae", frozen=frozen, target="features", features=Path("rad-dino"))
    batch = on_device(study_batch([2, 1]))
    frozen_: Any = model.prediction.target.network
    with Waits(model, frozen_, batch) as waits:
        model(batch, 0).total.backward()
    assert waits.found == []
    assert model.flops(1, 0) > model_of("mae", target="hog").flops(1, 0)
    assert "features of rad-dino" in model.settings.described


def test_an_encoder_of_volumes_is_refused_for_images() -> None:
    encoder: Any = model_of("mae").encoder
    volumes: Any = build_encoder(small("simmim resenc")["encoder"])
    with pytest.raises(ValueError, match=r"3D input.*2D"):
        Frozen(volumes, encoder)


def test_a_card_names_a_frozen_encoder_and_not_where_it_lay(tmp_path: Path) -> None:
    run = small("mae", target="features", features=tmp_path / "secret" / "rad-dino")
    write_shards(tmp_path / "shards", train=2, held_out=1)
    config = PretrainConfig(shards=tmp_path / "shards", output=tmp_path, **run)
    save_file({"encoder.x": torch.zeros(1)}, tmp_path / "model.safetensors")
    write_state(tmp_path, config, step=1, workers=1)
    training = origin_of(tmp_path).training
    assert training["taught by"].startswith("rad-dino: ")
    assert "secret" not in str(training)


def test_whole_paths_are_made_for_the_workers(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    settings = small("mae", target="features", features=Path("teacher"))["method"]
    assert settings.resolved().features == tmp_path / "teacher"
    assert small("mae")["method"].resolved() == small("mae")["method"]


def test_a_run_is_read_as_a_frozen_encoder(tmp_path: Path) -> None:
    run, model = small("mae"), build_of(small("mae"))
    write_shards(tmp_path / "shards", train=2, held_out=1)
    config = PretrainConfig(shards=tmp_path / "shards", output=tmp_path, **run)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    write_state(tmp_path, config, step=1, workers=1)
    encoder, facts = read_encoder(tmp_path)
    assert facts.settings == run["encoder"]
    assert not encoder.training
    for key, weight in model.encoder.state_dict().items():
        assert torch.equal(encoder.state_dict()[key], weight)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("mae", {"target": "features"}, "method.features"),
        ("mae", {"target": "hog", "hog_cell": 3}, "method.hog_cell"),
        ("simmim resenc", {"target": "hog"}, "take pixels"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(name: str, values: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_of(small(name, **values), vocabulary=batches.VOCABULARY)
