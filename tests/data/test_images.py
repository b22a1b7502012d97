from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from ray_mae.data.decoding import images
from ray_mae.data.decoding.images import read_image, shrink
from ray_mae.data.decoding.stored_images import EXACT, Encoding, decode, encode
from ray_mae.data.quarantine import QuarantineError

LIMIT = 1_000_000
GREY = np.linspace(0, 255, 40 * 30).astype(np.uint8).reshape(40, 30)


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def test_eight_bit_grey_is_read_as_it_is(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", Image.fromarray(GREY))
    np.testing.assert_array_equal(read_image(path, LIMIT), GREY)


def test_colour_palette_and_opaque_images_give_the_same_grey(tmp_path: Path) -> None:
    grey = Image.fromarray(GREY)
    for i, image in enumerate(
        (grey.convert("RGB"), grey.convert("P"), grey.convert("RGBA"), grey.convert("LA"))
    ):
        read = read_image(saved(tmp_path / f"{i}.png", image), LIMIT)
        assert np.abs(read.astype(int) - GREY).max() <= 1


def test_what_is_transparent_is_black(tmp_path: Path) -> None:
    image = Image.fromarray(np.full((10, 10, 4), 200, np.uint8), "RGBA")
    image.putalpha(
        Image.fromarray(np.repeat([[0], [255]], 5, axis=0).repeat(10, 1).astype(np.uint8))
    )
    read = read_image(saved(tmp_path / "a.png", image), LIMIT)
    assert read[0, 0] == 0
    assert read[9, 9] == 200


def test_sixteen_bits_fill_the_range_whatever_part_of_it_they_use(tmp_path: Path) -> None:
    wide = 1000 + 8 * np.arange(1200, dtype=np.uint16).reshape(40, 30)
    read = read_image(saved(tmp_path / "a.png", Image.fromarray(wide)), LIMIT)
    assert read.min() == 0
    assert read.max() == 255
    assert (np.diff(read.ravel().astype(int)) >= 0).all()


def test_an_image_stored_sideways_is_turned(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path / "a.jpg", Image.fromarray(GREY), exif=exif, quality=95)
    assert read_image(path, LIMIT).shape == (30, 40)


def test_an_unusable_file_is_refused_with_its_reason(tmp_path: Path) -> None:
    whole = saved(tmp_path / "whole.jpg", Image.fromarray(GREY).resize((400, 300))).read_bytes()
    (tmp_path / "half.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("no image")
    saved(tmp_path / "black.png", Image.new("L", (9, 9)))
    saved(tmp_path / "large.png", Image.new("L", (2000, 2000)))
    saved(tmp_path / "other.gif", Image.fromarray(GREY))
    for name, reason in {
        "half.jpg": "undecodable", "text.png": "not-an-image", "black.png": "constant",
        "large.png": "too-large", "other.gif": "not-an-image", "nowhere.png": "missing",
    }.items():  # fmt: skip
        with pytest.raises(QuarantineError) as caught:
            read_image(tmp_path / name, LIMIT)
        assert caught.value.reason == reason, name


def test_memory_that_was_short_says_nothing_of_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(image: Image.Image, **_: bool) -> None:
        raise MemoryError

    path = saved(tmp_path / "a.png", Image.fromarray(GREY))
    monkeypatch.setattr(images, "_grey", short)
    with pytest.raises(QuarantineError, match="decoder-ended"):
        read_image(path, LIMIT)


@given(st.integers(1, 300), st.integers(1, 300), st.integers(16, 64))
def test_the_short_side_is_as_wanted_and_never_larger_than_it_was(
    h: int, w: int, side: int
) -> None:
    small = shrink(np.zeros((h, w), np.uint8), side)
    assert min(small.shape) == min(side, h, w)
    if min(h, w) > side:
        assert abs(max(small.shape) - max(h, w) * side / min(h, w)) <= 1
    else:
        assert small.shape == (h, w)


def test_shrinking_averages_what_is_finer_than_the_new_pixels() -> None:
    stripes = np.tile(np.array([0, 255], np.uint8), (256, 128))
    inner = shrink(stripes, 32)[2:-2, 2:-2]
    assert np.abs(inner.astype(int) - 127.5).max() < 5


@given(
    image=arrays(np.uint8, st.tuples(st.integers(1, 70), st.integers(1, 40))),
    encoding=st.sampled_from(EXACT),
)
def test_exact_encodings_keep_every_pixel(image: np.ndarray, encoding: Encoding) -> None:
    np.testing.assert_array_equal(decode(encode(image, encoding)), image)


def test_a_turned_image_is_stored_like_its_copy() -> None:
    """Of views of arrays that are not contiguous."""
    np.testing.assert_array_equal(decode(encode(GREY.T, "zstd")), GREY.T)


@pytest.mark.parametrize("keep", [3, 8, 9, 12, -1])
def test_a_damaged_image_is_told(keep: int) -> None:
    with pytest.raises((ValueError, OSError)):
        decode(encode(GREY, "zstd")[:keep])


def test_an_image_of_another_size_than_it_says_is_told() -> None:
    data = bytearray(encode(GREY, "zstd"))
    data[5] += 1  # its height
    with pytest.raises(ValueError, match="damaged"):
        decode(bytes(data))


def test_jpeg_keeps_every_pixel_nearly() -> None:
    assert np.abs(decode(encode(GREY, "jpeg", 95)).astype(int) - GREY).max() <= 8


@pytest.mark.parametrize(
    ("name", "options", "shape"),
    [
        ("a.png", {"dpi": (200, 100)}, (80, 30)),
        ("b.png", {"dpi": (100, 200)}, (40, 60)),
        ("c.jpg", {"dpi": (200, 100)}, (80, 30)),
        ("d.png", {"dpi": (300, 300)}, (40, 30)),
        ("e.png", {"dpi": (100_000, 1)}, (40, 30)),
        ("f.jpg", {}, (40, 30)),
    ],
)
def test_pixels_come_out_square(
    tmp_path: Path, name: str, options: dict[str, object], shape: tuple[int, int]
) -> None:
    read = read_image(saved(tmp_path / name, Image.fromarray(GREY), **options), LIMIT)
    assert read.shape == shape


def test_a_jpeg_of_thousands_of_scans_is_refused_before_it_takes_minutes(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jpg", Image.fromarray(GREY), progressive=True)
    whole = path.read_bytes()
    read_image(path, LIMIT)
    at = whole.rindex(b"\xff\xda")
    path.write_bytes(whole[:at] + whole[at:-2] * 3000 + whole[-2:])
    with pytest.raises(QuarantineError, match=r"undecodable: 3,0\d\d scans, at most 200"):
        read_image(path, LIMIT)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.tif", {}),
        ("a.tif", {"compression": "tiff_lzw"}),
        ("a.tiff", {"compression": "tiff_adobe_deflate", "tiffinfo": {322: 16, 323: 16}}),  # tiles
        ("a.bmp", {}),
        ("a.webp", {"lossless": True}),
    ],
)
def test_other_image_files_are_read_as_png_is(
    tmp_path: Path, name: str, options: dict[str, object]
) -> None:
    path = saved(tmp_path / name, Image.fromarray(GREY), **options)
    np.testing.assert_array_equal(read_image(path, LIMIT), GREY)
    with pytest.raises(QuarantineError, match="too-large: 40 x 30 pixels"):
        read_image(path, 1000)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(QuarantineError, match=r"undecodable|not-an-image"):
        read_image(path, LIMIT)


@pytest.mark.parametrize("name", ["a.tif", "a.webp"])
def test_of_several_pictures_in_a_file_none_is_taken(tmp_path: Path, name: str) -> None:
    pages = [Image.fromarray(np.roll(GREY, i)) for i in (0, 7)]
    path = saved(tmp_path / name, pages[0], save_all=True, append_images=pages[1:])
    with pytest.raises(QuarantineError, match="multi-frame: 2 frames"):
        read_image(path, LIMIT)


def test_a_tiff_of_sixteen_bits_that_is_white_at_zero_is_turned_round(tmp_path: Path) -> None:
    deep = Image.fromarray(1000 + 8 * np.arange(1200, dtype=np.uint16).reshape(40, 30))
    usual = read_image(saved(tmp_path / "a.tif", deep), LIMIT)
    turned = read_image(saved(tmp_path / "b.tif", deep, tiffinfo={262: 0}), LIMIT)
    np.testing.assert_array_equal(turned, 255 - usual)
    grey = Image.fromarray(GREY)  # of 8 bits Pillow does so by itself, both ways
    eight = read_image(saved(tmp_path / "c.tif", grey, tiffinfo={262: 0}), LIMIT)
    np.testing.assert_array_equal(eight, GREY)


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tiff_stored_in_any_way_round_is_upright(
    tmp_path: Path, orientation: int, compression: str | None
) -> None:
    image = Image.fromarray(GREY[:, :20])
    path = saved(tmp_path / "a.tif", image, tiffinfo={274: orientation}, compression=compression)
    exif = Image.Exif()
    exif[274] = orientation
    usual = saved(tmp_path / "a.png", image, exif=exif)
    np.testing.assert_array_equal(read_image(path, LIMIT), read_image(usual, LIMIT))


@pytest.mark.parametrize("name", ["a.tif", "a.jpg", "a.png"])
def test_pixels_that_are_no_squares_become_squares_also_where_they_lie_sideways(
    tmp_path: Path, name: str
) -> None:
    """40 rows of half the height and 30 columns: upright 30 rows of twice the width of their 40 pixels."""
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path / name, Image.fromarray(GREY), exif=exif, dpi=(100, 200))
    assert read_image(path, LIMIT).shape == (60, 40)


def test_colours_and_bits_of_other_files(tmp_path: Path) -> None:
    grey = Image.fromarray(GREY)
    for i, mode in enumerate(("RGB", "RGBA", "P", "CMYK")):
        read = read_image(saved(tmp_path / f"{i}.tif", grey.convert(mode)), LIMIT)
        assert np.abs(read.astype(int) - GREY).max() <= 1
    bits = read_image(saved(tmp_path / "bits.tif", grey.convert("1")), LIMIT)
    assert set(np.unique(bits)) == {0, 255}
    real = Image.fromarray(GREY.astype(np.float32) / 255)
    with pytest.raises(QuarantineError, match="pixels of mode F, 8 or 16 bits expected"):
        read_image(saved(tmp_path / "real.tif", real), LIMIT)
