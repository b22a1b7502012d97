import csv
import errno
import hashlib
import io
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from dicom_files import RAMP, SHARED, needs_shared, write_dicom
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from ray_mae.data.decoding import dicom
from ray_mae.data.decoding.dicom import read_dicom, read_header, stored_pixels
from ray_mae.data.decoding.greyscale import to_grey
from ray_mae.data.paths import is_transient
from ray_mae.data.quarantine import QuarantineError

LIMIT = 10_000_000
CASES = SHARED / "dicom_cases"
LOSSY = {"1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.81",
         "1.2.840.10008.1.2.4.91"}  # fmt: skip


def real_cases() -> list[dict[str, str]]:
    if not CASES.is_dir():
        return []
    with (CASES / "expected.csv").open() as file:
        return list(csv.DictReader(file))


def reason(path: Path, max_pixels: int = LIMIT) -> str:
    with pytest.raises(QuarantineError) as caught:
        read_dicom(path, max_pixels)
    return caught.value.reason


def levels(path: Path) -> np.ndarray:
    """The displayed image of a ramp, as one level per stored value."""
    return read_dicom(path, LIMIT)[0].ravel().astype(int)


@needs_shared
@pytest.mark.parametrize("case", real_cases(), ids=lambda case: case["file"])
def test_real_files_decode_to_the_known_stored_values(case: dict[str, str]) -> None:
    name = case["file"].removeprefix("pydicom-data:")
    path = get_testdata_file(name, download=False) if name != case["file"] else CASES / name
    pixels, ds = stored_pixels(Path(str(path)), LIMIT)

    assert "x".join(map(str, pixels.shape)) == case["decoded_shape"]
    assert ds.PhotometricInterpretation == case["photometric"]
    if case["transfer_syntax"] in LOSSY:
        assert abs(int(pixels.min()) - int(case["stored_min"])) <= 1
        assert abs(int(pixels.max()) - int(case["stored_max"])) <= 1
        assert abs(pixels.mean() - float(case["stored_mean"])) < 0.05
    else:
        digest = hashlib.sha256(pixels.tobytes()).hexdigest()
        assert digest.startswith(case["decoded_sha256_16"])
    grey = to_grey(pixels, ds)
    assert grey.shape == pixels.shape
    assert int(grey.max()) - int(grey.min()) > 150


@needs_shared
def test_real_chest_radiographs_look_alike_in_every_syntax_and_dark_where_air_is() -> None:
    one, _ = read_dicom(CASES / "cxr_rg1_jpegls_near.dcm", LIMIT)
    other, header = read_dicom(Path(str(get_testdata_file("RG1_J2KR.dcm", download=False))), LIMIT)
    assert np.abs(one.astype(int) - other).max() <= 1
    assert header.view == "frontal"
    lung, spine = other[700:900, 350:450].mean(), other[700:900, 850:950].mean()
    assert lung < spine - 50, "MONOCHROME1: lungs must come out dark"


def test_monochrome1_is_the_mirror_of_monochrome2(tmp_path: Path) -> None:
    window = {"WindowCenter": 2048, "WindowWidth": 4096}
    two = levels(write_dicom(tmp_path / "2.dcm", **window))
    one = levels(write_dicom(tmp_path / "1.dcm", PhotometricInterpretation="MONOCHROME1", **window))
    assert (two == np.sort(two)).all()
    np.testing.assert_array_equal(one, 255 - two)


def test_of_several_windows_the_first_is_used(tmp_path: Path) -> None:
    several = levels(
        write_dicom(tmp_path / "a.dcm", WindowCenter=[1000, 3000], WindowWidth=[500, 100])
    )
    assert (several[:750] == 0).all()
    assert (several[1250:] == 255).all()
    assert 120 < several[1000] < 135


def test_rescale_comes_before_the_window_for_signed_values(tmp_path: Path) -> None:
    pixels = RAMP.astype(np.int16) - 2048
    tags = {"RescaleSlope": 2, "RescaleIntercept": 1000, "WindowCenter": 1000, "WindowWidth": 2000}
    shown = levels(write_dicom(tmp_path / "a.dcm", pixels, **tags))
    assert (shown[: 2048 - 500] == 0).all()
    assert (shown[2048 + 501 :] == 255).all()
    assert 120 < shown[2048] < 135


def lut(data: list[int], first: int, bits: int) -> list[Dataset]:
    item = Dataset()
    item.LUTDescriptor = [len(data), first, bits]
    item.add_new("LUTData", "US", data)
    return [item]


