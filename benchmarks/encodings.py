"""Bytes, time and error of the encodings a stored image could have, measured on real images.

    python -m benchmarks.encodings --source FOLDER [--deep FOLDER] [--limit 200] [--short-side 256]

The default of `ingest --encoding`, its parameters and what `--bits` costs were chosen by this table. Images
of 8 bits are PNG and JPEG files, those of more are DICOM files; of these 8 bits are what their own window
shows.
"""

import io
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import zstandard
from PIL import Image, features

from benchmarks.record import Cell, finish, parser_of
from ray_mae.config import IngestConfig
from ray_mae.data.decoding.image_preprocessing import ImagePreparation
from ray_mae.data.decoding.stored_images import decode, decode_deep, encode, is_deep
from ray_mae.data.quarantine import QuarantineError


@dataclass(frozen=True)
class Codec:
    """Encodes and decodes. What is stored may be less than the image, as 12 of 16 bits are."""

    encode: Callable[[np.ndarray], bytes]
    decode: Callable[[bytes], np.ndarray]
    unit: int = 1
    """Step of the decoded values in those of the image."""


def by_pillow(**options: Any) -> Codec:
    def encoded(image: np.ndarray) -> bytes:
        file = io.BytesIO()
        Image.fromarray(image).save(file, **options)
        return file.getvalue()

    def decoded(data: bytes) -> np.ndarray:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert("L") if image.mode == "RGB" else image)

    return Codec(encoded, decoded)


def by_zstd(level: int, rows: int, columns: int = 0) -> Codec:
    """Compressed as they are, or less their neighbours above or to the left, or both."""
    packer, unpacker = zstandard.ZstdCompressor(level=level), zstandard.ZstdDecompressor()

    def encoded(image: np.ndarray) -> bytes:
        difference = image.copy()
        if rows:
            difference[1:] -= image[:-1]
        if columns:
            difference[:, 1:] -= difference[:, :-1].copy()
        return struct.pack("<HHc", *image.shape, image.dtype.char.encode()) + packer.compress(
            difference.tobytes()
        )

    def decoded(data: bytes) -> np.ndarray:
        height, width, kind = struct.unpack_from("<HHc", data)
        image = np.frombuffer(unpacker.decompress(data[5:]), kind.decode()).reshape(height, width)
        for axis, wanted in ((1, columns), (0, rows)):
            image = np.add.accumulate(image, axis=axis, dtype=image.dtype) if wanted else image
        return image

    return Codec(encoded, decoded)


def by_lz4() -> Codec:
    codec = pa.Codec("lz4")

    def encoded(image: np.ndarray) -> bytes:
        head = struct.pack("<HHc", *image.shape, image.dtype.char.encode())
        return head + codec.compress(image.tobytes(), asbytes=True)

    def decoded(data: bytes) -> np.ndarray:
        height, width, kind = struct.unpack_from("<HHc", data)
        size = height * width * np.dtype(kind.decode()).itemsize
        content = codec.decompress(data[5:], size, asbytes=True)
        return np.frombuffer(content, kind.decode()).reshape(height, width)

    return Codec(encoded, decoded)


def of_bits(bits: int) -> Codec:
    """As ingest stores so many bits."""
    return Codec(
        partial(encode, encoding="zstd", bits=bits),
        lambda data: decode_deep(data)[0],
        1 << 16 - bits,
    )


