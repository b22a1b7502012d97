"""Primus for nnU-Net: its class says of turned volumes what ours says."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ray_mae import load_encoder
from ray_mae.config import ExportConfig, PublishConfig
from ray_mae.encoders.primus import Primus
from ray_mae.encoders.primus_settings import PrimusSettings
from ray_mae.exports.command import export
from ray_mae.exports.nnunet import primus_trainer
from ray_mae.exports.publish import publish
from tests.encoders.test_primus import GOLDEN
from tests.exports.conftest import Write


@torch.no_grad()
def test_its_weights_are_those_of_the_class_of_its_makers(
    write_perturbed: Write, tmp_path: Path
) -> None:
    """That class is ours, as tests/encoders/test_primus.py holds, of volumes [z, y, x]."""
    run = write_perturbed("mae primus")
    export(ExportConfig(checkpoint=run, output=tmp_path / "out"))
    content = torch.load(tmp_path / "out" / "checkpoint_final.pth", weights_only=True)
    weights, plan = content["network_weights"], content["nnssl_adaptation_plan"]
    assert content["token_order"] == "w h d"
    encoder, _ = load_encoder(run)
    theirs = Primus(encoder.settings).eval()
    parts = plan["key_to_encoder"], plan["key_to_stem"]
    theirs.load_state_dict({n: w for n, w in weights.items() if n.startswith(parts)})
    x = torch.randn(2, 1, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    found = theirs(x.permute(0, 1, 4, 3, 2)).mean(1)
    torch.testing.assert_close(found, encoder(x), rtol=0, atol=1e-5)
    names = {str(name).partition(" ")[0] for name in np.load(GOLDEN)["names"]}
    ups = {
        n for n in names | {*weights} if n.startswith("up_projection.")
    }  # fewer, of patches of 4³
    assert names - ups == {n for n in weights if ".blocks.1." not in n} - ups
    assert plan["key_to_lpe"] in weights
    assert all(f"{name}.weight" in weights for name in plan["keys_to_in_proj"])
    again, _ = load_encoder(tmp_path / "out" / "checkpoint_final.pth")
    torch.testing.assert_close(again(x), encoder(x), rtol=0, atol=1e-5)
    plans = json.loads((tmp_path / "out" / "nnunet_configuration.json").read_text())["3d_ray_mae"]
    assert plans["architecture"]["arch_kwargs"]["input_shape"] == plans["patch_size"] == [16] * 3


@pytest.mark.parametrize(
    ("values", "trainer"),
    [
        ({"preset": "S"}, "nnUNet_Primus_S_Trainer"),
        ({}, "nnUNet_Primus_M_Trainer"),
        ({"preset": "tiny"}, None),
        ({"patch_size": 16}, None),
        ({"depth": 3}, None),
    ],
    ids=str,
)
def test_its_trainer_is_named_where_there_is_one(values: Any, trainer: str | None) -> None:
    assert primus_trainer(PrimusSettings(**values)) == trainer


def test_what_nnunet_has_no_network_for_is_refused(write_perturbed: Write, tmp_path: Path) -> None:
    run = write_perturbed("mae primus", plain=True)
    with pytest.raises(ValueError, match=r"plain ViT's blocks .* leave --format out"):
        export(ExportConfig(checkpoint=run, output=tmp_path / "out", format="nnunet"))
    with pytest.raises(ValueError, match="give --format nnunet, not monai"):
        export(ExportConfig(checkpoint=run, output=tmp_path / "out", format="monai"))
    summary = export(ExportConfig(checkpoint=run, output=tmp_path / "own"))
    assert {*summary["files"]} == {"encoder.json", "encoder.safetensors"}


@pytest.mark.slow
def test_it_is_published_with_what_was_tried(write_perturbed: Write, tmp_path: Path) -> None:
    run = write_perturbed("mae primus")
    summary = publish(PublishConfig(checkpoint=run, output=tmp_path / "primus"))
    doors = summary["doors"]
    assert doors["torch.export"]["verified"]
    assert doors["ray_mae"]["verified"]
    assert not any("MONAI" in name for name in doors)
    card = (tmp_path / "primus" / "README.md").read_text()
    assert "nnU-Net has no trainer of this size" in card
    assert "monai" not in card.lower()
