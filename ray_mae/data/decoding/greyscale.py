"""Grey values as a viewer would show them, from stored values and the tags that explain them.

The steps are those of DICOM PS3.3 C.11: modality LUT or rescale, then VOI LUT or window, then
MONOCHROME1 inverted. pydicom does each; here is which of them apply, and what if a tag is wrong. At
the end stand 8 bits, or 16 as of `ray_mae.data.decoding.deep`, by a function of the values alone.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi, apply_windowing

from ray_mae.data.decoding.deep import ROOM, Grey, resize, values_of_levels
from ray_mae.data.quarantine import QuarantineError

# Where no window is given, grey values between these percentiles of the pixels fill the range.
LOW, HIGH = 0.5, 99.5


def to_grey_levels(
    pixels: NDArray[np.generic],
    display: Callable[[NDArray[np.int_], NDArray[np.int_]], NDArray[np.float64]],
    *,
    deep: bool = False,
) -> Grey:
    """Map integers of up to 16 bits to grey levels, by a function of their values alone.

    The function is evaluated 65,536 times at most, instead of once for each of millions of pixels.

    Args:
        pixels: [H, W].
        display: gets each value from the least to the greatest [K] and how often it occurs [K], and
            returns grey levels, which are shown from 0 to 1.
        deep: 16 bits instead of 8.

    Returns:
        The image [H, W].

    Raises:
        QuarantineError: all pixels have one value.
    """
    low, high = int(pixels.min()), int(pixels.max())
    if low == high:
        raise QuarantineError("constant", f"every stored value is {low}")
    # Platform integers: counting and looking up would each make a copy of any others.
    index = np.subtract(pixels, low, dtype=np.intp)
    counts = np.bincount(index.ravel(), minlength=high - low + 1)
    with np.errstate(all="ignore"):
        levels = display(np.arange(low, high + 1), counts)
    return np.asarray(values_of_levels(levels, deep=deep).take(index))


def robust_range(
    real: NDArray[np.float64] | NDArray[np.int_], counts: NDArray[np.int_]
) -> NDArray[np.float64]:
    """Grey levels: 0 and 1 are the LOW and HIGH percentiles of the pixels, or the ends of their range."""
    below = np.cumsum(counts) / max(counts.sum(), 1)
    ends = real[np.searchsorted(below, [LOW / 100, HIGH / 100]).clip(max=len(real) - 1)]
    low, high = float(ends.min()), float(ends.max())
    if low == high:
        low, high = float(real.min()), float(real.max())
    return np.asarray((real - low) / (high - low))


# A window or table that shows nearly all pixels within so small a part of the grey range is wrong.
LEAST_CONTRAST = 8 / 255


def to_grey(
    pixels: NDArray[np.generic], ds: Dataset, *, raw: bool = False, deep: bool = False
) -> Grey:
    """Turn decoded stored values into the image that a viewer would show.

    Args:
        pixels: [H, W], or [H, W, 3] in colour.
        ds: the tags that explain them.
        raw: whether these are a detector's values: what they mean is then the sign of their relation to
            the X-rays, whatever PhotometricInterpretation says.
        deep: 16 bits where the file has more than 8 of grey.

    Returns:
        The image [H, W]: what is padding by the header is black.

    Raises:
        QuarantineError: the values are no image, or all the same.
    """
    if pixels.dtype.kind not in "iu" or pixels.dtype.itemsize > 2:
        raise QuarantineError(
            "undecodable", f"pixels of type {pixels.dtype}, 8 or 16 bit integers expected"
        )
    if ds.PhotometricInterpretation == "PALETTE COLOR":
        colours = apply_color_lut(pixels, ds)[..., :3]
        return luminance(colours, 16 if colours.max() > 255 else 8)
    if pixels.ndim == 3:
        return luminance(pixels, ds.BitsStored)
    if pixels.ndim != 2:
        raise QuarantineError("multi-frame", f"pixels of shape {pixels.shape}")

    def display(values: NDArray[np.int_], counts: NDArray[np.int_]) -> NDArray[np.float64]:
        return _display(values, counts, ds, raw)

    return to_grey_levels(pixels, display, deep=deep and ds.BitsStored > 8)


def luminance(colours: NDArray[np.generic], bits: int) -> NDArray[np.uint8]:
    """Grey values [H, W] of RGB [H, W, 3] with so many bits (ITU-R BT.601).

    Where two channels are the middle grey throughout, they are the chroma of a grey picture in YBR,
    whatever the header calls it: the first one is the picture.
    """
    chroma = colours[..., 1:].astype(np.float32) - 2 ** (bits - 1)
    if np.abs(chroma).max() <= 2 ** (bits - 7):
        colours = np.repeat(colours[..., :1], 3, axis=-1)
    grey = colours @ np.array([0.299, 0.587, 0.114], np.float32) * (255 / (2**bits - 1))
    if grey.min() == grey.max():
        raise QuarantineError("constant", f"every pixel has the grey value {grey.min():.0f}")
    return np.rint(grey).clip(0, 255).astype(np.uint8)


def _display(
    values: NDArray[np.int_], counts: NDArray[np.int_], ds: Dataset, raw: bool
) -> NDArray[np.float64]:
    """Grey level of each stored value [K], which occurs so many times [K]; shown from 0 to 1."""
    padding = _padding(values, counts, ds)
    levels = _before_inversion(values, np.where(padding, 0, counts), ds)
    sign = ds.get("PixelIntensityRelationshipSign")
    inverted = ds.PhotometricInterpretation == "MONOCHROME1"
    if raw and sign in (1, -1):
        inverted = sign == 1  # more of it is more radiation, and that is less tissue
    return np.where(padding, -ROOM, 1 - levels if inverted else levels)  # black in any window


def _before_inversion(
    values: NDArray[np.int_], shows: NDArray[np.int_], ds: Dataset
) -> NDArray[np.float64]:
    """Grey level of each stored value [K], by how often each is shown [K], before MONOCHROME1 turns it."""
    real = _apply_modality(values, ds)
    for shown in (_apply_voi_table, _apply_window):
        levels = shown(real, ds)
        if levels is not None and _contrast(levels, shows) >= LEAST_CONTRAST:
            return levels
    if ds.BitsStored <= 8 and values[0] >= 0 and np.array_equal(real, values):
        return values / (2**ds.BitsStored - 1)  # 8 bits and no instructions: made for display
    return robust_range(real, shows)


def _contrast(levels: NDArray[np.float64], counts: NDArray[np.int_]) -> float:
    """Range of shown levels [K] in which most pixels lie, by how often each occurs [K]: outliers apart."""
    levels = levels.clip(0, 1)
    order = np.argsort(levels, kind="stable")
    below = np.cumsum(counts[order])
    ends = np.searchsorted(below, below[-1] * np.array([LOW, HIGH]) / 100)
    return float(np.ptp(levels[order[ends]]))


def _apply_modality(values: NDArray[np.int_], ds: Dataset) -> NDArray[np.float64]:
    """Stored values through the modality LUT or rescale, unless that is empty or wipes them out."""
    try:
        real = apply_modality_lut(values, ds).astype(np.float64)
        if np.isfinite(real).all() and np.ptp(real) > 0:
            return np.asarray(real)
    except Exception:  # a damaged tag is no reason to lose the image; below as well
        pass
    return values.astype(np.float64)


def _apply_voi_table(real: NDArray[np.float64], ds: Dataset) -> NDArray[np.float64] | None:
    """Grey levels in [0, 1] by the first VOI LUT, None if there is no valid one."""
    if not ds.get("VOILUTSequence"):
        return None
    try:
        entries, first, _ = ds.VOILUTSequence[0].LUTDescriptor
        last = first + (entries or 2**16) - 1
        table = apply_voi(np.arange(first, last + 1, dtype=np.int32), ds)
        shown = table[np.rint(real).clip(first, last).astype(np.int32) - first]
    except Exception:
        return None
    # Tables of 12 bits often say 16, which counts the bits they are stored in.
    return np.asarray(shown / (2 ** int(table.max()).bit_length() - 1))


def _apply_window(real: NDArray[np.float64], ds: Dataset) -> NDArray[np.float64] | None:
    """Grey levels by the first window, None if there is no valid one; shown from 0 to 1."""
    if not (ds.get("WindowWidth") and "WindowCenter" in ds):
        return None
    try:
        # The two outer values show what the window makes of the darkest and the brightest.
        shown = apply_windowing(np.concatenate([[-1e12], real, [1e12]]), ds)
    except Exception:
        return None
    return _beyond(real, np.asarray((shown[1:-1] - shown[0]) / (shown[-1] - shown[0])))


def _beyond(real: NDArray[np.float64], levels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Levels [K] in [0, 1] of values [K], with those of the values that a straight window cuts off."""
    within = np.flatnonzero((levels > 0) & (levels < 1))
    if not within.size or np.ptp(real[within]) == 0:
        return levels
    a, b = within[[real[within].argmin(), real[within].argmax()]]
    straight = levels[a] + (real - real[a]) * (levels[b] - levels[a]) / (real[b] - real[a])
    dark, bright = np.minimum(straight, 0), np.maximum(straight, 1)
    return np.where(levels <= 0, dark, np.where(levels >= 1, bright, levels))


