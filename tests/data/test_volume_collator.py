"""Rows of volumes → crops, and voxels as bytes."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ray_mae.data.decoding.voxels import (
    ENCODING,
    STEP,
    VoxelType,
    decode_labels,
    decode_valid,
    decode_voxels,
    encode_labels,
    encode_valid,
    encode_voxels,
)
from ray_mae.data.loading.order import key_of
from ray_mae.data.loading.volume_collator import (
    SegmentedVolumeCollator,
    VolumeCollator,
    crop_slices,
)


def row(voxels: np.ndarray, name: str = "v", valid: np.ndarray | None = None) -> dict[str, Any]:
    return {
        "volume_id": name,
        "voxels": encode_voxels(voxels, "float16", 1),
        "encoding": ENCODING,
        "dtype": "float16",
        "shape": list(voxels.shape),
        "valid": None if valid is None else encode_valid(valid),
        "segmentation": None,
    }


def counted(*shape: int) -> np.ndarray:
    """Every voxel another value, none of them 0."""
    return 1 + np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=3, max_dims=3, max_side=9),
        elements=st.floats(-60, 60, width=32),
    ),
    st.sampled_from(["int16", "float16", "float32"]),
)
def test_voxels_come_back_from_bytes_within_their_precision(
    voxels: np.ndarray, dtype: VoxelType
) -> None:
    written = {**row(voxels), "voxels": encode_voxels(voxels, dtype, 3), "dtype": dtype}
    back = decode_voxels(written)
    assert back.shape == voxels.shape
    error = {"int16": STEP / 2, "float16": 2.0**-11 * np.abs(voxels) + 2.0**-24, "float32": 0.0}
    assert (np.abs(back.astype(np.float64) - voxels) <= error[dtype]).all()


@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=3, max_side=9)))
def test_label_maps_and_masks_come_back_exactly(labels: np.ndarray) -> None:
    written = row(labels.astype(np.float32), valid=labels > 100)
    written["segmentation"] = encode_labels(labels, 3)
    np.testing.assert_array_equal(decode_labels(written), labels)
    np.testing.assert_array_equal(decode_valid(written), labels > 100)


def test_a_damaged_row_is_named() -> None:
    good = row(counted(2, 3, 4), "abc")
    with pytest.raises(ValueError, match=r"volume abc is encoded as 'png'"):
        decode_voxels({**good, "encoding": "png"})
    with pytest.raises(ValueError, match=r"volume abc holds 48 bytes where its shape \(2, 3, 5\)"):
        decode_voxels({**good, "shape": [2, 3, 5]})


def test_a_crop_is_a_part_of_its_volume_and_the_same_for_the_same_draw() -> None:
    rows = [row(counted(9, 8, 7), "a"), row(counted(6, 11, 8), "b")]
    collator = VolumeCollator(crop_size=6, seed=3)
    arrays = collator.collate(rows, [4, 4])
    assert arrays["voxels"].shape == arrays["valid"].shape == (2, 1, 6, 6, 6)
    assert (arrays["voxels"].dtype, arrays["valid"].dtype) == (np.float16, np.bool_)
    assert arrays["key"].tolist() == [key_of("a"), key_of("b")]
    assert arrays["valid"].all()
    alone = collator.collate(rows[1:], [4])
    for name, array in alone.items():
        np.testing.assert_array_equal(array, arrays[name][1:])
    crop = arrays["voxels"][0, 0].astype(int)
    first = tuple(int(i) for i in np.argwhere(counted(9, 8, 7) == crop[0, 0, 0])[0])
    there = tuple(slice(f, f + 6) for f in first)
    np.testing.assert_array_equal(crop, counted(9, 8, 7)[there])


def test_a_label_map_is_cropped_as_its_volume_is_and_where_there_is_none_it_is_0() -> None:
    voxels = counted(9, 12, 7)
    labels = (voxels % 250).astype(np.uint8)
    rows = [row(voxels, "a"), row(voxels, "b")]
    rows[0]["segmentation"] = encode_labels(labels, 1)
    arrays = SegmentedVolumeCollator(8, seed=1).collate(rows, [3, 3])
    plain = VolumeCollator(8, seed=1).collate(rows, [3, 3])
    assert all(np.array_equal(arrays[name], plain[name]) for name in plain)
    inside = arrays["valid"][0]
    assert np.array_equal(arrays["regions"][0][inside], arrays["voxels"][0][inside] % 250)
    assert not arrays["regions"][0][~inside].any()
    assert not arrays["regions"][1].any()


def test_the_crop_moves_over_the_whole_volume_with_the_epoch() -> None:
    volume = row(counted(8, 6, 6))
    collator = VolumeCollator(crop_size=6)
    firsts = [collator.collate([volume], [epoch])["voxels"].flat[0] for epoch in range(40)]
    assert set(firsts) == {1.0, 37.0, 73.0}
    draws = [int(collator.collate([volume], [epoch])["draw"][0]) for epoch in range(40)]
    assert len(set(draws)) == 40


def test_the_centre_crop_is_the_same_in_every_epoch_and_in_the_middle() -> None:
    collator = VolumeCollator(crop_size=2, centre=True)
    middle = counted(4, 6, 7)[1:3, 2:4, 2:4]
    for epoch in range(3):
        crop = collator.collate([row(counted(4, 6, 7))], [epoch])["voxels"][0, 0]
        np.testing.assert_array_equal(crop, middle)


def test_a_smaller_volume_is_padded_with_zeros_that_are_not_valid() -> None:
    mask = np.ones((3, 8, 4), bool)
    mask[0] = False
    arrays = VolumeCollator(crop_size=6).collate([row(counted(3, 8, 4), valid=mask)], [0])
    voxels, valid = arrays["voxels"][0, 0], arrays["valid"][0, 0]
    assert (voxels != 0).sum() == 3 * 6 * 4
    assert valid.sum() == 2 * 6 * 4
    assert not (valid & (voxels == 0)).any()
    assert (voxels[[0, 4, 5]] == 0).all()
    assert (voxels[:, :, [0, 5]] == 0).all()


@given(
    st.tuples(*[st.integers(1, 300)] * 3),
    st.integers(1, 200),
    st.none() | st.integers(-(2**63), 2**63 - 1),
)
def test_what_is_cut_and_where_it_goes_have_the_same_shape(
    shape: tuple[int, int, int], size: int, draw: int | None
) -> None:
    source, target = crop_slices(shape, size, draw)
    for s, t, length in zip(source, target, shape, strict=True):
        assert 0 <= s.start <= s.stop <= length
        assert 0 <= t.start <= t.stop <= size
        assert s.stop - s.start == t.stop - t.start == min(length, size)
