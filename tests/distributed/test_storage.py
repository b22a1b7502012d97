"""Storage that is away for a while, that is full, and that gives back other bytes: whole runs."""

import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ray_mae.checkpoint.commands import checkpoint_verify
from ray_mae.checkpoint.format import last_committed, never_committed, read_state
from ray_mae.config import (
    CheckpointConfig,
    CheckpointVerifyConfig,
    OptimConfig,
    PretrainConfig,
    ScalingConfig,
    TrackingConfig,
)
from ray_mae.data.schema import Manifest
from ray_mae.inference.load import load_encoder
from ray_mae.train.metrics.jsonl import read_jsonl
from ray_mae.train.pretrain import pretrain
from ray_mae.train.recovery.lost_samples import UNREADABLE
from ray_mae.train.run_folder import EVENTS, METRICS
from tests.disks import resize, small_disk
from tests.settings import sections
from tests.shards import damage, sha256, write_volume_shards

pytestmark = pytest.mark.slow

STEPS, EVERY = 24, 4


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards") / "volumes"
    write_volume_shards(folder)
    return folder


def config_of(shards: Path, output: Path) -> PretrainConfig:
    return PretrainConfig(
        shards=shards,
        output=output,
        **sections("mdae", preset="tiny", crop_size=16, block_size=4, shuffle_window=8),
        optim=OptimConfig(batch_size=4, micro_batch_size=2, steps=STEPS, optimizer="sgd", lr=0.02),
        scaling=ScalingConfig(
            workers=2, cpus_per_worker=0.5, max_failures=-1, storage_patience=90.0
        ),
        checkpoint=CheckpointConfig(every=EVERY),
        tracking=TrackingConfig(every=1, pictures_every=EVERY, pictures=1),
    )


def losses(run: Path) -> list[float]:
    records = read_jsonl(run / METRICS)
    assert [record["step"] for record in records] == list(range(1, STEPS + 1))
    return [record["loss"] for record in records]


def told(run: Path) -> str:
    return "\n".join(event["event"] for event in read_jsonl(run / EVENTS))


@pytest.fixture(scope="module")
def undisturbed(
    shards: Path, tmp_path_factory: pytest.TempPathFactory, local_ray: None
) -> PretrainConfig:
    config = config_of(shards, tmp_path_factory.mktemp("runs") / "undisturbed")
    pretrain(config)
    return config


def test_storage_that_is_away_is_waited_for(
    undisturbed: PretrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run's folder is gone for some seconds after its first checkpoint: nothing is lost."""
    config = replace(undisturbed, output=tmp_path / "run")
    aside = tmp_path / "aside"

    def take_away() -> None:
        while last_committed(config.output) is None:
            time.sleep(0.02)
        config.output.rename(aside)
        time.sleep(6)
        aside.rename(config.output)

    thread = threading.Thread(target=take_away)
    thread.start()
    summary = pretrain(config)
    thread.join()
    assert summary["continued_from_step"] == 0
    assert losses(config.output) == losses(undisturbed.output)
    assert "was away for" in told(config.output)
    said = capsys.readouterr().out
    assert "cannot be reached" in said
    assert "is back" in said
    assert read_state(last_committed(config.output) or tmp_path)["step"] == STEPS
    checkpoint_verify(CheckpointVerifyConfig(path=config.output))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 1 << 20) as folder:
        yield folder


def bytes_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_a_full_disk_ends_the_run_and_spares_its_last_checkpoint(
    undisturbed: PretrainConfig, disk: Path
) -> None:
    """Room for two checkpoints and a half, all of which are to be kept."""
    one = bytes_of(last_committed(undisturbed.output) or disk)
    resize(disk, int(2.5 * one))
    run = disk / "run"
    config = replace(undisturbed, output=run, checkpoint=CheckpointConfig(every=EVERY, keep=None))
    with pytest.raises(
        RuntimeError,
        match=rf"^training ended: {run} has no room for the checkpoint of step {3 * EVERY}: it needs "
        rf"[\d.,]+ MB, [\d.,]+ MB are free. Of earlier ones, that of step {2 * EVERY} is as it was",
    ):
        pretrain(config)
    last = last_committed(run)
    assert last is not None
    assert read_state(last)["step"] == 2 * EVERY
    assert checkpoint_verify(CheckpointVerifyConfig(path=run))["bytes"] > one
    load_encoder(run)
    assert not never_committed(run)

    resize(disk, 20 * one)
    (run / "checkpoint_2020-01-01_00-00-00.000000").mkdir()  # as of a worker that was killed
    assert pretrain(config)["continued_from_step"] == 2 * EVERY
    np.testing.assert_allclose(losses(run), losses(undisturbed.output), rtol=1e-6)
    assert "removed 1 unfinished checkpoint" in told(run)
    assert not never_committed(run)


def test_a_damaged_shard_ends_the_run_or_is_left_out(
    undisturbed: PretrainConfig, tmp_path: Path
) -> None:
    """Ended with the shard's checksums; the same command with the other policy goes on from there."""
    shards = tmp_path / "volumes"
    shutil.copytree(undisturbed.shards, shards)
    whole = {s.file: s.sha256 for s in Manifest.read(shards).shards}
    file = shards / "train-00001.parquet"
    damage(file)
    config = replace(undisturbed, shards=shards, output=tmp_path / "run")
    with pytest.raises(
        RuntimeError,
        match=rf"^training ended: {file} (cannot be read|is not the file) .*sha256 {sha256(file)}, "
        rf"manifest.json says {whole[file.name]}.*data.corrupt skip",
    ):
        pretrain(config)
    summary = pretrain(replace(config, data=replace(config.data, corrupt="skip")))
    assert np.isfinite(losses(config.output)).all()
    lost = [row for f in (config.output / UNREADABLE).iterdir() for row in read_jsonl(f)]
    assert {row["file"] for row in lost} == {file.name}
    assert summary["unreadable_rows"] == len(lost) > 0
    assert "rows of damaged shards were replaced" in told(config.output)
