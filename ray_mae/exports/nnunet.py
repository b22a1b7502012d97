"""The network of volumes for nnU-Net, and for MONAI or plain PyTorch.

Both get nnU-Net's ResidualEncoderUNet, encoder and decoder, under its own names. FiLM at noise level 0
is folded into the norms, so that the network says exactly what ours says of a clean volume.
"""

import json
from pathlib import Path
from typing import Any, cast

import torch

from ray_mae.checkpoint import format as ckpt
from ray_mae.encoders.resenc import encoder_and_decoder, fold_film
from ray_mae.encoders.resenc_settings import ResEncSettings
from ray_mae.files import write_whole

NETWORK = "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet"
CONFIGURATION = "3d_ray_mae"


def network_weights(checkpoint: Path, settings: ResEncSettings) -> dict[str, torch.Tensor]:
    """Returns nnU-Net's state dict: its decoder holds the encoder once more, under a name of its own.

    Of a method that trains no U-Net decoder, and of an exported encoder, the decoder is a fresh one.

    Args:
        checkpoint: of a run, a checkpoint or an exported encoder.
        settings: of the encoder.
    """
    torch.manual_seed(0)
    encoder, decoder = encoder_and_decoder(settings)
    encoder.load_state_dict(_tensors(ckpt.encoder_weights(checkpoint)))
    if trained := ckpt.decoder_weights(checkpoint, decoder.state_dict()):
        decoder.load_state_dict(_tensors(trained))
    fold_film(encoder, decoder)
    theirs = {f"encoder.{k}": v for k, v in encoder.state_dict().items()}
    theirs |= {f"decoder.{k}": v for k, v in decoder.state_dict().items()}
    again = {f"decoder.{k}": v for k, v in theirs.items() if k.startswith("encoder.")}
    return theirs | again


def _tensors(weights: ckpt.Weights) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(w) for name, w in weights.items()}


def reverse_axes(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Returns the network for volumes with axes in reverse: kernels [O, I, x, y, z] → [O, I, z, y, x].

    We train on [x, y, z]; nnU-Net's readers give [z, y, x], and a volume has a front and a top.
    """
    return {
        k: w.permute(0, 1, 4, 3, 2).contiguous() if w.ndim == 5 else w for k, w in weights.items()
    }


def architecture_plan(settings: ResEncSettings) -> dict[str, Any]:
    """Returns the `architecture` entry of nnU-Net's plans."""
    stages = settings.stages
    n = len(stages.features)
    return {
        "network_class_name": NETWORK,
        "arch_kwargs": {
            "n_stages": n,
            "features_per_stage": list(stages.features),
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": [[3, 3, 3]] * n,
            "strides": [[s] * 3 for s in stages.strides],
            "n_blocks_per_stage": list(stages.blocks),
            "n_conv_per_stage_decoder": [1] * (n - 1),
            "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def export_nnunet(checkpoint: Path, facts: ckpt.EncoderFacts, output: Path) -> str:
    """Writes nnunet.pth and the configuration for a data set's plans; returns how to use them, in words."""
    settings, spacing_mm = cast(ResEncSettings, facts.settings), facts.spacing_mm
    network = reverse_axes(network_weights(checkpoint, settings))
    torch.save({"network_weights": network}, output / "nnunet.pth")
    configuration = {
        CONFIGURATION: {
            "inherits_from": "3d_fullres",
            "data_identifier": f"nnUNetPlans_{CONFIGURATION}",
            "preprocessor_name": "DefaultPreprocessor",
            "patch_size": [settings.crop_size] * 3,
            **({"spacing": [spacing_mm] * 3} if spacing_mm else {}),
            "normalization_schemes": ["ZScoreNormalization"],
            "use_mask_for_norm": [True],
            "architecture": architecture_plan(settings),
        }
    }
    file = output / "nnunet_configuration.json"
    write_whole(file, json.dumps(configuration, indent=1) + "\n")
    return (
        f"add what is in {file} to `configurations` of the data set's nnUNetPlans.json, then "
        f"nnUNetv2_preprocess -d DATASET -c {CONFIGURATION} and nnUNetv2_train DATASET "
        f"{CONFIGURATION} FOLD -pretrained_weights {output / 'nnunet.pth'}"
    )


def export_monai(checkpoint: Path, facts: ckpt.EncoderFacts, output: Path) -> str:
    """Writes network.pt (a plain state dict) and load_network.py; returns how to use them, in words."""
    settings, spacing_mm = cast(ResEncSettings, facts.settings), facts.spacing_mm
    torch.save(network_weights(checkpoint, settings), output / "network.pt")
    kwargs = architecture_plan(settings)["arch_kwargs"]
    imported = {"conv_op": "nn.Conv3d", "norm_op": "nn.InstanceNorm3d", "nonlin": "nn.LeakyReLU"}
    lines = [f"    {name}={imported.get(name, repr(value))}," for name, value in kwargs.items()]
    write_whole(
        output / "load_network.py",
        _LOADER.format(
            arguments="\n    ".join(lines),
            spacing=f"{spacing_mm:g} mm" if spacing_mm else "of any spacing",
        ),
    )
    return (
        f"from load_network import load_network (in {output}): a module for MONAI's losses, engines "
        "and sliding_window_inference, or for a loop of your own"
    )


_LOADER = '''"""nnU-Net's network with pretrained weights, for MONAI or plain PyTorch.

Input: [B, 1, X, Y, Z], RAS, {spacing}, z-scored over the foreground.
"""

from pathlib import Path

import torch
from dynamic_network_architectures.architectures.unet import ResidualEncoderUNet
from torch import nn


def load_network(classes: int) -> nn.Module:
    """Pretrained encoder, and a fresh last layer for so many classes.

    The decoder is pretrained where the method trains a U-Net's, and fresh otherwise.
    """
    network = ResidualEncoderUNet(
        1,
        num_classes=classes,
    {arguments}
    )
    network.apply(network.initialize)
    weights = torch.load(Path(__file__).with_name("network.pt"), weights_only=True)
    kept = {{k: v for k, v in weights.items() if ".seg_layers." not in k}}
    missing, unexpected = network.load_state_dict(kept, strict=False)
    assert not unexpected and all(".seg_layers." in name for name in missing)
    return network
'''
