"""Shards in an object store: what is fetched of them, what is kept on the node, and what goes wrong."""

import json
import multiprocessing
import os
import random
import shutil
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from botocore.exceptions import EndpointConnectionError
from s3fs import S3FileSystem
from upath import UPath

from ray_mae.data import parquet, paths
from ray_mae.data.kinds import KINDS
from ray_mae.data.loading import node_cache, read_ahead
from ray_mae.data.loading.findings import read_findings
from ray_mae.data.loading.integrity import DamagedShard
from ray_mae.data.loading.node_cache import INDEX_BYTES, CacheSettings, NodeCache
from ray_mae.data.loading.read_ahead import Group, ReadAhead, groups_in_turn
from ray_mae.data.loading.rows import names_of, read_rows
from ray_mae.data.loading.stream import Stream
from ray_mae.data.loading.tokenizer import training_reports
from ray_mae.data.parquet import (
    fetch,
    footer_sha256,
    map_files,
    open_parquet,
    ranges_of,
    read_footer,
)
from ray_mae.data.patients import read_patients
from ray_mae.data.schema import Manifest, Shard
from ray_mae.data.shard_set import ShardSet
from ray_mae.evaluate.cohort import read_cohort
from ray_mae.train.batches import Batches
from tests.data.test_loading import stream
from tests.shards import write_shards, write_volume_shards


@dataclass
class Traffic:
    """What a store was asked for."""

    ranges: list[tuple[str, int, int]] = field(default_factory=list)
    """Name, first byte and end."""
    failures: list[Exception] = field(default_factory=list)
    """What the next requests come to."""

    @property
    def bytes(self) -> int:
        return sum(end - start for _, start, end in self.ranges)

    def of(self, name: str) -> list[tuple[int, int]]:
        return [(start, end) for file, start, end in self.ranges if file.endswith(name)]


@pytest.fixture
def traffic(monkeypatch: pytest.MonkeyPatch) -> Traffic:
    seen, get = Traffic(), S3FileSystem._cat_file

    async def counted(
        self: Any, path: str, version_id: Any = None, start: Any = None, end: Any = None
    ) -> Any:
        if path.endswith(".parquet"):
            if seen.failures:
                raise seen.failures.pop()
            assert start is not None, "a whole object was fetched"
            seen.ranges.append((path, start, end))
        return await get(self, path, start=start, end=end)

    monkeypatch.setattr(S3FileSystem, "_cat_file", counted)
    return seen


