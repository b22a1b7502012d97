"""The files of an encoder for each tool, in one folder."""

from pathlib import Path

from safetensors.numpy import save

from ray_mae.checkpoint import format as ckpt
from ray_mae.encoders.convnextv2_settings import ConvNextV2Settings
from ray_mae.encoders.primus_settings import PrimusSettings
from ray_mae.encoders.resenc_settings import ResEncSettings
from ray_mae.encoders.vit_settings import VitSettings
from ray_mae.exports.bundle import write_bundle
from ray_mae.exports.nnunet import (
    network_weights,
    nnunet_weights,
    primus_trainer,
    reverse_axes,
    write_nnunet,
)
from ray_mae.exports.origin import UNKNOWN, Origin
from ray_mae.exports.timm import write_timm
from ray_mae.exports.timm_convnextv2 import write_timm_convnextv2
from ray_mae.files import write_whole

KNOWN = (VitSettings, ConvNextV2Settings, ResEncSettings, PrimusSettings)
"""Encoders that other tools have a network for."""


def write_own(checkpoint: Path, facts: ckpt.EncoderFacts, output: Path) -> None:
    """Writes encoder.safetensors and encoder.json, which `load_encoder` reads.

    Args:
        checkpoint: of a run, a checkpoint or an exported encoder.
        facts: of the encoder.
        output: folder, which is there.
    """
    write_whole(output / ckpt.ENCODER, save(ckpt.encoder_weights(checkpoint)))
    ckpt.write_exported(output, facts)


def write_parts(
    checkpoint: Path,
    facts: ckpt.EncoderFacts,
    origin: Origin,
    output: Path,
    *,
    name: str,
    pool: str = "mean",
    view: str = "frontal",
    licence: str = UNKNOWN,
    authors: str = UNKNOWN,
) -> str:
    """Writes our own files, and those of timm and transformers, or of nnU-Net and MONAI.

    Args:
        checkpoint: of a run, a checkpoint or an exported encoder.
        facts: of the encoder.
        origin: of the encoder.
        output: folder, which is there; its name is the bundle's.
        name: of the encoder.
        pool: of images: mean or cls.
        view: of images, whose bias the model has.
        licence: of the weights.
        authors: of the encoder.

    Returns:
        How to open it, in words.
    """
    write_own(checkpoint, facts, output)
    if isinstance(facts.settings, (VitSettings, ConvNextV2Settings)):
        weights = ckpt.encoder_weights(checkpoint)
        if isinstance(facts.settings, VitSettings):
            write_timm(weights, facts.settings, output, pool=pool, view=view, licence=licence)
        else:
            write_timm_convnextv2(weights, facts.settings, output, pool=pool, licence=licence)
        return (
            "timm.create_model('local-dir:{folder}', pretrained=True, in_chans=1, num_classes=0); it takes "
            "grey / 255, without in_chans in three channels"
        )
    if isinstance(facts.settings, ResEncSettings):
        network = network_weights(checkpoint, facts.settings)
        write_nnunet(reverse_axes(network), facts, origin.method, origin.papers, output)
        papers = [str(paper) for paper in origin.papers]
        write_bundle(network, facts, output, name=name, authors=authors, papers=papers)
        return (
            "nnUNetv2_train … -pretrained_weights {folder}/checkpoint_final.pth, with the configuration of "
            "nnunet_configuration.json; or monai.bundle.load"
        )
    if isinstance(facts.settings, PrimusSettings) and not facts.settings.plain:
        network = nnunet_weights(checkpoint, facts.settings)
        write_nnunet(network, facts, origin.method, origin.papers, output)
        if (trainer := primus_trainer(facts.settings)) is None:
            return "dynamic-network-architectures' Primus, as docs/publish.md shows"
        return (
            f"nnUNetv2_train … -tr {trainer} -pretrained_weights {{folder}}/checkpoint_final.pth for two "
            "classes (docs/publish.md says how for more), with the configuration of "
            "nnunet_configuration.json"
        )
    return "ray_mae.load_encoder('{folder}')"
