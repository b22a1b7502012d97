"""The network of volumes for nnU-Net, its fine-tuning fork, nnssl and SSL3D_classification.

They get nnU-Net's ResidualEncoderUNet or Primus, encoder and decoder, under its own names. FiLM at noise
level 0 is folded into the norms, so that the network says exactly what ours says of a clean volume.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ray_mae.checkpoint import format as ckpt
from ray_mae.config.sections import EncoderSettings, Paper
from ray_mae.encoders.primus_settings import PRESETS, PrimusSettings
from ray_mae.encoders.resenc import LAST_LAYER, encoder_and_decoder, fold_film
from ray_mae.encoders.resenc_settings import ResEncSettings
from ray_mae.exports.architectures import architecture_of
from ray_mae.files import write_whole
from ray_mae.open_weights.primus import ORDER, REVERSED

CONFIGURATION = "3d_ray_mae"
CHECKPOINT, PLAN = "checkpoint_final.pth", "adaptation_plan.json"
PLANS = "nnunet_configuration.json"
ONE_MM = "onemmiso"
"""nnssl's name of a configuration at 1 mm, which SSL3D_classification asks for."""
PRIMUS_CLASSES = 2
"""Of a Primus' decoder: its shapes depend on their number, so that a data set of more has another one."""
PUBLISHED_PATCH = 8
"""Voxels per side of a patch, of nnU-Net's trainers of Primus."""
PRIMUS_ORDER = "w h d"
"""Of its tokens, as dynamic-network-architectures has it since 0.4.3."""
MASK_FOR_NORM = False
"""Trained on are z-scores over the foreground in which the background keeps its own value, far below 0.
nnU-Net's z-score within a mask sets the background to 0, which in training stood for what was hidden.
Its z-score over the whole volume differs from ours by one factor and one shift, which the network's first
instance norm takes out again, but for the rim of a crop."""


def nnunet_weights(checkpoint: Path, settings: EncoderSettings) -> dict[str, torch.Tensor]:
    """Returns nnU-Net's state dict of volumes [z, y, x], as its readers give them.

    Of a Primus the decoder is a fresh one, of a segmentation with two classes.

    Args:
        checkpoint: of a run, a checkpoint or an exported encoder.
        settings: of the encoder.
    """
    if isinstance(settings, ResEncSettings):
        return reverse_axes(network_weights(checkpoint, settings))
    assert isinstance(settings, PrimusSettings)
    if settings.plain:
        raise ValueError(
            f"{checkpoint} has a plain ViT's blocks (encoder.plain), which no network of nnU-Net has: leave "
            "--format out"
        )
    from ray_mae.encoders.primus import UpProjection, turned

    torch.manual_seed(0)
    decoder = UpProjection(settings, PRIMUS_CLASSES).state_dict()
    network = _tensors(ckpt.encoder_weights(checkpoint))
    network |= {f"up_projection.{name}": w for name, w in decoder.items()}
    theirs = turned(network, settings.shape.heads, REVERSED, REVERSED)
    return theirs | {"mask_token": torch.zeros(1, 1, settings.shape.width)}


def network_weights(checkpoint: Path, settings: ResEncSettings) -> dict[str, torch.Tensor]:
    """Returns the state dict of a residual U-Net: its decoder holds the encoder once more, by another name.

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


def primus_trainer(settings: object) -> str | None:
    """The trainer of nnU-Net that builds this Primus; None where it has none of that size."""
    if not isinstance(settings, PrimusSettings) or settings.patch_size != PUBLISHED_PATCH:
        return None
    sizes = {name: shape for name, shape in PRESETS.items() if name != "tiny"}
    fits = [name for name, shape in sizes.items() if shape == settings.shape]
    return f"nnUNet_Primus_{fits[0]}_Trainer" if fits else None


def is_resenc_l(settings: object) -> bool:
    """Whether it is nnU-Net's ResEnc-L, the one network that some programs take."""
    return isinstance(settings, ResEncSettings) and settings.preset == "large"


def plans_configuration(
    settings: EncoderSettings, spacing_mm: float | None, use_mask_for_norm: bool = MASK_FOR_NORM
) -> dict[str, Any]:
    """Returns what a data set's nnUNetPlans.json needs to train this network, by the configuration's name.

    Args:
        settings: of the encoder.
        spacing_mm: between the voxels trained on; None leaves that of the data set.
        use_mask_for_norm: see MASK_FOR_NORM.
    """
    architecture = architecture_of(settings)
    return {
        CONFIGURATION: {
            "inherits_from": "3d_fullres",
            "data_identifier": f"nnUNetPlans_{CONFIGURATION}",
            "preprocessor_name": "DefaultPreprocessor",
            "patch_size": [settings.input_size] * 3,
            **({"spacing": [spacing_mm] * 3} if spacing_mm else {}),
            "normalization_schemes": ["ZScoreNormalization"],
            "use_mask_for_norm": [use_mask_for_norm],
            "architecture": {
                "network_class_name": architecture.network,
                "arch_kwargs": architecture.kwargs,
                "_kw_requires_import": list(architecture.types),
            },
        }
    }


def adaptation_plan(settings: EncoderSettings, spacing_mm: float | None) -> dict[str, Any]:
    """Returns nnssl's plan of how a fine-tuning takes the checkpoint: which network, spacing and names."""
    architecture, patch = architecture_of(settings), [settings.input_size] * 3
    name = ONE_MM if spacing_mm == 1 else "ray_mae"
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
            "arch_class_name": architecture.network.rpartition(".")[2],
            "arch_kwargs": architecture.kwargs,
            "arch_kwargs_requiring_import": [
                name for name in architecture.types if architecture.kwargs[name]
            ],
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
        "key_to_encoder": architecture.encoder,
        "key_to_stem": architecture.stem,
        "keys_to_in_proj": list(architecture.in_proj),
        "key_to_lpe": architecture.positions,
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
        network: by `nnunet_weights`.
        facts: of the encoder.
        method: its name.
        papers: of the method.
        output: folder, which is there.
    """
    settings, architecture = facts.settings, architecture_of(facts.settings)
    plan = adaptation_plan(settings, facts.spacing_mm)
    citation = {
        "type": "Method",
        "name": method,
        "apa_citations": [str(paper) for paper in papers],
        "bibtex_citations": [_bibtex(paper) for paper in papers],
    }
    content = {
        "network_weights": network,
        "nnssl_adaptation_plan": plan,
        "citations": [citation],
        "trainer_name": "ray_mae",
    }
    if isinstance(settings, PrimusSettings):
        content[ORDER] = PRIMUS_ORDER
    torch.save(content, output / CHECKPOINT)
    _write_json(output / PLAN, {**plan, "trainer_name": "ray_mae"})
    _write_json(output / PLANS, plans_configuration(settings, facts.spacing_mm))
    _write_json(
        output / "config.json",  # nnU-Net's download wants one
        {
            "model_type": f"ray_mae_{settings.name}",
            "input": "[B, 1, X, Y, Z], RAS, z-scores over the foreground",
            "spacing_mm": facts.spacing_mm,
            "crop_size": settings.input_size,
            "num_features": architecture.features,
            "architecture": architecture.network,
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