def test_a_voi_lut_is_applied_and_goes_before_a_window(tmp_path: Path) -> None:
    table = lut([0] * 1024 + [2048] * 1024 + [4095] * 2048, 0, 12)
    path = write_dicom(tmp_path / "a.dcm", VOILUTSequence=table, WindowCenter=1, WindowWidth=2)
    shown = levels(path)
    assert [shown[0], shown[1500], shown[4000]] == [0, 128, 255]


def test_a_modality_lut_is_applied_before_the_range_is_taken(tmp_path: Path) -> None:
    table = lut(list(range(4095, -1, -1)), 0, 16)
    shown = levels(write_dicom(tmp_path / "a.dcm", ModalityLUTSequence=table))
    assert shown[0] == 255
    assert shown[-1] == 0


def test_without_a_window_outliers_and_padding_do_not_decide_the_range(tmp_path: Path) -> None:
    pixels = np.tile(np.linspace(1000, 2000, 64).astype(np.uint16), (64, 1))
    pixels[:8] = 0
    pixels[-1, -1] = 4095
    shown, _ = read_dicom(write_dicom(tmp_path / "a.dcm", pixels, PixelPaddingValue=0), LIMIT)
    assert (shown[:8] == 0).all()
    assert shown[20, 0] < 10
    assert shown[20, 62] > 245


@pytest.mark.parametrize(("center", "width"), [(100_000, 10), (2048, 0), (2048, 10_000_000)])
def test_a_window_that_shows_nothing_is_not_believed(
    tmp_path: Path, center: int, width: int
) -> None:
    shown = levels(write_dicom(tmp_path / "a.dcm", WindowCenter=center, WindowWidth=width))
    assert shown.min() == 0
    assert shown.max() == 255


def test_one_outlier_makes_no_wrong_window_believed(tmp_path: Path) -> None:
    pixels = RAMP % 1001
    pixels[-1, -1] = 4095
    shown = levels(write_dicom(tmp_path / "a.dcm", pixels, WindowCenter=3000, WindowWidth=100))
    assert shown[:1000].min() == 0
    assert shown[:1000].max() == 255
    assert 110 < np.median(shown) < 145


def test_a_voi_lut_of_fewer_bits_than_it_says_fills_the_grey_range(tmp_path: Path) -> None:
    for bits in (12, 16):
        table = lut(list(range(4096)), 0, bits)
        shown = levels(write_dicom(tmp_path / "a.dcm", VOILUTSequence=table))
        assert [shown[0], shown[2048], shown[4095]] == [0, 128, 255]


def test_eight_bits_without_a_window_are_shown_as_they_are(tmp_path: Path) -> None:
    pixels = np.arange(50, 150, dtype=np.uint8).reshape(10, 10)
    np.testing.assert_array_equal(
        read_dicom(write_dicom(tmp_path / "a.dcm", pixels), LIMIT)[0], pixels
    )


def test_colours_become_luminance(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4], pixels[4:] = (255, 0, 0), (0, 255, 0)
    shown, _ = read_dicom(write_dicom(tmp_path / "a.dcm", pixels), LIMIT)
    assert shown[0, 0] == round(0.299 * 255)
    assert shown[7, 7] == round(0.587 * 255)


@pytest.mark.parametrize(
    "syntax",
    [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless],
)
def test_every_encoding_gives_the_same_picture(tmp_path: Path, syntax: str) -> None:
    plain = write_dicom(tmp_path / "plain.dcm")
    other = tmp_path / "other.dcm"
    if syntax == RLELossless:
        ds = dcmread(plain)
        ds.compress(RLELossless)
        ds.save_as(other)
    elif syntax == ExplicitVRBigEndian:
        write_dicom(other, syntax=syntax, PixelData=RAMP.astype(">u2").tobytes())
    else:
        write_dicom(other, syntax=syntax)
    np.testing.assert_array_equal(read_dicom(other, LIMIT)[0], read_dicom(plain, LIMIT)[0])


