"""Volumes whose headers or values are wrong: mended where there is no doubt, else refused with a cure."""

import bz2
import gzip
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from volume_files import ball, settings, write_nifti

from ray_mae.config import VolumeSettings
from ray_mae.data.archives import VOLUME_READERS
from ray_mae.data.decoding.background import fill_background, flat_share
from ray_mae.data.decoding.nifti import Bounds, read_mask, read_nifti
from ray_mae.data.decoding.preprocessing import Preparation, Prepared
from ray_mae.data.quarantine import QuarantineError

BOUNDS = Bounds(None, 10**8, 2, 50.0, 1000.0)
AFFINE = np.diag([2.0, 3.0, 4.0, 1.0])
VALUES = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
OFFSETS = {"bitpix": 72, "pixdim": 76, "vox_offset": 108, "scl_slope": 112, "scl_inter": 116,
           "xyzt_units": 123, "qform_code": 252, "sform_code": 254, "quatern": 256, "srow": 280}  # fmt: skip


def prepared(path: Path, **changes: Any) -> Prepared:
    settings = VolumeSettings(**{"spacing_mm": None, **changes})
    return Preparation.of(settings).prepare([path], {})


def refusal(work: Callable[[], Any]) -> QuarantineError:
    with pytest.raises(QuarantineError) as refused:
        work()
    return refused.value


def patched(path: Path, **fields: Any) -> Path:
    """The .nii file with other bytes in fields of its header, by OFFSETS."""
    raw = bytearray(path.read_bytes())
    for name, value in fields.items():
        new = np.asarray(value).tobytes()
        raw[OFFSETS[name] : OFFSETS[name] + len(new)] = new
    path.write_bytes(raw)
    return path


def plain(path: Path, **fields: Any) -> Path:
    """A .nii file of VALUES with qform and sform."""
    image = nib.Nifti1Image(VALUES, AFFINE)
    image.set_qform(AFFINE, 1)
    image.set_sform(AFFINE, 1)
    nib.save(image, path)
    return patched(path, **fields)


# ------------------------------------------------------------------------------------------ compression


@pytest.mark.parametrize(
    ("name", "levels", "mended"),
    [("a.nii", 0, []), ("a.nii.gz", 1, []), ("a.nii", 1, ["compression"]),
     ("a.nii.gz", 0, ["compression"]), ("a.nii.gz", 2, ["compression"]), ("A.NII.GZ", 1, []),
     ("a.mgh", 0, []), ("a.mgz", 1, []), ("a.mgh", 1, ["compression"]), ("a.mgz", 0, ["compression"])],
)  # fmt: skip
def test_a_volume_is_what_its_first_bytes_say(
    tmp_path: Path, name: str, levels: int, mended: list[str]
) -> None:
    image = (nib.MGHImage if "mg" in name else nib.Nifti1Image)(VALUES, AFFINE)
    content = image.to_bytes()
    for _ in range(levels):
        content = gzip.compress(content)
    (tmp_path / name).write_bytes(content)
    volume, told = read_nifti(tmp_path / name, BOUNDS)
    np.testing.assert_array_equal(volume.values, VALUES)
    np.testing.assert_allclose(volume.affine, AFFINE)
    assert told == mended
    np.testing.assert_array_equal(read_mask(tmp_path / name, BOUNDS, "valid").values, VALUES)


def test_nifti_2_and_big_endian_files_are_read_with_their_scaling(tmp_path: Path) -> None:
    nib.save(nib.Nifti2Image(VALUES, AFFINE), tmp_path / "two.nii.gz")
    np.testing.assert_array_equal(read_nifti(tmp_path / "two.nii.gz", BOUNDS)[0].values, VALUES)
    image = nib.Nifti1Image(VALUES, AFFINE, nib.Nifti1Header(endianness=">"))
    image.header.set_data_dtype(np.int16)
    image.header.set_slope_inter(1.5, 2)
    nib.save(image, tmp_path / "big.nii")
    read = read_nifti(tmp_path / "big.nii", BOUNDS)[0].values
    np.testing.assert_allclose(read, np.asarray(nib.load(tmp_path / "big.nii").dataobj))


