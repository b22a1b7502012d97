"""Primus of others: the same tokens of turned volumes, in either order, and a fate for every tensor."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from ray_mae import load_encoder
from ray_mae.checkpoint.begin import begin
from ray_mae.config import PlanConfig
from ray_mae.encoders.patches import patchify
from ray_mae.encoders.primus import Primus, UpProjection, turned
from ray_mae.encoders.primus_settings import PrimusSettings
from ray_mae.evaluate.segment.model import Segmenter, load_segmenter
from ray_mae.exports.nnunet import adaptation_plan
from ray_mae.open_weights.read import read_open
from tests.checkpoints import write_checkpoint
from tests.encoders.primus_values import fill
from tests.settings import build_of, small
from tests.shards import write_volume_shards

RUN = small("simmim primus")
SETTINGS: PrimusSettings = RUN["encoder"]
FILE = "checkpoint_final.pth"


def network() -> Primus:
    """As its makers have it, which tests/encoders/test_primus.py holds: of volumes [z, y, x]."""
    theirs = Primus(SETTINGS)
    fill(theirs)
    return theirs.eval()


def written(folder: Path, **more: Any) -> Path:
    """A checkpoint as nnssl and nnU-Net write it."""
    names = {f"up_projection.{n}": w for n, w in UpProjection(SETTINGS, 3).state_dict().items()}
    content = {
        "network_weights": network().state_dict() | names | {"mask_token": torch.zeros(1, 1, 24)},
        "nnssl_adaptation_plan": adaptation_plan(SETTINGS, 1.0),
        "trainer_name": "nnUNet_Primus_M_Trainer",
    }
    torch.save(content | more, folder / FILE)
    return folder


def volume(side: int = 16) -> Tensor:
    """[1, 1, z, y, x]."""
    return torch.randn(1, 1, side, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("more", "swapped"),
    [
        ({}, False),
        ({"trainer_name": "BaseEvaMAETrainer_BS8"}, True),
        ({"trainer_name": "SimMIMEvaTrainer_BS8"}, False),
        ({"token_order": "h w d"}, True),
        ({"trainer_name": "BaseEvaMAETrainer", "token_order": "w h d"}, False),
    ],
    ids=str,
)
@torch.no_grad()
def test_tokens_are_the_makers_of_turned_volumes_in_either_order(
    more: dict[str, Any], swapped: bool, tmp_path: Path
) -> None:
    theirs, x = network(), volume()
    patches = patchify(x, 4).unflatten(1, (4, 4, 4))  # [1, w, h, d, voxels]
    rows = patches.transpose(1, 2) if swapped else patches  # as (h w d), or as (w h d)
    tokens = theirs.eva(theirs.down_projection(rows.flatten(1, 3)), None, None)
    tokens = tokens.unflatten(1, (4, 4, 4))
    tokens = tokens.transpose(1, 2) if swapped else tokens  # [1, z, y, x, D]
    encoder, preprocessing = load_encoder(written(tmp_path, **more))
    assert preprocessing.crop_size == 16
    assert preprocessing.spacing_mm == 1.0
    found = encoder.encoder(x.permute(0, 1, 4, 3, 2)).unflatten(1, (4, 4, 4))
    torch.testing.assert_close(found.permute(0, 3, 2, 1, 4), tokens, rtol=0, atol=1e-5)


def test_turning_there_and_back_changes_nothing() -> None:
    weights = network().state_dict()
    there = turned(weights, 2, (2, 1, 0), (2, 0, 1))
    assert any(not torch.equal(there[name], w) for name, w in weights.items())
    back = turned(there, 2, (2, 1, 0), (1, 2, 0))
    assert all(torch.equal(back[name], w) for name, w in weights.items())


def test_every_tensor_has_a_fate_and_positions_are_resampled(tmp_path: Path) -> None:
    written(tmp_path)
    wanted = replace(SETTINGS, crop_size=24, drop_path=0.1)
    method = build_of(RUN | {"encoder": wanted})
    table = begin(tmp_path, wanted, tmp_path / "run", lambda: list(method.state_dict())).table
    counts = [sum(table[name].values()) for name in ("rewritten", "resampled", "left_out")]
    assert table["taken"] + sum(counts) == table["tensors"] > 40
    assert table["resampled"] == {"from 4³ to 6³ patches (trilinear)": 1}
    assert "the order w h d" in table["notes"][0]


def test_a_plan_takes_its_sizes_from_the_weights(tmp_path: Path) -> None:
    config = PlanConfig(method="mae", weights=written(tmp_path), samples=10)  # type: ignore[arg-type]
    assert config.encoder == replace(SETTINGS, drop_path=0.2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"width": 48},
            r"set encoder\.preset tiny, encoder\.width 24, encoder\.depth 2, encoder\.heads",
        ),
        ({"patch_size": 8}, r"patches of 4³ voxels: set encoder\.patch_size 4"),
        ({"plain": True}, r"encoder\.plain false"),
    ],
    ids=str,
)
def test_settings_of_another_network_are_refused_with_those_to_set(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        begin(written(tmp_path), replace(SETTINGS, **change), tmp_path / "run", list)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda c: c["network_weights"].pop("down_projection.proj.weight"), r"stem \(V2 or V3\)"),
        (lambda c: c["network_weights"].pop("eva.pos_embed"), "parts missing"),
        (lambda c: c["network_weights"].pop("eva.norm.weight"), r"1 of 51 weights .* missing"),
        (lambda c: c["network_weights"].update(register_tokens=torch.ones(1, 2, 24)), "registers"),
        (lambda c: c.update(token_order="d h w"), "token_order is 'd h w', and may be w h d or h w d"),
        (lambda c: c.pop("nnssl_adaptation_plan"), "how many attention heads"),
        (
            lambda c: c["network_weights"].update({"eva.pos_embed": torch.ones(1, 60, 24)}),
            "reads cubes of cubes",
        ),
        (
            lambda c: c["network_weights"].update(
                {"down_projection.proj.weight": torch.ones(24, 2, 4, 4, 4)}
            ),
            "reads 2 channels",
        ),
    ],
    ids=range(8),
)  # fmt: skip
def test_what_cannot_be_read_is_refused_by_name(spoil: Any, message: str, tmp_path: Path) -> None:
    content = torch.load(written(tmp_path) / FILE, weights_only=True)
    spoil(content)
    torch.save(content, tmp_path / FILE)
    with pytest.raises(ValueError, match=message):
        read_open(tmp_path)


@torch.no_grad()
def test_a_run_begins_with_ours_for_crops_of_another_size(tmp_path: Path) -> None:
    write_volume_shards(tmp_path / "shards", train=2, held_out=1)
    run = write_checkpoint(tmp_path / "run", tmp_path / "shards", "simmim primus")
    same = replace(SETTINGS, drop_path=0.0)
    assert "resampled" not in begin(run, same, tmp_path / "same", list).table  # as it is
    wanted = replace(SETTINGS, crop_size=32)
    beginning = begin(run, wanted, tmp_path / "other", list)
    assert beginning.table["resampled"] == {"eva.pos_embed": "from 4³ to 8³ patches (trilinear)"}
    found = load_file(beginning.weights / "model.safetensors")
    encoder, _ = load_encoder(run)
    encoder.resize(32)
    assert torch.equal(found["encoder.eva.pos_embed"], encoder.encoder.eva.pos_embed)


@torch.no_grad()
def test_a_segmenter_takes_them_for_crops_of_another_size(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Segmenter(SETTINGS.resized(24), [0, 1, 4])
    model.initialise_from(written(tmp_path), decoder=False)
    encoder, _ = load_encoder(tmp_path)
    encoder.resize(24)
    x = volume(24)
    assert torch.equal(model.encoder.eval()(x), encoder.encoder(x))
    with pytest.raises(ValueError, match="holds no decoder of this network"):
        model.initialise_from(tmp_path, decoder=True)
    model.save(tmp_path / "model")
    again = load_segmenter(tmp_path / "model")
    assert again(x).shape == (1, 3, 24, 24, 24)
    assert torch.equal(again(x), model.eval()(x))
    assert again.segment(volume(32)[0, 0]).shape == (32, 32, 32)