def test_a_bare_data_set_without_preamble_is_read(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", syntax=ImplicitVRLittleEndian)
    ds = dcmread(path)
    del ds.file_meta
    ds.save_as(tmp_path / "bare", implicit_vr=True, little_endian=True)
    np.testing.assert_array_equal(
        read_dicom(tmp_path / "bare", LIMIT)[0], read_dicom(path, LIMIT)[0]
    )


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"Modality": "CT"}, "modality"),
        ({"NumberOfFrames": 4}, "multi-frame"),
        ({"Rows": 60_000, "Columns": 60_000}, "too-large"),
        ({"Rows": None}, "no-pixels"),
        ({"PixelData": None}, "no-pixels"),
        ({"PixelData": b"\0" * 100}, "undecodable"),
        ({"PixelData": b"\0" * RAMP.nbytes}, "constant"),
        ({"BitsAllocated": 3}, "undecodable"),
        ({"SeriesDescription": None, "BitsStored": 40}, "undecodable"),
        ({"PhotometricInterpretation": "NONSENSE"}, "undecodable"),
    ],
)
def test_an_unusable_file_is_refused_with_its_reason(
    tmp_path: Path, tags: dict[str, object], expected: str
) -> None:
    assert reason(write_dicom(tmp_path / "a.dcm", **tags)) == expected


def test_what_is_no_dicom_file_is_refused_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "text.dcm").write_text("not a DICOM file, only called so " * 20)
    (tmp_path / "empty.dcm").touch()
    assert reason(tmp_path / "text.dcm") == "not-dicom"
    assert reason(tmp_path / "empty.dcm") == "not-dicom"
    assert reason(tmp_path / "nowhere.dcm") == "missing"
    assert reason(tmp_path) == "unreadable"


def test_a_deflated_file_that_inflates_without_end_is_refused_before_it_does(
    tmp_path: Path,
) -> None:
    bomb = np.zeros(66 << 20, np.uint8)
    path = write_dicom(
        tmp_path / "a.dcm", syntax=DeflatedExplicitVRLittleEndian, PixelData=bomb.tobytes()
    )
    assert path.stat().st_size < 1 << 20
    assert reason(path, max_pixels=10_000) == "too-large"


@pytest.mark.parametrize("kind", ["without preamble", "with a lying length"])
def test_a_deflated_file_is_measured_from_where_it_is_inflated(tmp_path: Path, kind: str) -> None:
    path = write_dicom(
        tmp_path / "a.dcm", syntax=DeflatedExplicitVRLittleEndian, PixelData=bytes(66 << 20)
    )
    raw, length = path.read_bytes(), b"\x02\x00\x00\x00UL\x04\x00"
    if kind == "without preamble":
        path.write_bytes(raw[132:])
    else:
        at = raw.index(length) + 8
        path.write_bytes(raw[:at] + b"\x00\x00\x00\x30" + raw[at + 4 :])
    with pytest.raises(QuarantineError, match="too-large: inflates to more than"):
        read_header(path, 10_000)
    assert read_header(path, 10_000_000).rows == 64


EMPTY_ITEM, END = b"\xfe\xff\x00\xe0\0\0\0\0", b"\xfe\xff\xdd\xe0\0\0\0\0"


def with_items(path: Path, sequence: bytes, items: int, length: int = 0xFFFFFFFF) -> Path:
    """A file with so many empty items in a sequence, given by its tag, before the pixels."""
    raw = write_dicom(path, ViewPosition="PA").read_bytes()
    at = raw.index(b"\xe0\x7f\x10\x00")
    value = EMPTY_ITEM * items + (END if length == 0xFFFFFFFF else b"")
    path.write_bytes(
        raw[:at] + sequence + b"SQ\0\0" + length.to_bytes(4, "little") + value + raw[at:]
    )
    return path


PRIVATE, VIEW_CODE = b"\x55\x00\x10\x10", b"\x54\x00\x20\x02"


@pytest.mark.parametrize(
    ("sequence", "known"), [(PRIVATE, False), (VIEW_CODE, False), (VIEW_CODE, True)]
)
def test_a_header_of_more_elements_than_any_has_is_refused_before_they_take_memory(
    tmp_path: Path, sequence: bytes, known: bool
) -> None:
    few, many = (
        with_items(tmp_path / f"{n}.dcm", sequence, n, 8 * n if known else 0xFFFFFFFF)
        for n in (1000, 100_000)
    )
    assert read_dicom(few, LIMIT)[1].view == "frontal"
    with pytest.raises(QuarantineError, match="too-large: more in the header"):
        read_header(many, LIMIT)
    if not known:  # parsed although nobody asks for it, with the pixels as well
        with pytest.raises(QuarantineError, match="too-large: more in the header"):
            stored_pixels(many, LIMIT, header=1 << 18)


