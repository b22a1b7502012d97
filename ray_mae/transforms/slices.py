"""Slices of volumes in RAS order as a radiologist looks at them, with letters that say the side."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

CONVENTION = "radiological: R, the person's right, is on the left of the picture"
_LEAST_LETTER, _LETTERS_DOWN = 7, 10
"""Height of a letter in pixels, at least; and how many of them a picture is high."""


def axial(plane: NDArray[Any]) -> NDArray[Any]:
    """[A, R] picture of an axial plane [R, A]: front up, the person's right on the left."""
    return plane.T[::-1, ::-1]


def coronal(plane: NDArray[Any]) -> NDArray[Any]:
    """[S, R] picture of a coronal plane [R, S]: top up, the person's right on the left."""
    return plane.T[::-1, ::-1]


def sagittal(plane: NDArray[Any]) -> NDArray[Any]:
    """[S, A] picture of a sagittal plane [A, S]: top up, the front on the left."""
    return plane.T[::-1, ::-1]


def lettered(image: NDArray[np.uint8], left: str = "R", right: str = "L") -> NDArray[np.uint8]:
    """A copy of a picture [H, W] with a letter in the upper corners: white with a black edge."""
    picture = Image.fromarray(np.ascontiguousarray(image))
    size = max(_LEAST_LETTER, image.shape[0] // _LETTERS_DOWN)
    font, pen = ImageFont.load_default(size), ImageDraw.Draw(picture)
    edge = max(1, size // 8)
    for letter, x, anchor in ((left, edge, "lt"), (right, image.shape[1] - 1 - edge, "rt")):
        pen.text((x, edge), letter, 255, font, anchor, stroke_width=edge, stroke_fill=0)
    return np.asarray(picture)
