"""Bytes, time and error of the encodings a stored volume could have, measured on real volumes.

    python -m benchmarks.voxel_encodings --source FOLDER [--limit 12] [--spacing-mm 1]

The defaults of `ingest --volumes.dtype` and `--volumes.compression`, and the byte planes of
`ray_mae.data.decoding.voxels`, were chosen by this table.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import zstandard

from ray_mae.config import VolumeSettings
from ray_mae.data.decoding.preprocessing import Preparation
from ray_mae.data.decoding.voxels import STEP
from ray_mae.data.quarantine import QuarantineError

Bytes = Callable[[np.ndarray], bytes]
DTYPES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray]]] = {
    "float32": (lambda z: z, lambda s: s),
    "float16": (lambda z: z.astype(np.float16), lambda s: s),
    "int16": (
        lambda z: np.rint(z / STEP).astype(np.int16),
        lambda s: s.astype(np.float32) * np.float32(STEP),
    ),
}


def planes(array: np.ndarray) -> bytes:
    """Byte planes apart."""
    return np.ascontiguousarray(
        array.reshape(-1).view(np.uint8).reshape(-1, array.itemsize).T
    ).tobytes()


def from_planes(data: bytes, like: np.ndarray) -> np.ndarray:
    """The inverse of `planes`."""
    apart = np.frombuffer(data, np.uint8).reshape(like.itemsize, -1)
    together = np.empty(apart.shape[::-1], np.uint8)
    for place, plane in enumerate(apart):
        together[:, place] = plane
    return together.view(like.dtype).reshape(like.shape)


def plain(data: bytes, like: np.ndarray) -> np.ndarray:
    """An array of bytes as they are."""
    return np.frombuffer(data, like.dtype).reshape(like.shape)


def measure(
    volumes: list[np.ndarray], dtype: str, apart: bool, level: int, repeats: int = 3
) -> tuple[float, float, float, float]:
    """Bits per voxel, encode and decode ms per million voxels, largest error; best of a few times."""
    store, restore = DTYPES[dtype]
    size, voxels, encode, decode, worst = 0, 0, 0.0, 0.0, 0.0
    for volume in volumes:
        best = [np.inf, np.inf]
        for _ in range(repeats):
            start = time.perf_counter()
            stored = store(volume)
            raw = planes(stored) if apart else stored.tobytes()
            data = zstandard.compress(raw, level) if level else raw
            middle = time.perf_counter()
            back = zstandard.decompress(data) if level else data
            found = restore((from_planes if apart else plain)(back, stored)).astype(np.float16)
            end = time.perf_counter()
            best = [min(best[0], middle - start), min(best[1], end - middle)]
        size, voxels = size + len(data), voxels + volume.size
        encode, decode = encode + best[0], decode + best[1]
        worst = max(worst, float(np.abs(found.astype(np.float32) - volume).max()))
    return 8 * size / voxels, 1e9 * encode / voxels, 1e9 * decode / voxels, worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, required=True, help="folder of NIfTI files")
    parser.add_argument("--limit", type=int, default=12, help="volumes, evenly over the folder")
    parser.add_argument("--spacing-mm", type=float, default=1.0)
    args = parser.parse_args()

    paths = sorted(args.source.rglob("*.nii*"))
    preparation = Preparation.of(VolumeSettings(spacing_mm=args.spacing_mm))
    volumes = []
    for path in paths[:: max(1, len(paths) // args.limit)]:
        try:
            volumes.append(preparation.prepare([path], {}).image.values)
        except QuarantineError as reason:
            print(reason)
    mean = np.mean([volume.size for volume in volumes]) / 1e6
    print(f"{len(volumes)} volumes at {args.spacing_mm} mm, {mean:.2f} million voxels on average")
    print("decoded to float16; times per million voxels, one thread")
    print(f"{'dtype':8} planes zstd bits/voxel encode ms decode ms    error")
    for dtype in DTYPES:
        for apart in (False, True):
            for level in (0, 1, 3, 6, 9):
                if level == 0 and apart:
                    continue
                bits, encode, decode, worst = measure(volumes, dtype, apart, level)
                print(
                    f"{dtype:8} {'yes' if apart else 'no':6} {level:4} {bits:10.2f} {encode:9.2f} "
                    f"{decode:9.2f} {worst:8.4f}"
                )


if __name__ == "__main__":
    main()
