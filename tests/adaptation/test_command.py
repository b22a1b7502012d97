"""A whole curve: from a run of one's own and from random weights, on a part and on all."""

import csv
import json
from pathlib import Path

import pytest
import yaml

from ray_mae.adaptation.command import adapt
from ray_mae.checkpoint.integrity import write_checksums
from ray_mae.config import AdaptConfig, OptimConfig, ProbeSettings, RunConfig, ScalingConfig
from ray_mae.data.schema import Manifest
from tests.checkpoints import write_checkpoint
from tests.settings import small
from tests.shards import write_shards


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_every_start_and_number_is_pretrained_and_probed_and_the_same_command_goes_on(
    tmp_path: Path,
) -> None:
    write_shards(tmp_path / "shards", train=24, held_out=24)
    write_checksums(write_checkpoint(tmp_path / "open", tmp_path / "shards", "mvmae"), 0)
    config = AdaptConfig(
        shards=tmp_path / "shards",
        output=tmp_path / "curve",
        starts=[tmp_path / "open"],
        train_studies=[8, 1000],
        run=RunConfig(
            **small("mvmae", gamma=0.0),
            optim=OptimConfig(batch_size=4, micro_batch_size=4, steps=2),
            scaling=ScalingConfig(workers=1, cpus_per_worker=0.5),
        ),
        probe=ProbeSettings(min_positive=1, bootstrap=20),
    )
    summary = adapt(config)
    rows = list(csv.DictReader((tmp_path / "curve/adapt.csv").open()))
    assert [(row["start"], int(row["studies"])) for row in rows] == [
        ("open", 0), ("open", 8), ("open", 24), ("random", 0), ("random", 8), ("random", 24),
    ]  # fmt: skip
    assert [row["start"] for row in rows if row["gain"] == "nan"] == ["open"]
    assert len(summary["verdicts"]) == 2
    page = (tmp_path / "curve/report.html").read_text()
    assert all(sentence in page for sentence in summary["verdicts"])
    part = Manifest.read(tmp_path / "curve/shards/8-seed0")
    content = json.loads((tmp_path / "curve/adapt.json").read_text())
    assert content["trained_on"]["open-8-seed0"] == part.rows("train") >= 8
    runs = {path.name: yaml.safe_load((path / "config.yaml").read_text())
            for path in (tmp_path / "curve/runs").iterdir()}  # fmt: skip
    assert runs["random-8-seed0"]["encoder"] == runs["open-8-seed0"]["encoder"]
    assert runs["random-8-seed0"]["weights"] is None
    assert runs["open-8-seed0"]["shards"] == [str(tmp_path / "curve/shards/8-seed0")]
    again = adapt(config)
    assert again["macro_auroc"] == summary["macro_auroc"]
    done = json.loads((tmp_path / "curve/runs/open-24-seed0/summary.json").read_text())
    assert "nothing to do" in done["start_up_seconds"]
