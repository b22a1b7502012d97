"""An encoder of images, as timm and transformers open it."""

import json
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import ray_mae
from ray_mae import cli
from ray_mae.checkpoint.format import encoder_facts
from ray_mae.config import ExportConfig, PublishConfig
from ray_mae.data.schema import VIEWS
from ray_mae.exports.command import export
from ray_mae.exports.doors import BOUND, OWN_BOUND
from ray_mae.exports.origin import origin_of
from ray_mae.exports.parts import write_parts
from ray_mae.exports.publish import publish
from ray_mae.transforms.images import normalise
from tests.exports.conftest import Write

NETWORKS: dict[str, dict[str, Any]] = {
    "plain": {"qk_norm": False, "positions": "learned"},
    "sincos": {"qk_norm": True, "positions": "sincos"},
    "registers": {"registers": 3, "positions": "learned"},
}


@pytest.fixture(scope="module", params=NETWORKS)
def exported(
    request: pytest.FixtureRequest, write_perturbed: Write, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """The checkpoint, and what `export` makes of it."""
    run = write_perturbed("mvmae", **NETWORKS[request.param])
    output = tmp_path_factory.mktemp("out") / "encoder"
    export(ExportConfig(checkpoint=run, output=output))
    return run, output


def timm_model(folder: Path, **arguments: Any) -> nn.Module:
    from timm import create_model

    return create_model(f"local-dir:{folder}", pretrained=True, **arguments).eval()


def grey(images: int = 3) -> Tensor:
    """[N, 1, 32, 32] in [0, 1]"""
    return torch.rand(images, 1, 32, 32, generator=torch.Generator().manual_seed(1))


def ours(run: Path, x: Tensor, view: str, pool: str = "mean") -> Tensor:
    encoder, _ = ray_mae.load_encoder(run, pool)
    with torch.inference_mode():
        return encoder(normalise(x), torch.full((len(x),), VIEWS.index(view)))


def require_close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@torch.inference_mode()
def test_timm_opens_the_folder_and_gives_the_features_that_are_probed(
    exported: tuple[Path, Path],
) -> None:
    run, folder = exported
    model, biases = timm_model(folder), load_file(folder / "views.safetensors")
    x = grey()
    require_close(model(x.repeat(1, 3, 1, 1)), ours(run, x, "frontal"))
    for view in VIEWS:
        model.patch_embed.proj.bias.data.copy_(biases[view])
        require_close(model(x.repeat(1, 3, 1, 1)), ours(run, x, view))
    assert (ours(run, x, "frontal") - ours(run, x, "lateral")).abs().max() > 1e-3


@torch.inference_mode()
def test_timm_takes_a_head_another_size_and_one_channel(exported: tuple[Path, Path]) -> None:
    run, folder = exported
    x, features = grey(), ours(exported[0], grey(), "frontal")
    require_close(timm_model(folder, in_chans=1)(x), features)
    with_head = timm_model(folder, num_classes=14)
    require_close(with_head(x.repeat(1, 3, 1, 1)), with_head.head(features))
    assert timm_model(folder, img_size=48)(torch.rand(1, 3, 48, 48)).shape == features[:1].shape
    tokens = timm_model(folder, global_pool="token", in_chans=1)
    require_close(tokens(x), ours(run, x, "frontal", "cls"))


@torch.inference_mode()
def test_the_class_token_can_be_what_is_published(write_perturbed: Write, tmp_path: Path) -> None:
    run = write_perturbed("mvmae")
    facts, folder = encoder_facts(run), tmp_path / "lateral"
    folder.mkdir()
    write_parts(run, facts, origin_of(run), folder, name="a", pool="cls", view="lateral")
    found = timm_model(folder, in_chans=1)(grey())
    require_close(found, ours(run, grey(), "lateral", "cls"))


@pytest.mark.slow
@torch.inference_mode()
def test_transformers_opens_the_same_two_files(exported: tuple[Path, Path]) -> None:
    transformers = pytest.importorskip("transformers")
    run, folder = exported
    model = transformers.AutoModel.from_pretrained(folder).eval()
    require_close(model(grey().repeat(1, 3, 1, 1)).pooler_output, ours(run, grey(), "frontal"))
    assert "num_classes" not in json.loads((folder / "config.json").read_text())["model_args"]


@torch.inference_mode()
def test_timms_own_transform_pads_black_as_we_do(exported: tuple[Path, Path]) -> None:
    from PIL import Image
    from timm.data import create_transform, resolve_data_config

    _, folder = exported
    film = np.random.default_rng(0).integers(100, 256, (32, 20), dtype=np.uint8)
    model = timm_model(folder)
    x = create_transform(**resolve_data_config(model=model))(Image.fromarray(film).convert("RGB"))
    assert x.shape == (3, 32, 32)
    assert (x[:, :, :6] == 0).all()
    assert torch.equal(
        (x[:, :, 6:26] * 255).round(), torch.from_numpy(film).float().expand(3, -1, -1)
    )


def test_colleagues_can_read_what_is_exported(exported: tuple[Path, Path]) -> None:
    modes = {stat.S_IMODE(p.stat().st_mode) for p in exported[1].rglob("*") if p.is_file()}
    fresh = exported[1].parent / "fresh"
    fresh.touch()
    assert modes == {stat.S_IMODE(fresh.stat().st_mode)}


def test_the_call_that_is_printed_works_with_a_head(
    write_perturbed: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import timm

    run = write_perturbed("mvmae")
    cli.run(["export", "--checkpoint", str(run), "--output", str(tmp_path / "e")])
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("load: ")]
    call = line.removeprefix("load: ").partition("; ")[0]
    for head in ("num_classes=0", "num_classes=14", "num_classes=14, global_pool='avg'"):
        model = eval(call.replace("num_classes=0", head), {"timm": timm})
        assert model(torch.zeros(1, 1, 32, 32)).shape == (1, 14 if "14" in head else 32)


@pytest.mark.parametrize("form", ["timm", None])
def test_an_export_leaves_what_is_in_its_folder_beside_it(
    write_perturbed: Write, tmp_path: Path, form: Any
) -> None:
    run = write_perturbed("mvmae")
    (tmp_path / "notes.txt").write_text("mine")
    summary = export(ExportConfig(checkpoint=run, output=tmp_path, format=form))
    there = {p.name for p in tmp_path.iterdir()}
    assert there == {*summary["files"], "notes.txt", "summary.json"}


def test_norms_that_timm_has_not_are_told_with_the_difference_that_they_make(
    write_perturbed: Write, tmp_path: Path
) -> None:
    run = write_perturbed("mvmae", norm_eps=1e-4)
    summary = publish(PublishConfig(checkpoint=run, output=tmp_path / "encoder"))
    door = summary["doors"]["timm"]
    assert door["note"] == "norms add 1e-06 there and 0.0001 here"
    assert BOUND < door["largest_difference"] < door["bound"]
    assert summary["doors"]["ray_mae"]["largest_difference"] < OWN_BOUND
    assert door["note"] in (tmp_path / "encoder" / "README.md").read_text()


def test_registers_are_refused_in_the_format_of_before_which_would_lose_them(
    write_perturbed: Write, tmp_path: Path
) -> None:
    run = write_perturbed("mvmae", registers=2)
    with pytest.raises(ValueError, match=r"has registers, .* leave --format out"):
        export(ExportConfig(checkpoint=run, output=tmp_path / "out", format="timm"))


@pytest.mark.slow
def test_every_door_of_a_network_that_convolves_says_the_same(
    write_perturbed: Write, tmp_path: Path
) -> None:
    run = write_perturbed("mae convnextv2")
    summary = publish(PublishConfig(checkpoint=run, output=tmp_path / "encoder"))
    assert {"ray_mae", "timm", "transformers", "torch.export"} <= summary["doors"].keys()
    assert all(door["verified"] for door in summary["doors"].values())
    card = (tmp_path / "encoder" / "README.md").read_text()
    assert "for images of any view" in card
    assert "views.safetensors" not in card