def test_a_length_that_the_file_does_not_have_takes_no_memory(tmp_path: Path) -> None:
    raw = write_dicom(tmp_path / "a.dcm").read_bytes()
    at = raw.index(b"\xe0\x7f\x10\x00") + 8
    (tmp_path / "b.dcm").write_bytes(raw[:at] + b"\xfe\xff\xff\xff" + raw[at + 4 :])
    tracemalloc.start()
    np.testing.assert_array_equal(stored_pixels(tmp_path / "b.dcm", LIMIT)[0], RAMP)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 10_000_000


def test_a_tag_of_more_values_than_any_has_is_refused_before_they_take_memory(
    tmp_path: Path,
) -> None:
    raw = write_dicom(tmp_path / "a.dcm", NumberOfFrames="1").read_bytes()
    tag, values = b"\x28\x00\x08\x00", b"1\\" * 500_000
    at = raw.index(tag + b"IS")
    long = tag + b"UC\0\0" + len(values).to_bytes(4, "little") + values
    (tmp_path / "b.dcm").write_bytes(raw[:at] + long + raw[at + 10 :])
    with pytest.raises(QuarantineError, match="too-large: more in the header"):
        read_header(tmp_path / "b.dcm", LIMIT)


def test_a_disk_that_fails_inside_a_sequence_is_told_from_a_damaged_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = with_items(tmp_path / "a.dcm", PRIVATE, 1000)

    class Failing(io.BufferedReader):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 2000:
                raise OSError(errno.EIO, "away")
            return super().read(size)

    @contextmanager
    def open_binary(path: Path) -> Iterator[Failing]:
        with Failing(io.FileIO(path)) as file:
            yield file

    monkeypatch.setattr(dicom, "open_binary", open_binary)
    with pytest.raises(QuarantineError, match="unreadable") as caught:
        read_header(path, LIMIT)
    assert is_transient(caught.value, remote=False)


def test_what_nobody_asks_for_and_is_skipped_may_have_any_size(tmp_path: Path) -> None:
    path = with_items(tmp_path / "a.dcm", PRIVATE, 1_000_000, 8_000_000)
    assert read_dicom(path, LIMIT)[1].view == "frontal"


@needs_shared
def test_a_stream_larger_than_its_header_says_is_refused_before_decoding(tmp_path: Path) -> None:
    for name in ("mr_ts_5", "mr_ts_7", "mr_ts_9"):  # JPEG lossless, JPEG-LS, JPEG 2000
        ds = dcmread(CASES / f"{name}.dcm")
        ds.Modality, ds.Rows, ds.Columns = "DX", 16, 16
        ds.save_as(tmp_path / "lie.dcm")
        with pytest.raises(QuarantineError, match="stream 384 x 384"):
            read_dicom(tmp_path / "lie.dcm", LIMIT)