@pytest.mark.parametrize("suffix", ["nii.gz", "mgz"])
def test_a_flipped_bit_in_a_compressed_file_never_changes_a_voxel_unseen(
    tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"a.{suffix}"
    nib.save((nib.MGHImage if suffix == "mgz" else nib.Nifti1Image)(ball(), np.eye(4)), path)
    whole = path.read_bytes()
    refused = 0
    for place in np.linspace(12, len(whole) - 1, 60).astype(int):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(place % 8)
        path.write_bytes(damaged)
        try:
            volume, _ = read_nifti(path, BOUNDS)
        except QuarantineError:
            refused += 1
        else:
            np.testing.assert_array_equal(volume.values, ball())
    assert refused > 55


@pytest.mark.parametrize("cut", [1, 4, 8, 9, 300])
def test_a_compressed_file_that_is_cut_is_refused_even_if_all_voxels_are_there(
    tmp_path: Path, cut: int
) -> None:
    path = write_nifti(tmp_path / "a.nii.gz", ball())
    path.write_bytes(path.read_bytes()[:-cut])
    error = refusal(lambda: read_nifti(path, BOUNDS))
    assert error.reason == "undecodable"
    assert refusal(lambda: read_mask(path, BOUNDS, "valid")).reason == "undecodable"


def test_a_file_that_inflates_beyond_its_header_is_refused_before_it_is_read(
    tmp_path: Path,
) -> None:
    content = nib.Nifti1Image(VALUES, AFFINE).to_bytes()
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(content + bytes(1 << 25)))
    assert "behind the last voxel" in refusal(lambda: read_nifti(path, BOUNDS)).detail
    extended = bytearray(content)
    extended[108:112] = np.float32(1 << 26).tobytes()
    path.write_bytes(gzip.compress(bytes(extended)))
    assert refusal(lambda: read_nifti(path, BOUNDS)).reason == "too-large"


