"""A network of volumes, as nnU-Net, nnssl and MONAI open it."""

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from dynamic_network_architectures.architectures.unet import ResidualEncoderUNet
from torch import nn

import ray_mae
from ray_mae.config import ExportConfig
from ray_mae.exports.command import export
from ray_mae.exports.example import draw_volumes
from tests.exports.conftest import Write


@pytest.fixture(scope="module")
def exported(write_perturbed: Write, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The checkpoint, with FiLM that says something, and what `export` makes of it."""
    run = write_perturbed("mdae", crop_size=32, block_size=8, film=True)
    output = tmp_path_factory.mktemp("out") / "encoder"
    export(ExportConfig(checkpoint=run, output=output))
    return run, output


def volumes() -> torch.Tensor:
    """[2, 1, 16, 24, 32]: no axis is like another."""
    return torch.randn(2, 1, 16, 24, 32, generator=torch.Generator().manual_seed(0))


def ours(run: Path) -> torch.Tensor:
    with torch.inference_mode():
        return ray_mae.load_encoder(run)[0](volumes())


def network_of(plan: dict[str, Any], channels: int) -> ResidualEncoderUNet:
    kinds = {"conv_op": nn.Conv3d, "norm_op": nn.InstanceNorm3d, "nonlin": nn.LeakyReLU}
    kwargs = plan["architecture_plans"]["arch_kwargs"] | kinds
    return ResidualEncoderUNet(channels, num_classes=3, deep_supervision=True, **kwargs).eval()


@pytest.mark.parametrize("channels", [1, 3])
def test_a_checkpoint_is_taken_as_one_of_nnssl(exported: tuple[Path, Path], channels: int) -> None:
    """The rules of nnU-Net's PretrainedTrainer: encoder and stem by the plan's names, all of each."""
    run, folder = exported
    content = torch.load(folder / "checkpoint_final.pth", weights_only=True)
    plan, given = content["nnssl_adaptation_plan"], content["network_weights"]
    written = json.loads((folder / "adaptation_plan.json").read_text())
    assert written == {**plan, "trainer_name": content["trainer_name"]}
    assert {"type", "name", "apa_citations", "bibtex_citations"} == content["citations"][0].keys()
    network = network_of(plan, channels)
    for key in ("key_to_encoder", "key_to_stem"):
        part = {
            k.removeprefix(f"{plan[key]}."): v for k, v in given.items() if k.startswith(plan[key])
        }
        if key == "key_to_stem" and channels > plan["pretrain_num_input_channels"]:
            for name in plan["keys_to_in_proj"]:
                name = f"{name.removeprefix(f'{plan[key]}.')}.weight"
                part[name] = part[name].repeat(1, channels, 1, 1, 1) / channels
        network.get_submodule(plan[key]).load_state_dict(part)
    x = volumes().permute(0, 1, 4, 3, 2).repeat(1, channels, 1, 1, 1)
    with torch.inference_mode():
        found = network.encoder(x)[-1].mean(dim=(2, 3, 4))
    torch.testing.assert_close(found, ours(run), rtol=0, atol=1e-5)


def test_the_plan_says_what_a_fine_tuning_reads(exported: tuple[Path, Path]) -> None:
    plan = json.loads((exported[1] / "adaptation_plan.json").read_text())
    (configuration,) = plan["pretrain_plan"]["configurations"].values()
    assert configuration["spacing"] == [4.0] * 3
    assert configuration["patch_size"] == plan["recommended_downstream_patchsize"] == [32] * 3
    # within a mask nnU-Net would set the background to 0, which stood for what was hidden
    assert configuration["use_mask_for_norm"] == [False]
    plans = json.loads((exported[1] / "nnunet_configuration.json").read_text())
    assert plans["3d_ray_mae"]["use_mask_for_norm"] == [False]


def test_what_several_names_share_lies_in_the_file_once(exported: tuple[Path, Path]) -> None:
    content = torch.load(exported[1] / "checkpoint_final.pth", weights_only=True)
    weights = content["network_weights"]
    own = {w.untyped_storage().data_ptr(): w.numel() * 4 for w in weights.values()}
    assert sum(w.numel() * 4 for w in weights.values()) > 2 * sum(own.values())
    assert (exported[1] / "checkpoint_final.pth").stat().st_size < 1.2 * sum(own.values())


def test_monai_opens_the_folder_as_a_bundle(exported: tuple[Path, Path], tmp_path: Path) -> None:
    from monai.bundle import ConfigParser, load, verify_net_in_out

    run, folder = exported
    network: Any = load(folder.name, bundle_dir=str(folder.parent), source="local")
    with torch.inference_mode():
        found = network.eval().encoder(volumes())[-1].mean(dim=(2, 3, 4))
    torch.testing.assert_close(found, ours(run), rtol=0, atol=1e-5)
    other: Any = load(
        folder.name, bundle_dir=str(folder.parent), source="local", net_override={"num_classes": 5}
    )
    assert other(volumes()).shape == (2, 5, 16, 24, 32)
    assert torch.equal(
        other.encoder.stem.convs[0].conv.weight, network.encoder.stem.convs[0].conv.weight
    )
    parser = ConfigParser()
    parser.read_config(folder / "configs" / "inference.json")
    file = tmp_path / "head.nii.gz"
    nib.save(nib.Nifti1Image(draw_volumes(32)[0, 0] * 50 + 200, np.diag([4.0, 4, 4, 1])), file)
    made = parser.get_parsed_content("preprocessing")({"image": str(file)})["image"]
    assert made.shape == (1, 32, 32, 32)
    assert float(made.mean()) == pytest.approx(0, abs=1e-4)
    metadata, train = (str(folder / "configs" / f"{n}.json") for n in ("metadata", "train"))
    verify_net_in_out("network_def", meta_file=metadata, config_file=train, device="cpu", n=2, p=1)


def test_the_whole_network_reconstructs_as_the_trained_one(exported: tuple[Path, Path]) -> None:
    """The decoder, too, in MONAI's bundle."""
    from ray_mae.checkpoint.format import all_weights
    from tests.settings import build_of, small

    run, folder = exported
    method = build_of(small("mdae", crop_size=32, block_size=8, film=True)).eval()
    weights = {k: torch.from_numpy(v) for k, v in all_weights(run).items()}
    method.load_state_dict(weights)
    content = torch.load(folder / "models" / "model.pt", weights_only=True)
    plan = json.loads((folder / "adaptation_plan.json").read_text())
    network = network_of(plan, 1)
    network.decoder.deep_supervision = False
    last = "decoder.seg_layers.2"  # one class, as it was trained
    network.decoder.seg_layers[2] = nn.Conv3d(8, 1, 1)
    network.load_state_dict(content, strict=False)
    assert f"{last}.weight" in content
    with torch.inference_mode():
        expected = method.reconstruct(volumes(), torch.zeros(2))  # type: ignore[operator]
        torch.testing.assert_close(network(volumes()), expected, rtol=0, atol=1e-4)
