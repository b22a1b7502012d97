"""Voxels as bytes: how a volume, its valid mask and its label map lie in a row of VOLUME_SCHEMA.

Arrays are [X, Y, Z] in RAS order: the first index grows to the right of the patient, the second to
the front, the third to the head. Bytes are in C order, little endian.
"""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import zstandard
from numpy.typing import NDArray

VoxelType = Literal["int16", "float16", "float32"]
ENCODING = "zstd-shuffle"
# int16 holds z-scores in steps of this.
STEP = 2.0**-9
LARGEST: dict[VoxelType, float] = {"int16": 63.9, "float16": 65_000.0, "float32": 3e38}
"""Standard deviations that can be stored."""


def encode_voxels(voxels: NDArray[np.floating], dtype: VoxelType, level: int) -> bytes:
    """Encode z-scores as bytes, byte planes apart, compressed.

    Args:
        voxels: [X, Y, Z], within the LARGEST of `dtype`.
        dtype: of the stored values. int16 counts in steps of STEP.
        level: of zstd.
    """
    if dtype == "int16":
        limits = np.iinfo(np.int16)
        stored = np.rint(voxels / STEP).clip(limits.min, limits.max).astype("<i2")
    else:
        stored = voxels.astype(np.dtype(dtype).newbyteorder("<"))
    return _compress(stored, level)


def encode_labels(labels: NDArray[np.uint8], level: int) -> bytes:
    """Encode a label map [X, Y, Z] as bytes, compressed at a zstd level."""
    return _compress(labels, level)


def encode_valid(valid: NDArray[np.bool_]) -> bytes:
    """Encode a mask [X, Y, Z] as packed bits."""
    return np.packbits(valid).tobytes()


Part = tuple[slice, ...]
"""Of a volume, along each axis."""


def decode_voxels(row: Mapping[str, Any], part: Part = ()) -> NDArray[np.floating]:
    """Decode the z-scores of a row of VOLUME_SCHEMA.

    Args:
        row: with voxels, encoding, dtype and shape.
        part: of the volume; () is all of it.

    Returns:
        [X, Y, Z], float16 or float32.

    Raises:
        ValueError: this version cannot read the row, or bytes are missing.
    """
    kind = np.dtype(row["dtype"])
    stored = _decompress(row["voxels"], row, kind, part)
    return stored.astype(np.float32) * np.float32(STEP) if kind == np.int16 else stored


def decode_labels(row: Mapping[str, Any]) -> NDArray[np.uint8] | None:
    """Decode the label map [X, Y, Z] of a row of VOLUME_SCHEMA; None if it has none."""
    if row["segmentation"] is None:
        return None
    return _decompress(row["segmentation"], row, np.dtype(np.uint8))


def decode_valid(row: Mapping[str, Any]) -> NDArray[np.bool_] | None:
    """Decode the valid mask [X, Y, Z] of a row of VOLUME_SCHEMA; None if every voxel is valid."""
    if row["valid"] is None:
        return None
    shape = tuple(row["shape"])
    bits = np.unpackbits(np.frombuffer(row["valid"], np.uint8), count=int(np.prod(shape)))
    return bits.reshape(shape).view(bool)


def _compress(array: NDArray[np.generic], level: int) -> bytes:
    """High and low bytes apart: neighbours differ little, so the high ones compress far better."""
    planes = np.ascontiguousarray(array).reshape(-1).view(np.uint8).reshape(-1, array.itemsize)
    return zstandard.compress(np.ascontiguousarray(planes.T).tobytes(), level)


def _decompress(
    data: bytes | memoryview, row: Mapping[str, Any], kind: np.dtype[Any], part: Part = ()
) -> NDArray[Any]:
    if row["encoding"] != ENCODING:
        raise ValueError(
            f"volume {row.get('volume_id')} is encoded as {row['encoding']!r}, this ray_mae reads "
            f"{ENCODING!r}: ingest the archive again"
        )
    shape = tuple(row["shape"])
    size = int(np.prod(shape)) * kind.itemsize
    raw = zstandard.decompress(data, max_output_size=size)
    if len(raw) != size:
        raise ValueError(
            f"volume {row.get('volume_id')} holds {len(raw)} bytes where its shape {shape} of "
            f"{kind} needs {size}: restore the shard or ingest it again"
        )
    *lower, highest = np.frombuffer(raw, np.uint8).reshape(kind.itemsize, *shape)
    together = highest[part].astype(f"u{kind.itemsize}")
    for plane in reversed(lower):  # ten times as fast as moving bytes between one another
        together <<= 8
        together |= plane[part]
    return together.view(kind)
