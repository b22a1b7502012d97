"""Encoders for frozen use, from what training and `export` leave: `load_encoder`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import torch

from ray_mae.checkpoint.encoders import read_encoder
from ray_mae.config.registry import load
from ray_mae.config.sections import DataConfig, EncoderSettings
from ray_mae.config.urls import opened
from ray_mae.encoders.base import Encoder
from ray_mae.encoders.registry import build_encoder

if TYPE_CHECKING:
    from ray_mae.inference.studies import FrozenStudyEncoder
    from ray_mae.inference.volumes import FrozenVolumeEncoder

AnyEncoder: TypeAlias = Union["FrozenStudyEncoder", "FrozenVolumeEncoder"]

_FROZEN = {  # by dimensions of the input; the libraries of volumes take seconds to import
    2: "ray_mae.inference.studies:FrozenStudyEncoder",
    3: "ray_mae.inference.volumes:FrozenVolumeEncoder",
}


def load_encoder(path: Path | str, pool: str | None = None) -> tuple[AnyEncoder, Any]:
    """Loads a pretrained encoder. Only tensors and JSON are read: no code runs.

    Args:
        path: a run, a checkpoint, an exported folder, or weights of others (docs/weights.md), which come
            with their own preprocessing; on disk, or a URL of a store (docs/object_stores.md).
        pool: "mean" over patch tokens or "cls" (images only); by default mean, or what an encoder's makers
            take.

    Returns:
        The module, in evaluation mode, on the CPU, and the preprocessing that belongs to it:
        FrozenStudyEncoder and Preprocessing for images, FrozenVolumeEncoder and VolumePreprocessing for
        volumes. An image is seen whole. Of a volume `preprocess(path)` gives the middle crop, of the size
        of the pretraining's, and the encoder sees nothing else; `encoder.embed_whole(preprocess.whole(path))`
        sees all of it, by windows over the foreground.

    Raises:
        FileNotFoundError: that says what was looked for.
        ValueError: weights of others that cannot be read, with what would do.
    """
    network, facts = read_encoder(opened(path))
    encoder = _frozen(network, facts.data, pool, facts.spacing_mm)
    return encoder.eval(), encoder.preprocessing


def random_encoder(
    settings: EncoderSettings,
    seed: int,
    pool: str | None = None,
    *,
    data: DataConfig | None = None,
    spacing_mm: float | None = None,
) -> AnyEncoder:
    """Returns an encoder with fresh weights, in evaluation mode: what a pretrained one must beat.

    Args:
        settings: of the encoder.
        seed: of the weights.
        pool: as of `load_encoder`.
        data: how samples were drawn in the pretraining that it stands beside; default: the defaults.
        spacing_mm: between the voxels that it is for; None for images, and where each volume has its own.
    """
    torch.manual_seed(seed)
    return _frozen(build_encoder(settings), data, pool, spacing_mm).eval()


def _frozen(
    network: Encoder, data: DataConfig | None, pool: str | None, spacing_mm: float | None
) -> AnyEncoder:
    frozen = load(_FROZEN[network.settings.dimensions])
    encoder: AnyEncoder = frozen(network, data, pool, spacing_mm)
    return encoder
