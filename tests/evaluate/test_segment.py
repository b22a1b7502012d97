"""`evaluate segment`: what is learnt, what decides, how it is scored, what is left."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ray_mae import cli
from ray_mae.batch import VolumeBatch
from ray_mae.config import PretrainConfig, SegmentConfig
from ray_mae.data.decoding.voxels import decode_labels, decode_voxels, encode_labels
from ray_mae.data.schema import Manifest
from ray_mae.evaluate.segment.command import prepare_label_maps, readable
from ray_mae.evaluate.segment.crops import LabelledCrops, around, whole_of
from ray_mae.evaluate.segment.dice import dice, over_volumes, surface_dice
from ray_mae.evaluate.segment.model import load_segmenter
from ray_mae.evaluate.segment.training import SegmentTask, segment, segmenter_of
from ray_mae.evaluate.supervised.fit import weights_of
from ray_mae.evaluate.supervised.runs import Run, runs_of
from ray_mae.transforms.volumes import VolumeAugmentation
from tests.balls import blobs
from tests.records import write_state
from tests.settings import sections
from tests.shards import rows_of
from tests.volume_batches import config as mdae_config
from tests.volume_batches import mdae

pytestmark = pytest.mark.usefixtures("local_ray")

VALUES = (0, 1, 4)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return blobs(tmp_path_factory.mktemp("volumes"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of no training, kept as those of one."""
    folder = tmp_path_factory.mktemp("checkpoint")
    Manifest("volume", "generated", 1, []).write(folder)
    save_file(weights_of(mdae()), folder / "model.safetensors")
    config = PretrainConfig(shards=folder, output=folder, **mdae_config())
    write_state(folder, config, step=1, workers=1)
    return folder


def config_of(checkpoint: Path, shards: Path, output: Path, **settings: Any) -> SegmentConfig:
    small: dict[str, Any] = {"steps": 4, "validate_every": 2, "seeds": [0], "bootstrap": 50}
    return SegmentConfig(checkpoint=checkpoint, shards=shards, output=output, **(small | settings))


def prepared(config: SegmentConfig) -> tuple[Run, SegmentTask, dict[str, str]]:
    preparation = prepare_label_maps(config, *readable(config))
    return runs_of(config)[0], preparation.task, preparation.left_out


