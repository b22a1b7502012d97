"""More than 8 bits: seen by the default window as 8 bits are, and by others in training."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dicom_files import SHARED, needs_shared, write_dicom
from PIL import Image
from scipy.ndimage import gaussian_filter

from ray_mae.config import IngestConfig
from ray_mae.config.sections import StudyDataConfig
from ray_mae.data.decoding.deep import BLACK, WHITE, resize, turned, values_of_levels
from ray_mae.data.decoding.image_preprocessing import ImagePreparation
from ray_mae.data.decoding.stored_images import Window, decode, decode_deep, encode, is_deep
from ray_mae.data.kinds import KINDS
from ray_mae.data.loading.view_windows import WindowJitter

SMALL = ImagePreparation(
    max_pixels=10_000_000, image_size=48, encoding="zstd", jpeg_quality=95, max_aspect=4.0,
    burned_in="keep", secondary_captures="keep", body_parts=None,
)  # fmt: skip
BODY = gaussian_filter(np.random.default_rng(0).normal(size=(150, 120)), 3)
BODY = ((BODY - BODY.min()) / np.ptp(BODY) * 4095).astype(np.uint16)
BODY[:30, :30] = 4095  # a marker with sharp edges, far beyond most windows
BODY[-20:] = 0
DEEP = values_of_levels(BODY / 2048 - 0.5, deep=True)
RAW = SHARED / "dicom_cases" / "cxr_dx_966_j2k.dcm"


def stored(path: Path, bits: int) -> bytes:
    return replace(SMALL, bits=bits).prepare(path).image  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "tags",
    [
        {"WindowCenter": 2000, "WindowWidth": 1200},
        {"WindowCenter": 2000, "WindowWidth": 1200, "PhotometricInterpretation": "MONOCHROME1"},
        {"WindowCenter": -500, "WindowWidth": 900, "RescaleSlope": "0.5", "RescaleIntercept": "-1500"},
        {"WindowCenter": 2000, "WindowWidth": 800, "VOILUTFunction": "SIGMOID"},
        {"WindowCenter": 2000, "WindowWidth": 1200, "PixelPaddingValue": 4095},
        {"PixelSpacing": [0.2, 0.1], "WindowCenter": 2000, "WindowWidth": 1200},
        {},
    ],
    ids=["window", "inverted", "rescaled", "sigmoid", "padding", "oblong pixels", "percentiles"],
)  # fmt: skip
@pytest.mark.parametrize("bits", [12, 16])
def test_the_default_window_shows_what_eight_bits_hold(
    tmp_path: Path, tags: dict[str, object], bits: int
) -> None:
    path = write_dicom(tmp_path / "a.dcm", BODY, **tags)
    shallow, deep = stored(path, 8), stored(path, bits)
    assert is_deep(deep) and not is_deep(shallow)  # noqa: PT018
    apart = np.abs(decode(deep).astype(int) - decode(shallow))
    # pixels that are made square are resized twice, and of 8 bits rounded in between
    assert apart.max() <= (6 if "PixelSpacing" in tags else 1)
    assert np.quantile(apart, 0.99) <= 1
    assert apart.mean() < 0.3


@needs_shared
def test_a_real_radiograph_is_seen_alike_by_eight_and_sixteen_bits() -> None:
    apart = np.abs(decode(stored(RAW, 16)).astype(int) - decode(stored(RAW, 8)))
    assert apart.max() <= 1


@pytest.mark.parametrize("negative", [False, True])
def test_image_files_of_sixteen_bits_are_deep_and_those_of_eight_stay(
    tmp_path: Path, negative: bool
) -> None:
    options = {"tiffinfo": {262: 0}} if negative else {}
    Image.fromarray(BODY * 16).save(tmp_path / "a.tif", **options)
    Image.fromarray((BODY >> 4).astype(np.uint8)).save(tmp_path / "b.png")
    deep = stored(tmp_path / "a.tif", 16)
    assert is_deep(deep)
    assert np.abs(decode(deep).astype(int) - decode(stored(tmp_path / "a.tif", 8))).max() <= 1
    assert stored(tmp_path / "b.png", 16) == stored(tmp_path / "b.png", 8)


def test_what_lies_beyond_the_window_is_there_for_another_one(tmp_path: Path) -> None:
    smooth = gaussian_filter(BODY, 9)  # mixtures of what is within and beyond are as within
    path = write_dicom(tmp_path / "a.dcm", smooth, WindowCenter=2000, WindowWidth=1200)
    wide = Window(-0.5, 1.5)  # from 800 to 3200
    other = write_dicom(tmp_path / "b.dcm", smooth, WindowCenter=2000, WindowWidth=2400)
    apart = np.abs(decode(stored(path, 16), wide).astype(int) - decode(stored(other, 8)))
    assert np.quantile(apart, 0.9) <= 1
    cut_off = decode(stored(path, 8), wide)
    assert np.abs(cut_off.astype(int) - decode(stored(other, 8))).mean() > 5


def test_padding_is_black_in_every_window(tmp_path: Path) -> None:
    tags = {"WindowCenter": 2000, "WindowWidth": 1200, "PixelPaddingValue": 0}
    path = write_dicom(tmp_path / "a.dcm", BODY, PhotometricInterpretation="MONOCHROME1", **tags)
    for window in (Window(), Window(-0.5, 1.5), Window(0.3, 0.9)):
        assert (decode(stored(path, 16), window)[-4:] == 0).all()


@pytest.mark.parametrize("shape", [(1, 1), (17, 5), (64, 80)])
def test_sixteen_bits_are_kept_whole_and_twelve_are_rounded(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(1).integers(0, 65536, shape, dtype=np.uint16)
    image.flat[0] = 65535
    values, bits = decode_deep(encode(image, "zstd", bits=16))
    assert bits == 16
    np.testing.assert_array_equal(values, image)
    values, bits = decode_deep(encode(image, "zstd", bits=12))
    assert bits == 12
    assert values.max() == 4095
    assert np.abs(values.astype(int) * 16 - image).max() <= 15
    inner = image < 65520
    assert (np.abs(values.astype(int) * 16 - image)[inner] <= 8).all()


@pytest.mark.parametrize("keep", [3, 9, 30, -1])
def test_a_damaged_deep_image_is_told(keep: int) -> None:
    data = encode(DEEP, "zstd")
    with pytest.raises(ValueError, match="damaged"):
        decode(data[:keep] if keep > 5 else data[:5] + b"\0" * keep)


def test_dark_and_bright_change_places_and_back() -> None:
    levels = np.linspace(-0.5, 1.49, 1000)
    for deep in (False, True):
        image = values_of_levels(levels, deep=deep)
        exact = slice(1, None)  # the very darkest has no counterpart
        np.testing.assert_array_equal(turned(turned(image))[exact], image[exact])
    ends = values_of_levels(np.array([0.0, 1.0]), deep=True)
    assert ends.tolist() == [BLACK, WHITE]
    assert turned(ends).tolist() == [WHITE, BLACK]


def test_resizing_gives_no_value_that_the_window_does_not_have() -> None:
    edges = np.where(np.arange(64)[:, None] % 16 < 8, BLACK, WHITE).astype(np.uint16)
    small = resize(np.repeat(edges, 64, 1), 20, 20, Image.Resampling.LANCZOS)
    assert small.min() >= BLACK
    assert small.max() <= WHITE


def test_windows_are_the_views_own_and_only_of_deep_ones_unless_asked_for() -> None:
    deep, shallow = encode(DEEP, "zstd"), encode((BODY >> 4).astype(np.uint8), "zstd")
    draws = np.arange(500, dtype=np.int64)
    windows = list(WindowJitter().of([deep] * 500, draws))
    assert windows[3] == next(WindowJitter().of([deep], draws[3:4]))
    assert set(WindowJitter().of([shallow] * 5, draws[:5])) == {Window()}
    assert set(WindowJitter(0.0).of([deep] * 5, draws[:5])) == {Window()}
    assert Window() not in set(WindowJitter(0.2).of([shallow] * 5, draws[:5]))
    widths = np.array([window.high - window.low for window in windows])
    centres = np.array([window.high + window.low for window in windows]) / 2
    assert 0.7 <= widths.min() < 0.72
    assert 1.28 < widths.max() <= 1.3
    assert 0.35 <= centres.min() < 0.36
    assert 0.64 < centres.max() <= 0.65
    assert abs(np.corrcoef(widths, centres)[0, 1]) < 0.15


def test_training_chooses_windows_and_evaluation_has_the_files_own() -> None:
    view = {"image": encode(DEEP, "zstd"), "view": "frontal"}
    row = {"study_id": "s", "findings": None, "impression": None, "views": [view]}
    studies, data = KINDS["study"], StudyDataConfig()
    collators = {
        "training": studies.training_collator(32, data, seed=1),
        "supervised": studies.supervised_collator(32, 1),
        "evaluation": studies.evaluation_collator(32, 1),
        "off": studies.training_collator(32, replace(data, window_jitter=0.0), seed=1),
    }
    seen = {name: collator.collate([row], [0])["pixels"] for name, collator in collators.items()}
    own = seen["evaluation"]
    np.testing.assert_array_equal(own.reshape(BODY.shape), decode(view["image"]))
    np.testing.assert_array_equal(seen["off"], own)
    for name in ("training", "supervised"):
        assert (seen[name] != own).any()
        assert seen[name].dtype == np.uint8
        again = collators[name].collate([row], [0])["pixels"]
        np.testing.assert_array_equal(again, seen[name])
        assert (collators[name].collate([row], [1])["pixels"] != again).any()


def test_more_than_eight_bits_want_the_encoding_that_has_them() -> None:
    with pytest.raises(ValueError, match="bits 16 wants encoding zstd: png is for 8 bits"):
        IngestConfig(archive="dicom", source=Path("a"), output=Path("b"), bits=16, encoding="png")
