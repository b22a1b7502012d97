"""Bytes, time and error of the encodings a stored volume could have, measured on real volumes.

    python -m benchmarks.voxel_encodings --source FOLDER [--limit 12] [--spacing-mm 1]

The defaults of `ingest --volumes.dtype` and `--volumes.compression`, and the byte planes of
`ray_mae.data.decoding.voxels`, were chosen by this table.
"""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import zstandard

from benchmarks.record import Cell, finish, parser_of
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
    """The inverse of `planes`, as `ray_mae.data.decoding.voxels` has it."""
    *lower, highest = np.frombuffer(data, np.uint8).reshape(like.itemsize, *like.shape)
    together = highest.astype(f"u{like.itemsize}")
    for plane in reversed(lower):
        together <<= 8
        together |= plane
    return together.view(like.dtype)


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
            start = time.process_time()
            stored = store(volume)
            raw = planes(stored) if apart else stored.tobytes()
            data = zstandard.compress(raw, level) if level else raw
            middle = time.process_time()
            back = zstandard.decompress(data) if level else data
            found = restore((from_planes if apart else plain)(back, stored)).astype(np.float16)
            end = time.process_time()
            best = [min(best[0], middle - start), min(best[1], end - middle)]
        size, voxels = size + len(data), voxels + volume.size
        encode, decode = encode + best[0], decode + best[1]
        worst = max(worst, float(np.abs(found.astype(np.float32) - volume).max()))
    return 8 * size / voxels, 1e9 * encode / voxels, 1e9 * decode / voxels, worst


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--source", type=Path, required=True, help="folder of NIfTI files")
    parser.add_argument("--limit", type=int, default=12, help="volumes, evenly over the folder")
    parser.add_argument("--spacing-mm", type=float, default=1.0)
    given = parser.parse_args()

    paths = sorted(given.source.rglob("*.nii*"))
    preparation = Preparation.of(VolumeSettings(spacing_mm=given.spacing_mm))
    volumes = []
    for path in paths[:: max(1, len(paths) // given.limit)]:
        try:
            volumes.append(preparation.prepare([path], {}).image.values)
        except QuarantineError as reason:
            print(reason)
    mean = np.mean([volume.size for volume in volumes]) / 1e6
    rows: list[dict[str, Cell]] = []
    for dtype in DTYPES:
        for level, apart in [
            (0, False),
            *((n, apart) for n in (1, 3, 6, 9) for apart in (False, True)),
        ]:
            bits, encode, decode, worst = measure(volumes, dtype, apart, level)
            rows.append(
                {
                    "dtype": dtype,
                    "byte planes": "apart" if apart else "together",
                    "level of zstd": level,
                    "bits a voxel": bits,
                    "encoded, ms a million": encode,
                    "decoded to float16, ms a million": decode,
                    "largest error": worst,
                }
            )
    finish(
        given,
        rows,
        f"{len(volumes)} volumes at {given.spacing_mm} mm, {mean:.2f} million voxels on average; CPU times.",
    )


if __name__ == "__main__":
    main()
