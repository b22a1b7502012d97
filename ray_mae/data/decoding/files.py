"""Single files, decoded as `ingest` decodes them: for notebooks and services."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_mae.config import IngestConfig
from ray_mae.data.decoding.decoder_process import prepare_file, prepare_image_isolated
from ray_mae.data.decoding.geometry import Spacing
from ray_mae.data.decoding.image_preprocessing import ImagePreparation
from ray_mae.data.decoding.stored_images import decode
from ray_mae.data.quarantine import QuarantineError


def decode_image(path: Path | str, **settings: Any) -> NDArray[np.uint8]:
    """Returns a radiograph as `ingest` stores it, decoded in a process of its own.

    Args:
        path: a DICOM, PNG or JPEG file.
        settings: those of `ingest` that images have, where they are not its defaults: image_size, max_pixels,
            max_aspect, bits, encoding, jpeg_quality,
            burned_in, secondary_captures, body_parts.

    Returns:
        Grey values [H, W] as the default window shows them, black to white, with image_size (256) pixels
        along the short side at most.

    Raises:
        ValueError: `ingest` would put the image into quarantine, with the reason; or a setting is wrong.
    """
    config = IngestConfig(archive="dicom", source=Path(path), output=Path(path), **settings)
    try:
        prepared = prepare_image_isolated(Path(path), ImagePreparation.of(config))
    except QuarantineError as error:
        raise ValueError(f"{path} is no usable image: {error}") from error
    return decode(prepared.image)


def decode_volume(path: Path | str, spacing_mm: Spacing = 1.0) -> NDArray[np.float32]:
    """Returns a volume as `ingest` stores it, decoded in a process of its own.

    Args:
        path: a NIfTI file, or a folder with one DICOM series.
        spacing_mm: between the voxels, along each axis or for all; None: as it is.

    Returns:
        Z-scores [X, Y, Z] in RAS order.

    Raises:
        ValueError: `ingest` would put the volume into quarantine, with the reason.
    """
    return prepare_file(Path(path), spacing_mm)
