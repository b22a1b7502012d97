"""What is written to an object store, at an S3 server of this machine: no append, no rename, no lock."""

import json
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from upath import UPath

from ray_mae.checkpoint.format import at_hand, last_committed, never_committed
from ray_mae.checkpoint.integrity import SNAPSHOT, drop_damaged
from ray_mae.config.urls import opened
from ray_mae.files import replacing, write_whole
from ray_mae.store import (
    Mirror,
    fetch,
    fetched,
    put_folder,
    remove_folder,
    rename_folder,
    require_store,
    with_os_errors,
    writes_to_stores,
)
from ray_mae.train.errors import FatalError
from ray_mae.train.metrics.jsonl import (
    PARTS,
    Tail,
    append_jsonl,
    open_lines,
    put_gathered,
    read_jsonl,
    rewrite_jsonl,
)
from ray_mae.train.run_folder import EVENTS, METRICS, RunFolder
from ray_mae.train.run_storage import StorageAway, outlast, storage_of


@pytest.fixture
def place(bucket: str, request: pytest.FixtureRequest) -> Any:
    return opened(Path(f"{bucket}/{request.node.name}"))


def names(folder: Any) -> list[str]:
    found = folder.fs.find(folder.path)
    return sorted(name[len(folder.path) + 1 :] for name in found)


def test_lines_of_several_writers_are_read_in_the_order_in_which_they_were_put(place: Any) -> None:
    """As of the events of a run: the driver, the controller and a worker write them."""
    path = place / EVENTS
    one, other = open_lines(path, 5.0), open_lines(path, 5.0)
    tail = Tail(path)
    assert tail.news() == read_jsonl(path) == []
    for i, lines in enumerate([one, other, one]):
        lines.add({"event": i})
    append_jsonl(path, {"event": 3})
    assert [r["event"] for r in read_jsonl(path)] == [0, 1, 2, 3]
    assert [r["event"] for r in tail.news()] == [0, 1, 2, 3]
    append_jsonl(path, {"event": 4})
    assert tail.news() == [{"event": 4}]
    rewrite_jsonl(path, lambda record: record["event"] != 1)
    assert tail.news() == []  # nothing comes a second time
    assert names(place) == [EVENTS]
    assert [json.loads(line)["event"] for line in path.read_text().splitlines()] == [0, 2, 3, 4]


