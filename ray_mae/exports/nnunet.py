"""The network of volumes for nnU-Net, its fine-tuning fork, nnssl and SSL3D_classification.

They get nnU-Net's ResidualEncoderUNet, encoder and decoder, under its own names. FiLM at noise level 0
is folded into the norms, so that the network says exactly what ours says of a clean volume.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ray_mae.checkpoint import format as ckpt
from ray_mae.config.sections import Paper
from ray_mae.encoders.resenc import LAST_LAYER, encoder_and_decoder, fold_film
from ray_mae.encoders.resenc_settings import ResEncSettings
from ray_mae.files import write_whole

NETWORK = "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet"
CONFIGURATION = "3d_ray_mae"
CHECKPOINT, PLAN = "checkpoint_final.pth", "adaptation_plan.json"
PLANS = "nnunet_configuration.json"
ONE_MM = "onemmiso"
"""nnssl's name of a configuration at 1 mm, which SSL3D_classification asks for."""
MASK_FOR_NORM = False
"""Trained on are z-scores over the foreground in which the background keeps its own value, far below 0.
nnU-Net's z-score within a mask sets the background to 0, which in training stood for what was hidden.
Its z-score over the whole volume differs from ours by one factor and one shift, which the network's first
instance norm takes out again, but for the rim of a crop."""


def network_weights(checkpoint: Path, settings: ResEncSettings) -> dict[str, torch.Tensor]:
    """Returns nnU-Net's state dict: its decoder holds the encoder once more, under a name of its own.

    Of a method that trains no U-Net decoder, and of an exported encoder, the decoder is a fresh one; where it
    was trained for several classes, its last layer is.

    Args:
        checkpoint: of a run, a checkpoint or an exported encoder.
        settings: of the encoder.
    """
    torch.manual_seed(0)
    encoder, decoder = encoder_and_decoder(settings)
    encoder.load_state_dict(_tensors(ckpt.encoder_weights(checkpoint)))
    own = decoder.state_dict()
    inner = {k: w for k, w in own.items() if not k.startswith(LAST_LAYER)}
    trained = ckpt.decoder_weights(checkpoint, own) or ckpt.decoder_weights(checkpoint, inner)
    decoder.load_state_dict(own | _tensors(trained))
    fold_film(encoder, decoder)
    theirs = {f"encoder.{k}": v for k, v in encoder.state_dict().items()}
    theirs |= {f"decoder.{k}": v for k, v in decoder.state_dict().items()}
    again = {f"decoder.{k}": v for k, v in theirs.items() if k.startswith("encoder.")}
    return theirs | again


def _tensors(weights: ckpt.Weights) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(w) for name, w in weights.items()}


