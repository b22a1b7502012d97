"""Changes of test images that a scanner, a file or a technician may bring about, at three strengths.

What is random belongs to the sample and the kind of change: every encoder sees the same changed image, and a
stronger change goes the same way as a weaker one.
"""

import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

STRENGTHS = 3
Grey: TypeAlias = NDArray[np.uint8]
Voxels: TypeAlias = NDArray[np.float32]


def keyed_rng(sample: str, name: str) -> np.random.Generator:
    """Random numbers of a sample for one kind of change."""
    key = hashlib.sha256(f"{name}\0{sample}".encode()).digest()[:16]
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key)))


def _sign(rng: np.random.Generator) -> int:
    return 1 if rng.random() < 0.5 else -1


# ------------------------------------------------------------------------------------------- images


def _grey_noise(image: Grey, deviation: float, rng: np.random.Generator) -> NDArray[Any]:
    return image + rng.normal(0, deviation * 255, image.shape)


def _grey_blur(image: Grey, share: float, rng: np.random.Generator) -> NDArray[Any]:
    return ndimage.gaussian_filter(image.astype(np.float32), share * min(image.shape))


def _grey_gamma(image: Grey, factor: float, rng: np.random.Generator) -> NDArray[Any]:
    return 255 * (image / 255) ** (factor ** _sign(rng))


def _jpeg(image: Grey, quality: float, rng: np.random.Generator) -> NDArray[Any]:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=int(quality))
    return np.asarray(Image.open(file))


def _rotation(image: Grey, degrees: float, rng: np.random.Generator) -> NDArray[Any]:
    turned = Image.fromarray(image).rotate(_sign(rng) * degrees, Image.Resampling.BILINEAR)
    return np.asarray(turned)


def _crop(image: Grey, share: float, rng: np.random.Generator) -> NDArray[Any]:
    high, wide = image.shape
    box = (share * wide, share * high, (1 - share) * wide, (1 - share) * high)
    return np.asarray(
        Image.fromarray(image).resize((wide, high), Image.Resampling.BILINEAR, box=box)
    )


@dataclass(frozen=True)
class Change:
    """One kind of change."""

    apply: Callable[..., NDArray[Any]]
    levels: tuple[float, ...]
    """[STRENGTHS] in the unit that `unit` says, the strongest at last."""
    unit: str


IMAGES = {
    "noise": Change(_grey_noise, (0.03, 0.06, 0.12), "SD, of the range of grey values"),
    "blur": Change(_grey_blur, (0.004, 0.008, 0.016), "SD, of the short side"),
    "gamma": Change(_grey_gamma, (1.25, 1.6, 2.2), "exponent, or its inverse"),
    "jpeg": Change(_jpeg, (70, 50, 30), "quality"),
    "rotation": Change(_rotation, (10 / 3, 20 / 3, 10), "degrees, either way"),
    "crop": Change(_crop, (0.05 / 3, 0.1 / 3, 0.05), "of each side at each edge"),
}
"""Of radiographs."""


def corrupt_image(image: Grey, name: str, strength: int, sample: str) -> Grey:
    """A radiograph [H, W] uint8, changed; of the same shape.

    Args:
        image: [H, W].
        name: one of IMAGES.
        strength: 0 to STRENGTHS − 1.
        sample: identifier that the random numbers belong to; with the place of the view where there are
            several.

    Raises:
        ValueError: there is no such change of images.
    """
    change = _change(IMAGES, name, "images")
    changed = change.apply(image, change.levels[strength], keyed_rng(sample, name))
    return np.asarray(changed).round().clip(0, 255).astype(np.uint8)


# ------------------------------------------------------------------------------------------ volumes


@dataclass(frozen=True)
class _Scan:
    values: Voxels
    inside: NDArray[np.bool_]
    """Where something is that may change."""
    spacing_mm: tuple[float, ...]


def _noise(scan: _Scan, deviation: float, rng: np.random.Generator) -> NDArray[Any]:
    return scan.values + rng.normal(0, deviation, scan.values.shape)


def _blur(scan: _Scan, millimetres: float, rng: np.random.Generator) -> NDArray[Any]:
    return ndimage.gaussian_filter(scan.values, [millimetres / s for s in scan.spacing_mm])


def _range(scan: _Scan) -> tuple[float, float]:
    low, high = np.percentile(scan.values[scan.inside], [1, 99])
    return float(low), max(float(high - low), 1e-6)


def _gamma(scan: _Scan, factor: float, rng: np.random.Generator) -> NDArray[Any]:
    low, width = _range(scan)
    share = ((scan.values - low) / width).clip(0, None)
    return low + width * share ** (factor ** _sign(rng))


