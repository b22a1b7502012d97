"""The files of `export --format` as version 0.1 wrote them, for programs that read these."""

import json
from pathlib import Path
from typing import cast

import numpy as np
import torch
from safetensors.numpy import save

from ray_mae.checkpoint.format import EncoderFacts, Weights, encoder_weights
from ray_mae.data.schema import VIEWS
from ray_mae.encoders.convnextv2_settings import ConvNextV2Settings
from ray_mae.encoders.resenc_settings import ResEncSettings
from ray_mae.encoders.vit_settings import VitSettings
from ray_mae.exports import nnunet
from ray_mae.exports.architectures import architecture_of
from ray_mae.exports.timm import TIMM_MODEL, timm_config
from ray_mae.exports.timm_convnextv2 import write_timm_convnextv2
from ray_mae.files import write_whole
from ray_mae.transforms.images import PIXEL_MEAN, PIXEL_STD


def write_timm_files(checkpoint: Path, facts: EncoderFacts, output: Path) -> str:
    """Writes a file per view, its embedding in the positions; returns how to load it, in words.

    Version 0.1 knew no ConvNeXt V2: of that it is the folder of today.
    """
    if isinstance(facts.settings, ConvNextV2Settings):
        weights, pool = encoder_weights(checkpoint), facts.settings.default_pool
        write_timm_convnextv2(weights, facts.settings, output, pool=pool, licence="unknown")
        return f"timm.create_model('local-dir:{output}', pretrained=True); it takes grey / 255"
    settings = cast(VitSettings, facts.settings)
    if settings.registers:
        raise ValueError(
            f"{checkpoint} has registers, which the format timm of version 0.1 does not know: leave "
            "--format out"
        )
    of_publish = timm_config(settings, "mean", "unknown")["model_args"]
    left_out = ("no_embed_class", "fc_norm", "global_pool")
    arguments = {k: v for k, v in of_publish.items() if k not in left_out}
    arguments |= {"in_chans": 1, "num_classes": 0}
    weights = encoder_weights(checkpoint)
    for view, name in enumerate(VIEWS):
        write_whole(output / f"{name}.safetensors", save(_timm_weights(weights, view)))
    description = {
        "model": TIMM_MODEL,
        "arguments": arguments,
        "mean": PIXEL_MEAN,
        "std": PIXEL_STD,
        "files": {name: f"{name}.safetensors" for name in VIEWS},
    }
    write_whole(output / "timm.json", json.dumps(description, indent=1) + "\n")
    keywords = ", ".join(f"{k}={v!r}" for k, v in arguments.items())
    file = str(output / "frontal.safetensors")
    return (
        f"timm.create_model({TIMM_MODEL!r}, {keywords}, checkpoint_path={file!r}); the features that "
        "are probed are model.forward_features(x)[:, 1:].mean(1), x = (grey / 255 − "
        f"{PIXEL_MEAN}) / {PIXEL_STD}; one file per view"
    )


def _timm_weights(weights: Weights, view: int) -> Weights:
    D, P = weights["patch.weight"].shape
    side = int(P**0.5)
    positions = weights["position"] + weights["view"][view]
    body = {k.removeprefix("body."): v for k, v in weights.items() if k.startswith("body.")}
    return {
        "cls_token": weights["cls"].reshape(1, 1, D),
        "pos_embed": np.concatenate([np.zeros((1, D), np.float32), positions])[None],
        "patch_embed.proj.weight": weights["patch.weight"].reshape(D, 1, side, side),
        "patch_embed.proj.bias": weights["patch.bias"],
        **body,
    }


def write_nnunet_files(checkpoint: Path, facts: EncoderFacts, output: Path) -> str:
    """Writes nnunet.pth and the configuration for a data set's plans; returns how to use them, in words."""
    network = nnunet.nnunet_weights(checkpoint, facts.settings)
    torch.save({"network_weights": network}, output / "nnunet.pth")
    plans = nnunet.plans_configuration(facts.settings, facts.spacing_mm, use_mask_for_norm=True)
    file, tr = output / nnunet.PLANS, nnunet.primus_trainer(facts.settings)
    write_whole(file, json.dumps(plans, indent=1) + "\n")
    return (
        f"add what is in {file} to `configurations` of the data set's nnUNetPlans.json, with "
        "use_mask_for_norm set to [false] as `publish` has it, then nnUNetv2_preprocess -d DATASET -c "
        f"{nnunet.CONFIGURATION} and nnUNetv2_train DATASET {nnunet.CONFIGURATION} FOLD "
        f"{f'-tr {tr} ' if tr else ''}"
        f"-pretrained_weights {output / 'nnunet.pth'}"
    )


def write_state_dict(checkpoint: Path, facts: EncoderFacts, output: Path) -> str:
    """Writes network.pt, a plain state dict; returns how to use it, in words."""
    settings = cast(ResEncSettings, facts.settings)
    network = architecture_of(settings).network
    torch.save(nnunet.network_weights(checkpoint, settings), output / "network.pt")
    return (
        f"{output / 'network.pt'} is the state dict of {network} for axes [x, y, z]; `publish` writes "
        "a MONAI bundle, which builds the network and loads it"
    )
