"""PNG, JPEG, TIFF, BMP and WebP files in, small 8-bit images out: read and shrink."""

import os
import warnings
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from ray_mae.data.decoding.deep import Grey, resize, turned
from ray_mae.data.decoding.greyscale import (
    MOST_ASPECT,
    robust_range,
    to_grey_levels,
    with_square_pixels,
)
from ray_mae.data.file_types import file_kind
from ray_mae.data.quarantine import QuarantineError, undecodable

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")
"""Of image files, by their names in Pillow."""
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0
MOST_SCANS = 200
"""Of a progressive JPEG: encoders write some ten."""


def read_image(path: Path, max_pixels: int, *, deep: bool = False) -> Grey:
    """Read a file of one of FORMATS as grey values of 8 bits.

    Args:
        path: of the file, on this machine.
        max_pixels: height times width at most.
        deep: 16 bits where the file has them.

    Returns:
        The image [H, W].

    Raises:
        QuarantineError: for everything that can be wrong with the file.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # as a file: by its name Pillow 13 maps a plain TIFF that lies sideways with the wrong width
            with path.open("rb") as file, Image.open(file, formats=FORMATS) as image:
                if image.width * image.height > max_pixels:
                    raise QuarantineError("too-large", f"{image.height} x {image.width} pixels")
                if (frames := getattr(image, "n_frames", 1)) > 1:
                    raise QuarantineError("multi-frame", f"{frames} frames")
                if image.format == "JPEG":
                    _check_scans(path)
                aspect, sideways = _aspect(image), _sideways(image)
                # of a TIFF whose 16 bits are dark where they are high, which Pillow leaves so
                negative = _white_is_zero(image)
                image.load()  # turns a TIFF upright by itself, and would again in between
                upright = ImageOps.exif_transpose(image)
                grey = _grey(upright, negative=negative, deep=deep)
                grey = with_square_pixels(grey, 1 / aspect if sideways else aspect, max_pixels)
    except FileNotFoundError as error:
        raise QuarantineError("missing") from error
    except UnidentifiedImageError as error:
        raise QuarantineError("not-an-image", file_kind(path.name)) from error
    except Image.DecompressionBombError as error:
        raise QuarantineError("too-large", str(error)) from error
    except QuarantineError:
        raise
    except OSError as error:  # Pillow raises it for damaged files as well, then without an errno
        if error.errno:
            raise QuarantineError("unreadable", os.strerror(error.errno)) from error
        raise QuarantineError("undecodable", str(error)) from error
    except Exception as error:
        raise undecodable(error) from error
    if grey.min() == grey.max():
        raise QuarantineError("constant", f"every pixel has the grey value {grey.min()}")
    return grey


def _check_scans(path: Path) -> None:
    """Raise QuarantineError for a JPEG of so many scans that decoding takes minutes: each goes over all
    of the image. The marker that starts one never occurs within a scan."""
    scans = path.read_bytes().count(b"\xff\xda")
    if scans > MOST_SCANS:
        raise QuarantineError("undecodable", f"{scans:,} scans, at most {MOST_SCANS}")


def _aspect(image: Image.Image) -> float:
    """Height of a pixel over its width by PNG's pHYs or JPEG's density; 1 if that says nothing usable."""
    densities = image.info.get("dpi") or image.info.get("aspect")
    if densities is None and image.info.get("jfif_unit") == 0:
        densities = image.info.get("jfif_density")
    try:
        across, down = (float(density) for density in densities or (1, 1))
    except (TypeError, ValueError):
        return 1.0
    believed = min(across, down) > 0 and 1 / MOST_ASPECT <= across / down <= MOST_ASPECT
    return across / down if believed else 1.0


def _sideways(image: Image.Image) -> bool:
    """Whether height and width change places when the image is upright."""
    tags = image.tag_v2 if isinstance(image, TiffImageFile) else image.getexif()
    return tags.get(ExifTags.Base.Orientation) in (5, 6, 7, 8)


def _white_is_zero(image: Image.Image) -> bool:
    """Whether high values are dark, and come so: of 8 bits and fewer Pillow turns them round."""
    if not isinstance(image, TiffImageFile) or not image.mode.startswith("I"):
        return False
    return bool(image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO)


def _grey(image: Image.Image, *, negative: bool, deep: bool) -> Grey:
    """16 bits: the robust range of the values; colour: luminance; transparent: black.

    negative: of 16 bits, whether high values are dark.
    """
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image)
        if values.dtype.kind == "f" or values.min() < 0 or values.max() > 65535:
            raise QuarantineError(
                "undecodable", f"pixels of mode {image.mode}, 8 or 16 bits expected"
            )
        grey = to_grey_levels(values, robust_range, deep=deep)
        return turned(grey) if negative else grey
    if "A" in image.mode or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    return np.asarray(image.convert("L"))


def shrink(image: Grey, short_side: int) -> Grey:
    """Shrink an image [H, W] to `short_side` pixels along its short side, antialiased; never enlarge it."""
    height, width = image.shape
    scale = short_side / min(height, width)
    if scale >= 1:
        return image
    high, wide = (max(short_side, round(side * scale)) for side in image.shape)
    return resize(image, high, wide, Image.Resampling.LANCZOS)