def _bias_field(scan: _Scan, strength: float, rng: np.random.Generator) -> NDArray[Any]:
    """Times exp of a smooth field in [−strength, strength]: a polynomial of second order."""
    axes = [np.linspace(-1, 1, n, dtype=np.float32) for n in scan.values.shape]
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    terms = (x, y, z, x * x, y * y, z * z, x * y, y * z, x * z)
    weights = rng.normal(size=len(terms))
    total = np.zeros(scan.values.shape, np.float32)
    for weight, term in zip(weights, terms, strict=True):
        total += np.float32(weight) * term
    total -= total[scan.inside].mean()
    field = strength * total / max(float(np.abs(total[scan.inside]).max()), 1e-6)
    low, _ = _range(scan)
    return low + (scan.values - low) * np.exp(field)


def _thick(values: Voxels, axis: int, voxels: float) -> Voxels:
    """Slices so many voxels thick along an axis, and values between their middles by lines."""
    length = values.shape[axis]
    if voxels <= 1 or length < 2:
        return values
    count = max(1, round(length / voxels))
    edges = np.linspace(0, length, count + 1)
    sums = np.cumsum(values, axis=axis, dtype=np.float64)
    sums = np.concatenate([np.zeros_like(np.take(sums, [0], axis)), sums], axis=axis)
    upto = _along(sums, axis, edges)
    means = np.diff(upto, axis=axis) / (length / count)
    places = (np.arange(length) + 0.5) * count / length - 0.5
    return _along(means, axis, places.clip(0, count - 1)).astype(np.float32)


def _along(values: NDArray[Any], axis: int, places: NDArray[np.float64]) -> NDArray[Any]:
    """Values at places (in indices) along an axis, by lines between neighbours."""
    first = np.floor(places).astype(int).clip(0, values.shape[axis] - 1)
    second = (first + 1).clip(0, values.shape[axis] - 1)
    shape = [1] * values.ndim
    shape[axis] = len(places)
    share = (places - first).reshape(shape)
    return np.take(values, first, axis) * (1 - share) + np.take(values, second, axis) * share


def _slices(scan: _Scan, millimetres: float, rng: np.random.Generator) -> NDArray[Any]:
    axis = int(rng.integers(3))
    return _thick(scan.values, axis, millimetres / scan.spacing_mm[axis])


def _low_resolution(scan: _Scan, millimetres: float, rng: np.random.Generator) -> NDArray[Any]:
    values = scan.values
    for axis, spacing in enumerate(scan.spacing_mm):
        values = _thick(values, axis, millimetres / spacing)
    return values


VOLUMES = {
    "noise": Change(_noise, (0.1, 0.2, 0.4), "SD, of the foreground's"),
    "blur": Change(_blur, (1.0, 2.0, 3.0), "SD in mm"),
    "gamma": Change(_gamma, (1.25, 1.6, 2.2), "exponent, or its inverse"),
    "bias_field": Change(_bias_field, (0.2, 0.4, 0.6), "logarithm of the gain at most"),
    "slices": Change(_slices, (3.0, 5.0, 7.0), "mm, along one axis"),
    "low_resolution": Change(_low_resolution, (2.0, 3.0, 4.0), "mm, along all axes"),
}
"""Of volumes. Slices and low resolution change nothing where voxels are that large already."""


def corrupt_volume(
    voxels: NDArray[np.floating],
    valid: NDArray[np.bool_] | None,
    spacing_mm: Sequence[float],
    name: str,
    strength: int,
    sample: str,
) -> Voxels:
    """A volume [X, Y, Z] of z-scores, changed; of the same shape, mean and SD of what is there.

    A background of 0 and what is not valid stay as they are. Mean and SD are kept since ingest would have
    z-scored the changed scan as well.

    Args:
        voxels: [X, Y, Z].
        valid: [X, Y, Z], None where all are.
        spacing_mm: [3] between voxels.
        name: one of VOLUMES.
        strength: 0 to STRENGTHS − 1.
        sample: identifier that the random numbers belong to.

    Raises:
        ValueError: there is no such change of volumes.
    """
    change = _change(VOLUMES, name, "volumes")
    values = voxels.astype(np.float32)
    inside = (values != 0) if valid is None else (values != 0) & valid
    if not inside.any():
        return values
    scan = _Scan(values, inside, tuple(map(float, spacing_mm)))
    changed = change.apply(scan, change.levels[strength], keyed_rng(sample, name))
    before, after = values[inside], np.asarray(changed)[inside]
    scale = before.std() / after.std() if after.std() > 0 else 0.0
    result = values.copy()
    result[inside] = (after - after.mean()) * scale + before.mean()
    return result


def _change(changes: dict[str, Change], name: str, noun: str) -> Change:
    if name not in changes:
        raise ValueError(
            f"{name!r} is no change of {noun} (corruptions); there are {', '.join(changes)}"
        )
    return changes[name]
