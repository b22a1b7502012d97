"""One exposure of a simulated chest: pose, X-rays, scatter, noise and display curve.

Synthetic films; they say nothing about medicine. Lengths are in cm.
"""

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from ray_mae.data.phantoms.chest_anatomy import Array, Camera, Chest, project, rotation

FRONTAL, LATERAL = "frontal", "lateral"
AXES = {  # rows: the image's right, its up, the ray
    FRONTAL: np.array([[1.0, 0, 0], [0, 0, 1], [0, 1, 0]]),
    LATERAL: np.array([[0, 1.0, 0], [0, 0, 1], [1, 0, 0]]),
}
GLYPHS = {  # marker letters, 5 x 4
    "L": ("1000", "1000", "1000", "1000", "1111"),
    "R": ("1110", "1001", "1110", "1010", "1001"),
}


def expose(
    chest: Chest, view: str, size: int, rng: np.random.Generator, varied: float = 1.0
) -> NDArray[np.uint16]:
    """One film [H, W], 12 bit, dense tissue bright; the short side has `size` pixels.

    Each exposure has its own pose, field of view, kilovoltage, scatter, dose, and display curve.
    varied: how much they differ, as a factor.
    """
    long = scipy.fft.next_fast_len(int(size * rng.uniform(1, 1.18)), real=True)
    height, width = (long, size) if view == LATERAL or rng.random() < 0.5 else (size, long)
    tilt = rotation(*(varied * rng.normal(0, [3, 3, 4])))
    field = 37.5 + varied * rng.uniform(-4.5, 4.5)
    camera = Camera(
        AXES[view] @ tilt,
        height,
        width,
        field / size,
        tuple(rng.normal([0, 2.0], [1.8 * varied, 1.8 * varied])),
    )
    path = project(chest, camera, arms_up=view == LATERAL)
    path = path * np.float32(
        (1 + varied * rng.uniform(-0.15, 0.15)) * (0.7 if view == LATERAL else 1)
    )
    return _develop(path, camera, rng, varied)


def _develop(
    path: Array, camera: Camera, rng: np.random.Generator, varied: float
) -> NDArray[np.uint16]:
    """From attenuation [H, W] to 12-bit values: scatter, quanta, logarithm, display curve."""
    primary = np.exp(-path)
    focus = camera.gaussian(rng.uniform(0.04, 0.1))
    blur = focus + np.float32(rng.uniform(0.05, 0.3)) * camera.gaussian(rng.uniform(3, 6))
    light = scipy.fft.irfft2(scipy.fft.rfft2(primary) * blur, s=path.shape)
    light = np.maximum(light, 1e-4)
    dose = np.exp(rng.uniform(np.log(2e4), np.log(2e5)))
    noise = rng.standard_normal(path.shape, np.float32)
    signal = -np.log(np.maximum(light + noise * np.sqrt(light / np.float32(dose)), 5e-5))
    across, down = rng.normal(0, 0.015, 2)  # heel effect, per cm
    signal += np.float32(across) * camera.u + np.float32(down) * camera.v

    h, w = signal.shape
    centre = signal[h // 5 : -h // 5 : 4, w // 4 : -w // 4 : 4]
    cuts = np.array([4.5, 93.5]) + varied * rng.uniform([-3.5, -5.5], [3.5, 5.5])
    low, high = np.percentile(centre, cuts).tolist()
    dark = 0.195 + varied * rng.uniform(-0.075, 0.075)
    bright = 0.875 + varied * rng.uniform(-0.095, 0.095)
    x = np.clip(dark + (bright - dark) * (signal - low) / max(high - low, 0.1), 0, 1)
    x = x ** np.float32(np.exp(varied * rng.normal(0, 0.2)))
    if rng.random() < 0.3 * varied:  # the toe and shoulder of film
        x = 0.5 - 0.5 * np.cos(np.pi * x)
    _marker(x, rng)
    if rng.random() < 0.35 * varied:
        _collimate(x, rng)
    return np.clip(150 + 3700 * x, 0, 4095).astype(np.uint16)


def _marker(x: Array, rng: np.random.Generator) -> None:
    """A lead letter near an upper corner, in place: L at the image's right, R at its left."""
    letter = "L" if rng.random() < 0.6 else "R"
    height, width = x.shape
    scale = max(1, int(min(x.shape) * rng.uniform(0.008, 0.013)))
    glyph = np.kron([[c == "1" for c in row] for row in GLYPHS[letter]], np.ones((scale, scale)))
    row = int(height * rng.uniform(0.03, 0.15))
    column = int(width * rng.uniform(0.03, 0.1))
    if letter == "L":
        column = width - column - glyph.shape[1]
    patch = x[row : row + glyph.shape[0], column : column + glyph.shape[1]]
    patch[glyph > 0] = 1.0


def _collimate(x: Array, rng: np.random.Generator) -> None:
    """Blank the borders of the field, in place."""
    top, bottom, left, right = (rng.uniform(0, 0.06, 4) * np.repeat(x.shape, 2)).astype(int)
    value = 1.0 if rng.random() < 0.5 else 0.0
    x[:top] = x[x.shape[0] - bottom :] = value
    x[:, :left] = x[:, x.shape[1] - right :] = value
