"""Features without an encoder: what they hold, and what they refuse."""

from pathlib import Path

import numpy as np
import pytest

from ray_mae.benchmarking.baselines import BINS, histogram, metadata, volume_histogram
from ray_mae.benchmarking.fits import _besides
from ray_mae.benchmarking.records import Cell, FitKey, SampleTable
from ray_mae.config.suite import DatasetEntry, EncoderEntry, SuiteConfig, TaskEntry


def test_a_histogram_is_of_the_foreground_and_of_one_length() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(100, 200, (40, 50)).astype(np.uint8)
    padded = np.pad(image, ((0, 40), (0, 0)))
    a, b = histogram(image), histogram(padded)
    assert len(a) == len(b) == BINS + 16
    assert a[:BINS].sum() == pytest.approx(1)
    np.testing.assert_allclose(a[:-1], b[:-1], rtol=1e-6)
    assert (a[-1], b[-1]) == (1, 0.5)
    assert a[BINS] == pytest.approx(image.mean())
    assert a[BINS + 1] == pytest.approx(image.std())
    assert abs(a[BINS + 2]) < 0.1
    assert a[BINS + 3] == pytest.approx(1.8, abs=0.1), "kurtosis of equal shares"
    assert a[BINS + 4] == pytest.approx(np.log2(26), abs=0.1), (
        "bits of 26 equal bins of four values"
    )
    assert np.all(np.diff(a[BINS + 5 : -1]) >= 0)


@pytest.mark.parametrize("value", [0, 7])
def test_an_empty_image_has_a_histogram(value: int) -> None:
    found = histogram(np.full((8, 8), value, np.uint8))
    assert np.isfinite(found).all()
    assert found[BINS + 1 : BINS + 5].tolist() == [0, 0, 0, 0]


def test_a_volume_has_its_size_and_the_scanners_scale() -> None:
    rng = np.random.default_rng(0)
    voxels = np.zeros((20, 20, 20), np.float16)
    voxels[5:15, 5:15, 5:15] = rng.normal(size=(10, 10, 10))
    found = volume_histogram(voxels, None, (2.0, 2.0, 2.0), mean=300.0, std=50.0)
    assert len(found) == BINS + 18
    assert found[-3:].tolist() == pytest.approx([8.0, 300.0, 50.0], rel=0.01)
    half = np.zeros(voxels.shape, bool)
    half[:10] = True
    assert volume_histogram(voxels, half, (2, 2, 2), 0, 1)[-3] == pytest.approx(4.0, rel=0.01)
    assert np.isfinite(volume_histogram(voxels, ~half & half, (2, 2, 2), 0, 1)).all()


def test_metadata_are_by_training_rows_and_unknown_is_a_category() -> None:
    attributes = {
        "sex": np.array(["F", "M", None, "O"], dtype=object),
        "age": np.array([20, 40, None, 90], dtype=object),
    }
    train = np.array([0, 1])
    found = metadata(attributes, ["sex", "age"], train)
    assert found.tolist() == [
        [1, 0, 0, -1, 0], [0, 1, 0, 1, 0], [0, 0, 1, 0, 1], [0, 0, 1, 6, 0]
    ]  # fmt: skip
    np.testing.assert_array_equal(metadata(attributes, [], train)[:, :2], found[:, 3:])
    constant = {"age": np.array([5, 5, 6], dtype=object)}
    assert metadata(constant, [], train).tolist() == [[0, 0], [0, 0], [1, 0]]
    nothing = {"site": np.array([None, None], dtype=object)}
    assert metadata(nothing, [], np.array([0])).tolist() == [[1], [1]]
    with pytest.raises(ValueError, match=r"no attribute 'site' \(columns\); there are age, sex"):
        metadata(attributes, ["site"], train)
    with pytest.raises(ValueError, match="no attribute is known"):
        metadata({}, [], train)


@pytest.mark.parametrize(
    ("columns", "told", "names"),
    [([], {"sex"}, []), (["age", "sex"], {"sex"}, ["sex"]), (["age"], set(), [])],
)
def test_metadata_never_hold_what_a_task_asks(
    columns: list[str], told: set[str], names: list[str]
) -> None:
    suite = SuiteConfig(
        output=Path("o"),
        encoders={"m": EncoderEntry(kind="metadata", columns=columns)},
        datasets={"d": DatasetEntry(shards=Path("s"))},
        tasks={"age": TaskEntry(kind="number", dataset="d", labels=["age"])},
    )
    empty = np.array([], np.str_)
    attributes = {n: np.array([], dtype=object) for n in ("age", "sex")}
    table = SampleTable(empty, empty, empty, attributes)
    known, left = _besides(suite, FitKey(Cell("age", "ridge", "all"), "m"), table)
    assert (set(known), left) == (told, names)
