"""What becomes of a volume: orientation, spacing, foreground, statistics, masks, quarantine."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from dicom_files import SHARED, needs_shared
from hypothesis import given
from hypothesis import strategies as st
from nibabel.processing import resample_from_to
from volume_files import ball, write_nifti

from ray_mae.config import VolumeSettings
from ray_mae.data.decoding.decoder_process import prepare_file
from ray_mae.data.decoding.geometry import Volume, resample, to_ras
from ray_mae.data.decoding.preprocessing import Preparation, Prepared
from ray_mae.data.quarantine import QuarantineError


def prepared(path: Path, masks: dict[str, Path] | None = None, **changes: Any) -> Prepared:
    settings = VolumeSettings(**{"spacing_mm": None, **changes})
    return Preparation.of(settings).prepare([path], masks or {})


@given(st.permutations(["R", "A", "S"]), st.tuples(st.booleans(), st.booleans(), st.booleans()))
def test_every_orientation_of_the_same_scan_becomes_the_same_volume(
    axes: list[str], flips: tuple[bool, bool, bool]
) -> None:
    values = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    opposite = {"R": "L", "A": "P", "S": "I"}
    codes = [opposite[a] if flip else a for a, flip in zip(axes, flips, strict=True)]
    turn = nib.orientations.axcodes2ornt(codes)
    stored = Volume(
        nib.apply_orientation(values, nib.orientations.ornt_transform(
            nib.orientations.axcodes2ornt("RAS"), turn)),
        affine @ nib.orientations.inv_ornt_aff(nib.orientations.ornt_transform(
            nib.orientations.axcodes2ornt("RAS"), turn), values.shape),
    )  # fmt: skip
    back = to_ras(stored)
    np.testing.assert_array_equal(back.values, values)
    np.testing.assert_allclose(back.affine, affine)


def test_resampling_to_smaller_voxels_agrees_with_nibabel() -> None:
    rng = np.random.default_rng(0)
    volume = Volume(rng.random((9, 7, 8), dtype=np.float32), np.diag([2.0, 3.0, 2.5, 1.0]))
    fine = resample(volume, 1.0)
    image = nib.Nifti1Image(volume.values, volume.affine)
    other = resample_from_to(image, (fine.values.shape, fine.affine), order=1, mode="nearest")
    np.testing.assert_allclose(fine.values, other.get_fdata(), atol=1e-5)


def test_resampling_to_larger_voxels_averages_instead_of_picking() -> None:
    rng = np.random.default_rng(0)
    noise = Volume(rng.standard_normal((64, 64, 64)).astype(np.float32), np.eye(4))
    coarse = resample(noise, 4.0)
    assert coarse.values.shape == (16, 16, 16)
    assert coarse.values.std() < 0.2
    np.testing.assert_allclose(coarse.affine[:3, 3], 1.5)  # the same field of view


def test_a_spacing_that_is_nearly_right_is_left_alone() -> None:
    volume = Volume(np.random.default_rng(0).random((5, 5, 5)), np.diag([1.01, 0.99, 1.0, 1.0]))
    same = resample(volume, 1.0)
    np.testing.assert_array_equal(same.values, volume.values)
    np.testing.assert_allclose(same.spacing, [1.01, 0.99, 1.0])


def test_the_volume_is_cropped_to_the_anatomy_and_keeps_its_place(tmp_path: Path) -> None:
    values = np.zeros((60, 50, 40), np.int16)
    values[20:44, 10:34, 5:29] = ball(24)
    made = prepared(write_nifti(tmp_path / "a.nii.gz", values), margin_mm=4.0)
    assert all(20 <= n <= 28 for n in made.image.values.shape)
    where = np.unravel_index(made.image.values.argmax(), made.image.values.shape)
    there = np.unravel_index(values.argmax(), values.shape)
    np.testing.assert_allclose((made.image.affine @ [*where, 1])[:3], 4.0 * np.array(there))


def test_z_scores_and_statistics_give_the_measured_values_back(tmp_path: Path) -> None:
    made = prepared(write_nifti(tmp_path / "a.nii.gz", ball()), margin_mm=1000.0)
    np.testing.assert_allclose(made.image.values * made.std + made.mean, ball(), atol=1e-2)
    inside = ball() > 0
    np.testing.assert_allclose(made.image.values[inside].mean(), 0, atol=0.02)
    np.testing.assert_allclose(made.image.values[inside].std(), 1, atol=0.02)


def test_a_skull_stripped_z_scored_brain_has_its_zeros_as_background(tmp_path: Path) -> None:
    values = ball().astype(np.float32)
    inside = values > 0
    values[inside] = (values[inside] - values[inside].mean()) / values[inside].std()
    made = prepared(write_nifti(tmp_path / "a.nii.gz", values))
    assert abs(made.mean) < 1e-5
    assert abs(made.std - 1) < 1e-5


def test_masks_go_through_the_same_steps_as_their_image(tmp_path: Path) -> None:
    values = ball()
    face = np.zeros(values.shape, np.uint8)
    face[:, 15:, :12] = 1
    labels = (values > 350).astype(np.uint8) * 2
    turned = np.diag([-4.0, 4.0, 4.0, 1.0])
    turned[0, 3] = 4.0 * (len(values) - 1)
    made = prepared(
        write_nifti(tmp_path / "a.nii.gz", values),
        {"anonymised": write_nifti(tmp_path / "m.nii.gz", face[::-1], affine=turned),
         "segmentation": write_nifti(tmp_path / "s.nii.gz", labels)},
        spacing_mm=2.0,
    )  # fmt: skip
    assert made.valid is not None
    assert made.segmentation is not None
    assert made.valid.shape == made.segmentation.shape == made.image.values.shape
    assert set(np.unique(made.segmentation)) == {0, 2}
    brighter = made.image.values[made.segmentation == 2].mean()
    assert brighter > made.image.values[made.segmentation == 0].mean() + 1
    share = 1 - made.valid.mean()
    assert 0.1 < share < 0.3


def test_what_is_said_of_a_volume_names_no_file(tmp_path: Path) -> None:
    """Details are shown on the card."""
    good = write_nifti(tmp_path / "a.nii.gz", ball())
    cut = tmp_path / "MILLER_JOHN.nii.gz"
    for content in (b"", b"no gzip", good.read_bytes()[:300], good.read_bytes()[:-300]):
        cut.write_bytes(content)
        for image, masks in ((cut, {}), (good, {"segmentation": cut})):
            with pytest.raises(QuarantineError) as why:
                prepared(image, masks)
            assert why.value.detail
            assert "MILLER" not in why.value.detail


def test_memory_that_is_short_is_no_verdict_on_a_volume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise MemoryError

    image = write_nifti(tmp_path / "a.nii.gz", ball())
    monkeypatch.setattr(nib.arrayproxy.ArrayProxy, "__array__", full)
    with pytest.raises(QuarantineError, match="decoder-ended"):
        prepared(image)


def test_labels_above_255_cost_the_label_map_and_not_the_image(tmp_path: Path) -> None:
    image = write_nifti(tmp_path / "a.nii.gz", ball())
    labels = write_nifti(tmp_path / "aparc.nii.gz", (ball() > 0).astype(np.int16) * 1035)
    made = prepared(image, {"segmentation": labels})
    assert made.segmentation is None
    np.testing.assert_array_equal(made.image.values, prepared(image).image.values)
    with pytest.raises(QuarantineError, match="valid mask: labels must lie between"):
        prepared(image, {"valid": labels})  # without it, what is invalid would pass as valid


@pytest.mark.parametrize(
    ("values", "changes", "reason"),
    [
        (np.full((20, 20, 20), 3, np.int16), {}, "constant"),
        (np.zeros((20, 20, 20, 5), np.int16), {}, "four-dimensional"),
        (np.zeros((20, 20, 3), np.int16), {}, "too-few-slices"),
        ((ball() > 0).astype(np.int16), {}, "wrong-range"),
        (np.where(ball() == ball().max(), 30000, ball()), {"max_deviation": 30.0}, "wrong-range"),
        (np.where(ball() == ball().max(), np.nan, ball()).astype(np.float32), {}, "non-finite"),
        (ball(), {"max_voxels": 1000}, "too-large"),
        (ball(), {"spacing_mm": 0.1, "max_voxels": 20**4}, "too-large"),
        (ball(), {"max_spacing_mm": 3.0}, "implausible-size"),
        (ball(), {"max_extent_mm": 50.0}, "implausible-size"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_reason(
    tmp_path: Path, values: np.ndarray, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(QuarantineError) as refused:
        prepared(write_nifti(tmp_path / "a.nii.gz", values), **changes)
    assert refused.value.reason == reason


def test_a_shell_and_a_grid_hold_no_anatomy_and_a_ball_does(tmp_path: Path) -> None:
    grid = np.random.default_rng(0).integers(0, 20, (48, 48, 48)).astype(np.int16)
    grid[::8] += 500
    ball_ = ball(48)
    x = np.linspace(-1, 1, 48)
    inner = (np.stack(np.meshgrid(x, x, x)) ** 2).sum(0) < 0.55
    for name, values in (("grid", grid), ("shell", np.where(inner, 0, ball_))):
        with pytest.raises(QuarantineError, match="no-anatomy"):
            prepared(write_nifti(tmp_path / f"{name}.nii.gz", values, 4.0))
    assert prepared(write_nifti(tmp_path / "ball.nii.gz", ball_, 4.0)).std > 0


def test_a_header_that_promises_too_much_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "a.nii", ball())
    raw = bytearray(path.read_bytes())
    raw[42:48] = np.array([30000, 30000, 30000], "<i2").tobytes()  # dim[1..3]
    path.write_bytes(raw)
    with pytest.raises(QuarantineError) as refused:
        prepared(path, max_extent_mm=1e9, spacing_mm=None)
    assert refused.value.reason == "too-large"


@pytest.mark.parametrize(("degrees", "refused"), [(0.3, False), (2.0, True), (20.0, True)])
def test_a_grid_whose_axes_are_not_at_right_angles_is_refused(
    tmp_path: Path, degrees: float, refused: bool
) -> None:
    turned = nib.eulerangles.euler2mat(0.3, 0.2, 0.1) * 4.0
    turned[:, 2] += np.tan(np.radians(degrees)) * turned[:, 1]
    path = write_nifti(tmp_path / "a.nii.gz", ball(), affine=nib.affines.from_matvec(turned))
    if refused:
        with pytest.raises(QuarantineError, match=rf"sheared: axes {degrees:.1f} degrees"):
            prepared(path)
    else:
        assert prepared(path).std > 0


@pytest.mark.parametrize("damage", ["cut", "not gzip", "text", "missing"])
def test_damaged_files_are_refused_and_nothing_else(tmp_path: Path, damage: str) -> None:
    path = write_nifti(tmp_path / "a.nii.gz", ball())
    whole = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes({"cut": whole[:2000], "not gzip": b"\0" * 500, "text": b"hello"}[damage])
    with pytest.raises(QuarantineError) as refused:
        prepared(path)
    expected = {"cut": "undecodable", "missing": "missing"}.get(damage, "not-a-volume-file")
    assert refused.value.reason == expected


def test_one_file_is_prepared_as_by_ingest_or_the_reason_is_said(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "a.nii.gz", ball())
    np.testing.assert_array_equal(
        prepare_file(path, 2.0), prepared(path, spacing_mm=2.0).image.values
    )
    flat = write_nifti(tmp_path / "b.nii.gz", np.ones((9, 9, 9), np.int16))
    with pytest.raises(ValueError, match=r"b\.nii\.gz is no usable volume: constant"):
        prepare_file(flat, 2.0)


@needs_shared
def test_real_phantoms_are_refused_and_real_heads_are_not() -> None:
    folder = SHARED / "mri" / "volumes"
    for name in ("ctpitch_ses-1_CT", "dcmqa-ge_ses-1_T1"):
        with pytest.raises(QuarantineError, match="no-anatomy"):
            prepared(folder / f"{name}.nii.gz")
    for name in ("dcmqa-xa30_ses-1_T1", "brats13-pat0005_ses-1_FLAIR", "pgbm003_ses-1_T2"):
        prepared(folder / f"{name}.nii.gz")
