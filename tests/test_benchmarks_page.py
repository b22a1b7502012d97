"""The page of figures and the commands that make them."""

import importlib
import json
import subprocess
import sys

import pytest

from benchmarks import page, record

RESULTS = sorted(record.RESULTS.glob("*.json"))


def test_the_page_is_what_the_results_make():
    assert page.PAGE.read_text("utf-8") == page.page(), "run python -m benchmarks.page"


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_a_result_says_how_it_was_measured(path):
    found = json.loads(path.read_text("utf-8"))
    assert found["command"].startswith(f"python -m benchmarks.{found['module']}")
    assert found["commit"]
    assert found["machine"]["cores"] >= 1
    assert {tuple(row) for row in found["rows"]} == {tuple(found["rows"][0])}
    assert (record.FOLDER / f"{found['module']}.py").is_file()


def test_record_writes_rows_and_page(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(record, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(page, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(page, "PAGE", tmp_path / "BENCHMARKS.md")
    monkeypatch.setattr(sys, "argv", ["/x/benchmarks/engines.py", "--workers", "1", "--record"])
    given = record.parser_of("engines").parse_args(["--record"])
    record.finish(
        given, [{"engine": "ddp", "ms": 12.345}, {"engine": "zero", "ms": 1234.5}], "A note."
    )
    text = (tmp_path / "BENCHMARKS.md").read_text("utf-8")
    assert "| ddp | 12.3 |\n| zero | 1,234 |" in text
    assert "`python -m benchmarks.engines --workers 1`" in text
    assert "A note." in text
    assert "12.3" in capsys.readouterr().out


@pytest.mark.slow
def test_every_measurement_says_what_it_takes():
    """A command of the page that cannot be imported any more is found here."""
    names = sorted(path.stem for path in record.FOLDER.glob("*.py") if path.stem not in page.PARTS)
    for name in names:
        if name != "nnunet_normalisation":  # wants nnunetv2
            importlib.import_module(f"benchmarks.{name}")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.engines", "--help"],
        capture_output=True,
        text=True,
        cwd=record.FOLDER.parent,
    )
    assert "--workers" in done.stdout
