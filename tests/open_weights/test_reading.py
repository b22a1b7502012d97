"""Encoders of others by `load_encoder`: their features, their preprocessing; and what is refused."""

import json
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from ray_mae.checkpoint.format import encoder_facts
from ray_mae.encoders.registry import build_encoder
from ray_mae.encoders.timm_settings import TimmSettings
from ray_mae.encoders.vit_settings import VitSettings
from ray_mae.inference.load import load_encoder, random_encoder
from ray_mae.open_weights.read import read_open
from ray_mae.open_weights.source import OpenEncoder
from ray_mae.open_weights.table import LEFT_OUT, fates, report
from ray_mae.transforms.images import normalise
from tests.open_weights import makers
from tests.open_weights.makers import SIZE, Features

GREY = torch.rand(2, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(3))
CLOSE = {"atol": 1e-5, "rtol": 0.0}

SOURCES: dict[str, Any] = {
    **{f"transformers: {name}": (makers.hf, name) for name in makers.HF},
    **{f"timm: {name}": (makers.timm_folder, name) for name in makers.TIMM},
    "MAE's authors": (makers.mae_file,),
    "DINOv2's authors": (makers.dinov2_file,),
}


def written(tmp_path: Path, source: str) -> tuple[Path, Features]:
    make, *names = SOURCES[source]
    path = tmp_path / ("source" if names else "source.pth")
    return path, make(path, *names)


def tensors_of(path: Path) -> set[str]:
    if path.is_dir():
        return {*load_file(path / "model.safetensors")}
    content = torch.load(path, weights_only=False)
    return {*content.get("model", content)}


@pytest.mark.parametrize("source", SOURCES)
@torch.inference_mode()
def test_features_are_the_makers_and_every_tensor_has_a_fate(source: str, tmp_path: Path) -> None:
    path, features = written(tmp_path, source)
    encoder, preprocessing = load_encoder(path, "cls")
    theirs = features(GREY)
    torch.testing.assert_close(encoder.tokens(normalise(GREY)), theirs, **CLOSE)
    torch.testing.assert_close(encoder(normalise(GREY)), theirs[:, 0], **CLOSE)
    assert preprocessing.image_size == SIZE
    mean, _ = load_encoder(path, "mean")
    torch.testing.assert_close(mean(normalise(GREY)), theirs[:, 1:].mean(1), **CLOSE)

    found = read_open(path)
    every = fates(found, None)
    assert {*every} == tensors_of(path)
    left = {name for name, (fate, _) in every.items() if fate == LEFT_OUT}
    assert all(re.search(r"decoder|mask_token|pooler", name) for name in left)
    table = report(found, None)
    parts = table["taken"] + sum(
        sum(table[k].values()) for k in ("rewritten", "resampled", "left_out")
    )
    assert parts == table["tensors"] == len(tensors_of(path))


def test_each_family_is_pooled_as_its_makers_do(tmp_path: Path) -> None:
    pools = {}
    for source in ("transformers: vit_mae", "transformers: dinov2", "MAE's authors"):
        path, _ = written(_fresh(tmp_path, source), source)
        pools[source] = load_encoder(path)[0].pool
    assert pools == {
        "transformers: vit_mae": "mean",
        "transformers: dinov2": "cls",
        "MAE's authors": "mean",
    }


def _fresh(tmp_path: Path, name: str) -> Path:
    folder = tmp_path / re.sub(r"\W", "", name)
    folder.mkdir()
    return folder


@torch.inference_mode()
def test_a_network_with_a_norm_after_pooling_gives_its_own_vector(tmp_path: Path) -> None:
    model = timm.create_model(
        "vit_base_patch16_224", img_size=SIZE, patch_size=8, embed_dim=64, depth=2, num_heads=1,
        num_classes=3, global_pool="avg", fc_norm=True,
    )  # fmt: skip
    makers.perturbed(model)
    torch.save({"model": model.state_dict()}, tmp_path / "tuned.pth")
    encoder, _ = load_encoder(tmp_path / "tuned.pth")
    tokens = model.forward_features(makers.normalised(GREY))
    theirs = model.forward_head(tokens, pre_logits=True)
    torch.testing.assert_close(encoder(normalise(GREY)), theirs, **CLOSE)


