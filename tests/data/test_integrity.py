"""Shards that were exchanged are refused: by size at the start, by checksum while they are read."""

import fcntl
import json
import os
import re
import shutil
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from upath import UPath

from ray_mae.data.loading import integrity
from ray_mae.data.loading.integrity import DamagedShard, check_content, check_sizes
from ray_mae.data.schema import Manifest
from ray_mae.data.shard_set import ShardSet
from tests.data.test_loading import stream
from tests.shards import sha256, write_shards


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Shards, and a node that knows no checksums yet."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setattr(integrity, "_CHECKS", integrity._Checks())
    write_shards(tmp_path / "shards")
    return tmp_path / "shards"


def exchange(folder: Path) -> None:
    """Two whole shards under each other's names; the manifest is made to hold their sizes as right."""
    manifest = Manifest.read(folder)
    first, second = (folder / shard.file for shard in manifest.of_split("train")[:2])
    shutil.move(first, folder / "aside")
    shutil.move(second, first)
    shutil.move(folder / "aside", second)
    shards = [replace(s, bytes=(folder / s.file).stat().st_size) for s in manifest.shards]
    replace(manifest, shards=shards).write(folder)


def drawn(folder: Path, **changes: object) -> list:
    """What a stream reads, step by step."""
    whole = replace(stream(folder, steps=3), **changes)
    return list(whole.read(0, whole.steps))


def test_a_shard_of_another_size_is_named_before_anything_is_read(folder: Path) -> None:
    ShardSet.read(folder).check_sizes()
    file = folder / "train-00001.parquet"
    size = file.stat().st_size
    shutil.copy(folder / "train-00000.parquet", file)
    (folder / "val-00000.parquet").unlink()
    with pytest.raises(
        DamagedShard,
        match=rf"train-00001.parquet is not the file .* bytes, manifest.json says {size:,}, and 1 more",
    ):
        ShardSet.read(folder).check_sizes()
    with pytest.raises(DamagedShard, match=r"train-00001\.parquet is not the file"):
        drawn(folder)


def test_sizes_of_a_store_are_those_of_one_listing(folder: Path) -> None:
    store = UPath("memory://integrity")
    store.mkdir(parents=True, exist_ok=True)
    for file in folder.iterdir():
        (store / file.name).write_bytes(file.read_bytes())
    manifest = Manifest.read(folder)
    check_sizes(store, manifest)
    (store / "test-00000.parquet").write_bytes(b"another")
    with pytest.raises(DamagedShard, match=r"test-00000\.parquet is not the file"):
        check_sizes(store, manifest)


def test_an_exchanged_shard_of_the_same_size_is_not_trained_on(folder: Path) -> None:
    assert len(drawn(folder)) == 6
    exchange(folder)
    ShardSet.read(folder).check_sizes()
    with pytest.raises(
        DamagedShard, match=r"train-0000[01].parquet is not .* \(sha256 \w{64}, manifest.json says"
    ):
        drawn(folder)
    # its rows are lost from the first step on, whatever the background has come to
    lost = [
        json.loads(row)
        for block in drawn(folder, corrupt="skip")
        for row in block["lost"].to_pylist()
    ]
    rows = [row for of_block in lost for row in of_block]
    assert {row["file"] for row in rows} == {"train-00000.parquet", "train-00001.parquet"}
    assert all("is not the file that ingest wrote" in row["problem"] for row in rows)


def test_what_is_written_anew_while_it_is_read_is_found(folder: Path) -> None:
    shards = ShardSet.read(folder)
    path, shard = shards.of_split("train")[0]
    check_content(path, shard, wait=True)
    content = path.read_bytes()
    path.write_bytes(content[:-20] + b"x" * 12 + content[-8:])
    with pytest.raises(DamagedShard, match=re.escape(str(path))):
        check_content(path, shard, wait=True)
    path.write_bytes(content)
    check_content(path, shard, wait=True)


def test_a_file_is_read_once_per_node_and_not_by_every_process(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    monkeypatch.setattr(integrity, "sha256_of", lambda path: (read.append(path), sha256(path))[1])
    files = ShardSet.read(folder).of_split("train")
    for _ in range(3):  # three processes, each of which knows nothing yet
        monkeypatch.setattr(integrity, "_CHECKS", integrity._Checks())
        for wait in (False, False, True):
            for path, shard in files:
                check_content(path, shard, wait)
    assert sorted(read) == sorted(path for path, _ in files)
    notes = Path(tempfile.gettempdir(), f"ray_mae-checksums-{os.getuid()}")
    assert notes.stat().st_mode & 0o077 == 0


def test_who_does_not_wait_does_not_wait_for_another_process_either(folder: Path) -> None:
    path, shard = ShardSet.read(folder).of_split("train")[0]
    state = path.stat()
    version = (str(path), state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino)
    with integrity._note(version).open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        began = time.monotonic()
        check_content(path, shard)
        assert time.monotonic() - began < 1
        release = threading.Timer(0.3, lambda: fcntl.flock(other, fcntl.LOCK_UN))
        release.start()
        check_content(path, shard, wait=True)  # the other one ended without a result
        assert time.monotonic() - began > 0.3
        release.join()
