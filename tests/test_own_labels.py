"""A hospital's own labels, from its table to the pages, by the commands that a user gives."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ray_mae import cli
from ray_mae.data.schema import Manifest
from ray_mae.evaluate.finetune.classifier import load_classifier
from tests.checkpoints import write_checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_ray")]

NAMES = ["Brighter, below", "Herz groß"]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ingested: 120 studies that get brighter downwards or to the right; `Herz groß` is chance."""
    root = tmp_path_factory.mktemp("hospital")
    rng = np.random.default_rng(0)
    ramp = np.repeat(np.linspace(0, 190, 48).astype(np.uint8)[:, None], 48, axis=1)
    with (root / "table.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["study", "patient", "path", "split", "sex", *NAMES, "Fall", "note"])
        for i in range(120):
            below = bool(rng.random() < 0.5)
            image = (ramp if below else ramp.T) + rng.integers(0, 60, (48, 48), dtype=np.uint8)
            Image.fromarray(image).save(root / f"{i}.png")
            split = "train" if i < 60 else "val" if i < 90 else "test"
            heart = "2" if i % 40 == 0 else rng.choice(["1", "0", "", ""])
            cells = ["yes" if below else "NO", heart, int(i % 3 == 0), "some text"]
            rows.writerow([f"s{i}", f"p{i}", f"{i}.png", split, "MF"[i % 2], *cells])
    output = root / "shards"
    cli.run(
        ["ingest", "--archive", "table", "--source", str(root / "table.csv"),
         "--output", str(output), "--dataset", "hospital", "--insecure_pseudonyms", "true",
         "--image_size", "40", "--columns.label_names", json.dumps(NAMES), "--attributes", "[sex]"]
    )  # fmt: skip
    return output


@pytest.fixture(scope="module")
def checkpoint(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"), shards, "mvmae", depth=1)


def test_shards_manifest_summary_and_card_have_the_names(shards: Path) -> None:
    manifest = Manifest.read(shards)
    assert manifest.label_names == tuple(NAMES)
    rows = pq.read_table(shards / manifest.shards[0].file).to_pylist()
    assert {len(row["labels"]) for row in rows} == {2}
    assert {row["sex"] for row in rows} == {"M", "F"}
    summary = json.loads((shards / "summary.json").read_text())
    assert list(summary["splits"]["train"]["labels"]) == NAMES
    assert summary["notes"]["label_cells_by_text"] == {"Herz groß": {"2": 3}}
    assert summary["notes"]["columns_like_labels_not_read"] == ["Fall"]
    cli.run(["inspect", "--shards", str(shards)])
    card = json.loads((shards / "card.json").read_text())
    heart = card["labels"]["Herz groß"]
    assert sum(heart[split]["not labelled"] for split in heart) == 3
    assert sum(heart["train"].values()) == 60
    page = (shards / "card.html").read_text()
    for told in ("Herz groß", "“2” 3", "were not read: Fall", "not labelled"):
        assert told in page, told


@pytest.mark.parametrize("unmentioned", ["zeros", "ignore"])
def test_the_probe_reads_them(
    shards: Path, checkpoint: Path, tmp_path: Path, unmentioned: str
) -> None:
    told = [] if unmentioned == "zeros" else ["--unmentioned", "ignore"]
    cli.run(
        ["evaluate", "probe", "--checkpoint", str(checkpoint), "--shards", str(shards),
         "--output", str(tmp_path), "--bootstrap", "30", "--min_positive", "2", "--pca", "16", *told]
    )  # fmt: skip
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["labels"] == NAMES
    assert (summary["uncertain"], summary["unmentioned"]) == ("zeros", unmentioned)
    found = json.loads((tmp_path / "probe.json").read_text())
    auroc = found["features"]["pixels"]["labels"]["Brighter, below"]["metrics"]["auroc"]["value"]
    assert auroc > 0.95
    heart = found["counts"]["train"]["labels"]["Herz groß"]
    empty = json.loads((shards / "summary.json").read_text())["splits"]["train"]["labels"][
        "Herz groß"
    ]
    ignored = empty["not labelled"] + empty["not mentioned"] * (unmentioned == "ignore")
    assert heart["ignored"] == ignored
    page = (tmp_path / "report.html").read_text()
    words = {"zeros": "counts as negative, the default", "ignore": "is ignored"}[unmentioned]
    assert f"not mentioned {words}" in page


def test_fine_tuning_learns_them_and_the_classifier_keeps_their_names(
    shards: Path, checkpoint: Path, tmp_path: Path
) -> None:
    cli.run(
        ["evaluate", "finetune", "--checkpoint", str(checkpoint), "--shards", str(shards),
         "--output", str(tmp_path), "--epochs", "8", "--batch_size", "8", "--lr", "0.003",
         "--seeds", "[0]", "--compare", "[trained]", "--bootstrap", "30",
         "--labels", '["brighter, below"]']
    )  # fmt: skip
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["rows"] == ["brighter, below"]
    assert summary["unmentioned"] == "zeros"
    assert summary["macro_auroc"]["trained"].split()[0] > "0.8"
    assert load_classifier(tmp_path / "models" / "trained-seed0").labels == ["brighter, below"]
    page = (tmp_path / "report.html").read_text()
    assert "not mentioned counts as negative, the default" in page


def test_a_run_probes_them_while_it_goes_on(shards: Path, tmp_path: Path) -> None:
    settings = (
        f"pretrain --method.name mvmae --method.gamma 0 --shards {shards} --output {tmp_path / 'run'} "
        "--encoder.preset tiny --optim.steps 2 --optim.batch_size 4 --optim.micro_batch_size 4 "
        "--scaling.workers 1 --scaling.gpu no --checkpoint.every 2 --tracking.pictures 0 "
        "--probe.every 1 --probe.bootstrap 20 --probe.min_positive 2 --probe.unmentioned ignore"
    )
    cli.run([*settings.split(), "--probe.labels", json.dumps(NAMES[:1])])
    (line,) = (tmp_path / "run" / "probes.jsonl").read_text().splitlines()
    record = json.loads(line)
    assert list(record["labels"]) == NAMES[:1]
    assert record["unmentioned"] == "ignore"
