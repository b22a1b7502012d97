"""The files of version 0.1 for nnU-Net are the network that was trained."""

import json
from importlib import import_module
from pathlib import Path

import pytest
import torch
from dynamic_network_architectures.architectures.unet import ResidualEncoderUNet
from safetensors.torch import save_file

import ray_mae
from ray_mae.config import ExportConfig, PretrainConfig
from ray_mae.exports.command import export
from ray_mae.methods.mdae.model import Mdae
from tests.records import write_state
from tests.settings import build, sections
from tests.shards import write_volume_shards


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Mdae]:
    folder = tmp_path_factory.mktemp("run")
    write_volume_shards(folder / "shards", train=4, held_out=2)
    settings = {"preset": "tiny", "crop_size": 32, "block_size": 8}
    config = PretrainConfig(shards=folder / "shards", output=folder, **sections("mdae", **settings))
    method = build("mdae", seed=3, **settings).eval()
    assert isinstance(method, Mdae)
    for film in (*method.encoder.film, *method.decoder.film):  # as after a training
        torch.nn.init.normal_(film.project.weight, std=0.1)
        torch.nn.init.normal_(film.project.bias, std=0.3)
    save_file({k: v.clone() for k, v in method.state_dict().items()}, folder / "model.safetensors")
    write_state(folder, config, step=1, workers=1)
    return folder, method


def output_of(method: Mdae, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return method.reconstruct(x, torch.zeros(len(x)))


def test_nnunet_takes_all_but_its_last_layers(run: tuple[Path, Mdae], tmp_path: Path) -> None:
    """The conditions of nnU-Net's `load_pretrained_weights`, and the function is the same."""
    folder, method = run
    summary = export(ExportConfig(checkpoint=folder, output=tmp_path, format="nnunet"))
    plan = json.loads((tmp_path / "nnunet_configuration.json").read_text())["3d_ray_mae"]
    kwargs = dict(plan["architecture"]["arch_kwargs"])
    for name in plan["architecture"]["_kw_requires_import"]:
        if kwargs[name]:
            module, _, attribute = kwargs[name].rpartition(".")
            kwargs[name] = getattr(import_module(module), attribute)
    network = ResidualEncoderUNet(input_channels=1, num_classes=1, deep_supervision=True, **kwargs)
    given = torch.load(tmp_path / "nnunet.pth", weights_only=True)["network_weights"]
    wanted = network.state_dict()
    for name, value in wanted.items():
        if ".seg_layers." not in name:
            assert given[name].shape == value.shape, name
    network.load_state_dict(wanted | {k: v for k, v in given.items() if k in wanted})
    network.decoder.deep_supervision = False
    x = torch.randn(2, 1, 32, 40, 48)  # [x, y, z]
    theirs = x.permute(0, 1, 4, 3, 2)  # nnU-Net's readers give [z, y, x]
    with torch.no_grad():
        found = network.eval()(theirs).permute(0, 1, 4, 3, 2)
    torch.testing.assert_close(found, output_of(method, x), rtol=0, atol=1e-4)
    assert plan["spacing"] == [4.0, 4.0, 4.0]
    assert "nnUNetv2_train" in summary["load"]


def test_the_exported_encoder_gives_the_same_features(
    run: tuple[Path, Mdae], tmp_path: Path
) -> None:
    folder, method = run
    export(ExportConfig(checkpoint=folder, output=tmp_path, format="monai"))
    encoder, preprocess = ray_mae.load_encoder(tmp_path)
    assert preprocess.spacing_mm == 4.0
    x = torch.randn(2, 1, 32, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(encoder(x), method.encoder(x))


def test_a_format_that_does_not_fit_is_refused(run: tuple[Path, Mdae], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give --format nnunet or monai, not timm"):
        export(ExportConfig(checkpoint=run[0], output=tmp_path, format="timm"))
