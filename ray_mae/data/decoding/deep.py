"""Images of 16 bits: grey levels with room beyond the window that shows them.

The values from BLACK to WHITE are what a viewer shows by the file's own window (without one, by percentiles
of its pixels), the quarters below and above are half a window's width on either side of it. So one rule tells
the default window of any image, and training may choose another. Images of 8 bits are what the default window
shows, cut off on both sides.
"""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

BLACK, WHITE = 1 << 14, 3 << 14
ROOM = 0.5
"""On either side of the window, of its width."""
_HIGHEST = (1 << 16) - 1
_ROUNDED = (WHITE - BLACK) / 255 / 2
"""So near its end the window shows values of 8 bits as the end."""

Grey: TypeAlias = NDArray[np.uint8] | NDArray[np.uint16]
"""An image [H, W] of 8 or of 16 bits."""


def values_of_levels(levels: NDArray[np.floating], *, deep: bool) -> Grey:
    """Grey levels as they are kept: 0 and 1 are the ends of the default window.

    Args:
        levels: of any shape.
        deep: in 16 bits instead of 8.
    """
    if not deep:
        return np.rint(255 * levels.clip(0, 1)).astype(np.uint8)
    return np.rint(BLACK + (WHITE - BLACK) * levels).clip(0, _HIGHEST).astype(np.uint16)


def turned(image: Grey) -> Grey:
    """The image with dark and bright exchanged."""
    if image.dtype == np.uint8:
        return 255 - image
    return np.minimum(BLACK + WHITE - image.astype(np.int32), _HIGHEST).astype(np.uint16)


def resize(image: Grey, height: int, width: int, filter: Image.Resampling) -> Grey:
    """Resize an image [H, W]; where the default window shows it, one of 16 bits as one of 8 bits.

    What lies beyond the window must not bleed into what lies within, as it does not where it is cut off
    before. So the cut image is resized, and beyond the window is what is so in the result.
    """
    if image.dtype == np.uint8:
        return np.asarray(Image.fromarray(image).resize((width, height), filter))

    def resized(values: NDArray[np.float32], high: int) -> NDArray[np.float32]:
        return np.asarray(Image.fromarray(values).resize((width, high), filter))

    values = image.astype(np.float32)
    shown = values.clip(BLACK, WHITE)
    inside = resized(shown, image.shape[0]).clip(BLACK, WHITE)  # of 8 bits each pass is cut off
    inside = resized(inside, height).clip(BLACK, WHITE)
    if not np.array_equal(shown, values):
        whole = resized(values, height)
        inside = np.where(inside < BLACK + _ROUNDED, np.minimum(whole, BLACK), inside)
        inside = np.where(inside > WHITE - _ROUNDED, np.maximum(whole, WHITE), inside)
    return np.rint(inside).clip(0, _HIGHEST).astype(np.uint16)
