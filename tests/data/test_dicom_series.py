"""DICOM series as volumes: order, geometry, values, and what is refused."""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from dicom_files import SHARED, needs_shared, write_dicom
from hypothesis import given
from hypothesis import strategies as st

from ray_mae.data.decoding.dicom_frames import Frame, SliceFile, read_frames
from ray_mae.data.decoding.dicom_series import arrange, read_series
from ray_mae.data.decoding.geometry import Volume, to_ras
from ray_mae.data.decoding.nifti import Bounds
from ray_mae.data.quarantine import QuarantineError

BOUNDS = Bounds(None, 10**8, 2, 50.0, 1000.0)
SERIES = SHARED / "dicom_series"


def slices(count: int = 6, step: tuple[float, float, float] = (0.0, 0.0, 2.0)) -> list[SliceFile]:
    along = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    return [
        SliceFile("p", "s", "1", str(k), "MR", "", False, 4, 5, False,
                  (Frame(tuple(k * d for d in step), along, (3.0, 1.5)),))
        for k in range(count)
    ]  # fmt: skip


def moved(file: SliceFile, **frame: Any) -> SliceFile:
    return replace(file, frames=(replace(file.frames[0], **frame),))


@given(st.permutations(range(6)))
def test_slices_are_ordered_by_position_whatever_order_they_come_in(order: list[int]) -> None:
    files = slices()
    places, affine = arrange([files[i] for i in order])
    assert [order[file] for file, _ in places] == list(range(6))
    expected = np.diag([-1.5, -3.0, 2.0, 1.0])  # columns to the left, rows to the back
    np.testing.assert_allclose(affine, expected)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda f: f[:2] + f[3:], "missing-slices"),
        (lambda f: [*f, f[2]], "repeated-positions"),
        (lambda f: slices(step=(0.0, 0.3, 2.0)), "gantry-tilt"),
        (lambda f: [*f[:-1], moved(f[-1], along=(0.0, 1.0, 0.0, 0.0, 0.0, -1.0))],
         "mixed-orientations"),
        (lambda f: [*f[:-1], replace(f[-1], rows=8)], "mixed-sizes"),
        (lambda f: [*f[:-1], moved(f[-1], spacing=(2.0, 1.5))], "mixed-sizes"),
        (lambda f: [replace(f[0], localizer=True), *f[1:]], "localizer"),
        (lambda f: f[:1], "too-few-slices"),
    ],
)  # fmt: skip
def test_what_is_not_one_regular_volume_is_refused_with_the_reason(
    change: Any, reason: str
) -> None:
    with pytest.raises(QuarantineError) as refused:
        arrange(change(slices()))
    assert refused.value.reason == reason


def test_each_slice_has_its_own_rescale(tmp_path: Path) -> None:
    for k in range(3):
        write_dicom(
            tmp_path / f"{2 - k}.dcm", np.full((4, 5), 10 + k, np.uint16), Modality="MR",
            ImagePositionPatient=[0, 0, 2 * k], ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
            PixelSpacing=[3, 1.5], RescaleSlope=1 + k, RescaleIntercept=-1, SeriesInstanceUID="1.2",
        )  # fmt: skip
    volume = read_series(sorted(tmp_path.iterdir()), BOUNDS)
    assert volume.values.shape == (5, 4, 3)
    assert volume.values[0, 0].tolist() == [9, 21, 35]