@pytest.mark.slow
def test_balls_are_found_and_everything_is_left_behind(
    checkpoint: Path, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.run(
        f"evaluate segment --checkpoint {checkpoint} --shards {shards} --output {tmp_path} "
        "--steps 60 --validate_every 20 --batch_size 2 --lr 0.01 --seeds [2] --bootstrap 50 "
        "--pictures 2".split()
    )
    assert "trained-seed2: step 60/60" in capsys.readouterr().out
    found = json.loads((tmp_path / "segment.json").read_text())
    for start in ("trained", "random"):
        assert set(found["starts"][start]) == {"macro", "label 1", "label 4"}
        for row in found["starts"][start].values():
            assert row["dice"]["value"] > 0.7, start
            assert row["nsd"]["value"] > 0.7, start
            assert row["dice"]["low"] <= row["dice"]["value"] <= row["dice"]["high"]
    assert found["budget"]["trained"] == found["budget"]["random"]
    assert found["budget"]["trained"] == {"steps": 60, "samples": 120, "validations": 3}
    assert found["samples"] == {"train": 13, "val": 6, "test": 5}
    assert found["left_out"] == {"2 volumes": "no label map"}

    summary = json.loads((tmp_path / "summary.json").read_text())
    assert set(summary["macro_dice"]) == {"trained", "random"}
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 2
    page = (tmp_path / "report.html").read_text()
    assert "data:image/png" in page
    assert "http" not in page

    rows = list(csv.DictReader((tmp_path / "segment_volumes.csv").open()))
    assert len(rows) == 2 * 5 * 2
    kept = load_segmenter(tmp_path / "models" / "trained-seed2")
    row = rows_of(shards, "test-00000.parquet", 0, (*LabelledCrops.columns,))[0]
    labels = kept.segment(torch.from_numpy(decode_voxels(row).astype(np.float32))).numpy()
    truth = decode_labels(row)
    assert set(np.unique(labels)) <= set(VALUES)
    one = next(r for r in rows if r["volume_id"] == row["volume_id"] and r["row"] == "label 4")
    same = 2 * ((labels == 4) & (truth == 4)).sum() / ((labels == 4).sum() + (truth == 4).sum())
    assert float(one["dice"]) == pytest.approx(same, abs=1e-3)


@pytest.mark.slow
def test_test_label_maps_decide_nothing(checkpoint: Path, shards: Path, tmp_path: Path) -> None:
    def turned(row: dict) -> None:
        if row["split"] == "test" and row["segmentation"] is not None:
            labels = decode_labels(row)
            assert labels is not None
            row["segmentation"] = encode_labels(labels[::-1].copy(), 1)

    done = []
    for folder in (shards, blobs(tmp_path / "turned", turned)):
        config = config_of(checkpoint, folder, tmp_path / "out")
        run, task, _ = prepared(config)
        done.append(segment(run, config, task))
    assert done[0].fit.history == done[1].fit.history
    assert done[0].fit.step == done[1].fit.step
    assert not np.array_equal(done[0].dice, done[1].dice)


def test_the_trained_initialisation_takes_the_encoder_or_all_but_the_last_layer(
    checkpoint: Path, shards: Path, tmp_path: Path
) -> None:
    method = mdae()
    last = "decoder.seg_layers.2.weight"
    up = "decoder.transpconvs.0.weight"
    deep = "encoder.stages.2.blocks.0.conv1.conv.weight"
    for init in ("encoder", "all"):
        for film in ("zero", "drop"):
            config = config_of(
                checkpoint, shards, tmp_path, init=init, film_at_finetune=film, seeds=[9]
            )
            _, task, _ = prepared(config)
            trained, fresh = (segmenter_of(run, config, task) for run in runs_of(config))
            ours, theirs, given = (m.state_dict() for m in (trained, fresh, method))
            assert torch.equal(ours[deep], given[deep])
            assert not torch.equal(theirs[deep], given[deep])
            assert torch.equal(ours[up], given[up] if init == "all" else theirs[up])
            assert torch.equal(ours[last], theirs[last])
            assert any("film" in name for name in ours) == (film == "zero")


def test_a_decoder_is_not_looked_for_in_an_exported_encoder(
    checkpoint: Path, shards: Path, tmp_path: Path
) -> None:
    exported = tmp_path / "exported"
    exported.mkdir()
    (exported / "encoder.json").write_text(json.dumps({"name": "mdae", "preset": "tiny"}))
    with pytest.raises(ValueError, match="init all needs the decoder"):
        readable(config_of(exported, shards, tmp_path, init="all", crop_size=16))


def test_an_encoder_of_studies_is_refused(shards: Path, tmp_path: Path) -> None:
    Manifest("study", "generated", 1, []).write(tmp_path)
    run = PretrainConfig(shards=tmp_path, output=tmp_path, **sections("mvmae", preset="tiny"))
    write_state(tmp_path, run, step=1, workers=1)
    with pytest.raises(ValueError, match="segmentation is for volumes"):
        readable(config_of(tmp_path, shards, tmp_path))


def test_a_value_that_no_training_volume_has_is_named_and_is_background(
    checkpoint: Path, tmp_path: Path
) -> None:
    def rare(row: dict) -> None:
        if row["volume_id"] == "test-0":
            labels = decode_labels(row)
            assert labels is not None
            row["segmentation"] = encode_labels(np.where(labels == 1, 7, labels).astype("u1"), 1)

    folder = blobs(tmp_path / "rare", rare)
    _, task, left_out = prepared(config_of(checkpoint, folder, tmp_path))
    assert task.values == VALUES
    assert left_out["label 7"] == "not in the training volumes; counts as background"
    row = rows_of(folder, "test-00000.parquet", 0, LabelledCrops.columns)[0]
    assert set(np.unique(whole_of(row, VALUES).classes)) == {0, 2}


def test_crops_around_the_foreground_hold_it(shards: Path) -> None:
    rows = rows_of(shards, "train-00000.parquet", 0, LabelledCrops.columns)[:3]
    held = {}
    for share in (0.0, 1.0):
        collator = LabelledCrops(8, VALUES, share, seed=0)
        made = [collator.collate(rows, [epoch] * 3) for epoch in range(12)]
        held[share] = np.mean([b["classes"][:, 0].any(axis=(1, 2, 3)).mean() for b in made])
        assert {int(v) for b in made for v in np.unique(b["classes"])} == {0, 1, 2}
        for b in made:  # the crop is of voxels and classes alike
            bright = b["voxels"].astype(np.float32) > 2
            np.testing.assert_array_equal(bright, b["classes"] == 1)
    assert held[1.0] == 1.0
    assert held[0.0] < 0.8


def test_a_crop_around_a_voxel_stays_inside() -> None:
    source, target = around([0, 9, 5], (20, 10, 6), 8)
    assert source == (slice(0, 8), slice(2, 10), slice(0, 6))
    assert target == (slice(0, 8), slice(0, 8), slice(1, 7))


def test_label_maps_are_turned_and_mirrored_as_their_voxels() -> None:
    place = torch.stack(torch.meshgrid(*[torch.arange(24.0)] * 3, indexing="ij"))
    ball = ((place - torch.tensor([9.0, 12, 15]).view(3, 1, 1, 1)).norm(dim=0) < 7).float()
    bar = torch.zeros(24, 24, 24)
    bar[4:20, 10:14, 3:9] = 1
    voxels = torch.stack([ball, bar] * 8)[:, None]
    draw = torch.arange(16) * 7919
    batch = VolumeBatch(voxels, torch.ones_like(voxels, dtype=torch.bool), draw, draw)
    for rotate in (0.0, 1.0):
        augment = VolumeAugmentation(rotate_share=rotate, scale_share=rotate)
        x, valid = augment(batch)
        labels = augment.labels(voxels.to(torch.uint8), draw)
        assert labels.dtype == torch.uint8
        assert set(labels.unique().tolist()) == {0, 1}
        clear = ((x < 1e-3) | (x > 0.999)) & valid  # where all neighbours agree
        assert torch.equal(labels[clear].bool(), (x > 0.5)[clear])
        assert clear.float().mean() > 0.5
        assert not torch.equal(labels, voxels.to(torch.uint8))


def test_dice_and_surface_dice_of_known_shapes() -> None:
    truth = np.zeros((20, 20, 20), np.uint8)
    truth[5:15, 5:15, 5:15] = 1
    moved = np.roll(truth, 2, axis=0)
    assert dice(truth, truth, 3).tolist()[0] == 1.0
    assert dice(moved, truth, 3)[0] == pytest.approx(0.8)
    nsd = {
        (mm, spacing): surface_dice(moved, truth, 2, spacing_mm=(spacing,) * 3, tolerance_mm=mm)[0]
        for mm, spacing in ((2.0, 1.0), (1.0, 1.0), (1.0, 0.5))
    }
    assert nsd[2.0, 1.0] == 1.0
    assert 0.5 < nsd[1.0, 1.0] < 0.9
    assert nsd[1.0, 0.5] == 1.0  # half the distance in mm


def test_a_class_that_is_only_found_has_0_and_one_that_is_nowhere_no_score() -> None:
    truth, found = np.zeros((2, 8, 8, 8), np.uint8)
    found[2:5, 2:5, 2:5] = 1
    for scores in (
        dice(found, truth, 3),
        surface_dice(found, truth, 3, spacing_mm=(1.0, 1.0, 1.0), tolerance_mm=1.0),
    ):
        assert scores[0] == 0
        assert np.isnan(scores[1])


def test_means_over_volumes_leave_out_what_has_no_score() -> None:
    scores = np.array([[1.0, np.nan], [0.5, 0.25], [0.0, 0.75]])
    weights = np.array([[1, 0], [1, 2], [1, 1]])
    found = over_volumes(scores, weights)
    np.testing.assert_allclose(found.value, [0.5, 0.5])
    np.testing.assert_allclose(found.resampled, [[0.5, 1 / 3], [0.5, 1.25 / 3]])
