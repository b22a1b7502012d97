"""Corruptions of test images: as strong as they say, alike for everybody, and nothing else changes."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from ray_mae.benchmarking.corruptions import (
    IMAGES,
    STRENGTHS,
    VOLUMES,
    corrupt_image,
    corrupt_volume,
)


def radiograph(seed: int = 0) -> np.ndarray:
    smooth = gaussian_filter(np.random.default_rng(seed).normal(size=(120, 100)), 3)
    low, high = smooth.min(), smooth.max()
    return (20 + 215 * (smooth - low) / (high - low)).astype(np.uint8)


def head() -> tuple[np.ndarray, np.ndarray]:
    """A textured ball [32, 32, 32] in a background of 0, z-scored; and a mask without a face."""
    at = np.stack(np.meshgrid(*[np.linspace(-1, 1, 32)] * 3, indexing="ij"))
    inside = (at**2).sum(0) < 0.8
    values = gaussian_filter(np.random.default_rng(0).normal(size=inside.shape), 1)
    values = (values - values[inside].mean()) / values[inside].std()
    valid = np.ones(inside.shape, bool)
    valid[:, 28:] = False
    return np.where(inside, values, 0).astype(np.float16), valid


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_changes_more_the_stronger_and_alike_for_everybody(name: str) -> None:
    image = radiograph()
    changed = [corrupt_image(image, name, k, "study-1/0") for k in range(STRENGTHS)]
    far = [np.abs(c.astype(float) - image).mean() for c in changed]
    assert 0 < far[0] < far[1] < far[2]
    assert all(c.shape == image.shape and c.dtype == np.uint8 for c in changed)
    again = corrupt_image(radiograph(), name, 2, "study-1/0")
    np.testing.assert_array_equal(again, changed[2])
    assert image.flags.owndata


def test_what_is_random_belongs_to_the_sample() -> None:
    image = radiograph()
    for name in ("noise", "gamma", "rotation"):
        kinds = {corrupt_image(image, name, 2, f"s{i}").tobytes() for i in range(12)}
        assert len(kinds) > 1, name


def test_images_change_as_the_levels_say() -> None:
    flat = np.full((200, 200), 128, np.uint8)
    for k, deviation in enumerate(IMAGES["noise"].levels):
        noisy = corrupt_image(flat, "noise", k, "s").astype(float)
        assert noisy.std() == pytest.approx(255 * deviation, rel=0.03)
    black = np.zeros((100, 100), np.uint8)
    black[:, 50:] = 255
    assert corrupt_image(black, "crop", 2, "s")[0].sum() == pytest.approx(255 * 50, rel=0.02)
    framed = np.pad(np.full((90, 90), 200, np.uint8), 5)
    assert corrupt_image(framed, "crop", 2, "s").min() > 175, "5 % at each edge is gone"
    line = np.zeros((101, 101), np.uint8)
    line[50] = 255
    turned = corrupt_image(line, "rotation", 2, "s")
    assert abs(int(turned[:, 10].argmax()) - 50) == pytest.approx(40 * np.tan(np.pi / 18), abs=1)


@pytest.mark.parametrize("name", VOLUMES)
def test_a_volume_changes_within_its_foreground_alone(name: str) -> None:
    voxels, valid = head()
    changed = [corrupt_volume(voxels, valid, (1, 1, 1), name, k, "v") for k in range(STRENGTHS)]
    inside = (voxels != 0) & valid
    far = [np.abs(c - voxels)[inside].mean() for c in changed]
    assert 0 < far[0] < far[1] < far[2]
    for result in changed:
        np.testing.assert_array_equal(result[~inside], voxels[~inside])
        assert result[inside].mean() == pytest.approx(voxels[inside].astype(float).mean(), abs=0.01)
        assert result[inside].std() == pytest.approx(voxels[inside].astype(float).std(), rel=0.01)
    again = corrupt_volume(voxels, valid, (1, 1, 1), name, 1, "v")
    np.testing.assert_array_equal(again, changed[1])


def test_thick_slices_keep_what_is_smooth_and_thin_ones_change_nothing() -> None:
    voxels, _ = head()
    same = corrupt_volume(voxels, None, (4, 4, 4), "low_resolution", 0, "v")
    np.testing.assert_allclose(same, voxels, atol=2e-3)
    ramp = np.broadcast_to(np.linspace(1, 2, 30, dtype=np.float32)[:, None, None], (30, 30, 30))
    coarse = corrupt_volume(ramp, None, (1, 1, 1), "low_resolution", 1, "v")
    np.testing.assert_allclose(coarse[4:-4], ramp[4:-4], atol=0.02)
    empty = np.zeros((8, 8, 8), np.float32)
    np.testing.assert_array_equal(corrupt_volume(empty, None, (1, 1, 1), "noise", 0, "v"), empty)


def test_a_change_of_the_other_kind_is_refused_by_name() -> None:
    voxels, valid = head()
    with pytest.raises(ValueError, match=r"'jpeg' is no change of volumes .*; there are noise"):
        corrupt_volume(voxels, valid, (1, 1, 1), "jpeg", 0, "v")
    with pytest.raises(ValueError, match=r"'slices' is no change of images"):
        corrupt_image(radiograph(), "slices", 0, "s")