def reverse_axes(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Returns the network for volumes with axes in reverse: kernels [O, I, x, y, z] → [O, I, z, y, x].

    We train on [x, y, z]; nnU-Net's readers give [z, y, x], and a volume has a front and a top. What
    several names share stays one tensor: in a file it takes its place once.
    """
    turned: dict[int, torch.Tensor] = {}
    for w in weights.values():
        if w.ndim == 5 and w.data_ptr() not in turned:
            turned[w.data_ptr()] = w.permute(0, 1, 4, 3, 2).contiguous()
    return {k: turned[w.data_ptr()] if w.ndim == 5 else w for k, w in weights.items()}


def arch_kwargs(settings: ResEncSettings) -> dict[str, Any]:
    """Returns nnU-Net's arguments of the network as plain values, types by their names."""
    stages = settings.stages
    n = len(stages.features)
    return {
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
    }


def is_resenc_l(settings: object) -> bool:
    """Whether it is nnU-Net's ResEnc-L, the one network that some programs take."""
    return isinstance(settings, ResEncSettings) and settings.preset == "large"


def plans_configuration(
    settings: ResEncSettings, spacing_mm: float | None, use_mask_for_norm: bool = MASK_FOR_NORM
) -> dict[str, Any]:
    """Returns what a data set's nnUNetPlans.json needs to train this network, by the configuration's name.

    Args:
        settings: of the encoder.
        spacing_mm: between the voxels trained on; None leaves that of the data set.
        use_mask_for_norm: see MASK_FOR_NORM.
    """
    return {
        CONFIGURATION: {
            "inherits_from": "3d_fullres",
            "data_identifier": f"nnUNetPlans_{CONFIGURATION}",
            "preprocessor_name": "DefaultPreprocessor",
            "patch_size": [settings.crop_size] * 3,
            **({"spacing": [spacing_mm] * 3} if spacing_mm else {}),
            "normalization_schemes": ["ZScoreNormalization"],
            "use_mask_for_norm": [use_mask_for_norm],
            "architecture": {
                "network_class_name": NETWORK,
                "arch_kwargs": arch_kwargs(settings),
                "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
            },
        }
    }


def adaptation_plan(settings: ResEncSettings, spacing_mm: float | None) -> dict[str, Any]:
    """Returns nnssl's plan of how a fine-tuning takes the checkpoint: which network, spacing and names."""
    patch = [settings.crop_size] * 3
    name = ONE_MM if spacing_mm == 1 else "ray_mae"
    stem = "encoder.stem.convs.0"
    resampling = "resample_data_or_seg_to_shape"

    def order(is_seg: bool) -> dict[str, Any]:
        return {
            "is_seg": is_seg,
            "order": 1 if is_seg else 3,
            "order_z": 0,
            "force_separate_z": None,
        }

    return {
        "architecture_plans": {
            "arch_class_name": NETWORK.rpartition(".")[2],
            "arch_kwargs": arch_kwargs(settings),
            "arch_kwargs_requiring_import": ["conv_op", "norm_op", "nonlin"],
        },
        "pretrain_plan": {
            "dataset_name": "ray_mae",
            "plans_name": "nnsslPlans",
            "original_median_spacing_after_transp": [spacing_mm or 1.0] * 3,
            "image_reader_writer": "SimpleITKIO",
            "transpose_forward": [0, 1, 2],
            "transpose_backward": [0, 1, 2],
            "configurations": {  # the first is taken
                name: {
                    "data_identifier": f"nnsslPlans_{name}",
                    "preprocessor_name": "DefaultPreprocessor",
                    "spacing_style": ONE_MM
                    if name == ONE_MM
                    else "median"
                    if spacing_mm
                    else "noresample",
                    "normalization_schemes": ["ZScoreNormalization"],
                    "use_mask_for_norm": [MASK_FOR_NORM],
                    "resampling_fn_data": resampling,
                    "resampling_fn_data_kwargs": order(False),
                    "resampling_fn_mask": resampling,
                    "resampling_fn_mask_kwargs": order(True),
                    "spacing": [spacing_mm] * 3 if spacing_mm else None,
                    "patch_size": patch,
                }
            },
            "experiment_planner_used": "ExperimentPlanner",
        },
        "pretrain_num_input_channels": 1,
        "recommended_downstream_patchsize": patch,
        "key_to_encoder": "encoder.stages",
        "key_to_stem": "encoder.stem",
        "keys_to_in_proj": [f"{stem}.conv", f"{stem}.all_modules.0"],
        "key_to_lpe": None,
    }


def write_nnunet(
    network: dict[str, torch.Tensor],
    facts: ckpt.EncoderFacts,
    method: str,
    papers: Sequence[Paper],
    output: Path,
) -> None:
    """Writes checkpoint_final.pth, adaptation_plan.json, config.json and nnunet_configuration.json.

    Args:
        network: by `network_weights`.
        facts: of the encoder.
        method: its name.
        papers: of the method.
        output: folder, which is there.
    """
    settings = facts.settings
    assert isinstance(settings, ResEncSettings)
    plan = adaptation_plan(settings, facts.spacing_mm)
    citation = {
        "type": "Method",
        "name": method,
        "apa_citations": [str(paper) for paper in papers],
        "bibtex_citations": [_bibtex(paper) for paper in papers],
    }
    content = {
        "network_weights": reverse_axes(network),
        "nnssl_adaptation_plan": plan,
        "citations": [citation],
        "trainer_name": "ray_mae",
    }
    torch.save(content, output / CHECKPOINT)
    _write_json(output / PLAN, {**plan, "trainer_name": "ray_mae"})
    _write_json(output / PLANS, plans_configuration(settings, facts.spacing_mm))
    _write_json(
        output / "config.json",  # nnU-Net's download wants one
        {
            "model_type": f"ray_mae_{settings.name}",
            "input": "[B, 1, X, Y, Z], RAS, z-scores over the foreground",
            "spacing_mm": facts.spacing_mm,
            "crop_size": settings.crop_size,
            "num_features": settings.stages.features[-1],
            "architecture": NETWORK,
        },
    )


def _bibtex(paper: Paper) -> str:
    key = paper.authors.partition(" ")[0].lower() + str(paper.year)
    authors = paper.authors.replace(" et al.", " and others")
    return (
        f"@misc{{{key}, author = {{{authors}}}, title = {{{paper.title}}}, year = {{{paper.year}}}, "
        f"howpublished = {{{paper.where}}}}}"
    )


def _write_json(file: Path, values: dict[str, Any]) -> None:
    write_whole(file, json.dumps(values, indent=1) + "\n")
