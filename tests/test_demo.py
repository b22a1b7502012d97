"""The commands that a newcomer runs first, from end to end and as small as they go."""

import json
from pathlib import Path

import pytest

from ray_mae import cli
from ray_mae.data.schema import Manifest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("local_ray"),
    pytest.mark.timeout(900),
]


def test_the_demo_leaves_shards_a_run_a_report_embeddings_and_a_published_encoder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.run(["demo", "--output", str(tmp_path), "--patients", "90", "--steps", "2"])
    printed = capsys.readouterr().out
    for command in ("ingest", "pretrain", "evaluate probe", "embed", "publish"):
        assert f"$ ray-mae {command} " in printed
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert {"trained", "random", "pixels"} == set(summary["macro_auroc"]["probe"])
    assert Manifest.read(tmp_path / "shards").rows("test") > 0
    page = (tmp_path / "probe" / "report.html").read_text()
    assert "Generated data." in page
    assert (tmp_path / "embeddings" / "embeddings.parquet").is_file()
    assert (tmp_path / "encoder" / "model.safetensors").is_file()


def test_the_demo_of_volumes_goes_the_same_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.run(["demo", "mdae", "--output", str(tmp_path), "--patients", "70", "--steps", "2"])
    assert "a contrast it never saw" in capsys.readouterr().out
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert set(summary["macro_auroc"]) == {"probe", "probe-unseen"}
    assert (tmp_path / "encoder" / "checkpoint_final.pth").is_file()
