"""Reports on their way into shards: sections, names that a model finds, and what a person decides."""

import csv
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ray_mae import cli
from ray_mae.config import IngestConfig
from ray_mae.config.ingest import NameSettings
from ray_mae.data.ingest.job import ingest
from ray_mae.data.ingest.reports import REVIEW, ReportReader, digest, read_decisions, write_review
from ray_mae.data.privacy.name_detector import NameDetector
from ray_mae.data.privacy.report_sections import Sections
from ray_mae.data.quarantine import QuarantineError

TEXTS = {
    "s1": "FINDINGS: The heart is of normal size.",
    "s2": "FINDINGS: As Emily Brown noted yesterday, the effusion has grown.",
    "s3": "TECHNIQUE: two views",
    "s4": "Der Befund wurde mit Sabine Krüger besprochen.",
    "s5": "",
}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rows = []
    for number, (study, text) in enumerate(TEXTS.items()):
        pixels = np.random.default_rng(number).integers(0, 255, (24, 24), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{study}.png")
        rows.append({"study": study, "patient": study, "path": f"{study}.png", "text": text})
    with (tmp_path / "t.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return tmp_path / "t.csv"


def settings(table: Path, output: Path, **names: object) -> IngestConfig:
    return IngestConfig(
        archive="table", source=table, output=output, insecure_pseudonyms=True,
        names=NameSettings(**names),
    )  # fmt: skip


def findings(output: Path) -> set[str | None]:
    shards = output.glob("*.parquet")
    tables = [pq.read_table(s) for s in shards if s.name != "quarantine.parquet"]
    return {text for table in tables for text in table["findings"].to_pylist()}


def test_every_report_is_written_or_aside_with_its_reason(table: Path, tmp_path: Path) -> None:
    summary = ingest(settings(table, tmp_path / "out"))
    assert summary["reports"] == {"in": 4, "out": 3, "quarantined": 1}
    assert summary["quarantined"]["report"] == {"no-sections": 1}
    assert summary["studies"]["out"] == 5
    assert "reports_to_review" not in summary
    assert not (tmp_path / "out" / REVIEW).exists()


@pytest.mark.slow
def test_reports_with_names_wait_for_a_person(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.name_models import make_name_model

    model, output = make_name_model(tmp_path / "model"), tmp_path / "out"
    command = f"ray-mae ingest --archive table --source {table} --output {output} --insecure_pseudonyms true"
    with monkeypatch.context() as patch:
        patch.setattr(sys, "argv", [*command.split(), "--names.model", str(model)])
        cli.main()
    assert REVIEW in capsys.readouterr().out
    assert findings(output) == {"The heart is of normal size.", None}
    quarantine = pq.read_table(output / "quarantine.parquet").to_pylist()
    named = [row["detail"] for row in quarantine if row["reason"] == "name-found"]
    assert [detail.split()[0] for detail in named] == ["PER", "PER"]
    assert not any(name in detail for detail in named for name in ("Emily", "Sabine"))
    with (output / REVIEW).open(newline="") as file:
        review = list(csv.DictReader(file))
    found = {"Emily" in row["findings"]: row["found"] for row in review}
    assert "Emily Brown" in found[True]
    assert "Sabine Krüger" in found[False]
    assert (output / REVIEW).stat().st_mode & 0o777 == 0o600

    for row in review:
        row["decision"] = "keep" if "Emily" in row["found"] else "Withhold"
    decided = tmp_path / "decided.csv"
    with decided.open("w", newline="") as file:
        writer = csv.DictWriter(file, review[0])
        writer.writeheader()
        writer.writerows(review)
    summary = ingest(settings(table, output, model=model, reviewed=decided))
    assert summary["quarantined"]["report"] == {"name-found": 1, "no-sections": 1}
    assert "As Emily Brown noted yesterday, the effusion has grown." in findings(output)
    assert "reports_to_review" not in summary
    assert not (output / REVIEW).exists()

    detect = NameDetector(model, None, 0.5)
    text = "No effusion. " * 60 + "As Emily Brown noted yesterday. " + "Clear. " * 60
    words = [text[mention.start : mention.end] for mention in detect(text)]
    assert any("Emily Brown" in word for word in words)  # far beyond what the model sees at once
    with pytest.raises(ValueError, match=r"has no label DOC .*it has O, PER"):
        NameDetector(model, ["DOC"], 0.5)


def test_a_decision_is_about_one_text(tmp_path: Path) -> None:
    reader = ReportReader.of(NameSettings())
    rows = [
        reader.read(text, None).review(study, text)
        for study, text in (("a", "FINDINGS: =1+1"), ("b", "Clear."))
    ]
    assert write_review(tmp_path, tmp_path / "beside", rows) == 2
    content = (tmp_path / REVIEW).read_text()
    assert ", =1+1" in content or '" =1+1"' in content  # no formula
    (tmp_path / "d.csv").write_text(content.replace("Clear.,,", "Clear.,,Keep"))
    decisions = read_decisions(tmp_path / "d.csv")
    assert decisions == {("b", digest("Clear.")): "keep"}
    with pytest.raises(QuarantineError, match="name-found"):
        reader.read("Clear.", "withhold")
    assert reader.read("Clear.", "keep").sections == Sections("Clear.", None)
    (tmp_path / "d.csv").write_text(content.replace("Clear.,,", "Clear.,,yes"))
    with pytest.raises(ValueError, match="line 3: decision is 'yes', it must be keep or withhold"):
        read_decisions(tmp_path / "d.csv")


def test_what_is_no_model_is_an_error_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"config\.json \(names\.model\)"):
        ReportReader.of(NameSettings(model=tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "nonsense"}')
    with pytest.raises(ValueError, match=r"cannot be read as a token classifier \(names\.model\)"):
        ReportReader.of(NameSettings(model=tmp_path))
