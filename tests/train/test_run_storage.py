"""What lies on a run's disk while that is away or full."""

import errno
import pickle
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ray_mae.train.metrics.jsonl import JsonLines, read_jsonl
from ray_mae.train.run_storage import RunStorage, StorageAway, is_full, outlast
from tests.disks import resize, small_disk


def test_lines_are_kept_while_the_folder_is_away_and_written_once(tmp_path: Path) -> None:
    folder, aside = tmp_path / "run", tmp_path / "aside"
    folder.mkdir()
    lines = JsonLines(folder / "lines.jsonl", patience=60)
    for step in range(9):
        if step == 3:
            folder.rename(aside)
        if step == 6:
            aside.rename(folder)
        lines.add({"step": step})
    folder.rename(aside)
    lines.add({"step": 9})
    threading.Timer(0.5, lambda: aside.rename(folder)).start()
    lines.close()
    assert read_jsonl(folder / "lines.jsonl") == [{"step": step} for step in range(10)]

    impatient = JsonLines(tmp_path / "never" / "lines.jsonl", patience=0)
    with pytest.raises(StorageAway, match=r"never/lines.jsonl could not be written"):
        impatient.add({})


def test_a_full_disk_cuts_no_line_and_spares_the_record_of_checkpoints(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 64 << 10) as disk:
        storage = pickle.loads(pickle.dumps(RunStorage(disk, "record.json", patience=60)))
        record, lines = disk / "record.json", JsonLines(disk / "lines.jsonl", patience=60)
        with storage.open_output_stream(str(record)) as stream:
            stream.write(b"first")
        (disk / "filler").write_bytes(b"0" * (disk.stat().st_blksize * 12))
        for step in range(30):  # more than there is room for
            lines.add({"step": step, "filler": "x" * 500})
        with pytest.raises(OSError) as told, storage.open_output_stream(str(record)) as stream:
            stream.write(b"second" * 1000)
        assert told.value.errno == errno.ENOSPC  # not waited for
        assert record.read_bytes() == b"first"
        assert {path.name for path in disk.iterdir()} == {"record.json", "lines.jsonl", "filler"}
        assert len(read_jsonl(disk / "lines.jsonl")) < 30

        resize(disk, 1 << 20)
        lines.close()
        assert [line["step"] for line in read_jsonl(disk / "lines.jsonl")] == list(range(30))
        with storage.open_output_stream(str(record)) as stream:
            stream.write(b"second")
        assert record.read_bytes() == b"second"


def test_an_outage_has_an_end(tmp_path: Path) -> None:
    said: list[str] = []
    file = tmp_path / "file"
    threading.Timer(0.7, lambda: file.write_text("there")).start()
    assert outlast(file.read_text, 60, tmp_path, back=said.append) == "there"
    assert "was away for" in said[0]
    with pytest.raises(StorageAway, match=r"could not be reached .* start the same command again"):
        outlast((tmp_path / "none").read_text, 0.2, tmp_path)
    with pytest.raises(ZeroDivisionError):
        outlast(lambda: 1 / 0, 60, tmp_path)


@pytest.mark.parametrize("save", [lambda w, f: torch.save(w, f), save_file])
def test_what_cannot_be_saved_for_want_of_room_is_told_from_other_errors(
    tmp_path: Path, save: Callable[[dict[str, torch.Tensor], Path], None]
) -> None:
    """Neither PyTorch nor safetensors gives the system's number of the error."""
    weights = {"weight": torch.randn(1 << 20)}
    with small_disk(tmp_path / "disk", 2 << 20) as disk:
        with pytest.raises(Exception) as told:
            save(weights, disk / "weights")
        assert is_full(told.value, disk)
    with pytest.raises(Exception) as told:
        save(weights, tmp_path / "none" / "weights")
    assert not is_full(told.value, tmp_path)