@torch.inference_mode()
def test_the_image_encoder_of_open_clip_is_read_and_its_text_left_out(tmp_path: Path) -> None:
    model = makers.perturbed(timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=0))
    weights = {f"visual.trunk.{n}": w for n, w in model.state_dict().items()}
    weights |= {"visual.head.proj.weight": torch.ones(8, 192), "logit_scale": torch.ones(())}
    weights |= {"text.transformer.embeddings.word_embeddings.weight": torch.ones(5, 8)}
    torch.save(weights, tmp_path / "open_clip_pytorch_model.bin")
    mean, std = [0.48, 0.46, 0.41], [0.27, 0.26, 0.28]
    config = {
        "model_cfg": {"vision_cfg": {"timm_model_name": "vit_tiny_patch16_224", "image_size": 64}},
        "preprocess_cfg": {"mean": mean, "std": std},
    }
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    encoder, _ = load_encoder(tmp_path)
    grey = torch.rand(1, 1, 64, 64)
    theirs = model.forward_features(makers.normalised(grey, (mean, std)))
    torch.testing.assert_close(encoder.tokens(normalise(grey)), theirs, **CLOSE)
    assert {*read_open(tmp_path).left_out.values()} == {"a head", "the text model"}


def test_a_random_twin_has_the_same_architecture_and_other_weights(tmp_path: Path) -> None:
    path, _ = written(tmp_path, "transformers: dinov2_registers")
    trained, _ = load_encoder(path)
    twin = random_encoder(trained.settings, seed=0)
    ours, theirs = (e.encoder.state_dict() for e in (trained, twin))
    assert {n: w.shape for n, w in ours.items()} == {n: w.shape for n, w in theirs.items()}
    assert not torch.equal(ours["body.cls_token"], theirs["body.cls_token"])


# ------------------------------------------------------------------------------------- preprocessing


def image(height: int, width: int) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return ((np.sin(rows / 9) + np.cos(columns / 7) + 2) * 63).astype(np.uint8)


