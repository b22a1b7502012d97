"""What a file or a folder of somebody else's is, by what is in it; and the encoder in it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ray_mae.encoders.vit_settings import PRESETS
from ray_mae.open_weights import vits
from ray_mae.open_weights.convnextv2 import is_convnextv2, read_convnextv2
from ray_mae.open_weights.files import (
    INDEX,
    PICKLES,
    SAFE,
    files_of_index,
    read_json,
    read_pickle,
    read_safetensors,
)
from ray_mae.open_weights.source import OpenEncoder
from ray_mae.open_weights.volumes import read_nnssl

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
OPEN_CLIP = "open_clip_config.json"
NNSSL = "checkpoint_final.pth"
WEIGHTS = (
    *("model.safetensors", f"model.safetensors{INDEX}"),
    *("open_clip_model.safetensors", "pytorch_model.bin", "open_clip_pytorch_model.bin"),
)
"""Files of weights in a folder, the best first."""
_NETWORK = "network_weights"


def looks_open(path: Path) -> bool:
    """Returns whether a path may hold weights of others: a file of weights, or a folder with such."""
    if path.is_file():
        return path.suffix in (*PICKLES, SAFE)
    return any((path / name).is_file() for name in (CONFIG, NNSSL, OPEN_CLIP, *WEIGHTS))


def read_open(path: Path, *, own_size: bool = False) -> OpenEncoder:
    """Returns the encoder in a file or a folder, exactly as its makers have it.

    Only tensors, texts and numbers are read: no code runs.

    Args:
        path: a folder of timm's or Hugging Face's layout, a folder or file of nnssl's, or a .pth file of the
            authors of MAE, MVMAE, medical_mae or DINOv2.
        own_size: leave a table of positions as it is, of whatever size the preprocessing makes an image.

    Raises:
        ValueError: it cannot be read, with the file and what would do.
    """
    if path.is_dir():
        if (path / NNSSL).is_file():
            return read_open(path / NNSSL)
        if (path / OPEN_CLIP).is_file():
            return _of_open_clip(path)
        if (path / CONFIG).is_file():
            return _with_config(path, own_size)
        raise ValueError(
            f"{path} has no {CONFIG}, which says what its weights are: give the folder as it was published, "
            "or the file of weights itself"
        )
    if path.suffix == SAFE:
        return _by_names(path, read_safetensors(path), {})
    content = read_pickle(path)
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds {type(content).__name__}, and no weights by name")
    if _NETWORK in content:
        return read_nnssl(path, content)
    for inside in ("model", "state_dict", "teacher"):
        if isinstance(content.get(inside), Mapping):
            return _by_names(path, _tensors(content[inside]), vars(content.get("args") or _NOTHING))
    return _by_names(path, _tensors(content), {})


class _Nothing:
    """Without attributes."""


_NOTHING = _Nothing()


def _with_config(path: Path, own_size: bool) -> OpenEncoder:
    config = read_json(path / CONFIG)
    files, tensors = _weights_in(path)
    if is_convnextv2(config):
        return read_convnextv2(path, files, tensors, config)
    if "architecture" in config or "pretrained_cfg" in config:
        return vits.read_timm(path, files, tensors, config)
    seen = read_json(path / PREPROCESSOR) if (path / PREPROCESSOR).is_file() else {}
    return vits.read_hf(path, files, tensors, config, seen, own_size=own_size)


def _of_open_clip(path: Path) -> OpenEncoder:
    """The image encoder of an open_clip model, where it is one of timm's."""
    config = read_json(path / OPEN_CLIP)
    vision = (config.get("model_cfg") or {}).get("vision_cfg") or {}
    if "timm_model_name" not in vision:
        raise ValueError(
            f"{path / OPEN_CLIP} names no network of timm (timm_model_name): a CLIP in the form of OpenAI's "
            "is read as timm's folder alone"
        )
    files, tensors = _weights_in(path)
    seen = config.get("preprocess_cfg") or {}
    arguments = {"img_size": vision["image_size"]} if "image_size" in vision else {}
    settings = {"architecture": vision["timm_model_name"], "model_args": arguments}
    return vits.read_timm(path, files, tensors, {**settings, "pretrained_cfg": seen})


def _weights_in(path: Path) -> tuple[list[Path], dict[str, Tensor]]:
    files = _files_of(path)
    tensors: dict[str, Tensor] = {}
    for file in files:
        tensors |= read_safetensors(file) if file.suffix == SAFE else _tensors(read_pickle(file))
    return files, tensors


def _files_of(path: Path) -> list[Path]:
    for name in WEIGHTS:
        if (path / name).is_file():
            return files_of_index(path / name) if name.endswith(INDEX) else [path / name]
    raise ValueError(f"{path} has no weights: none of {', '.join(WEIGHTS)} is there")


def _by_names(path: Path, tensors: dict[str, Tensor], args: Mapping[str, Any]) -> OpenEncoder:
    """The encoder of a file that says nothing of itself: the names of its weights do."""
    names = " ".join(tensors)
    if "storage_tokens" in names:
        raise ValueError(
            f"{path} is a DINOv3 in the form of its authors: take its folder for transformers or timm "
            f"({CONFIG} with model.safetensors), which is read"
        )
    if "visual.class_embedding" in names or "transformer.resblocks." in names:
        raise ValueError(
            f"{path} is a CLIP in the form of OpenAI's: take it as timm's folder, which is read"
        )
    if "decoder_embed.weight" in names:
        return vits.read_named(path, tensors, vits.MAE, _heads_of(args))
    if ".ls1.gamma" in names:
        return vits.read_named(path, tensors, vits.DINOV2)
    if any("patch_embed.proj.weight" in name for name in tensors):
        family = vits.MAE if "fc_norm.weight" in names else vits.PLAIN
        return vits.read_named(path, tensors, family, _heads_of(args))
    some = ", ".join(sorted(tensors)[:3])
    raise ValueError(
        f"{path} holds no encoder that is known (weights such as {some}): ray-mae reads ViTs with timm's, "
        "transformers' or DINOv2's names, and ResEnc and Primus networks of nnssl"
    )


def _heads_of(args: Mapping[str, Any]) -> int | None:
    """The attention heads of the network that MAE's arguments name, such as mae_vit_base_patch16."""
    model = str(args.get("model", ""))
    return next((shape.heads for name, shape in PRESETS.items() if f"vit_{name}" in model), None)


def _tensors(content: Any) -> dict[str, Tensor]:
    return {name: value for name, value in content.items() if isinstance(value, Tensor)}
