"""Bytes, time and error of the encodings a stored image could have, measured on real images.

    python -m benchmarks.encodings --source FOLDER [--limit 200] [--short-side 256]

The default of `ingest --encoding` and of its parameters was chosen by this table.
"""

import argparse
import io
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zstandard
from PIL import Image, features

from ray_mae.data.decoding.images import read_image, shrink
from ray_mae.data.decoding.stored_images import decode, encode
from ray_mae.data.quarantine import QuarantineError

Codec = tuple[Callable[[np.ndarray], bytes], Callable[[bytes], np.ndarray]]
"""Encodes and decodes."""

PILLOW: dict[str, dict[str, Any]] = {
    **{f"png, level {n}": {"format": "PNG", "compress_level": n} for n in (0, 1, 3, 4, 5, 6, 9)},
    "webp, lossless": {"format": "WEBP", "lossless": True, "quality": 25, "method": 2},
    "jpeg 2000, lossless": {"format": "JPEG2000", "irreversible": False},
    **{f"jpeg, quality {q}": {"format": "JPEG", "quality": q} for q in (85, 90, 95, 98)},
    "jpeg, quality 95, optimised": {"format": "JPEG", "quality": 95, "optimize": True},
}


def _by_pillow(options: dict[str, Any]) -> Codec:
    def encoded(image: np.ndarray) -> bytes:
        file = io.BytesIO()
        Image.fromarray(image).save(file, **options)
        return file.getvalue()

    return encoded, lambda data: np.asarray(Image.open(io.BytesIO(data)).convert("L"))


def _by_zstd(level: int, rows: int, columns: int) -> Codec:
    """Compressed as they are, or less their neighbours above or to the left, or both."""
    packer, unpacker = zstandard.ZstdCompressor(level=level), zstandard.ZstdDecompressor()

    def encoded(image: np.ndarray) -> bytes:
        difference = image.copy()
        if rows:
            difference[1:] -= image[:-1]
        if columns:
            difference[:, 1:] -= difference[:, :-1].copy()
        return struct.pack("<HH", *image.shape) + packer.compress(difference.tobytes())

    def decoded(data: bytes) -> np.ndarray:
        height, width = struct.unpack_from("<HH", data)
        image = np.frombuffer(unpacker.decompress(data[4:], height * width), np.uint8)
        image = image.reshape(height, width)
        for axis, wanted in ((1, columns), (0, rows)):
            image = np.add.accumulate(image, axis=axis, dtype=np.uint8) if wanted else image
        return image

    return encoded, decoded


CODECS: dict[str, Codec] = {
    "zstd, as ingest has it": (lambda image: encode(image, "zstd"), decode),
    **{f"zstd, level {n}": _by_zstd(n, 0, 0) for n in (1, 9)},
    **{f"zstd of rows, level {n}": _by_zstd(n, 1, 0) for n in (1, 3, 9, 19)},
    "zstd of columns, level 1": _by_zstd(1, 0, 1),
    "zstd of both, level 1": _by_zstd(1, 1, 1),
    **{name: _by_pillow(options) for name, options in PILLOW.items()},
}


def measure(images: list[np.ndarray], codec: Codec, repeats: int = 3) -> list[float]:
    """Bytes, images encoded and decoded a second, mean and largest error; the best time of a few."""
    spent: tuple[list[float], list[float]] = ([], [])
    size, errors, worst = 0, [], 0
    for image in images:
        for times in range(repeats):
            start = time.process_time()
            data = codec[0](image)
            middle = time.process_time()
            back = codec[1](data)
            end = time.process_time()
            fastest = (middle - start, end - middle)
            best = fastest if times == 0 else tuple(map(min, best, fastest))  # noqa: F821
        for times, seconds in zip(spent, best, strict=True):
            times.append(seconds)
        size += len(data)
        error = np.abs(back.astype(int) - image)
        errors.append(error.mean())
        worst = max(worst, int(error.max()))
    return [
        size / len(images),
        1 / max(1e-9, float(np.mean(spent[0]))),
        1 / max(1e-9, float(np.mean(spent[1]))),
        float(np.mean(errors)),
        worst,
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, required=True, help="folder of PNG and JPEG files")
    parser.add_argument("--limit", type=int, default=200, help="images, evenly over the folder")
    parser.add_argument("--short-side", type=int, default=256, help="pixels")
    args = parser.parse_args()

    paths = sorted(
        p for p in args.source.rglob("*") if p.suffix.lower() in {".png", ".jpg", ".jpeg"}
    )
    images = []
    for path in paths[:: max(1, len(paths) // args.limit)][: args.limit]:
        try:
            images.append(shrink(read_image(path, 10**8), args.short_side))
        except QuarantineError as reason:
            print(f"{path}: {reason}")
    pixels = np.mean([image.size for image in images])
    print(f"{len(images)} images, short side {args.short_side} px, {pixels:,.0f} pixels on average")
    print(
        f"{'encoding':28} {'bytes':>8} {'encoded/s':>10} {'decoded/s':>10} {'error':>7} {'max':>4}"
    )
    for name, codec in CODECS.items():
        if name.startswith("jpeg 2000") and not features.check("jpg_2000"):
            continue
        size, written, read, error, worst = measure(images, codec)
        print(f"{name:28} {size:8,.0f} {written:10,.0f} {read:10,.0f} {error:7.3f} {worst:4.0f}")


if __name__ == "__main__":
    main()
