"""Bytes, time and error of the encodings a stored image could have, measured on real images.

    python tests/benchmarks/encodings.py --source FOLDER [--limit 200] [--short-side 256]

The default of `ingest --encoding` and of its parameters was chosen by this table.
"""

import argparse
import io
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, features

from ray_mae.data.decoding.images import read_image, shrink
from ray_mae.data.quarantine import QuarantineError

ENCODINGS: dict[str, dict[str, Any]] = {
    **{f"png, level {n}": {"format": "PNG", "compress_level": n} for n in (0, 1, 3, 4, 5, 6, 9)},
    "webp, lossless": {"format": "WEBP", "lossless": True, "quality": 25, "method": 2},
    "jpeg 2000, lossless": {"format": "JPEG2000", "irreversible": False},
    **{f"jpeg, quality {q}": {"format": "JPEG", "quality": q} for q in (85, 90, 95, 98)},
    "jpeg, quality 95, optimised": {"format": "JPEG", "quality": 95, "optimize": True},
}


def measure(images: list[np.ndarray], options: dict[str, Any], repeats: int = 3) -> list[float]:
    """Bytes, encode ms, decode ms, mean and largest error per image; the best time of a few."""
    encode, decode, size, errors, worst = [], [], 0, [], 0
    for image in images:
        picture = Image.fromarray(image)
        for times in range(repeats):
            start = time.perf_counter()
            file = io.BytesIO()
            picture.save(file, **options)
            middle = time.perf_counter()
            back = np.asarray(Image.open(io.BytesIO(file.getvalue())).convert("L"))
            end = time.perf_counter()
            fastest = (middle - start, end - middle)
            best = fastest if times == 0 else tuple(map(min, best, fastest))  # noqa: F821
        encode.append(best[0])
        decode.append(best[1])
        size += len(file.getvalue())
        error = np.abs(back.astype(int) - image)
        errors.append(error.mean())
        worst = max(worst, int(error.max()))
    return [
        size / len(images),
        1000 * float(np.mean(encode)),
        1000 * float(np.mean(decode)),
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
        f"{'encoding':28} {'bytes':>8} {'encode ms':>10} {'decode ms':>10} {'error':>7} {'max':>4}"
    )
    for name, options in ENCODINGS.items():
        if options["format"] == "JPEG2000" and not features.check("jpg_2000"):
            continue
        size, encode, decode, error, worst = measure(images, options)
        print(f"{name:28} {size:8,.0f} {encode:10.2f} {decode:10.2f} {error:7.3f} {worst:4.0f}")


if __name__ == "__main__":
    main()