@pytest.mark.parametrize(
    ("content", "says"),
    [(bz2.compress(b"x" * 999), "bunzip2"), (b"PK\x03\x04" + bytes(500), "zip archive"),
     (b"NRRD0004\n" + bytes(500), "NRRD"), (b"ObjectType = Image\n" + bytes(500), "MetaImage"),
     (b"<!DOCTYPE html>" + bytes(500), "HTML"),
     (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"), (b"", "no header")],
)  # fmt: skip
def test_what_is_no_volume_says_what_it_is(tmp_path: Path, content: bytes, says: str) -> None:
    for name, bytes_ in (("a.nii.gz", content), ("b.nii.gz", gzip.compress(content))):
        (tmp_path / name).write_bytes(bytes_)
        error = refusal(lambda name=name: read_nifti(tmp_path / name, BOUNDS))
        assert error.reason == "not-a-volume-file"
        assert says in error.detail


# --------------------------------------------------------------------------------------------- headers


@pytest.mark.parametrize(
    ("fields", "mended"),
    [({}, []),
     ({"srow": np.full(12, np.nan, "<f4")}, ["sform"]),
     ({"srow": np.zeros(12, "<f4")}, ["sform"]),
     ({"quatern": np.full(6, np.nan, "<f4")}, []),
     ({"sform_code": np.int16(0)}, []),
     ({"vox_offset": np.float32(0)}, ["offset of the voxels"]),
     ({"vox_offset": np.float32(np.nan)}, ["offset of the voxels"]),
     ({"scl_slope": np.float32(1), "scl_inter": np.float32(np.nan)}, ["scaling"]),
     ({"scl_slope": np.float32(np.inf), "scl_inter": np.float32(0)}, ["scaling"]),
     ({"scl_slope": np.float32(0), "scl_inter": np.float32(0)}, []),
     ({"bitpix": np.int16(99)}, [])],
)  # fmt: skip
def test_a_header_with_one_right_reading_is_read_so(
    tmp_path: Path, fields: dict[str, Any], mended: list[str]
) -> None:
    volume, told = read_nifti(plain(tmp_path / "a.nii", **fields), BOUNDS)
    np.testing.assert_array_equal(volume.values, VALUES)
    np.testing.assert_allclose(volume.affine, AFFINE)
    assert told == mended


def test_an_axis_of_length_0_behind_the_three_is_none(tmp_path: Path) -> None:
    path = plain(tmp_path / "a.nii")
    raw = bytearray(path.read_bytes())
    raw[40:56] = np.array([5, 4, 5, 6, 0, 0, 1, 1], "<i2").tobytes()
    path.write_bytes(raw)
    volume, mended = read_nifti(path, BOUNDS)
    np.testing.assert_array_equal(volume.values, VALUES)
    assert mended == ["empty axis"]


@pytest.mark.parametrize(("unit", "factor"), [(1, 0.001), (3, 1000.0)])
def test_metres_and_micrometres_are_told_by_the_unit_where_they_can_be_no_mm(
    tmp_path: Path, unit: int, factor: float
) -> None:
    image = nib.Nifti1Image(VALUES, AFFINE @ np.diag([factor] * 3 + [1]))
    image.header["xyzt_units"] = unit
    nib.save(image, tmp_path / "a.nii.gz")
    volume, mended = read_nifti(tmp_path / "a.nii.gz", BOUNDS)
    np.testing.assert_allclose(volume.spacing, [2, 3, 4], rtol=1e-5)
    assert mended == ["units"]
    mistaken = nib.Nifti1Image(VALUES, AFFINE)
    mistaken.header["xyzt_units"] = unit  # a wrong unit of a right spacing
    nib.save(mistaken, tmp_path / "b.nii.gz")
    volume, mended = read_nifti(tmp_path / "b.nii.gz", BOUNDS)
    np.testing.assert_allclose(volume.spacing, [2, 3, 4])
    assert mended == []


def unoriented(path: Path) -> Path:
    if path.suffix == ".mgz":
        image: Any = nib.MGHImage(VALUES, AFFINE)
        image.header["goodRASFlag"] = 0
        image.header["delta"] = [2, 3, 4]
        content = bytearray(image.to_bytes())
        content[28:30] = b"\0\0"
        path.write_bytes(gzip.compress(bytes(content)))
    else:
        image = nib.Nifti1Image(VALUES, None)
        image.header.set_zooms((2, 3, 4))
        nib.save(image, path)
    return path


@pytest.mark.parametrize("suffix", [".nii.gz", ".mgz"])
def test_a_volume_without_orientation_is_refused_until_somebody_says_it(
    tmp_path: Path, suffix: str
) -> None:
    path = unoriented(tmp_path / f"a{suffix}")
    error = refusal(lambda: read_nifti(path, BOUNDS))
    assert error.reason == "no-geometry"
    assert "--volumes.orientation" in error.detail
    for axes in ("LAS", "ASR", "PIL"):
        volume, mended = read_nifti(path, replace(BOUNDS, orientation=axes))
        assert "".join(nib.aff2axcodes(volume.affine)) == axes
        np.testing.assert_allclose(volume.spacing, [2, 3, 4])
        assert mended == ["orientation"]


@pytest.mark.parametrize("pixdim", [0.0, np.nan, -1.0])
def test_a_volume_without_spacing_is_refused_whatever_is_said(
    tmp_path: Path, pixdim: float
) -> None:
    path = plain(tmp_path / "a.nii", qform_code=np.int16(0), sform_code=np.int16(0))
    patched(path, pixdim=np.array([1, pixdim, 3, 4], "<f4"))
    error = refusal(lambda: read_nifti(path, replace(BOUNDS, orientation="RAS")))
    assert error.reason == "no-geometry"


def test_the_first_of_several_volumes_is_taken_if_asked_for(tmp_path: Path) -> None:
    series = np.stack([VALUES, VALUES + 1000], -1)
    path = write_nifti(tmp_path / "a.nii.gz", series)
    error = refusal(lambda: read_nifti(path, BOUNDS))
    assert error.reason == "four-dimensional"
    assert "--volumes.four_dimensional first" in error.detail
    volume, mended = read_nifti(path, replace(BOUNDS, four_dimensional="first"))
    np.testing.assert_array_equal(volume.values, VALUES)
    assert mended == ["four-dimensional"]


# ---------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize("nothing", [np.nan, -np.inf, -32768.0, -1e30])
def test_what_stands_for_nothing_outside_is_background(tmp_path: Path, nothing: float) -> None:
    values = ball().astype(np.float32)
    usual = prepared(write_nifti(tmp_path / "a.nii.gz", values))
    values[values == 0] = nothing
    made = prepared(write_nifti(tmp_path / "b.nii.gz", values))
    assert made.mended == ("background",)
    np.testing.assert_array_equal(made.image.values, usual.image.values)
    assert (made.mean, made.std) == (usual.mean, usual.std)


def test_the_background_of_values_below_0_is_the_lowest_of_them(tmp_path: Path) -> None:
    values = ball().astype(np.float32)
    values[values != 0] -= 300
    values[ball() == 0] = np.nan
    filled, mended = fill_background(values)
    assert mended
    assert filled[0, 0, 0] == filled.min() == np.nanmin(values)


@pytest.mark.parametrize(
    "change",
    [lambda v: v.__setitem__((12, 12, 12), np.nan), lambda v: v.__setitem__((12, 12, 12), np.inf),
     lambda v: v.__setitem__((0, 0, 0), np.inf), lambda v: v.__setitem__(12, np.nan),
     lambda v: v.__setitem__((slice(None), 12), np.nan), lambda v: v.__setitem__(..., np.nan)],
)  # fmt: skip
def test_holes_missing_slices_and_infinity_are_refused(
    change: Callable[[np.ndarray], None],
) -> None:
    values = ball().astype(np.float32)
    change(values)
    assert refusal(lambda: fill_background(values)).reason == "non-finite"


def test_the_air_of_ct_and_its_padding_stay_what_they_are() -> None:
    values = ball().astype(np.float32) - 1024
    values[0] = values[-1] = -3024
    same, mended = fill_background(values)
    assert not mended
    np.testing.assert_array_equal(same, values)


def parcels(labels: int, size: int = 24) -> np.ndarray:
    """A label map [size, size, size] of cubes within a ball."""
    cell = sum(
        (np.arange(size) // 5).reshape([-1 if a == b else 1 for b in range(3)]) * 5**a
        for a in range(3)
    )
    return np.where(ball(size) > 0, np.asarray(cell) % labels + 1, 0).astype(np.int16)


@pytest.mark.parametrize("labels", [24, 35, 100])
@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.uint8])
def test_regions_of_whole_numbers_are_a_label_map_whatever_the_file_is_called(
    tmp_path: Path, labels: int, dtype: type
) -> None:
    path = write_nifti(tmp_path / "T1.nii.gz", parcels(labels).astype(dtype))
    assert refusal(lambda: prepared(path)).reason == "label-map"


def test_labels_far_apart_are_a_label_map_and_grey_values_of_8_bits_are_none(
    tmp_path: Path,
) -> None:
    far = np.where(parcels(40) > 0, parcels(40) * 37 + 1000, 0).astype(np.int16)
    path = write_nifti(tmp_path / "a.nii.gz", far)
    assert refusal(lambda: prepared(path)).reason == "label-map"
    grey = (ball() / ball().max() * 255).astype(np.uint8)
    assert flat_share(grey.astype(np.float32)) < 0.2
    prepared(write_nifti(tmp_path / "b.nii.gz", grey))


# ------------------------------------------------------------------------------------- other formats


def advice_on(folder: Path, name: str) -> str:
    """What an ingest says of the one file in another format."""
    write_nifti(folder / "sub-99_T1w.nii.gz", ball())
    records = VOLUME_READERS["nifti"](
        settings("nifti", folder, folder / "out"), lambda *_: None
    ).records
    (problem,) = (r.problem for r in records if r.paths[0].endswith(name) and r.problem)
    assert problem.reason == "other-format"
    return problem.detail


def follow(advice: str, header: Path, output: Path) -> Path:
    """Runs the line that the advice gives."""
    line = re.search(r"nibabel\.save\(.*'\)", advice)
    assert line
    text = line[0].replace("x.hdr", str(header)).replace("x.nii.gz", str(output))
    eval(text, {"nibabel": nib})
    return output


def test_the_advice_on_a_pair_of_nifti_gives_the_same_volume(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Pair(VALUES, AFFINE), tmp_path / "sub-01_T1w.hdr")
    converted = follow(
        advice_on(tmp_path, ".hdr"), tmp_path / "sub-01_T1w.hdr", tmp_path / "x.nii.gz"
    )
    volume, mended = read_nifti(converted, BOUNDS)
    np.testing.assert_array_equal(volume.values, VALUES)
    np.testing.assert_allclose(volume.affine, AFFINE)
    assert mended == []


def test_the_advice_on_analyze_makes_no_guess_of_left_and_right(tmp_path: Path) -> None:
    image = nib.AnalyzeImage(VALUES, None)
    image.header.set_zooms((2, 3, 4))
    nib.save(image, tmp_path / "sub-01_T1w.hdr")
    advice = advice_on(tmp_path, ".hdr")
    converted = follow(advice, tmp_path / "sub-01_T1w.hdr", tmp_path / "x.nii.gz")
    problem = refusal(lambda: read_nifti(converted, BOUNDS))
    assert problem.reason == "no-geometry"
    assert "--volumes.orientation" in problem.detail
    assert "--volumes.orientation" in advice
    volume, mended = read_nifti(converted, replace(BOUNDS, orientation="LAS"))
    assert mended == ["orientation"]
    assert np.allclose(np.abs(np.diag(volume.affine)[:3]), [2, 3, 4])


@pytest.mark.parametrize("suffixes", [(".hdr", ".img"), (".hdr.gz", ".img.gz"), (".HDR", ".IMG")])
def test_a_pair_counts_once_and_an_image_without_its_header_is_told(
    tmp_path: Path, suffixes: tuple[str, str]
) -> None:
    for suffix in suffixes:
        (tmp_path / f"sub-01.T1w{suffix}").write_bytes(b"x")
    assert "a pair of NIfTI or Analyze" in advice_on(tmp_path, suffixes[0])
    (tmp_path / f"sub-01.T1w{suffixes[0]}").unlink()
    assert "without its .hdr" in advice_on(tmp_path, suffixes[1])
