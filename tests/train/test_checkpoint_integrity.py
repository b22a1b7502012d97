"""Checkpoints whose files are not as they were written."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ray_mae.checkpoint.commands import checkpoint_convert
from ray_mae.checkpoint.format import all_weights, committed, last_committed
from ray_mae.checkpoint.integrity import (
    DAMAGED,
    SNAPSHOT,
    damage,
    drop_damaged,
    write_checksums,
)
from ray_mae.config import CheckpointConvertConfig, ExportConfig
from ray_mae.exports.command import export
from tests.checkpoints import write_checkpoint
from tests.shards import write_shards


def flip(file: Path) -> None:
    """One bit."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-9])


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with checkpoints of steps 2, 4 and 6, and Ray Train's record of them."""
    write_shards(tmp_path / "shards")
    run = tmp_path / "run"
    results = []
    for step in (2, 4, 6):
        folder = write_checkpoint(run / f"checkpoint_{step}", tmp_path / "shards", "mvmae")
        (folder / "deepspeed").mkdir()
        (folder / "deepspeed" / "optim.pt").write_bytes(bytes(range(100)) * step)
        write_checksums(folder, 0)
        results.append(
            {"version": 0, "checkpoint_dir_name": folder.name, "metrics": {"step": step}}
        )
    record = {
        "checkpoint_results": results, "checkpoint_report_indices": [0, 1, 2],
        "latest_checkpoint_result": results[-1], "current_report_index": 3,
        "pending_training_results": results[-1:], "pending_validation_specs": [True],
    }  # fmt: skip
    (run / SNAPSHOT).write_text(json.dumps(record))
    return run


FILES = ["model.safetensors", "state.json", "deepspeed/optim.pt", "checksums/worker-0000.json"]


@pytest.mark.parametrize("harm", [flip, cut, Path.unlink])
@pytest.mark.parametrize("file", FILES)
def test_a_run_goes_back_to_the_last_checkpoint_that_is_whole(
    run: Path, file: str, harm: Callable[[Path], None]
) -> None:
    told: list[str] = []
    drop_damaged(run, told.append)
    assert told == []
    harm(run / "checkpoint_6" / file)
    harm(run / "checkpoint_2" / file)  # an earlier one that nobody needs
    drop_damaged(run, told.append)
    assert last_committed(run) == run / "checkpoint_4"
    assert [path.name for path, _ in committed(run)] == ["checkpoint_2", "checkpoint_4"]
    (line,) = told
    named = "" if file.startswith("checksums") else file  # a wrong checksum accuses its file
    assert f"checkpoint_6 is damaged ({named}" in line
    assert "checkpoint_4, of step 4" in line
    assert (run / f"{DAMAGED}checkpoint_6").is_dir()
    record = json.loads((run / SNAPSHOT).read_text())
    assert record["checkpoint_report_indices"] == [0, 1]
    assert record["pending_training_results"] == record["pending_validation_specs"] == []


def test_a_folder_that_is_gone_and_a_run_without_any_whole_checkpoint_are_told(run: Path) -> None:
    told: list[str] = []
    (run / "checkpoint_6").rename(run / "away")
    drop_damaged(run, told.append)
    assert last_committed(run) == run / "checkpoint_4"
    for step in (2, 4):
        flip(run / f"checkpoint_{step}" / "model.safetensors")
    with pytest.raises(
        ValueError, match=r"no checkpoint that is whole: checkpoint_4: model.safetensors"
    ):
        drop_damaged(run, told.append)
    assert (run / "checkpoint_4").is_dir()  # as it was: a copy may be put back
    (run / SNAPSHOT).write_text("{")
    with pytest.raises(ValueError, match=f"{SNAPSHOT} is damaged"):
        drop_damaged(run, told.append)


@pytest.mark.parametrize("file", ["model.safetensors", "state.json"])
def test_damaged_weights_are_neither_read_nor_exported(run: Path, file: str) -> None:
    checkpoint = run / "checkpoint_6"
    assert all_weights(run)
    flip(checkpoint / file)
    assert damage(checkpoint) == [f"{file} was changed or damaged"]
    with pytest.raises(ValueError, match=rf"{file} (was changed or|is) damaged"):
        all_weights(run)
    with pytest.raises(ValueError, match=rf"{file} (was changed or|is) damaged"):
        export(ExportConfig(checkpoint=run, output=run / "out"))


def test_a_checkpoint_without_checksums_is_taken_as_it_is(run: Path) -> None:
    shutil.rmtree(run / "checkpoint_6" / "checksums")
    told: list[str] = []
    drop_damaged(run, told.append)
    assert told == []
    assert last_committed(run) == run / "checkpoint_6"
    converted = CheckpointConvertConfig(checkpoint=run, output=run / "w", to="weights")
    assert checkpoint_convert(converted)["step"] == 1
    (run / "checkpoint_6" / "state.json").unlink()
    drop_damaged(run, told.append)
    assert last_committed(run) == run / "checkpoint_4"
