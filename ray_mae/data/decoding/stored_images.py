"""Images as bytes: how a view lies in a row of STUDY_SCHEMA.

Three encodings, measured on real radiographs by benchmarks/encodings.py. `zstd` is exact as PNG is:
each row of the image minus the row above, modulo 256, compressed. It takes a tenth more bytes than PNG and is
decoded seven times as fast, and encoded twenty times. Of images with more than 8 bits there is only that:
small differences of either sign are made small numbers first, and their lower and upper bytes lie apart.
"""

import io
import struct
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import zstandard
from numpy.typing import NDArray
from PIL import Image

from ray_mae.data.decoding.deep import BLACK, WHITE, Grey

Encoding = Literal["zstd", "png", "jpeg"]
Bytes: TypeAlias = bytes | memoryview
EXACT = ("zstd", "png")
"""Encodings that give back what was stored."""

# Of zlib's levels the first that saves as much as the last: level 1 takes 16 % more bytes, level 6 no fewer
# and nearly twice the time. Of zstd's the first is the best on these differences, up to 19.
PNG_LEVEL, ZSTD_LEVEL = 4, 1
MAGIC, MAGIC_DEEP = b"\x93rows", b"\x93deep"
"""Begin the bytes of `zstd`, of 8 bits and of more; height and width follow, of more also the bits."""
_HEADER, _HEADER_DEEP = struct.Struct("<5sHH"), struct.Struct("<5sHHB")
_GROUP = 16
"""Rows that are added up together: numpy does the same step of all groups at once."""


class Window(NamedTuple):
    """Which grey levels are shown black and white; 0 and 1 are those of the default window."""

    low: float = 0.0
    high: float = 1.0


DEFAULT = Window()


def encode(
    image: Grey,
    encoding: Encoding,
    jpeg_quality: int = 95,
    bits: int = 16,
) -> bytes:
    """Encode an image [H, W] as zstd or PNG (lossless) or grey JPEG.

    Args:
        image: grey values of 8 bits, or of 16 as of `ray_mae.data.decoding.deep`; at most 65,535 pixels high
            and wide.
        encoding: zstd, png or jpeg; of 16 bits zstd.
        jpeg_quality: 1 to 100, of JPEG alone.
        bits: that are kept of 16.
    """
    if image.dtype == np.uint16:
        return _encode_deep(image, bits)
    if encoding == "zstd":
        difference = image.copy()
        difference[1:] -= image[:-1]
        packed = zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(difference.tobytes())
        return _HEADER.pack(MAGIC, *image.shape) + packed
    file = io.BytesIO()
    if encoding == "png":
        Image.fromarray(image).save(file, "PNG", compress_level=PNG_LEVEL)
    else:
        Image.fromarray(image).save(file, "JPEG", quality=jpeg_quality, optimize=True)
    return file.getvalue()


def is_deep(data: Bytes) -> bool:
    """Whether the bytes of `encode` are an image of more than 8 bits."""
    return bytes(data[: len(MAGIC_DEEP)]) == MAGIC_DEEP


def decode(data: Bytes, window: Window = DEFAULT) -> NDArray[np.uint8]:
    """Decode the bytes of `encode` to an image [H, W], as a window shows it.

    Of images with more than 8 bits it is chosen before they are rounded to 8.

    Raises:
        ValueError, OSError: they are damaged.
    """
    if is_deep(data):
        values, bits = decode_deep(data)
        black, white = BLACK >> (16 - bits), WHITE >> (16 - bits)
        return _shown(values, black, white, window)
    if bytes(data[: len(MAGIC)]) == MAGIC:
        (_, height, width), packed = _unpacked(data, _HEADER)
        image = _summed(_difference(packed, height, width, 1).reshape(height, width))
    else:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as file:
            image = np.asarray(file)
    return image if window == DEFAULT else _shown(np.arange(256), 0, 255, window).take(image)


def decode_deep(data: Bytes) -> tuple[NDArray[np.uint16], int]:
    """The values [H, W] of an image of more than 8 bits as they are stored, and how many bits they have.

    Raises:
        ValueError: they are damaged.
    """
    (_, height, width, bits), packed = _unpacked(data, _HEADER_DEEP)
    low, high = _difference(packed, height, width, 2).reshape(2, -1)
    folded = high.astype(np.uint16) << 8
    folded |= low
    difference = (folded >> 1) ^ (0 - (folded & 1))
    return _summed(difference.reshape(height, width)), bits


def _encode_deep(image: Grey, bits: int) -> bytes:
    dropped = 16 - bits
    half = 1 << dropped >> 1  # so that they are rounded
    values = (np.minimum(image, 65535 - half) + half) >> dropped
    difference = values.copy()
    difference[1:] -= values[:-1]
    signed = difference.view(np.int16)
    folded = ((signed << 1) ^ (signed >> 15)).view(np.uint16)  # 0, -1, 1, -2 … → 0, 1, 2, 3 …
    planes = (folded & 255).astype(np.uint8).tobytes() + (folded >> 8).astype(np.uint8).tobytes()
    packed = zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(planes)
    return _HEADER_DEEP.pack(MAGIC_DEEP, *image.shape, bits) + packed


def _shown(
    values: NDArray[np.integer], black: int, white: int, window: Window
) -> NDArray[np.uint8]:
    """Values in 8 bits. black, white: of the default window."""
    slope = np.float32(255 / ((white - black) * (window.high - window.low)))
    shown = values.astype(np.float32)
    shown -= np.float32(black + (white - black) * window.low)
    shown *= slope
    np.rint(shown, out=shown)
    return shown.clip(0, 255, out=shown).astype(np.uint8)


def _unpacked(data: Bytes, header: struct.Struct) -> tuple[tuple[Any, ...], memoryview]:
    try:
        return header.unpack_from(data), memoryview(data)[header.size :]
    except struct.error as error:
        raise ValueError(f"a stored image is damaged: {error}") from error


def _difference(
    packed: memoryview, height: int, width: int, bytes_per_pixel: int
) -> NDArray[np.uint8]:
    size = height * width * bytes_per_pixel
    try:
        content = zstandard.ZstdDecompressor().decompress(packed, size)
    except zstandard.ZstdError as error:
        raise ValueError(f"a stored image is damaged: {error}") from error
    if len(content) != size:
        raise ValueError(
            f"a stored image is damaged: {len(content)} bytes of {height} x {width} pixels"
        )
    return np.frombuffer(content, np.uint8)


def _summed(difference: NDArray[Any]) -> NDArray[Any]:
    """Sums over the rows above, modulo 2^bits: `numpy.add.accumulate` at a quarter of its time."""
    height, width = difference.shape
    groups = -(-height // _GROUP)
    total = np.zeros((groups, _GROUP, width), difference.dtype)
    rows = total.reshape(-1, width)
    rows[:height] = difference
    for k in range(1, _GROUP):
        total[:, k] += total[:, k - 1]
    for g in range(1, groups):
        total[g] += total[g - 1, -1]
    return rows[:height]
