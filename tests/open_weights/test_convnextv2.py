"""ConvNeXt V2 as timm has it: read, begun with, and given back."""

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save, save_file
from torch import Tensor, nn

from ray_mae import load_encoder
from ray_mae.checkpoint import format as ckpt
from ray_mae.checkpoint.begin import encoder_of
from ray_mae.config import ExportConfig
from ray_mae.config.sections import StudyDataConfig
from ray_mae.encoders.convnextv2_settings import PRESETS, ConvNextV2Settings
from ray_mae.encoders.registry import build_encoder
from ray_mae.exports.command import export
from ray_mae.open_weights.fit import fit_to
from ray_mae.open_weights.ours import as_ours
from ray_mae.open_weights.read import read_open
from ray_mae.open_weights.source import on_meta
from ray_mae.open_weights.table import LEFT_OUT, fates
from ray_mae.transforms.images import normalise
from tests.exports.conftest import perturb
from tests.open_weights import makers

SIZE = 64
WIDTHS = [8, 16, 32, 64]
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
GREY = torch.rand(2, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(3))
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


def theirs(folder: Path, **more: Any) -> nn.Module:
    """A folder that timm opens as local-dir:FOLDER, and its network."""
    folder.mkdir()
    torch.manual_seed(0)
    arguments = {"dims": WIDTHS, "depths": [2, 2, 6, 2]} | more
    model = perturb(timm.create_model("convnextv2_atto", num_classes=3, **arguments)).eval()
    config = {
        "architecture": "convnextv2_atto",
        "num_classes": 3,
        "model_args": arguments,
        "pretrained_cfg": {"input_size": [3, SIZE, SIZE], "mean": MEAN, "std": STD},
    }
    (folder / "config.json").write_text(json.dumps(config))
    save_file(model.state_dict(), folder / "model.safetensors")
    return model


@pytest.mark.parametrize("more", [{}, {"conv_mlp": False}, {"head_norm_first": True}], ids=str)
@torch.inference_mode()
def test_its_vector_is_the_makers_and_every_tensor_has_a_fate(
    more: dict[str, Any], tmp_path: Path
) -> None:
    model = theirs(tmp_path / "source", **more)
    encoder, preprocessing = load_encoder(tmp_path / "source")
    assert preprocessing.image_size == SIZE
    maps = model.forward_features(makers.normalised(GREY, (MEAN, STD)))
    vector = model.forward_head(maps, pre_logits=True)
    torch.testing.assert_close(encoder(normalise(GREY)), vector, **CLOSE)
    tokens = encoder.tokens(normalise(GREY))
    torch.testing.assert_close(tokens[:, 1:].mT.reshape(maps.shape), maps, **CLOSE)
    every = fates(read_open(tmp_path / "source"), None)
    assert {*every} == {*load_file(tmp_path / "source" / "model.safetensors")}
    left = {name for name, (fate, _) in every.items() if fate == LEFT_OUT}
    assert left == {"head.fc.weight", "head.fc.bias"}


def test_a_run_that_begins_with_it_has_the_last_norm_before_the_mean(tmp_path: Path) -> None:
    theirs(tmp_path / "source")
    ours = as_ours(read_open(tmp_path / "source"))
    assert ours.settings == ConvNextV2Settings(
        preset="atto", width=8, image_size=SIZE, norm="pooled"
    )
    wanted = encoder_of(tmp_path / "source", None, None)
    assert wanted == ConvNextV2Settings(preset="atto", width=8, image_size=SIZE)
    fitted = fit_to(ours, wanted, tmp_path)
    assert fitted.fresh == ["norm_pre.weight", "norm_pre.bias"]
    network = build_encoder(wanted)
    network.load_state_dict(dict(fitted.weights))
    with pytest.raises(ValueError, match=r"set encoder\.preset atto, encoder\.width 8"):
        fit_to(ours, ConvNextV2Settings(preset="pico"), tmp_path)


@torch.inference_mode()
def test_without_a_last_norm_it_has_the_fresh_one_that_timm_gives_it(tmp_path: Path) -> None:
    """As of FCMAE's pretraining, which has none."""
    model = theirs(tmp_path / "source")
    file = tmp_path / "source" / "model.safetensors"
    save_file({n: w for n, w in load_file(file).items() if not n.startswith("head.")}, file)
    encoder, _ = load_encoder(tmp_path / "source")
    maps = model.forward_features(makers.normalised(GREY, (MEAN, STD)))
    vector = torch.nn.functional.layer_norm(maps.mean((2, 3)), WIDTHS[-1:], eps=1e-6)
    torch.testing.assert_close(encoder(normalise(GREY)), vector, **CLOSE)


def test_stages_that_ours_has_not_are_refused(tmp_path: Path) -> None:
    theirs(tmp_path / "source", depths=[1, 1, 1, 1])
    with pytest.raises(
        ValueError, match=r"stages of \[8, 16, 32, 64\] channels with \[1, 1, 1, 1\]"
    ):
        read_open(tmp_path / "source")


@pytest.mark.parametrize("preset", PRESETS)
def test_every_size_has_timms_names_and_as_many_weights(preset: str) -> None:
    ours = on_meta(ConvNextV2Settings(preset=preset, norm="pooled")).state_dict()  # type: ignore[arg-type]
    with torch.device("meta"):
        other = timm.create_model(f"convnextv2_{preset}", in_chans=1, num_classes=0).state_dict()
    assert {name: w.numel() for name, w in ours.items()} == {n: w.numel() for n, w in other.items()}


@pytest.mark.parametrize("norm", ["points", "pooled"])
@torch.inference_mode()
def test_what_is_exported_says_the_same_in_timm(norm: Any, tmp_path: Path) -> None:
    settings = ConvNextV2Settings(preset="atto", width=4, image_size=SIZE, norm=norm)
    network = perturb(build_encoder(settings))
    source = tmp_path / "encoder"
    source.mkdir()
    (source / ckpt.ENCODER).write_bytes(save(dict(network.state_dict())))
    ckpt.write_exported(source, ckpt.EncoderFacts(settings, StudyDataConfig(), None))
    export(ExportConfig(checkpoint=source, output=tmp_path / "out"))
    model = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).eval()
    encoder, _ = load_encoder(tmp_path / "out")
    found: Tensor = model(GREY.repeat(1, 3, 1, 1))
    torch.testing.assert_close(found, encoder(normalise(GREY)), **CLOSE)
    assert model(GREY.new_zeros(1, 3, 96, 96)).isfinite().all()  # of any size
