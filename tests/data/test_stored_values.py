"""Which bits of a cell are the value, where the tags that say so are unusual or wrong."""

from pathlib import Path

import numpy as np
import pytest
from dicom_files import RAMP, write_dicom
from pydicom import dcmread
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from ray_mae.data.decoding.dicom import read_dicom, stored_pixels

LIMIT = 10_000_000
SMOOTH = np.ascontiguousarray(
    np.broadcast_to(np.linspace(0, 4095, 80).round().astype(np.uint16), (64, 80))
)
DISC = (100 + 3900 * np.exp(-sum(np.mgrid[-1:1:64j, -1:1:64j] ** 2) / 0.3)).astype(np.uint16)


def values(path: Path) -> np.ndarray:
    return stored_pixels(path, LIMIT)[0]


@pytest.mark.parametrize("high", [11, 12, 13, 15])
@pytest.mark.parametrize("picture", [RAMP, SMOOTH, DISC], ids=["rows", "ramp", "disc"])
def test_the_value_ends_at_high_bit_wherever_that_is(
    tmp_path: Path, high: int, picture: np.ndarray
) -> None:
    shifted = picture << (high - 11)
    np.testing.assert_array_equal(
        values(write_dicom(tmp_path / "a.dcm", shifted, HighBit=high)), picture
    )


def test_signed_values_keep_their_sign_in_the_upper_bits(tmp_path: Path) -> None:
    signed = SMOOTH.astype(np.int16) - 2048
    path = write_dicom(tmp_path / "a.dcm", signed << 4, HighBit=15)
    np.testing.assert_array_equal(values(path), signed)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
def test_a_compressed_picture_has_the_same_values(tmp_path: Path, syntax: str) -> None:
    for high, stored in ((11, SMOOTH), (15, SMOOTH << 4)):
        ds = dcmread(write_dicom(tmp_path / "a.dcm", stored, HighBit=high))
        if syntax != RLELossless:
            ds.BitsStored, ds.HighBit = high + 1, high  # what their encoders ask for
        ds.compress(syntax)
        ds.BitsStored, ds.HighBit = 12, high
        ds.save_as(tmp_path / "b.dcm")
        np.testing.assert_array_equal(values(tmp_path / "b.dcm"), SMOOTH)


def test_a_stream_of_twelve_bits_needs_no_shift_whatever_high_bit_says(tmp_path: Path) -> None:
    ds = dcmread(write_dicom(tmp_path / "a.dcm", SMOOTH))
    ds.compress(JPEG2000Lossless)
    ds.HighBit = 15
    ds.save_as(tmp_path / "a.dcm")
    np.testing.assert_array_equal(values(tmp_path / "a.dcm"), SMOOTH)


@pytest.mark.parametrize(
    "tags",
    [
        {"HighBit": 15},  # but the upper bits are never used
        {"HighBit": 7},  # no room for 12 bits
        {"HighBit": 40},
        {"HighBit": None},
        {"BitsStored": 10, "HighBit": 9},
        {"BitsStored": 8, "HighBit": 7},
        {"BitsStored": 16, "HighBit": 11},
        {"BitsStored": 16, "HighBit": 15},
        {"PixelRepresentation": 1},
    ],
)
@pytest.mark.parametrize("picture", [SMOOTH, DISC], ids=["ramp", "disc"])
def test_a_tag_that_would_make_the_grey_values_wrap_is_not_believed(
    tmp_path: Path, tags: dict[str, int | None], picture: np.ndarray
) -> None:
    shown, _ = read_dicom(write_dicom(tmp_path / "a.dcm", picture, **tags), LIMIT)
    expected, _ = read_dicom(write_dicom(tmp_path / "b.dcm", picture), LIMIT)
    assert np.abs(shown.astype(int) - expected).max() <= 1


def test_values_in_the_upper_bits_are_found_although_high_bit_denies_it(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", DISC << 4, WindowCenter=2048, WindowWidth=4096)
    plain = write_dicom(tmp_path / "b.dcm", DISC, WindowCenter=2048, WindowWidth=4096)
    np.testing.assert_array_equal(read_dicom(path, LIMIT)[0], read_dicom(plain, LIMIT)[0])


@pytest.mark.parametrize(("high", "bit"), [(11, 12), (11, 15), (15, 0), (15, 3)])
def test_an_overlay_beside_the_value_is_not_in_the_picture(
    tmp_path: Path, high: int, bit: int
) -> None:
    cells = DISC << (high - 11)
    cells[20:40, 10:30] |= 1 << bit
    np.testing.assert_array_equal(
        values(write_dicom(tmp_path / "a.dcm", cells, HighBit=high)), DISC
    )


def test_a_burnt_out_marker_makes_no_signed_picture_unsigned(tmp_path: Path) -> None:
    signed = DISC.astype(np.int16) // 4 - 500
    signed[:8] = -2048
    signed[50:60, 50:60] = 2047
    path = write_dicom(tmp_path / "a.dcm", signed)
    shown = read_dicom(path, LIMIT)[0]
    assert shown[0, 0] == 0
    assert shown[55, 55] == 255
