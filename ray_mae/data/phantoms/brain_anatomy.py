"""One simulated head: anatomy, lesions, and how each contrast shows them.

Arrays are [n, n, n] in RAS order; positions are measured in half sides of the cube, from −1 to 1.
Nothing here knows medicine: it looks like a head from afar, and lesions of two classes differ only
in where their voxels lie: within a lesion both classes have the same intensities, so that neither a
mean nor a histogram tells them apart, and a texture does.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from ray_mae.data.decoding.geometry import Volume, resample

Field = NDArray[np.float32]

AIR, SCALP, SKULL, CSF, GREY, WHITE, LESION = range(7)
# Intensity of each tissue. The last contrast is meant to be kept out of pretraining.
CONTRASTS: dict[str, tuple[float, ...]] = {
    #        air  scalp skull csf   grey  white lesion
    "T1w": (0.00, 0.80, 0.12, 0.18, 0.52, 0.78, 0.50),
    "T2w": (0.00, 0.60, 0.10, 1.00, 0.62, 0.42, 0.75),
    "FLAIR": (0.00, 0.55, 0.10, 0.12, 0.62, 0.50, 0.85),
    "SWI": (0.00, 0.35, 0.08, 0.90, 0.45, 0.70, 0.58),
}
PRETRAINING = ("T1w", "T2w", "FLAIR")
TEXTURE = 0.28
"""Standard deviation of the intensity within a lesion."""


@dataclass(frozen=True)
class Head:
    """What all contrasts of a patient see."""

    tissue: NDArray[np.int8]
    """[n, n, n]"""
    lesions: NDArray[np.uint8]
    """[n, n, n] 1 where a lesion is."""
    texture: Field
    """[n, n, n] of mean 0 and variance 1 over the lesions, 0 elsewhere."""
    rings: bool
    """The class: concentric rings, or smooth clouds."""
    wide: bool
    """Whether the ventricles are wide."""


def draw_head(rng: np.random.Generator, n: int) -> Head:
    """A head on a cube of n voxels a side."""
    rings, wide = bool(rng.random() < 0.5), bool(rng.random() < 0.5)
    x = np.linspace(-1, 1, n, dtype=np.float32)
    at = np.stack(np.meshgrid(x, x, x, indexing="ij"))  # [3, n, n, n]
    bend = np.stack([_clouds(rng, n, 0.2) for _ in range(3)]) * 0.03
    at = at + bend - rng.uniform(-0.06, 0.06, 3).astype(np.float32)[:, None, None, None]

    shape = np.array([0.66, 0.80, 0.70], np.float32) * rng.uniform(0.94, 1.06, 3)
    brain = _ellipsoid(at, (0, 0, 0), shape)  # < 1 within
    folds = (
        0.05
        * np.sin(14 * at[0] + 3 * _clouds(rng, n, 0.1))
        * np.sin(13 * at[1])
        * np.sin(12 * at[2])
    )
    size = rng.uniform(0.17, 0.21) if wide else rng.uniform(0.08, 0.12)
    ventricles = np.minimum(
        *(
            _ellipsoid(at, (side * 0.14, 0.0, 0.08), (0.5 * size, 2.2 * size, size))
            for side in (-1, 1)
        )
    )
    tissue = np.full((n, n, n), AIR, np.int8)
    for limit, kind in ((1.30, SCALP), (1.18, SKULL), (1.08, CSF)):
        tissue[brain < limit] = kind
    tissue[brain < 1.0 + folds] = GREY
    tissue[brain < 0.80 + 2 * folds] = WHITE
    tissue[ventricles < 1] = CSF

    lesions, texture = _lesions(rng, at, tissue, rings)
    return Head(tissue, lesions, texture, rings, wide)


def _clouds(rng: np.random.Generator, n: int, scale: float) -> Field:
    """A smooth random field of variance 1; scale in half sides."""
    m = round(5 / scale) if 5 / scale < 0.8 * n else n  # coarse where it is smooth: that is faster
    field = gaussian_filter(rng.standard_normal((m, m, m), dtype=np.float32), scale * m / 2)
    fine = resample(Volume(field, np.diag([n / m, n / m, n / m, 1.0])), 1.0).values
    return np.asarray(fine / fine.std(), np.float32)


def _ellipsoid(at: Field, centre: tuple[float, ...], radii: NDArray | tuple[float, ...]) -> Field:
    """Distance [n, n, n] from the centre in radii."""
    away = (at - np.reshape(centre, (3, 1, 1, 1))) / np.reshape(radii, (3, 1, 1, 1))
    return np.asarray(np.sqrt((away**2).sum(0)), np.float32)


def _lesions(
    rng: np.random.Generator, at: Field, tissue: NDArray[np.int8], rings: bool
) -> tuple[NDArray[np.uint8], Field]:
    """One or two lesions in the white or grey matter, and their texture."""
    n = len(tissue)
    mask, texture = np.zeros((n, n, n), np.uint8), np.zeros((n, n, n), np.float32)
    places = np.argwhere((tissue == WHITE) | (tissue == GREY))
    for _ in range(int(rng.integers(1, 3))):
        centre = at[(slice(None), *places[rng.integers(len(places))])]
        radius = rng.uniform(0.28, 0.40)
        away = _ellipsoid(at, tuple(centre), radius * rng.uniform(0.85, 1.15, 3))
        inside = (away < 1 + 0.15 * _clouds(rng, n, 0.1)) & (tissue >= CSF) & (mask == 0)
        clouds = _clouds(rng, n, 0.16)
        turns = 2 * np.pi * radius / 0.25  # a ring every 0.25, four voxels of 32
        pattern = np.cos(turns * away + rng.uniform(0, 2 * np.pi)) if rings else clouds
        if inside.sum() > 8:
            ranks = pattern[inside].argsort().argsort() + 0.5
            texture[inside] = np.sqrt(12) * (ranks / len(ranks) - 0.5)  # uniform, variance 1
            mask[inside] = 1
    return mask, texture


def show(head: Head, contrast: str, rng: np.random.Generator, noise: float) -> Field:
    """The head as one scan shows it, [n, n, n], about 0 to 1000."""
    values = np.array(CONTRASTS[contrast], np.float32) * rng.uniform(0.93, 1.07, 7)
    image = values[head.tissue]
    inside = head.lesions > 0
    image[inside] = (values[LESION] + TEXTURE * head.texture[inside]).clip(0.02)
    n = len(image)
    image = gaussian_filter(image, 0.35) * (1 + 0.08 * _clouds(rng, n, 0.5))
    real = image + noise * rng.standard_normal(image.shape, dtype=np.float32)
    imaginary = noise * rng.standard_normal(image.shape, dtype=np.float32)
    gain = 700 * rng.uniform(0.6, 1.4)
    return np.asarray(gain * np.hypot(real, imaginary), np.float32)  # a magnitude, as in MR
