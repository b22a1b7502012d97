"""Images of any shape in one flat array, and in squares of one canvas. Needs no library of files."""

import numpy as np
from numpy.typing import NDArray


def flatten(images: list[NDArray[np.uint8]]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Put images behind one another: so they travel, since a canvas has twice their bytes.

    Args:
        images: N images [H, W] of any shapes.

    Returns:
        Their pixels [P], by rows; and their shapes [N, 2].
    """
    pixels = np.concatenate([image.ravel() for image in images])
    return pixels, np.array([image.shape for image in images], dtype=np.int64)


def unflatten(pixels: NDArray[np.uint8], shape: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
    """The images of `flatten`, which are not copied."""
    parts = np.split(pixels, np.cumsum(shape.prod(1))[:-1])
    return [part.reshape(*extent) for part, extent in zip(parts, shape.tolist(), strict=True)]


def letterbox(images: list[NDArray[np.uint8]]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Put each image into the middle of a square as small as it needs, black outside.

    Args:
        images: N images [H, W] of any shapes.

    Returns:
        The canvas [N, 1, C, C] with the squares in its upper left, C the longest side of all; and the
        sides of the squares [N], in pixels.
    """
    side = np.array([max(image.shape) for image in images], dtype=np.int64)
    canvas = np.zeros((len(images), 1, side.max(), side.max()), np.uint8)
    for index, image in enumerate(images):
        top, left = ((side[index] - extent) // 2 for extent in image.shape)
        canvas[index, 0, top : top + image.shape[0], left : left + image.shape[1]] = image
    return canvas, side
