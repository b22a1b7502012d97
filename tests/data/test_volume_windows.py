"""Windows cover what there is to see of a volume, once each, and weigh it by its foreground."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ray_mae.batch import WindowBatch
from ray_mae.data.kinds import KINDS
from ray_mae.data.loading.volume_windows import VolumeWindowCollator, windows_of
from ray_mae.inference.load import load_encoder
from tests.checkpoints import write_checkpoint
from tests.shards import rows_of, write_volume_shards


def head(shape: tuple[int, int, int], ball: float = 0.9) -> np.ndarray:
    """A bright ellipsoid that fills the volume, as after ingest."""
    axes = [np.linspace(-1, 1, n) for n in shape]
    radius = sum(a**2 for a in np.meshgrid(*axes, indexing="ij"))
    noise = np.random.default_rng(0).normal(0, 0.05, shape)
    return np.where(radius < ball**2, 1 + noise, -1.5 + noise / 10).astype(np.float32)


def covered(shape: tuple[int, ...], places: list) -> np.ndarray:
    seen = np.zeros(shape, int)
    for source, _ in places:
        seen[source] += 1
    return seen


@pytest.mark.parametrize("shape", [(16, 16, 16), (17, 16, 40), (48, 33, 20), (10, 40, 12)])
def test_windows_reach_from_end_to_end_with_as_few_as_that_takes(shape: tuple) -> None:
    volume = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    places, weights = windows_of(volume, None, 16)
    assert len(places) == np.prod([-(-n // 16) for n in shape])
    assert (covered(shape, places) > 0).all()
    assert weights.sum() == pytest.approx(1)
    for source, target in places:
        assert [s.stop - s.start for s in source] == [t.stop - t.start for t in target]
        assert all(0 <= s.start < s.stop <= n for s, n in zip(source, shape, strict=True))


def test_windows_without_anatomy_are_left_out_and_the_others_weigh_by_it() -> None:
    volume = head((64, 64, 64), ball=1.0)
    places, weights = windows_of(volume, None, 16)
    seen = covered(volume.shape, places)
    assert len(places) < 64
    assert not seen[:16, :16, :16].any()  # a corner
    assert (seen[volume > 0]).mean() > 0.95
    middle = [w for (s, _), w in zip(places, weights, strict=True) if s[0].start in (16, 32)]
    assert max(middle) == weights.max()


def test_what_is_not_valid_is_no_foreground() -> None:
    volume = head((32, 16, 16))
    valid = np.ones(volume.shape, bool)
    valid[:16] = False
    places, weights = windows_of(volume, valid, 16)
    assert [s[0].start for s, _ in places] == [16]
    assert weights.tolist() == [1]


def test_a_volume_without_foreground_is_seen_in_its_middle() -> None:
    places, weights = windows_of(np.zeros((40, 16, 16), np.float32), None, 16)
    assert [s[0].start for s, _ in places] == [12]
    assert weights.tolist() == [1]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    write_volume_shards(folder, train=8, held_out=4, size=20)  # every other is 28 long
    return folder


def test_a_batch_pools_the_windows_of_each_volume(shards: Path, tmp_path: Path) -> None:
    encoder, _ = load_encoder(write_checkpoint(tmp_path, shards, "mdae"))
    rows = rows_of(shards, "train-00000.parquet", 0, VolumeWindowCollator.columns)
    batch = KINDS["volume"].to_batch(VolumeWindowCollator(16).collate(rows, [0] * len(rows)))
    assert isinstance(batch, WindowBatch)
    assert batch.samples == len(rows) == 4
    assert batch.volume.bincount().tolist() == [8] * 4
    with torch.inference_mode():
        pooled, raw = encoder.embed(batch), encoder.raw(batch)
        each = encoder(torch.where(batch.valid, batch.voxels.float(), 0.0))
    assert pooled.shape == (4, encoder.width)
    assert raw.shape == (4, 512)
    for i in range(4):
        own = batch.volume == i
        expected = (each[own] * batch.weight[own, None]).sum(0)
        torch.testing.assert_close(pooled[i], expected, rtol=1e-4, atol=1e-5)


def test_the_middle_is_blind_to_the_ends_and_windows_are_not(shards: Path, tmp_path: Path) -> None:
    encoder, preprocess = load_encoder(write_checkpoint(tmp_path, shards, "mdae"))
    volume = torch.from_numpy(head((16, 16, 48)))
    changed = volume.clone()
    changed[4:12, 4:12, 2:10] *= -3  # far from the middle
    with torch.inference_mode():
        assert not torch.allclose(
            encoder.embed_whole(volume), encoder.embed_whole(changed), atol=1e-4
        )
        middle = [v[:, :, 16:32][None, None] for v in (volume, changed)]
        assert torch.equal(encoder(middle[0]), encoder(middle[1]))
        small = torch.from_numpy(head((16, 16, 16)))
        crop = small.half().float()[None, None]
        torch.testing.assert_close(encoder.embed_whole(small), encoder(crop)[0])
    assert preprocess.crop_size == 16


def test_images_are_seen_whole_and_have_no_windows() -> None:
    with pytest.raises(
        ValueError, match="windows is for volumes: the views of studies are seen whole"
    ):
        KINDS["study"].whole_collator(32)