SHALLOW: dict[str, Codec] = {
    "zstd of rows, as ingest has it": Codec(partial(encode, encoding="zstd"), decode),
    **{f"zstd of rows, level {n}": by_zstd(n, 1) for n in (1, 3, 9)},
    "zstd of rows and columns, level 1": by_zstd(1, 1, 1),
    "zstd as it is, level 1": by_zstd(1, 0),
    "lz4 as it is": by_lz4(),
    **{f"PNG, level {n}": by_pillow(format="PNG", compress_level=n) for n in (1, 4, 6)},
    "WebP, lossless": by_pillow(format="WEBP", lossless=True, quality=25, method=2),
    "JPEG 2000, lossless": by_pillow(format="JPEG2000", irreversible=False),
    **{f"JPEG, quality {q}": by_pillow(format="JPEG", quality=q) for q in (85, 95)},
}
SIXTEEN: dict[str, Codec] = {
    "zstd of rows, as ingest has it": of_bits(16),
    "zstd of rows, level 1": by_zstd(1, 1),
    "zstd as it is, level 1": by_zstd(1, 0),
    "lz4 as it is": by_lz4(),
    "PNG, level 4": by_pillow(format="PNG", compress_level=4),
}
TWELVE: dict[str, Codec] = {"zstd of rows, as ingest has it": of_bits(12)}


def measure(images: list[np.ndarray], codec: Codec, repeats: int = 3) -> dict[str, Cell]:
    """Bytes, images encoded and decoded a second, mean and largest error; the best time of a few."""
    size, errors, worst, spent = 0, [], 0, np.zeros(2)
    for image in images:
        best = np.full(2, np.inf)
        for _ in range(repeats):
            start = time.process_time()
            data = codec.encode(image)
            middle = time.process_time()
            back = codec.decode(data)
            best = np.minimum(best, [middle - start, time.process_time() - middle])
        spent += best
        size += len(data)
        error = np.abs(back.astype(int) * codec.unit - image)
        errors.append(error.mean())
        worst = max(worst, int(error.max()))
    encoded, decoded = len(images) / np.maximum(spent, 1e-9)
    return {
        "KiB": size / len(images) / 1024,
        "encoded, a second and core": float(encoded),
        "decoded, a second and core": float(decoded),
        "mean error": float(np.mean(errors)),
        "largest": worst,
    }


def prepared(paths: list[Path], short_side: int, bits: int) -> list[np.ndarray]:
    """Images as ingest shrinks them."""
    config = IngestConfig(
        archive="dicom", source=Path("."), output=Path("."), image_size=short_side, bits=bits
    )  # type: ignore[arg-type]
    preparation = ImagePreparation.of(config)
    images = []
    for path in paths:
        try:
            data = preparation.prepare(path).image
        except QuarantineError as reason:
            print(f"{path.name} is left out: {reason}")
            continue
        if bits == 8 or is_deep(data):
            images.append(decode(data) if bits == 8 else decode_deep(data)[0])
    return images


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--source", type=Path, required=True, help="folder of PNG and JPEG files")
    parser.add_argument("--deep", type=Path, help="folder of DICOM files of more than 8 bits")
    parser.add_argument("--limit", type=int, default=200, help="images, evenly over the folder")
    parser.add_argument("--short-side", type=int, default=256, help="pixels")
    given = parser.parse_args()

    paths = sorted(p for p in given.source.rglob("*") if p.suffix in {".png", ".jpg", ".jpeg"})
    paths = paths[:: max(1, len(paths) // given.limit)][: given.limit]
    cases = [("8", prepared(paths, given.short_side, 8), SHALLOW)]
    if given.deep:
        paths = sorted(given.deep.rglob("*.dcm"))
        deep = prepared(paths, given.short_side, 16)
        shown = [decode(encode(image, "zstd")) for image in deep]
        some = {name: SHALLOW[name] for name in ("zstd of rows, as ingest has it", "PNG, level 4")}
        cases += [
            ("8 of a DICOM file", shown, some),
            ("12 of one", deep, TWELVE),
            ("16 of one", deep, SIXTEEN),
        ]
    rows: list[dict[str, Cell]] = [
        {"bits": bits, "encoding": name, "images": len(images), **measure(images, codec)}
        for bits, images, codecs in cases
        for name, codec in codecs.items()
        if name != "JPEG 2000, lossless" or features.check("jpg_2000")
    ]
    pixels = np.mean([image.size for image in cases[0][1]])
    finish(
        given,
        rows,
        f"Short side {given.short_side} px, {pixels:,.0f} pixels on average; errors are in grey values.",
    )


if __name__ == "__main__":
    main()
