"""A folder that has shards is written anew only with the settings of before, or where it is told to."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ray_mae.config import TableColumns, VolumeSettings
from ray_mae.data.ingest.job import ingest
from tests.data.test_ingest import settings, shards, table  # noqa: F401

pytestmark = pytest.mark.usefixtures("local_ray")
REFUSED = r"out holds shards of other settings \({}\): choose another --output.*--overwrite true"


def stamps(output: Path) -> dict[str, int]:
    """When each file of the folder was written."""
    return {str(f): f.stat().st_mtime_ns for f in output.rglob("*") if f.is_file()}


def test_other_settings_are_refused_and_touch_nothing_unless_told(
    table: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = tmp_path / "out"
    ingest(settings(table, output))
    before = stamps(output)
    moved = shutil.copy(table, tmp_path / "moved.csv")
    others: list[tuple[str, dict[str, Any]]] = [
        ("image_size", {"image_size": 48}),
        ("validation_share, test_share", {"validation_share": 0.2, "test_share": 0.2}),
        ("columns.text", {"columns": TableColumns(text="findings")}),
        ("volumes.spacing_mm", {"volumes": VolumeSettings(spacing_mm=2.0)}),
        ("source", {"source": moved}),
    ]
    for named, other in others:
        with pytest.raises(ValueError, match=REFUSED.format(named)):
            ingest(settings(**{"source": table, "output": output, **other}))
    monkeypatch.setenv("RAY_MAE_PSEUDONYM_KEY", "a secret that nobody ever guesses")
    with pytest.raises(ValueError, match=REFUSED.format("insecure_pseudonyms")):
        ingest(settings(table, output, insecure_pseudonyms=False))
    with pytest.raises(ValueError, match="holds the shards of 'archive', not of 'other'"):
        ingest(settings(table, output, dataset="other"))
    assert stamps(output) == before
    told = ingest(settings(table, output, image_size=48, overwrite=True))
    assert told["shards"]["kept"] == 0
    assert ingest(settings(table, output, image_size=48))["shards"]["written"] == 0


def test_another_key_is_refused_wherever_it_comes_from(
    table: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output, file = tmp_path / "out", tmp_path / "key"
    file.write_text("a secret that nobody ever guesses\n")
    secret = {"insecure_pseudonyms": False}
    ingest(settings(table, output, **secret, pseudonym_key=file))
    monkeypatch.setenv("RAY_MAE_PSEUDONYM_KEY", file.read_text().strip())
    assert ingest(settings(table, output, **secret))["shards"]["written"] == 0  # the same key
    monkeypatch.setenv("RAY_MAE_PSEUDONYM_KEY", "another that nobody ever guesses")
    with pytest.raises(ValueError, match=REFUSED.format("pseudonym_key")):
        ingest(settings(table, output, **secret))
    kept = (output / ".ingest" / "settings.json").read_text()
    assert "nobody ever guesses" not in kept


def test_what_grew_or_was_interrupted_goes_on_unasked(table: Path, tmp_path: Path) -> None:  # noqa: F811
    rows, output = pd.read_csv(table), tmp_path / "out"
    rows[rows["patient"] < "patient-5"].to_csv(table, index=False)
    ingest(settings(table, output))
    rows.to_csv(table, index=False)
    assert ingest(settings(table, output))["studies"]["out"] == 24
    gone = sorted(shards(output))[0]
    (output / gone).unlink()
    (output / "manifest.json").unlink()
    assert ingest(settings(table, output))["shards"]["written"] == 1
    link = tmp_path / "link"
    link.symlink_to(table.parent)
    assert ingest(settings(link / table.name, output))["shards"]["written"] == 0
    relative = settings(Path(os.path.relpath(table)), output)
    assert ingest(relative)["shards"]["written"] == 0


def test_shards_of_an_earlier_version_go_on_where_nothing_would_be_written_anew(
    table: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    output = tmp_path / "out"
    ingest(settings(table, output))
    noted = output / ".ingest" / "settings.json"
    noted.unlink()
    with pytest.raises(
        ValueError, match=r"of an earlier version, .* \d+ of them would be written anew"
    ):
        ingest(settings(table, output, image_size=48))
    assert ingest(settings(table, output))["shards"]["written"] == 0
    assert json.loads(noted.read_text())["image_size"] == 32


def test_another_version_of_the_software_is_another_setting(table: Path, tmp_path: Path) -> None:  # noqa: F811
    output = tmp_path / "out"
    ingest(settings(table, output))
    noted = output / ".ingest" / "settings.json"
    noted.write_text(json.dumps(json.loads(noted.read_text()) | {"version": "0.0.1"}))
    with pytest.raises(ValueError, match=REFUSED.format("version of ray_mae")):
        ingest(settings(table, output))


def test_a_shard_that_was_exchanged_is_written_again_though_it_has_the_size(
    table: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    output = tmp_path / "out"
    ingest(settings(table, output))
    before = shards(output)
    touched, exchanged, *_ = sorted(before)
    os.utime(output / touched)
    file = output / exchanged
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2] + bytes(8) + content[len(content) // 2 + 8 :])
    assert ingest(settings(table, output))["shards"] == {"written": 1, "kept": len(before) - 1}
    assert shards(output) == before
