"""A check of every encoder before it is ranked: our features of a few images against its makers' own.

The images are of the encoder's own size, so that no way of resizing can make a difference: what is left is
the mean, the deviation, the channels, the positions and the network itself.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ray_mae.benchmarking.plan import Suite
from ray_mae.data.decoding.stored_images import decode
from ray_mae.data.parquet import open_parquet
from ray_mae.data.schema import Manifest

IMAGES = 8
CLOSE = 1e-3
"""Largest difference, over the norm of the reference, that counts as the same features."""


def smoke_check(suite: Suite, name: str) -> dict[str, Any]:
    """Returns what the check of an encoder found, of several pretrainings the worst.

    Args:
        suite: whose first data set of images gives the images.
        name: of the encoder.

    Returns:
        text, a sentence; difference, relative, None where there is nothing to compare with; wrong, whether
        the encoder should not be ranked.
    """
    entry = suite.config.encoders[name]
    found = suite.sources.get((name, "study")) or suite.sources.get((name, "volume"), [])
    if entry.kind != "weights" or not found or found[0].path is None:
        return {"text": "a baseline: nothing to compare with", "difference": None, "wrong": False}
    if found[0].sample == "volume":
        return {
            "text": "volumes: its network is built from its plan and takes all of its weights",
            "difference": None,
            "wrong": False,
        }
    dataset = next(d for d, kind in suite.kinds.items() if kind == "study")
    images = first_images(suite.config.datasets[dataset].shards)
    return worst_of({s.path: check_images(s.path, images) for s in found if s.path is not None})


def worst_of(checks: dict[Path, dict[str, Any]]) -> dict[str, Any]:
    """The check of several pretrainings by path: that which is wrong, else that which differs most."""
    path, worst = max(checks.items(), key=lambda at: (at[1]["wrong"], at[1]["difference"] or 0.0))
    if len(checks) == 1:
        return worst
    wrong = sum(check["wrong"] for check in checks.values())
    which = f"{wrong} of {len(checks)} are wrong" if wrong else f"the worst of {len(checks)}"
    return {**worst, "text": f"{worst['text']} ({which}, such as {path.name})"}


def first_images(shards: Path) -> list[NDArray[np.uint8]]:
    """The first images of a data set, [H, W] each."""
    manifest, images = Manifest.read(shards), []
    for shard in manifest.shards:
        with open_parquet(shards / shard.file, shard) as file:
            for group in range(file.num_row_groups):
                for row in file.read_row_group(group, columns=["views"]).to_pylist():
                    images += [decode(view["image"]) for view in row["views"]]
                    if len(images) >= IMAGES:
                        return images[:IMAGES]
    return images


def check_images(path: Path, images: list[NDArray[np.uint8]]) -> dict[str, Any]:
    """The same of the weights at a path, on these images."""
    import torch

    from ray_mae.inference.load import load_encoder

    loaded, preprocessing = load_encoder(path)
    encoder: Any = loaded
    size = encoder.settings.input_size
    square = [np.asarray(Image.fromarray(image).resize((size, size))) for image in images]
    batch = torch.stack([preprocessing(image) for image in square])
    with torch.inference_mode():
        ours = encoder.tokens(batch)[:, 1:].mean(1).double().numpy()
    if not np.isfinite(ours).all():
        return {"text": "its features are not finite", "difference": None, "wrong": True}
    spread = np.linalg.norm(ours - ours.mean(0)) / np.linalg.norm(ours)
    if spread < CLOSE**2:
        return {
            "text": "it gives every image the same features",
            "difference": None,
            "wrong": True,
        }
    theirs = reference_features(path, square)
    if theirs is None:
        why = "its files name no library that could give the features, too"
        return {"text": f"not compared: {why}", "difference": None, "wrong": False}
    difference = float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))
    wrong = not difference < CLOSE
    verdict = "differ from" if wrong else "equal"
    return {
        "text": f"features of {len(images)} images {verdict} its makers' ({difference:.1e} relative)",
        "difference": difference,
        "wrong": wrong,
    }


def reference_features(path: Path, images: list[NDArray[np.uint8]]) -> NDArray[np.float64] | None:
    """Mean patch tokens [N, D] by the library that an encoder's files name; None where they name none.

    Args:
        path: of the weights.
        images: [H, W] each, of the encoder's own size.
    """
    config = path / "config.json"
    if not path.is_dir() or not config.is_file():
        return None
    values = json.loads(config.read_text())
    colour = [Image.fromarray(image).convert("RGB") for image in images]
    if "architecture" in values:
        return _of_timm(path, values, colour)
    if (path / "preprocessor_config.json").is_file():
        return _of_transformers(path, colour)
    return None


def _of_timm(
    path: Path, values: dict[str, Any], images: list[Image.Image]
) -> NDArray[np.float64] | None:
    import timm
    import torch
    from safetensors.torch import load_file

    weights = path / "model.safetensors"
    if not weights.is_file():
        return None
    seen = values.get("pretrained_cfg", {})
    arguments = values.get("model_args", {})
    model = timm.create_model(values["architecture"], pretrained=False, num_classes=0, **arguments)
    model.load_state_dict(load_file(weights), strict=False)
    channels = model.patch_embed.proj.in_channels
    mean, std = (
        np.array((seen.get(k) or d)[:channels], np.float64).reshape(-1, 1, 1)
        for k, d in (("mean", [0.485, 0.456, 0.406]), ("std", [0.229, 0.224, 0.225]))
    )
    pixels = []
    for image in images:
        array = np.asarray(image, np.float64).transpose(2, 0, 1)[:channels] / 255
        pixels.append((array - mean) / std)
    with torch.inference_mode():
        tokens = model.eval().forward_features(torch.tensor(np.stack(pixels), dtype=torch.float32))
    return tokens[:, model.num_prefix_tokens :].mean(1).double().numpy()


def _of_transformers(path: Path, images: list[Image.Image]) -> NDArray[np.float64] | None:
    import torch

    try:
        from transformers import AutoConfig, AutoImageProcessor, AutoModel
    except ModuleNotFoundError:
        return None
    config = AutoConfig.from_pretrained(path, local_files_only=True)
    if hasattr(config, "mask_ratio"):
        config.mask_ratio = 0.0  # a masked autoencoder sees everything here
    processor = AutoImageProcessor.from_pretrained(path, local_files_only=True)
    model = AutoModel.from_pretrained(path, config=config, local_files_only=True).eval()
    model = getattr(model, "vision_model", model)
    pixels = processor(images=images, return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        tokens = model(pixel_values=pixels).last_hidden_state
    side = pixels.shape[-1] // _patch_of(config)
    return tokens[:, -side * side :].mean(1).double().numpy()


def _patch_of(config: Any) -> int:
    config = getattr(config, "vision_config", config)
    patch = config.patch_size
    return int(patch[0] if isinstance(patch, (list, tuple)) else patch)