def test_a_slice_without_a_place_is_refused(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", np.zeros((4, 5), np.uint16), Modality="MR")
    with pytest.raises(QuarantineError, match="no-geometry: ImagePositionPatient: 0 of 3 numbers"):
        read_frames(path, 10**6)


@pytest.mark.parametrize(("frames", "reason"), [(2_000_000_000, "too-large"), (-3, "no-pixels")])
def test_a_number_of_frames_that_no_file_has_is_refused_before_they_are_counted(
    tmp_path: Path, frames: int, reason: str
) -> None:
    path = write_dicom(
        tmp_path / "a.dcm", np.zeros((4, 5), np.uint16), Modality="MR", NumberOfFrames=frames,
        ImagePositionPatient=[0, 0, 0], ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
        PixelSpacing=[3, 1.5],
    )  # fmt: skip
    with pytest.raises(QuarantineError) as refused:
        read_frames(path, 10**6)
    assert refused.value.reason == reason


def many(path: Path, frames: int, **tags: Any) -> Path:
    return write_dicom(
        path, np.zeros((1, 1), np.uint16), Modality="MR", NumberOfFrames=frames,
        ImagePositionPatient=[0, 0, 0], ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
        PixelSpacing=[3, 1.5], **tags,
    )  # fmt: skip


def test_frames_that_are_not_in_the_file_are_refused_before_they_are_counted(
    tmp_path: Path,
) -> None:
    whole = many(tmp_path / "a.dcm", 2000, PixelData=bytes(4000))
    assert len(read_frames(whole, 10**6).frames) == 2000
    with pytest.raises(QuarantineError, match="undecodable: 2,000 frames in"):
        read_frames(many(tmp_path / "b.dcm", 2000), 10**6)
    with pytest.raises(QuarantineError, match="too-large: 200,000 frames, at most 16,384"):
        read_frames(many(tmp_path / "c.dcm", 200_000, PixelData=bytes(400_000)), 10**6)


def test_a_series_that_says_text_is_burned_in_is_refused_unless_it_is_kept(tmp_path: Path) -> None:
    for k in range(3):
        write_dicom(
            tmp_path / f"{k}.dcm", np.full((4, 5), 10 + k, np.uint16), Modality="OT",
            ImagePositionPatient=[0, 0, 2 * k], ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
            PixelSpacing=[3, 1.5], SeriesInstanceUID="1.2", BurnedInAnnotation="YES" if k else "NO",
        )  # fmt: skip
    paths = sorted(tmp_path.iterdir())
    with pytest.raises(
        QuarantineError, match="burned-in: BurnedInAnnotation is neither NO nor absent in 2 of 3"
    ):
        read_series(paths, BOUNDS)
    kept = read_series(paths, replace(BOUNDS, burned_in="keep"))
    assert kept.values.shape == (5, 4, 3)


@needs_shared
@pytest.mark.parametrize(
    ("series", "reference"),
    [
        ("d2n_generic_anatomical_002_non_isotropic", "generic_anatomical_002_non_isotropic"),
        ("d2n_hyperfine_anatomical_001", "hyperfine_anatomical_001"),
        ("d2n_philips_enhanced_anatomical_001", "philips_enhanced_anatomical_001"),
    ],
)
def test_geometry_and_values_are_those_of_the_reference(series: str, reference: str) -> None:
    made = to_ras(read_series(sorted((SERIES / series).iterdir()), BOUNDS))
    for suffix in ("ground_truth", "ground_truth_reoriented"):
        image = nib.load(SERIES / "reference" / f"{reference}_{suffix}.nii.gz")
        there = to_ras(Volume(np.squeeze(np.asarray(image.dataobj)), image.affine))
        np.testing.assert_allclose(made.affine, there.affine, atol=1e-4)
        np.testing.assert_allclose(made.values, there.values, rtol=1e-5, atol=1e-5)


@needs_shared
def test_real_slices_are_put_into_the_order_of_their_index() -> None:
    with (SERIES / "slices.csv").open() as file:
        rows = list(csv.DictReader(file))
    for series in ("pgbm003_t1post", "pgbm003_flair", "siemens_hfs"):
        of_series = [row for row in rows if row["series_id"] == series]
        files = [read_frames(SERIES / series / row["file"], 10**7) for row in of_series]
        places, _ = arrange(files)
        indices = [int(of_series[f]["expected_index"]) for f, _ in places]
        assert indices in (sorted(indices), sorted(indices, reverse=True))
