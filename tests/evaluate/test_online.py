"""The online probe: what it sees, what it must not see, and where its figures go."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from ray_mae import cli
from ray_mae.checkpoint.format import read_state
from ray_mae.config import OnlineProbeConfig
from ray_mae.data.decoding.voxels import encode_voxels
from ray_mae.data.schema import Manifest
from ray_mae.data.shard_set import ShardSet
from ray_mae.evaluate.probe.online import online_probe, probed_samples
from ray_mae.inference.load import load_encoder
from ray_mae.train.metrics.jsonl import read_jsonl
from ray_mae.train.run_folder import PROBES
from tests.checkpoints import write_checkpoint
from tests.shards import rewrite, write_volume_shards
from tests.volume_batches import PLAIN

SETTINGS = OnlineProbeConfig(every=1, bootstrap=50, min_positive=3)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Rough volumes are alike but for a little noise, and so are the others."""
    write_volume_shards(tmp_path / "shards", train=40, held_out=24)
    draw = np.random.default_rng(0)
    clouds = gaussian_filter(draw.normal(size=(2, 20, 20, 28)), (0, 2, 2, 2))

    def texture(row: dict) -> None:
        x, y, z = row["shape"]
        cloud = clouds[int(dict(row["labels"])["rough"]), :x, :y, :z]
        noise = draw.normal(size=cloud.shape)
        row["voxels"] = encode_voxels(cloud / cloud.std() + 0.1 * noise, "float16", 1)

    rewrite(tmp_path / "shards", texture)
    return tmp_path / "shards"


@pytest.fixture
def checkpoint(shards: Path, tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "checkpoint", shards, "mdae", **PLAIN)


def probe(checkpoint: Path, shards: Path, settings: OnlineProbeConfig) -> dict[str, Any]:
    return online_probe(checkpoint, ShardSet.read(shards), settings)


def test_a_visible_label_is_read_on_validation_patients(shards: Path, checkpoint: Path) -> None:
    found = probe(checkpoint, shards, SETTINGS)
    assert found["labels"].keys() == {"rough"}
    assert found["probe_auroc"] > 0.9
    assert found["probe_auroc_low"] <= found["probe_auroc"] <= found["probe_auroc_high"]
    assert found["samples"] == {"train": 40, "val": 24}
    few = probe(checkpoint, shards, replace(SETTINGS, train_samples=20, val_samples=12))
    assert few["samples"] == {"train": 20, "val": 12}


def test_few_labels_are_drawn_from_the_labelled_and_scored_on_the_same_patients(
    shards: Path, checkpoint: Path
) -> None:
    settings = replace(SETTINGS, label_counts=[2, 12, 40], draws=3)
    found = probe(checkpoint, shards, settings)
    assert found["by_count"].keys() == {"2", "12", "40"}
    value, low, high = found["by_count"]["12"]
    assert low <= value <= high
    assert found["evidence"]["rough"]["interval"] == "logit_delong"
    two = probe(checkpoint, shards, replace(settings, label_counts=[12], draws=2))
    assert np.isnan(two["by_count"]["12"][1:]).all()  # two draws say too little of a third
    assert found["by_count"]["40"][0] == pytest.approx(found["probe_auroc"])  # that is all of them
    assert (
        found["by_count"]["2"][0] < found["probe_auroc"]
    )  # where both are of one class, it is a half
    assert {len(r) for r in found["resamples"].values()} == {50}
    assert probe(checkpoint, shards, SETTINGS)["resamples"]["all"] == found["resamples"]["all"]


def test_patients_are_drawn_whole_and_counted(shards: Path, checkpoint: Path) -> None:
    def two_each(row: dict) -> None:
        number = int(row["volume_id"].rpartition("-")[2])
        row["patient_id"] = f"{row['split']}-{number // 4}-{dict(row['labels'])['rough']}"

    rewrite(shards, two_each)  # four in a row are of two patients, a rough and a smooth one
    found = probed_samples(
        ShardSet.read(shards),
        replace(SETTINGS, train_samples=30, val_samples=12, min_positive=1),
    )
    for split in ("train", "val"):
        _, counts = np.unique(found.cohort.patient[found.rows[split]], return_counts=True)
        assert (counts == 2).all(), split
    drawn = probe(checkpoint, shards, replace(SETTINGS, label_counts=[3], draws=3))
    assert drawn["patients"] == {"train": 20, "val": 12}
    assert drawn["evidence"]["rough"]["interval"] == "none"  # six patients of a class
    assert np.isnan(drawn["probe_auroc_low"])
    with pytest.raises(ValueError, match="7 patients with a positive"):
        probe(checkpoint, shards, replace(SETTINGS, min_positive=7))


def test_test_patients_are_never_touched(shards: Path, checkpoint: Path) -> None:
    before = probe(checkpoint, shards, SETTINGS)

    def spoil(row: dict) -> None:
        if row["split"] == "test":
            row["labels"], row["voxels"] = {"rough": 0.0}, b"not voxels"

    rewrite(shards, spoil)
    assert probe(checkpoint, shards, SETTINGS) == before


def test_labels_nobody_has_are_an_error_that_says_what_to_do(
    shards: Path, checkpoint: Path
) -> None:
    rewrite(shards, lambda row: row.update(labels={"rough": 1.0}))
    with pytest.raises(ValueError, match=r"lower probe\.min_positive, or set probe\.every to 0"):
        probe(checkpoint, shards, SETTINGS)


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_a_run_probes_its_checkpoints_and_keeps_the_best(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.run(
        f"pretrain --method.name mdae --shards {shards} --output {tmp_path / 'run'} "
        "--encoder.preset tiny --encoder.crop_size 16 --method.block_size 4 --optim.steps 6 "
        "--optim.batch_size 4 --optim.micro_batch_size 4 --scaling.workers 1 --scaling.gpu no "
        "--checkpoint.every 2 --checkpoint.keep 1 --checkpoint.keep_best yes "
        "--probe.every 1 --probe.bootstrap 50 --probe.min_positive 3 --tracking.pictures 0".split()
    )
    run = tmp_path / "run"
    probes = read_jsonl(run / PROBES)
    assert sorted(record["step"] for record in probes) == [2, 4, 6]
    summary = json.loads((run / "summary.json").read_text())
    best = summary["best_by_probe"]
    assert best["probe_auroc"] == max(record["probe_auroc"] for record in probes)
    assert len([p for p in run.glob("checkpoint_*") if p.is_dir()]) == 1
    of_best = read_state(run / "best")  # its weights are there, whichever checkpoint is
    assert (of_best["step"], of_best["probe"]["probe_auroc"]) == (best["step"], best["probe_auroc"])
    assert load_encoder(run / "best")
    assert "probe macro AUROC" in " ".join(capsys.readouterr().out.split())
    assert list((run / "tensorboard").glob("*.probe"))
    assert Manifest.read(shards).rows("test") == 24


def test_keeping_the_best_wants_a_probe(shards: Path) -> None:
    with pytest.raises(ValueError, match=r"set probe\.every to 1"):
        cli.run(["pretrain", "--shards", "s", "--output", "o", "--checkpoint.keep_best", "yes"])