def _padding(values: NDArray[np.int_], counts: NDArray[np.int_], ds: Dataset) -> NDArray[np.bool_]:
    """Which stored values [K] only fill the frame around the image; none where that leaves no image.

    Raises QuarantineError if one value is left.
    """
    padding = ds.get("PixelPaddingValue")
    if padding is None:
        return np.zeros(values.shape, bool)
    limit = ds.get("PixelPaddingRangeLimit")
    low, high = sorted((int(padding), int(padding if limit is None else limit)))
    inside = (values >= low) & (values <= high)
    left = np.count_nonzero(counts[~inside])
    if left == 1:
        raise QuarantineError("constant", "every pixel that is no padding has the same value")
    return inside if left else np.zeros(values.shape, bool)


MOST_ASPECT = 4.0
"""Height over width of a pixel, or the inverse: beyond it a tag is wrong."""
SQUARE = 0.02
"""How far height over width of a pixel may be from 1 without being seen."""


def with_square_pixels(image: Grey, aspect: float, max_pixels: int) -> Grey:
    """Stretch an image whose pixels are not square along the side on which they are longer.

    Args:
        image: [H, W].
        aspect: height of a pixel over its width.
        max_pixels: of the result; beyond it the other side is shrunk instead.
    """
    height, width = image.shape
    if abs(aspect - 1) <= SQUARE:
        return image
    high, wide = (height * aspect, width) if aspect > 1 else (height, width / aspect)
    if high * wide > max_pixels:
        high, wide = (height, width / aspect) if aspect > 1 else (height * aspect, width)
    return resize(image, max(1, round(high)), max(1, round(wide)), Image.Resampling.BICUBIC)