def test_gathered_lines_go_into_parts_whose_bytes_do_not_grow_with_their_square(
    place: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = []
    write = type(place).write_bytes
    monkeypatch.setattr(
        type(place), "write_bytes", lambda path, data: put.append(len(data)) or write(path, data)
    )
    lines = open_lines(place / METRICS, 5.0, every=3600)
    for step in range(200):
        lines.add({"step": step, "text": "x" * 1000})
        if step % 10 == 9:
            put_gathered()
    assert max(put) < 80_000
    assert sum(put) < 5 * 200 * 1030  # each part is put some seven times while it grows
    assert len(names(place)) == 3
    lines.add({"step": 200})
    assert len(read_jsonl(place / METRICS)) == 200
    lines.close()
    assert [r["step"] for r in read_jsonl(place / METRICS)] == [*range(201)]


def test_a_line_waits_for_a_store_that_is_away_and_comes_once(
    place: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Away(Exception):
        """As libraries of stores raise their own."""

    def refuse(*_: Any) -> None:
        raise Away("no route to the store")

    lines = open_lines(place / EVENTS, 30.0)
    with monkeypatch.context() as patch:
        patch.setattr(type(place), "write_bytes", refuse)
        lines.add({"event": "while it is away"})
        short = open_lines(place / "other.jsonl", 0.0)
        with pytest.raises(StorageAway, match="no route to the store"):
            short.add({"event": 0})
    lines.add({"event": "afterwards"})
    assert [r["event"] for r in read_jsonl(place / EVENTS)] == ["while it is away", "afterwards"]
    with monkeypatch.context() as patch:
        patch.setattr(type(place), "read_text", refuse)
        with pytest.raises(StorageAway, match="could not be reached"):
            outlast((place / EVENTS).read_text, 0.1, place)


def test_of_two_starts_the_earlier_one_ends(place: Any) -> None:
    first = RunFolder.begin(place, 5.0)
    first.require_shared(1.0)
    second = RunFolder.begin(place, 5.0)
    second.require_current()
    with pytest.raises(FatalError, match="was started again elsewhere"):
        first.require_current()


def test_a_continued_run_drops_the_metrics_that_it_will_repeat(place: Any) -> None:
    lines = open_lines(place / METRICS, 5.0)
    for step in range(1, 9):
        lines.add({"step": step})
    folder = RunFolder.begin(place, 5.0)
    folder.gather()
    assert METRICS in names(place)
    lines.add({"step": 9})  # of a worker that a killed driver left
    folder.drop_metrics_after(6)
    assert [r["step"] for r in read_jsonl(place / METRICS)] == [1, 2, 3, 4, 5, 6]
    assert not [name for name in names(place) if PARTS in name]


def record(steps: dict[str, int]) -> str:
    results = [{"checkpoint_dir_name": n, "metrics": {"step": s}} for n, s in steps.items()]
    return json.dumps(
        {
            "checkpoint_results": results,
            "checkpoint_report_indices": list(range(len(results))),
            "latest_checkpoint_result": results[-1],
        }
    )


def test_a_half_written_checkpoint_is_never_taken(place: Any, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    (whole / "state.json").write_text(json.dumps({"step": 4, "workers": 1}))
    put_folder(whole, place / "checkpoint_a")
    (place / "checkpoint_b" / "model.safetensors").write_bytes(b"half")
    write_whole(place / SNAPSHOT, record({"checkpoint_a": 4}))
    assert (last_committed(place) or place).name == "checkpoint_a"
    assert [path.name for path in never_committed(place)] == ["checkpoint_b"]
    remove_folder(place / "checkpoint_b")
    remove_folder(place / "checkpoint_b")  # which is not there
    assert names(place) == ["checkpoint_a/state.json", SNAPSHOT]


def test_a_damaged_checkpoint_is_kept_aside_and_the_one_before_taken(
    place: Any, tmp_path: Path
) -> None:
    from ray_mae.checkpoint.integrity import write_checksums

    for name in ("checkpoint_a", "checkpoint_b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "state.json").write_text(json.dumps({"step": 4, "workers": 1}))
        write_checksums(tmp_path / name, 0)
        put_folder(tmp_path / name, place / name)
    (place / "checkpoint_b" / "state.json").write_bytes(b"{}")
    write_whole(place / SNAPSHOT, record({"checkpoint_a": 4, "checkpoint_b": 8}))
    told: list[str] = []
    drop_damaged(place, told.append)
    assert "checkpoint_b is damaged" in told[0]
    assert (last_committed(place) or place).name == "checkpoint_a"
    assert "damaged_checkpoint_b/state.json" in names(place)


def test_ray_train_sees_records_whole(place: Any) -> None:
    run = place / "run"
    parent, system = storage_of(run, SNAPSHOT, 5.0)
    assert parent == place.path
    path = f"{parent}/run/{SNAPSHOT}"
    with system.open_output_stream(path) as stream:
        stream.write(b"{}")
        assert not (run / SNAPSHOT).exists()
    assert (run / SNAPSHOT).read_bytes() == b"{}"
    with system.open_input_stream(path) as stream:
        assert stream.read() == b"{}"


def test_a_mirror_puts_what_changed_and_takes_away_what_went(place: Any) -> None:
    (place / "kept.txt").write_text("there before")
    with Mirror(place, every=3600) as mirror:
        mirror.fetch()
        assert (mirror.local / "kept.txt").read_text() == "there before"
        (mirror.local / "a").write_bytes(b"1")
        (mirror.local / "summary.json").write_text(f'"{mirror.local}/report.html"')
        (mirror.local / ".lock").write_text("of this machine")
        (mirror.local / "link").symlink_to(mirror.local / "a")
        connection = sqlite3.connect(mirror.local / "study.db")
        connection.execute("create table trials (number integer)")
        connection.execute("insert into trials values (7)")
        connection.commit()
        mirror.put()
        assert names(place) == ["a", "kept.txt", "study.db", "summary.json"]
        assert (place / "summary.json").read_text() == f'"{place}/report.html"'
        (mirror.local / "a").unlink()
        (mirror.local / "b").write_bytes(b"2")
    connection.close()
    assert names(place) == ["b", "kept.txt", "study.db", "summary.json"]
    with sqlite3.connect(fetch(place / "study.db")) as copy:
        assert copy.execute("select number from trials").fetchall() == [(7,)]


@dataclass(frozen=True)
class Settings:
    output: Path


@writes_to_stores(goes_on=True)
def count(config: Settings) -> dict[str, Any]:
    """A command that goes on with what it left."""
    file = config.output / "count.txt"
    number = int(file.read_text()) + 1 if file.exists() else 1
    file.write_text(str(number))
    return {"number": number, "files": [str(file)]}


def test_a_command_goes_on_in_a_store(place: Any, tmp_path: Path) -> None:
    for number in (1, 2):
        assert count(Settings(place)) == {"number": number, "files": [f"{place}/count.txt"]}
    assert (place / "count.txt").read_text() == "2"
    assert count(Settings(tmp_path))["files"] == [f"{tmp_path}/count.txt"]


def test_what_a_command_made_before_it_failed_is_put(place: Any) -> None:
    @writes_to_stores()
    def fail(config: Settings) -> dict[str, Any]:
        (config.output / "error.txt").write_text("in full")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        fail(Settings(place))
    assert names(place) == ["error.txt"]


def test_a_fetched_folder_is_fetched_once_and_again_where_it_changed(
    place: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "model.safetensors").write_bytes(b"1")
    (place / "optimizer.pt").write_bytes(b"large")
    first = fetch(place, ["model.safetensors"])
    assert [path.name for path in first.iterdir()] == ["model.safetensors"]
    assert fetch(place, ["model.safetensors"]) == first
    (place / "model.safetensors").write_bytes(b"22")
    assert (fetch(place, ["model.safetensors"]) / "model.safetensors").read_bytes() == b"22"
    with pytest.raises(FileNotFoundError, match="nothing"):
        fetch(place / "nothing")
    with fetched(place, ["model.safetensors", "checksums"]) as copy:
        assert [path.name for path in copy.iterdir()] == ["model.safetensors"]
    assert not copy.exists()


def test_a_bucket_that_is_not_there_is_said_and_not_made(bucket: str) -> None:
    require_store(opened(f"{bucket}/anything"))
    nowhere: Any = opened("s3://no-such-bucket/run")
    with pytest.raises(FileNotFoundError, match="s3://no-such-bucket/run: there is no bucket"):
        count(Settings(nowhere))
    assert not nowhere.fs.exists("no-such-bucket")


def test_what_is_no_encoder_is_said_of_a_url_as_of_a_path(place: Any) -> None:
    with pytest.raises(FileNotFoundError, match=f"{place} is neither a checkpoint"):
        at_hand(place)


def test_a_file_that_was_not_finished_is_not_there(place: Any) -> None:
    def write_half() -> None:
        with replacing(place / "a") as file:
            file.write_bytes(b"half")
            raise ValueError("half")

    with pytest.raises(ValueError, match="half"):
        write_half()
    with replacing(place / "b") as file:
        file.write_bytes(b"whole")
    assert names(place) == ["b"]


def test_a_folder_gets_another_name(place: Any) -> None:
    (place / "a" / "x" / "1").write_bytes(b"1")
    rename_folder(place / "a", "b")
    assert names(place) == ["b/x/1"]


def test_errors_of_a_store_are_those_of_a_disk() -> None:
    class OfItsOwn(Exception):
        pass

    def fail() -> None:
        raise OfItsOwn("slow down")

    with pytest.raises(OSError, match="slow down"):
        with_os_errors(fail)


def test_a_url_in_a_setting_is_a_path_of_its_store() -> None:
    assert isinstance(opened(Path("memory://a/b")), UPath)
    assert opened(Path("/a/b")) == Path("/a/b")