@settings(
    max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused_and_nothing_else(
    tmp_path: Path, data: st.DataObject
) -> None:
    good = write_dicom(tmp_path / "good.dcm", WindowCenter=2048, WindowWidth=4096).read_bytes()
    damaged = bytearray(good[: data.draw(st.integers(0, len(good)))])
    for at in data.draw(st.lists(st.integers(0, 1200), max_size=8)):
        if at < len(damaged):
            damaged[at] = data.draw(st.integers(0, 255))
    (tmp_path / "damaged.dcm").write_bytes(damaged)
    try:
        image, _ = read_dicom(tmp_path / "damaged.dcm", LIMIT)
    except QuarantineError:
        return
    assert image.dtype == np.uint8
    assert image.ndim == 2


def test_a_refusal_never_quotes_the_header(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    raw = write_dicom(tmp_path / "a.dcm", NumberOfFrames="1", Modality="CT").read_bytes()
    for tag, old in ((b"\x28\x00\x08\x00IS", b"1 "), (b"\x08\x00\x60\x00CS", b"CT")):
        at = raw.index(tag)
        length = len(old).to_bytes(2, "little")
        assert raw[at + 6 : at + 8 + len(old)] == length + old
        planted = raw[: at + 6] + b"\x09\x00YPSILANTI" + raw[at + 8 + len(old) :]
        (tmp_path / "b.dcm").write_bytes(planted)
        with pytest.raises(QuarantineError) as caught:
            read_dicom(tmp_path / "b.dcm", LIMIT)
        assert caught.value.reason in ("undecodable", "modality")
        assert "ypsilanti" not in str(caught.value).lower()
    assert "ypsilanti" not in caplog.text.lower()


def code(meaning: str) -> list[Dataset]:
    item = Dataset()
    item.CodeMeaning = meaning
    return [item]


@pytest.mark.parametrize(
    ("tags", "view"),
    [
        ({"ViewPosition": "PA", "SeriesDescription": "LAT"}, "frontal"),
        ({"ViewPosition": "LL"}, "lateral"),
        ({"ViewPosition": "LLO"}, "unknown"),
        ({"ViewCodeSequence": code("left lateral")}, "lateral"),
        ({"ViewCodeSequence": code("antero-posterior")}, "frontal"),
        ({"PatientOrientation": ["L", "F"], "SeriesDescription": "LAT"}, "frontal"),
        ({"PatientOrientation": ["A", "F"]}, "lateral"),
        ({"PatientOrientation": ["P", "FL"]}, "lateral"),
        ({"SeriesDescription": "Thorax LAT"}, "lateral"),
        ({"ProtocolName": "chest pa upright"}, "frontal"),
        ({"SeriesDescription": "CHEST PA AND LAT"}, "unknown"),
        ({"SeriesDescription": "Smith, John"}, "unknown"),
        ({}, "unknown"),
    ],
)
def test_the_view_comes_from_the_most_reliable_tag_that_names_one(
    tmp_path: Path, tags: dict[str, object], view: str
) -> None:
    header = read_header(write_dicom(tmp_path / "a.dcm", **tags), LIMIT)
    assert header.view == view
    assert header.position is None or "smith" not in header.position.lower()


WINDOW = {"WindowCenter": 2048, "WindowWidth": 4096}


def framed(value: int, dtype: str = "u2") -> np.ndarray:
    """A ramp within a frame of ten pixels."""
    pixels = np.full((80, 64), value, dtype)
    pixels[10:-10] = np.linspace(40, 4000, 64).round() - (2048 if dtype == "i2" else 0)
    return pixels


@pytest.mark.parametrize("monochrome", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("window", [WINDOW, {}], ids=["window", "no window"])
@pytest.mark.parametrize(
    ("value", "tags"),
    [
        (0, {"PixelPaddingValue": 0}),
        (4095, {"PixelPaddingValue": 4095}),
        (30, {"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 35}),
        (30, {"PixelPaddingValue": 35, "PixelPaddingRangeLimit": 0}),
        (0xFFFF, {"PixelPaddingValue": 0xFFFF}),  # as a whole cell, beyond BitsStored
    ],
)
def test_padding_is_black_in_either_polarity_and_at_either_end(
    tmp_path: Path, monochrome: str, window: dict[str, int], value: int, tags: dict[str, int]
) -> None:
    path = write_dicom(
        tmp_path / "a.dcm", framed(value), PhotometricInterpretation=monochrome, **window, **tags
    )
    shown = read_dicom(path, LIMIT)[0].astype(int)
    assert shown[:10].max() == shown[-10:].max() == 0
    rising = np.diff(shown[40]) * (1 if monochrome == "MONOCHROME2" else -1)
    assert (rising >= 0).all()
    assert np.ptp(shown[40]) > 200


@pytest.mark.parametrize("number", [-2048, 0x800, 0xF800])
def test_padding_of_signed_pixels_may_be_written_as_a_whole_cell(
    tmp_path: Path, number: int
) -> None:
    path = write_dicom(
        tmp_path / "a.dcm", framed(-2048, "i2"), PhotometricInterpretation="MONOCHROME1"
    )
    ds = dcmread(path)
    ds.add_new("PixelPaddingValue", "SS" if number < 0 else "US", number)
    ds.save_as(path)
    assert read_dicom(path, LIMIT)[0][:10].max() == 0


def test_padding_that_leaves_no_image_is_not_believed(tmp_path: Path) -> None:
    tags = {"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 4095}
    shown = levels(write_dicom(tmp_path / "a.dcm", **tags))
    assert [shown[0], shown[-1]] == [0, 255]
    blank = write_dicom(tmp_path / "b.dcm", np.pad(np.full((20, 20), 900, "u2"), 4), **WINDOW,
                        PixelPaddingValue=0)  # fmt: skip
    assert reason(blank) == "constant"


def disc(height: int, width: int) -> np.ndarray:
    """A disc that touches all four sides, however many pixels these have."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    return np.where(x**2 + y**2 < 0.8, 3500, 200).astype(np.uint16)


@pytest.mark.parametrize(
    ("tags", "shape"),
    [
        ({"PixelAspectRatio": [2, 1]}, (128, 128)),
        ({"PixelSpacing": [0.4, 0.2]}, (128, 128)),
        ({"ImagerPixelSpacing": [0.4, 0.2]}, (128, 128)),
        ({"NominalScannedPixelSpacing": [0.4, 0.2]}, (128, 128)),
        ({"PixelSpacing": [0, 0], "ImagerPixelSpacing": [0.4, 0.2]}, (128, 128)),
        ({"PixelSpacing": [0.1, 0.2]}, (64, 256)),
        ({"PixelSpacing": [0.143, 0.1432]}, (64, 128)),
        ({"PixelSpacing": [0.143, 143]}, (64, 128)),  # a slip of the unit
        ({"PixelSpacing": [-0.4, 0.2]}, (64, 128)),
        ({"PixelSpacing": [0.2, 0.2], "PixelAspectRatio": [2, 1]}, (64, 128)),
        ({"PixelAspectRatio": [0, 1]}, (64, 128)),
    ],
)
def test_pixels_come_out_square(
    tmp_path: Path, tags: dict[str, object], shape: tuple[int, int]
) -> None:
    shown, _ = read_dicom(write_dicom(tmp_path / "a.dcm", disc(64, 128), **WINDOW, **tags), LIMIT)
    assert shown.shape == shape


def test_pixels_are_made_square_within_max_pixels(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", disc(64, 128), PixelSpacing=[0.4, 0.2])
    assert read_dicom(path, 64 * 128)[0].shape == (64, 64)


def test_grey_pictures_in_ybr_that_say_rgb_keep_their_contrast(tmp_path: Path) -> None:
    pixels = np.full((16, 16, 3), 128, np.uint8)
    pixels[..., 0] = np.arange(256, dtype=np.uint8).reshape(16, 16)
    np.testing.assert_array_equal(
        read_dicom(write_dicom(tmp_path / "a.dcm", pixels), LIMIT)[0], pixels[..., 0]
    )


@pytest.mark.parametrize(
    ("tags", "rising"),
    [
        ({"PixelIntensityRelationshipSign": 1}, False),
        ({"PixelIntensityRelationshipSign": -1}, True),
        ({"PixelIntensityRelationshipSign": -1, "PhotometricInterpretation": "MONOCHROME1"}, True),
        ({}, True),
        ({"PhotometricInterpretation": "MONOCHROME1"}, False),
    ],
)
def test_a_detectors_values_are_bright_where_few_rays_came(
    tmp_path: Path, tags: dict[str, object], rising: bool
) -> None:
    raw = write_dicom(tmp_path / "a.dcm", PresentationIntentType="FOR PROCESSING", **tags)
    shown = levels(raw)
    assert (shown[-1] > shown[0]) == rising
    if "PixelIntensityRelationshipSign" in tags:  # of a picture to look at, it says nothing new
        shown = levels(write_dicom(tmp_path / "b.dcm", **tags))
        assert (shown[-1] > shown[0]) == ("PhotometricInterpretation" not in tags)


RAW_CLASS, SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.1.1.1", "1.2.840.10008.5.1.4.1.1.7"


@pytest.mark.parametrize(
    ("tags", "raw"),
    [
        ({"PresentationIntentType": "FOR PROCESSING"}, True),
        ({"PresentationIntentType": "for processing "}, True),
        ({"SOPClassUID": RAW_CLASS}, True),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.2.1"}, True),
        ({"PresentationIntentType": "FOR PRESENTATION"}, False),
        ({}, False),
    ],
)
def test_raw_exposures_are_known_by_intent_or_class(
    tmp_path: Path, tags: dict[str, str], raw: bool
) -> None:
    assert read_header(write_dicom(tmp_path / "a.dcm", **tags), LIMIT).for_processing == raw


@pytest.mark.parametrize("word", ["YES", "Y", "TRUE", "1", "UNKNOWN", "yes", "N"])
def test_all_but_no_or_nothing_is_burned_in(tmp_path: Path, word: str) -> None:
    assert read_header(write_dicom(tmp_path / "a.dcm", BurnedInAnnotation=word), LIMIT).burned_in


@pytest.mark.parametrize("word", ["NO", "no ", "", None])
def test_no_and_nothing_are_not_burned_in(tmp_path: Path, word: str | None) -> None:
    path = write_dicom(tmp_path / "a.dcm", BurnedInAnnotation=word)
    assert not read_header(path, LIMIT).burned_in


@pytest.mark.parametrize(
    ("tags", "capture"),
    [
        ({"ConversionType": "SD"}, "scanned document"),
        ({"ConversionType": "DRW"}, "drawing"),
        ({"ConversionType": "SYN"}, "synthetic"),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "screenshot"),
        ({"ImageType": ["DERIVED", "SECONDARY", "OTHER", "SCREENSHOT"]}, "screenshot"),
        ({"ImageType": "screen_capture"}, "screenshot"),
        ({"SeriesDescription": "Screen Save"}, "screenshot"),
        ({"SeriesDescription": "Consent form"}, "document"),
        ({"SOPClassUID": SECONDARY_CAPTURE}, "Secondary Capture"),
        ({"SOPClassUID": SECONDARY_CAPTURE + ".2", "ConversionType": "WSD"}, "Secondary Capture"),
        ({"SOPClassUID": SECONDARY_CAPTURE, "ConversionType": "SI", "Modality": "OT"}, "Secondary"),
        ({"Modality": "SC"}, "Secondary Capture"),
        # radiographs that were converted, as the RSNA's
        ({"SOPClassUID": SECONDARY_CAPTURE, "ConversionType": "WSD", "ViewPosition": "PA"}, ""),
        ({"SOPClassUID": SECONDARY_CAPTURE, "ConversionType": "DF"}, ""),
        ({"ConversionType": "WSD"}, ""),
        ({"ImageType": ["DERIVED", "SECONDARY", "", "CSA RESAMPLED"]}, ""),
        ({"ImageType": ["ORIGINAL", "PRIMARY"], "SeriesDescription": "Screening chest PA"}, ""),
        ({}, ""),
    ],
)
def test_forms_drawings_and_screenshots_are_known_by_their_header(
    tmp_path: Path, tags: dict[str, object], capture: str
) -> None:
    said = read_header(write_dicom(tmp_path / "a.dcm", **tags), LIMIT).capture
    assert (capture in said) if capture else said == ""


@pytest.mark.parametrize(
    ("tags", "part"),
    [
        ({"BodyPartExamined": "CHEST"}, "chest"),
        ({"BodyPartExamined": "HIP"}, "hip"),
        ({"AnatomicRegionSequence": code("Elbow joint")}, "arm"),
        ({"SeriesDescription": "Hand li. dp"}, "hand"),
        ({"BodyPartExamined": "CHEST", "SeriesDescription": "KNEE LAT"}, "several"),
        ({"BodyPartExamined": "CHEST", "StudyDescription": "XR chest and wrist"}, "chest"),
        ({"StudyDescription": "Röntgen Thorax in 2 Ebenen"}, "chest"),
        ({"QualityControlImage": "YES", "BodyPartExamined": "CHEST"}, "phantom"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.3"}, "tooth"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.2"}, "breast"),
        ({"SeriesDescription": "Smith, John"}, "unknown"),
        ({}, "unknown"),
    ],
)
def test_the_body_part_comes_from_what_the_header_names(
    tmp_path: Path, tags: dict[str, object], part: str
) -> None:
    assert read_header(write_dicom(tmp_path / "a.dcm", **tags), LIMIT).body_part == part


def test_a_view_is_known_by_its_code_and_one_in_unknown_words_is_told(tmp_path: Path) -> None:
    coded = code("projection de profil gauche")
    coded[0].CodeValue = "399173006"
    header = read_header(write_dicom(tmp_path / "a.dcm", ViewCodeSequence=coded), LIMIT)
    assert (header.view, header.view_understood) == ("lateral", True)
    coded[0].CodeMeaning = "Seitenansicht"
    header = read_header(write_dicom(tmp_path / "b.dcm", ViewCodeSequence=coded), LIMIT)
    assert (header.view, header.position) == ("lateral", "left lateral")
    header = read_header(write_dicom(tmp_path / "c.dcm", ViewPosition="BOCZNE"), LIMIT)
    assert (header.view, header.view_understood) == ("unknown", False)
    header = read_header(write_dicom(tmp_path / "d.dcm", ViewPosition="LAO"), LIMIT)
    assert (header.view, header.view_understood) == ("unknown", True)
