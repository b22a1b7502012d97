"""The network of volumes as a MONAI bundle: configs/, models/model.pt, docs/.

The published folder is the bundle. Axes are [x, y, z], as MONAI's readers give them.
"""

import json
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from ray_mae.checkpoint.format import EncoderFacts
from ray_mae.encoders.resenc_settings import ResEncSettings
from ray_mae.exports.architectures import architecture_of
from ray_mae.files import write_whole

METADATA, TRAIN, INFERENCE = (f"configs/{name}.json" for name in ("metadata", "train", "inference"))
MODEL = "models/model.pt"
_TYPES = {"conv_op": "$torch.nn.Conv3d", "norm_op": "$torch.nn.InstanceNorm3d",
          "nonlin": "$torch.nn.LeakyReLU"}  # fmt: skip


def write_bundle(
    network: dict[str, torch.Tensor],
    facts: EncoderFacts,
    output: Path,
    *,
    name: str,
    authors: str,
    papers: list[str],
) -> None:
    """Writes what `monai.bundle.load` and `monai.bundle run` open.

    Args:
        network: by `network_weights`.
        facts: of the encoder.
        output: folder, which is there; its name is the bundle's.
        name: of the encoder.
        authors: of the encoder.
        papers: of the method, a line each.
    """
    settings = facts.settings
    assert isinstance(settings, ResEncSettings)
    for folder in ("configs", "models", "docs"):
        (output / folder).mkdir()
    torch.save(network, output / MODEL)
    shared = _network(settings)
    preprocessing = _preprocessing(facts.spacing_mm)
    inferer = {
        "_target_": "SlidingWindowInferer",
        "roi_size": [settings.crop_size] * 3,
        "overlap": 0.5,
    }
    _write(output / METADATA, _metadata(facts, settings, name, authors, papers))
    # without train.json MONAI's loader gives the weights and no network
    for file in (TRAIN, INFERENCE):
        _write(
            output / file,
            {
                "imports": ["$import torch"],
                "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
                **shared,
                "network": "$@network_def.to(@device)",
                "preprocessing": preprocessing,
                "inferer": inferer,
                "postprocessing": {"_target_": "Compose", "transforms": []},
            },
        )
    text = (
        f"# {name}\n\nInput, output, data, figures and limits: see README.md of the folder above.\n"
    )
    write_whole(output / "docs/README.md", text)


def _network(settings: ResEncSettings) -> dict[str, Any]:
    architecture = architecture_of(settings)
    return {
        "network_def": {
            "_target_": architecture.network,
            "input_channels": 1,
            "num_classes": 1,
            "deep_supervision": False,
            **architecture.kwargs,
            **_TYPES,
        }
    }


def _preprocessing(spacing_mm: float | None) -> dict[str, Any]:
    """Of files as in training, but for the z-score: over the whole volume, see `nnunet.MASK_FOR_NORM`."""
    keys = {"keys": "image"}
    spacing = [{"_target_": "Spacingd", **keys, "pixdim": [spacing_mm] * 3}] if spacing_mm else []
    return {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "LoadImaged", **keys},
            {"_target_": "EnsureChannelFirstd", **keys},
            {"_target_": "Orientationd", **keys, "axcodes": "RAS"},
            {"_target_": "CropForegroundd", **keys, "source_key": "image", "allow_smaller": True},
            {"_target_": "NormalizeIntensityd", **keys, "nonzero": False},
            *spacing,
        ],
    }


def _metadata(
    facts: EncoderFacts, settings: ResEncSettings, name: str, authors: str, papers: list[str]
) -> dict[str, Any]:
    size = [f"{settings.stages.stride}*n"] * 3
    labels = "by the help of" if "labels" in facts.read else "without"
    data = {"format": "magnitude", "modality": "MR", "dtype": "float32", "value_range": []}
    sides = f"RAS, {f'{facts.spacing_mm:g} mm' if facts.spacing_mm else 'of any spacing'}, z-scores"
    return {
        "version": "1.0.0",
        "changelog": {"1.0.0": "published by ray_mae"},
        "monai_version": version("monai"),
        "pytorch_version": torch.__version__.partition("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {
            "dynamic-network-architectures": version("dynamic-network-architectures")
        },
        "name": name,
        "task": "A pretrained encoder of volumes, to be fine-tuned",
        "description": f"nnU-Net's residual-encoder U-Net ({settings.preset}), pretrained {labels} labels; "
        f"input: {sides}",
        "authors": authors,
        "copyright": f"{date.today().year}, {authors}",
        "intended_use": "research; not a medical device",
        "references": papers,
        "network_data_format": {
            "inputs": {
                "image": {
                    "type": "image",
                    **data,
                    "num_channels": 1,
                    "spatial_shape": size,
                    "is_patch_data": True,
                    "channel_def": {"0": "image"},
                }
            },
            "outputs": {
                "pred": {
                    "type": "image",
                    **data,
                    "num_channels": 1,
                    "spatial_shape": size,
                    "is_patch_data": True,
                    "channel_def": {"0": "output of the last layer, to be trained"},
                }
            },
        },
    }


def _write(file: Path, values: dict[str, Any]) -> None:
    write_whole(file, json.dumps(values, indent=1) + "\n")
