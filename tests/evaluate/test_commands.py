"""`embed` and `evaluate probe` on real Ray actors, from a checkpoint on disk."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.metrics import roc_auc_score

from ray_mae import cli
from ray_mae.config import EmbedConfig
from ray_mae.data.kinds import KINDS
from ray_mae.data.loading.study_collator import StudyCollator
from ray_mae.data.loading.volume_collator import VolumeCollator
from ray_mae.evaluate.embed import embed
from ray_mae.inference.load import load_encoder
from ray_mae.transforms.images import whole
from ray_mae.transforms.volumes import clean
from tests.checkpoints import write_checkpoint
from tests.shards import rows_of, write_shards, write_volume_shards

pytestmark = pytest.mark.usefixtures("local_ray")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    write_shards(folder, train=60, held_out=40)
    return folder


@pytest.fixture(scope="module")
def checkpoint(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"), shards, "mvmae", depth=1)


def test_every_study_has_the_mean_of_its_views_features(
    shards: Path, checkpoint: Path, tmp_path: Path
) -> None:
    summary = embed(EmbedConfig(checkpoint=checkpoint, shards=shards, output=tmp_path))
    assert (summary["studies"], summary["width"]) == (140, 32)
    table = pq.read_table(tmp_path / "embeddings.parquet")
    assert table["split"].to_pylist().count("train") == 60
    rows = rows_of(shards, "val-00000.parquet", 0, StudyCollator.columns)
    encoder, _ = load_encoder(checkpoint)
    batch = KINDS["study"].to_batch(StudyCollator(max_views=16).collate(rows, [0] * len(rows)))
    with torch.no_grad():
        per_view = encoder(whole(batch, 32), batch.view)
    found = dict(zip(table["study_id"].to_pylist(), table["embedding"].to_pylist(), strict=True))
    for index, row in enumerate(rows):
        expected = per_view[batch.study == index].mean(0).numpy()
        np.testing.assert_allclose(found[row["study_id"]], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_the_probe_command_compares_with_random_and_pixels_and_writes_its_report(
    shards: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.run(
        f"evaluate probe --checkpoint {checkpoint} --shards {shards} --output {tmp_path} "
        "--bootstrap 50 --strengths [0.01,1.0]".split()
    )
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert set(summary["macro_auroc"]) == {"trained", "random", "pixels"}
    assert summary["studies"] == {"train": 60, "val": 40, "test": 40}
    assert "macro_auroc" in capsys.readouterr().out
    assert (tmp_path / "report.html").stat().st_size > 10_000
    assert (tmp_path / "probe.csv").is_file()
    said = pq.read_table(tmp_path / "predictions.parquet").to_pandas()
    assert set(said.split) == {"val", "test"}
    found = json.loads((tmp_path / "probe.json").read_text())["features"]["trained"]["labels"]
    for label, numbers in found.items():
        rows = said[(said.features == "trained") & (said.label == label) & (said.split == "test")]
        known = rows.dropna(subset="target")
        assert len(rows) == 40
        assert numbers["metrics"]["auroc"]["value"] == pytest.approx(
            roc_auc_score(known.target, known.probability), abs=1e-6
        )


def test_a_wrong_checkpoint_is_named_before_any_actor_starts(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"neither a checkpoint .* nor the folder of a run"):
        embed(EmbedConfig(checkpoint=tmp_path, shards=shards, output=tmp_path / "out"))


@pytest.mark.slow
def test_volumes_are_embedded_and_probed_by_their_own_labels(tmp_path: Path) -> None:
    shards, run = tmp_path / "shards", tmp_path / "run"
    write_volume_shards(shards, train=40, held_out=20)
    write_checkpoint(run, shards, "mdae", block_size=4)

    summary = embed(EmbedConfig(checkpoint=run, shards=shards, output=tmp_path / "e"))
    table = pq.read_table(tmp_path / "e" / "embeddings.parquet")
    assert summary["volumes"] == len(set(table["volume_id"].to_pylist())) == 80
    encoder, _ = load_encoder(run)
    rows = rows_of(shards, "val-00000.parquet", 0, VolumeCollator.columns)
    batch = KINDS["volume"].to_batch(VolumeCollator(16, centre=True).collate(rows, [0] * len(rows)))
    with torch.no_grad():
        expected = encoder(clean(batch)[0])  # what is not valid is not seen
    found = {row["volume_id"]: row["embedding"] for row in table.to_pylist()}
    for row, vector in zip(rows, expected, strict=True):
        np.testing.assert_allclose(found[row["volume_id"]], vector, rtol=1e-4, atol=1e-5)

    where = [f"--checkpoint={run}", f"--shards={shards}", f"--output={tmp_path / 'p'}"]
    cli.run(["evaluate", "probe", *where, "--bootstrap=20"])
    probed = json.loads((tmp_path / "p" / "probe.json").read_text())
    assert list(probed["features"]["random"]["labels"]) == ["rough"]
    assert probed["left_out"] == {"age": "40 values: a number, no class"}
    page = (tmp_path / "p" / "report.html").read_text()
    assert "test volumes" in page
    assert "test studies" not in page