@pytest.fixture(autouse=True)
def new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """No footer is known yet, and nothing waits long."""
    forget(monkeypatch)
    monkeypatch.setattr(paths, "WAITS", (0.0, 0.0, 0.0))


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "_FOOTERS", parquet._Footers())


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Studies whose images are most of the bytes; their manifest knows the footers."""
    folder = tmp_path_factory.mktemp("shards")
    write_shards(folder, train=40, size=256)
    with_footers(folder)
    return folder


def with_footers(folder: Path) -> None:
    manifest = Manifest.read(folder)
    known = [replace(s, footer=footer_sha256(folder / s.file)) for s in manifest.shards]
    replace(manifest, shards=known).write(folder)


@pytest.fixture
def remote(shards: Path, store: str) -> UPath:
    return upload(shards, UPath(store))


def upload(folder: Path, to: UPath) -> UPath:
    to.fs.put(f"{folder}/", to.path, recursive=True)
    return to


def remote_stream(folder: UPath, **changes: Any) -> Stream:
    return replace(stream(folder, steps=5), **changes)  # type: ignore[arg-type]


def blocks(of: Stream) -> list[pa.Table]:
    return list(of.read(of.first_step, of.steps))


def silent(tables: list[pa.Table]) -> list[pa.Table]:
    """Without what is said of the cache."""
    return [table.drop(["note"]) for table in tables]


# ------------------------------------------------------------------------------------------ ranges


def test_a_stream_from_a_store_is_that_from_disk_from_any_step_on(
    shards: Path, remote: UPath
) -> None:
    assert blocks(remote_stream(remote)) == blocks(stream(shards, steps=5))
    later = replace(stream(shards, steps=5), first_step=2)
    assert blocks(remote_stream(remote, first_step=2)) == blocks(later)


def test_of_volumes_and_of_archives_on_disk_and_in_stores_together(
    shards: Path, remote: UPath, store: str, tmp_path: Path
) -> None:
    write_shards(tmp_path / "b", train=12)
    both = stream(shards), ShardSet.read([shards, tmp_path / "b"], [2, 1])
    disk = replace(both[0], shards=both[1], order=both[0].order.of(both[1], "train", 1, 8), steps=6)
    mixed = ShardSet.read([Path(str(remote)), tmp_path / "b"], [2, 1])  # as the command line has it
    assert blocks(replace(disk, shards=mixed)) == blocks(disk)
    manifest = write_volume_shards(tmp_path / "v")
    volumes = upload(tmp_path / "v", UPath(store) / "v")
    for shard in manifest.shards:
        here, there = (
            read_rows(folder / shard.file, shard, 0, ("volume_id", "voxels", "shape"))
            for folder in (tmp_path / "v", volumes)
        )
        assert here == there


def test_of_a_row_group_the_columns_that_are_read_are_one_request(
    shards: Path, remote: UPath, traffic: Traffic
) -> None:
    manifest = Manifest.read(remote)
    shard = manifest.of_split("train")[0]
    rows = read_rows(remote / shard.file, shard, 1, ("study_id", "views"))
    assert rows == read_rows(shards / shard.file, shard, 1, ("study_id", "views"))
    footer, group = traffic.of(shard.file)
    metadata = pq.read_metadata(shards / shard.file)
    assert footer[1] == shard.bytes
    assert group == ranges_of(metadata, [1], ["study_id", "views"])[0]
    size = sum(metadata.row_group(1).column(i).total_compressed_size for i in range(14))
    assert group[1] - group[0] <= size < shard.bytes / 2
    read_rows(remote / shard.file, shard, 0, ("study_id", "views"))
    assert len(traffic.ranges) == 3  # the footer is known by now


def test_who_is_in_shards_is_read_without_their_images(
    shards: Path, remote: UPath, traffic: Traffic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "TAIL", 1 << 13)
    monkeypatch.setattr(parquet, "GAP", 1 << 10)
    here, there = ShardSet.read(shards), ShardSet.read(remote)
    assert read_cohort(there).patient.tolist() == read_cohort(here).patient.tolist()
    assert list(training_reports(there, "both")) == list(training_reports(here, "both"))
    assert read_findings(there).positives == read_findings(here).positives
    assert read_patients(remote, there.folders[0].manifest) == read_patients(
        shards, here.folders[0].manifest
    )
    keys = read_findings(here).keys[0][:5].tolist()
    assert names_of(Path(str(remote)), keys) == names_of(shards, keys)
    total = sum(shard.bytes for shard in there.folders[0].manifest.shards)
    assert 0 < traffic.bytes < total / 4


def test_several_files_are_read_at_a_time_and_handed_on_in_order(
    remote: UPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [(remote / s.file, s) for s in Manifest.read(remote).shards]
    at_once, most, lock = 0, 0, threading.Lock()

    def slow(path: Path, shard: Shard) -> str:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        time.sleep(0.05)
        with lock:
            at_once -= 1
        return shard.file

    assert list(map_files(slow, files)) == [shard.file for _, shard in files]
    assert most > 3
    assert next(iter(map_files(slow, files * 50))) == files[0][1].file  # the rest is not waited for


def test_a_long_footer_and_long_ranges_are_read_in_parts(
    shards: Path, remote: UPath, traffic: Traffic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "TAIL", 100)
    monkeypatch.setattr(parquet, "PART", 20_000)
    shard = Manifest.read(remote).shards[0]
    footer = read_footer(remote / shard.file, shard)
    assert footer.sha256 == footer_sha256(shards / shard.file) == shard.footer
    with open_parquet(remote / shard.file) as file:
        assert file.read() == pq.read_table(shards / shard.file)
    assert max(end - start for start, end in traffic.of(shard.file)) <= max(20_000, footer.length)


def test_as_many_footers_are_kept_as_fit(
    remote: UPath, traffic: Traffic, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [(remote / s.file, s) for s in Manifest.read(remote).of_split("train")]
    first = [read_footer(*file) for file in files]
    assert [read_footer(*file).sha256 for file in files] == [f.sha256 for f in first]
    assert len(traffic.ranges) == len(files)
    monkeypatch.setattr(parquet, "_FOOTERS_HELD", 1)
    forget(monkeypatch)
    traffic.ranges.clear()
    for file in [files[0], files[0], files[1], files[1], files[0]]:
        assert read_footer(*file).metadata.num_rows == file[1].rows
    assert len(traffic.ranges) == 3


# ------------------------------------------------------------------------------------- read-ahead


def test_row_groups_are_fetched_before_they_are_asked_for_and_each_once(
    remote: UPath, traffic: Traffic
) -> None:
    reader = remote_stream(remote).read(0, 5)
    next(reader)
    deadline = time.monotonic() + 20
    while len(groups := groups_of(traffic)) < 6 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(groups) >= 6  # the first batch is of two or three
    list(reader)
    wanted = [
        (at.file, at.group)
        for at in stream(remote).order.locations(0, 40)  # type: ignore[arg-type]
    ]
    assert len(groups_of(traffic)) == len({*groups_of(traffic)}) == len({*wanted})


def groups_of(traffic: Traffic) -> list[tuple[str, int, int]]:
    """Ranges that are no footers."""
    last = {
        file: max(end for f, _, end in traffic.ranges if f == file) for file, _, _ in traffic.ranges
    }
    return [r for r in traffic.ranges if r[2] != last[r[0]]]


def test_no_more_than_so_many_bytes_are_fetched_ahead(
    shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = Manifest.read(shards)
    turns = [
        Group(shards / s.file, s, group)
        for s in manifest.of_split("train")
        for group in range(len(s.row_groups))
    ]
    monkeypatch.setattr(read_ahead, "AHEAD", sum(group.bytes for group in turns[:3]))
    asked: list[Group] = []
    monkeypatch.setattr(
        read_ahead,
        "fetch_group",
        lambda path, shard, group, *_: asked.append(Group(path, shard, group)),
    )
    ahead = ReadAhead(iter(turns), ("views",), fetch)
    for at, group in enumerate(turns):
        if at == 4:
            continue  # a reader that does not come for one stops nothing
        ahead(*group, ("views",))
        assert len(asked) <= at + 4
    ahead.close()
    assert sorted(asked, key=str) == sorted(turns, key=str)


def test_a_reader_s_turns_are_those_that_it_will_fetch(shards: Path) -> None:
    rows = Manifest.read(shards).of_split("train")[0].row_groups
    assert list(groups_in_turn([0, 0, 1, 0, 2, 1, 0], lambda group: rows[group], 8)) == [0, 1, 2, 0]


# ------------------------------------------------------------------------------- what goes wrong


def test_another_object_under_the_name_is_refused(shards: Path, remote: UPath) -> None:
    manifest = Manifest.read(remote)
    first, second, third = manifest.of_split("train")[:3]
    other = (shards / second.file).read_bytes()
    (remote / first.file).write_bytes(other[: first.bytes].ljust(first.bytes, b"x"))
    with pytest.raises(DamagedShard, match=rf"{first.file} is not the file that ingest wrote"):
        read_rows(remote / first.file, first, 0, ("study_id",))
    # of the same size, and whole: its footer tells
    same = replace(third, bytes=second.bytes, row_groups=second.row_groups)
    (remote / third.file).write_bytes(other)
    with pytest.raises(
        DamagedShard, match=r"sha256 \w{64} of its footer, manifest.json says \w{64}"
    ):
        read_rows(remote / third.file, same, 0, ("study_id",))
    (remote / second.file).write_bytes(other[:-50])
    with pytest.raises(DamagedShard, match=r"is not the file"):
        read_rows(remote / second.file, second, 0, ("study_id",))
    for rest in (b"", b"x" * 10):  # no byte of the ranges that are wanted
        (remote / second.file).write_bytes(rest)
        with pytest.raises(DamagedShard, match=rf"\({len(rest)} bytes, manifest.json says"):
            read_rows(remote / second.file, second, 0, ("study_id",))
    with pytest.raises(DamagedShard, match=r"is not the file .* bytes, manifest.json says"):
        ShardSet.read(remote).check_sizes()


def test_damage_and_missing_objects_stop_a_run_or_are_replaced_as_on_disk(
    shards: Path, remote: UPath, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(shards, damaged)
    first, second = Manifest.read(shards).of_split("train")[:2]
    content = bytearray((shards / first.file).read_bytes())
    start, _ = ranges_of(pq.read_metadata(shards / first.file), [1], ["views"])[0]
    content[start + 2000] ^= 1
    for folder in (damaged, remote):
        (folder / first.file).write_bytes(bytes(content))
        (folder / second.file).unlink()
    with pytest.raises(DamagedShard, match="cannot be read"):
        blocks(remote_stream(remote))
    here = blocks(replace(stream(damaged, steps=5), corrupt="skip"))
    there = blocks(remote_stream(remote, corrupt="skip"))
    lost = [[json.loads(b["lost"][0].as_py()) for b in of] for of in (here, there)]
    places = [{(r["file"], r["group"]) for one in of for r in one} for of in lost]
    # on disk the checksum is of the whole file, in a store of each page: the rest of it is used
    assert {(first.file, 1), *((second.file, group) for group in range(3))} == places[1] < places[0]


def test_what_passes_is_waited_for_as_long_as_the_setting_says(
    shards: Path, remote: UPath, traffic: Traffic
) -> None:
    traffic.failures = [EndpointConnectionError(endpoint_url="s3"), OSError("SlowDown")] * 3
    assert blocks(remote_stream(remote)) == blocks(stream(shards, steps=5))
    assert not traffic.failures
    traffic.failures = [TimeoutError()] * 500
    shard = Manifest.read(remote).shards[0]
    with pytest.raises(TimeoutError, match=f"{shard.file} could not be read for"):
        read_rows(remote / shard.file, shard, 0, ("study_id",), patience=0.1)


@pytest.mark.parametrize("kind", [ConnectionError, PermissionError])
def test_a_store_that_cannot_be_asked_is_none_without_shards(
    kind: type[Exception], remote: UPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: Any, **__: Any) -> None:
        raise kind("YPSILANTI")

    monkeypatch.setattr(S3FileSystem, "_call_s3", away)
    with pytest.raises(OSError, match=r"manifest.json cannot be read \(.*YPSILANTI") as told:
        Manifest.read(remote)
    assert isinstance(told.value, PermissionError) == (kind is PermissionError)


def test_no_permission_is_no_damage(remote: UPath, traffic: Traffic) -> None:
    traffic.failures = [PermissionError("Forbidden") for _ in range(200)]
    with pytest.raises(PermissionError, match="Forbidden"):
        blocks(remote_stream(remote, corrupt="skip"))


# ------------------------------------------------------------------------------------- the cache


def disk_use(folder: Path) -> int:
    """Bytes that a folder takes on its disk, as long as others write to it."""
    total = 0
    for root, _, files in os.walk(folder):
        for file in files:
            try:
                total += os.stat(os.path.join(root, file)).st_blocks * 512
            except FileNotFoundError:
                continue
    return total


def test_what_a_node_has_read_it_does_not_fetch_again(
    shards: Path, remote: UPath, traffic: Traffic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = remote_stream(remote, cache=CacheSettings(tmp_path / "cache", 64 << 20))
    expected = blocks(stream(shards, steps=5))
    assert blocks(cached) == expected
    assert traffic.bytes
    traffic.ranges.clear()
    forget(monkeypatch)  # another process
    assert blocks(cached) == expected
    assert not traffic.ranges  # not even footers
    (place,) = (tmp_path / "cache").iterdir()
    assert place.stat().st_mode & 0o077 == 0


def test_a_damaged_disk_costs_what_was_on_it(
    shards: Path, remote: UPath, traffic: Traffic, tmp_path: Path
) -> None:
    cached = remote_stream(remote, cache=CacheSettings(tmp_path, 64 << 20))
    expected = blocks(cached)
    pieces = sorted(tmp_path.glob("*/??/*"))
    pieces[0].write_bytes(pieces[0].read_bytes()[:-1])
    pieces[1].write_bytes(b"")
    pieces[2].unlink()
    traffic.ranges.clear()
    assert blocks(cached) == expected
    assert 1 <= len(traffic.ranges) <= 3  # a footer is in memory
    index = next(tmp_path.glob("*/index.sqlite"))
    index.write_bytes(b"no index" * 600)
    read = blocks(cached)
    assert silent(read) == silent(expected)
    assert sum("cannot be used" in block["note"][0].as_py() for block in read) == 1


def test_a_file_that_was_restored_is_fetched_again_on_every_node(
    shards: Path, remote: UPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = remote_stream(remote, cache=CacheSettings(tmp_path, 64 << 20))
    first = Manifest.read(shards).of_split("train")[0]
    whole = (shards / first.file).read_bytes()
    for damaged in (5000, len(whole) - 500):  # a page, the footer
        forget(monkeypatch)
        content = bytearray(whole)
        content[damaged] ^= 1
        (remote / first.file).write_bytes(bytes(content))
        with pytest.raises(DamagedShard, match=first.file):
            blocks(cached)
        (remote / first.file).write_bytes(whole)
        assert blocks(cached) == blocks(stream(shards, steps=5))
        shutil.rmtree(next(tmp_path.glob("ray_mae-*")))


def test_its_own_pieces_stay_and_those_of_others_that_were_not_used_for_longest_make_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[int] = []

    def fetch_some(
        path: Path, shard: Shard, ranges: list[tuple[int, int]]
    ) -> list[tuple[int, bytes]]:
        fetched.extend(start for start, _ in ranges)
        return [(start, bytes(end - start)) for start, end in ranges]

    monkeypatch.setattr(node_cache, "fetch", fetch_some)
    shard = Shard("a", "train", 1, [1], 1, 1, "0" * 64)
    room = 4096 + 512
    size = 4000
    limit = INDEX_BYTES + 4 * room

    def get(cache: NodeCache, *starts: int) -> list[int]:
        fetched.clear()
        for start in starts:
            assert cache.fetch(tmp_path / "a", shard, [(start, start + size)]) == [
                (start, bytes(size))
            ]
        return list(fetched)

    first, second = NodeCache(tmp_path, limit, "first"), NodeCache(tmp_path, limit, "second")
    assert get(first, 1, 2, 3, 4, 5) == [1, 2, 3, 4, 5]
    assert "is full" in first.take_problem()
    assert first.take_problem() == ""
    assert get(first, 1, 2, 3, 4, 5) == [5]
    assert get(second, 10) == [10]
    assert get(first, 2, 3, 4) == []  # 1 was the oldest
    assert get(second, 10, 2) == []  # who uses a piece has it from then on
    assert get(first, 1, 2, 3, 4) == [1]  # for which 10 had to go
    assert get(second, 11, 12, 13, 14) == [11, 12, 13, 14]
    assert get(second, 11, 12, 13, 14) == []
    first.close()
    second.close()
    smaller = NodeCache(tmp_path, INDEX_BYTES + 2 * room, "second")
    assert len(get(smaller, 11, 12, 13, 14)) == 2
    smaller.close()
    assert sum(1 for _ in tmp_path.glob("*/??/*")) == 2


def use_cache(folder: Path, number: int, limit: int) -> None:
    """A process that reads pieces of all sizes, and may be killed."""
    rng = random.Random(number)
    node_cache.fetch = lambda _, __, ranges: [  # type: ignore[assignment]
        (start, pattern(start, end)) for start, end in ranges
    ]
    cache = NodeCache(folder, limit, f"owner {number % 2}")
    shard = Shard("a", "train", 1, [1], 1, 1, "0" * 64)
    for _ in range(60):
        start = rng.randrange(40) * 1000
        wanted = (start, start + 50_000 + start)
        ((at, content),) = cache.fetch(folder / "a", shard, [wanted])
        assert (at, content) == (start, pattern(*wanted))
        if number == 0 and rng.random() < 0.05:
            os._exit(9)  # killed at some point
    assert not cache.take_problem().count("cannot")
    cache.close()


def pattern(start: int, end: int) -> bytes:
    return np.full(end - start, start % 251, np.uint8).tobytes()


def test_processes_that_share_a_cache_and_are_killed_never_make_it_larger_than_it_may_be(
    tmp_path: Path,
) -> None:
    limit = INDEX_BYTES + (1 << 20)
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=use_cache, args=(tmp_path, n, limit)) for n in range(3)]
    for process in processes:
        process.start()
    largest = 0
    while any(process.is_alive() for process in processes):
        largest = max(largest, disk_use(tmp_path))
        time.sleep(0.01)
    for process in processes:
        process.join()
    assert [p.exitcode for p in processes][1:] == [0, 0]
    assert 1 << 19 < largest <= limit


def test_a_piece_that_a_killed_process_had_begun_is_nobody_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_cache, "fetch", lambda _, __, r: [(a, bytes(b - a)) for a, b in r])
    shard = Shard("a", "train", 1, [1], 1, 1, "0" * 64)
    limit = INDEX_BYTES + 4096 + 512
    killed = NodeCache(tmp_path, limit, "me")
    assert killed._reserve("f" * 32, "of", 4000, time.time())
    (killed._place / "ff").mkdir()
    (killed._place / "ff" / ("f" * 32)).write_bytes(b"half")
    killed.close()
    cache = NodeCache(tmp_path, limit, "me")
    cache.fetch(tmp_path, shard, [(0, 4000)])
    assert [p.name for p in tmp_path.glob("*/??/*")] == ["f" * 32]  # it might still be written
    monkeypatch.setattr(node_cache, "_STALE", -1.0)
    cache.fetch(tmp_path, shard, [(0, 4000)])
    assert [p.name for p in tmp_path.glob("*/??/*")] != ["f" * 32]
    cache.close()


def test_a_full_disk_and_a_folder_of_somebody_else_mean_reading_through(
    shards: Path, remote: UPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = remote_stream(remote, cache=CacheSettings(tmp_path / "cache", 64 << 20))
    expected = blocks(stream(shards, steps=5))

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        read = blocks(cached)
    assert silent(read) == silent(expected)
    said = [text for b in read if (text := b["note"][0].as_py())]
    assert len(said) == 1
    assert "No space left on device" in said[0]
    assert not list((tmp_path / "cache").glob("*/??/*"))
    (tmp_path / "file").write_bytes(b"")
    broken = blocks(replace(cached, cache=CacheSettings(tmp_path / "file", 64 << 20)))
    assert silent(broken) == silent(expected)


def test_a_run_hears_once_that_the_cache_is_too_small(
    shards: Path, remote: UPath, tmp_path: Path
) -> None:
    small = remote_stream(remote, cache=CacheSettings(tmp_path, INDEX_BYTES + 200_000))
    # of three tasks, each with a reader of its own
    blocks = (block for step in range(3) for block in small.read(step, step + 1))
    batches = Batches(blocks, KINDS["study"], torch.device("cpu"))
    said = []
    for step in (0, 0, 1, 1, 2, 2):
        batches.next(step)
        said.append(batches.take_note())
    assert sum("is full" in text for text in said) == 1
    assert disk_use(tmp_path) <= INDEX_BYTES + 200_000