@pytest.mark.parametrize("resample", [2, 3])
@pytest.mark.parametrize("way", ["middle", "squash"])
def test_an_image_is_prepared_as_its_makers_do(way: str, resample: int, tmp_path: Path) -> None:
    """Against Pillow's own resizing, which theirs calls: the middle of a wide image, or all squashed."""
    seen: dict[str, Any] = {"resample": resample, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    if way == "middle":
        seen |= {"size": {"shortest_edge": 40}, "do_center_crop": True}
        seen |= {"crop_size": {"height": SIZE, "width": SIZE}}
    else:
        seen |= {"size": {"height": SIZE, "width": SIZE}}
    makers.hf(tmp_path, "dinov2", seen)
    _, prepare = load_encoder(tmp_path)
    pixels = image(120, 180)
    picture, filter_ = Image.fromarray(pixels), Image.Resampling(resample)
    if way == "middle":
        small = np.asarray(picture.resize((60, 40), filter_))[4:36, 14:46]
    else:
        small = np.asarray(picture.resize((SIZE, SIZE), filter_))
    grey = prepare(pixels)[0] * 0.25 + 0.5
    difference = (grey - torch.from_numpy(small.copy()) / 255).abs()
    assert difference.mean() < 0.01  # Pillow rounds to 8 bits
    assert difference.max() < 0.02


def test_ours_are_prepared_as_before() -> None:
    settings = VitSettings(preset="tiny", image_size=32, patch_size=8, width=32, depth=2, heads=2)
    encoder = random_encoder(settings, seed=0)
    seen = encoder.preprocessing(image(64, 32))
    assert seen.shape == (1, 32, 32)
    assert torch.all(seen[0, :, :7] == -2)
    assert torch.all(seen[0, :, 25:] == -2)


def test_positions_follow_the_size_that_the_makers_prepare(tmp_path: Path) -> None:
    seen = {"size": {"shortest_edge": 48}, "crop_size": {"height": 48, "width": 48}}
    makers.hf(tmp_path, "dinov2", seen)
    found = read_open(tmp_path)
    assert found.settings.input_size == 48
    assert found.weights["body.pos_embed"].shape[1] == 1 + 36
    assert read_open(tmp_path, own_size=True).settings.input_size == SIZE


# ------------------------------------------------------------------------------------------- refused


class Trap:
    """An object that creates a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.target), "w"))


@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_with_code_is_refused_and_its_code_has_not_run(legacy: bool, tmp_path: Path) -> None:
    target, file = tmp_path / "created", tmp_path / "trap.pth"
    content = {"model": {"cls_token": torch.zeros(1)}, "trap": Trap(target)}
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ValueError, match=r"trap\.pth holds Python objects \(.*open\).*safetensors"):
        load_encoder(file)
    assert not target.exists()
    with pytest.raises(ValueError, match="holds Python objects"):
        encoder_facts(file)
    assert not target.exists()
    torch.load(file, weights_only=False)  # the trap would have worked
    assert target.exists()


def test_a_pickled_module_is_refused_with_the_way_out(tmp_path: Path) -> None:
    torch.save(torch.nn.Sequential(torch.nn.Linear(2, 2)), tmp_path / "module.pt")
    with pytest.raises(ValueError, match=r"torch\.nn\.modules\..*Convert it where you trust it"):
        load_encoder(tmp_path / "module.pt")


@pytest.mark.parametrize("legacy", [False, True])
def test_the_arguments_of_maes_authors_are_allowed(legacy: bool, tmp_path: Path) -> None:
    makers.mae_file(tmp_path / "mae.pth", legacy=legacy)
    assert load_encoder(tmp_path / "mae.pth")[0].width == makers.WIDTH


def test_weights_in_several_files_are_read_and_none_from_outside(tmp_path: Path) -> None:
    features = makers.hf(tmp_path / "model", "vit", max_shard_size="100kB")
    index = tmp_path / "model" / "model.safetensors.index.json"
    assert len({*json.loads(index.read_text())["weight_map"].values()}) > 1
    encoder, _ = load_encoder(tmp_path / "model")
    with torch.inference_mode():
        torch.testing.assert_close(encoder.tokens(normalise(GREY)), features(GREY), **CLOSE)
    for name in ("../x.safetensors", "/etc/x.safetensors", "x.pth"):
        index.write_text(json.dumps({"weight_map": {"embeddings.cls_token": name}}))
        with pytest.raises(ValueError, match="names weights outside its folder"):
            load_encoder(tmp_path / "model")
    index.write_text(json.dumps({"weight_map": {"embeddings.cls_token": "gone.safetensors"}}))
    with pytest.raises(ValueError, match="which is missing"):
        load_encoder(tmp_path / "model")


def changed(folder: Path, **tensors: torch.Tensor | None) -> None:
    file = folder / "model.safetensors"
    weights = load_file(file) | {n.replace("__", "."): t for n, t in tensors.items()}
    save_file({n: t for n, t in weights.items() if t is not None}, file)


def test_what_is_no_whole_encoder_is_refused_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "timm"
    makers.timm_folder(folder, "plain")
    whole = load_file(folder / "model.safetensors")
    nan = whole["blocks.0.norm1.weight"].clone()
    nan[3] = torch.nan
    changed(folder, blocks__0__norm1__weight=nan)
    with pytest.raises(
        ValueError, match=r"blocks\.0\.norm1\.weight holds values that are no numbers"
    ):
        load_encoder(folder)
    save_file(whole, folder / "model.safetensors")
    changed(folder, blocks__0__norm1__weight=None)
    with pytest.raises(
        ValueError, match=r"1 of \d+ weights of the encoder are missing, such as blocks"
    ):
        load_encoder(folder)
    save_file(whole, folder / "model.safetensors")
    changed(folder, blocks__1__attn__extra=torch.ones(3))
    with pytest.raises(
        ValueError, match=r"has parts that .* has not, such as blocks\.1\.attn\.extra"
    ):
        load_encoder(folder)
    save_file(whole, folder / "model.safetensors")
    changed(folder, pos_embed=torch.ones(1, 26, 64))
    with pytest.raises(
        ValueError, match=r"pos_embed is \[1, 26, 64\], its settings ask for \[1, 17, 64\]"
    ):
        load_encoder(folder)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_type": "resnet"}, "model_type resnet is none of vit, vit_mae"),
        ({"architecture": "resnet18"}, "resnet18 is no Vision Transformer"),
        ({"architecture": "no_such"}, "has no network no_such"),
        ({"architecture": "local-dir:/tmp"}, "has no network local-dir:/tmp"),
        ({"model_type": "vit", "hidden_act": "relu"}, "hidden_act relu is none of gelu"),
        (
            {"architecture": "vit_base_patch16_224", "model_args": {"img_size": [32, 64]}},
            "images of 32 × 64 .* is square here",
        ),
    ],
)
def test_other_networks_are_refused_by_name(
    config: dict[str, Any], words: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file({"x": torch.ones(2)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=words):
        load_encoder(tmp_path)


def test_damaged_files_are_one_clear_sentence(tmp_path: Path) -> None:
    folder = tmp_path / "hf"
    makers.timm_folder(folder, "plain")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:1000])
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged, or no safetensors file"):
        load_encoder(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="has no weights: none of model"):
        load_encoder(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is damaged: it is no JSON"):
        load_encoder(folder)
    makers.mae_file(tmp_path / "mae.pth")
    whole = (tmp_path / "mae.pth").read_bytes()
    for content in (whole[: len(whole) // 2], b"nothing", b"", pickle.dumps([1, 2])):
        (tmp_path / "cut.pth").write_bytes(content)
        with pytest.raises(ValueError, match=r"cut\.pth"):
            load_encoder(tmp_path / "cut.pth")
    torch.save({"model": {"classifier.weight": torch.ones(3, 3)}}, tmp_path / "head.pth")
    with pytest.raises(ValueError, match="holds no encoder that is known"):
        load_encoder(tmp_path / "head.pth")
    with pytest.raises(FileNotFoundError, match="neither a checkpoint"):
        load_encoder(tmp_path / "nothing")


def test_code_beside_the_weights_is_named_and_not_run(tmp_path: Path) -> None:
    makers.hf(tmp_path, "vit")
    config = json.loads((tmp_path / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "evil.Model"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "evil.py").write_text("raise SystemExit")
    (note,) = read_open(tmp_path).notes
    assert "names code (auto_map): it is not run" in note


def test_arguments_that_name_files_are_not_passed_to_timm() -> None:
    settings = TimmSettings(arguments=json.dumps({"checkpoint_path": "/tmp/x", "depth": 1}))
    with pytest.raises(ValueError, match=r"encoder\.arguments has checkpoint_path"):
        build_encoder(settings)


def whole_encoder(found: OpenEncoder) -> Any:
    encoder = build_encoder(found.settings)
    encoder.load_state_dict(found.weights)
    return encoder.eval()


def test_the_rate_of_every_weight_falls_towards_the_input(tmp_path: Path) -> None:
    for source in ("transformers: dinov3", "transformers: siglip", "timm: registers"):
        folder = _fresh(tmp_path, source)
        encoder = whole_encoder(read_open(written(folder, source)[0]))
        layers = {name: encoder.layer_of(name) for name, _ in encoder.named_parameters()}
        assert {*layers.values()} == {0, 1, 2, 3}
        assert layers["body.patch_embed.proj.weight"] == 0
        assert layers["body.norm.weight"] == 3
        assert encoder.no_weight_decay() <= {*layers}
