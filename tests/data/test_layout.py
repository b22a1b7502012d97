from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_mae.data.ingest.layout import Layout, cut_into_shards, write_layout
from ray_mae.data.schema import SPLITS

IDS = st.lists(st.text("abcdef", min_size=1, max_size=4), unique=True, max_size=40)


def laid(ids: list[str], earlier: Layout) -> dict[str, list[str]]:
    """The split of a sample follows from its name."""
    shards = cut_into_shards(sorted(ids), lambda i: SPLITS[ord(i[0]) % 3], lambda i: i, earlier)
    files = {}
    for file, split, samples in shards:
        assert file.startswith(f"{split}-")
        assert file not in files
        files[file] = samples
    return files


def test_without_an_earlier_run_the_samples_are_cut_in_order() -> None:
    assert laid(list("cfad"), Layout.of(1)) == {
        "train-00000.parquet": ["c"], "train-00001.parquet": ["f"],
        "val-00000.parquet": ["a"], "val-00001.parquet": ["d"],
    }  # fmt: skip


@given(IDS, IDS, st.integers(1, 5))
def test_what_grows_or_shrinks_keeps_its_place(
    before: list[str], after: list[str], per_shard: int
) -> None:
    first = laid(before, Layout.of(per_shard))
    second = laid(after, Layout.of(per_shard, first.items()))
    assert sorted(i for ids in second.values() for i in ids) == sorted(after)
    assert all(1 <= len(ids) <= per_shard for ids in second.values())
    assert laid(after, Layout.of(per_shard, second.items())) == second
    for file, ids in first.items():
        kept = [i for i in ids if i in after]
        assert second.get(file, [])[: len(kept)] == kept
        if kept == ids and len(ids) == per_shard:
            assert second[file] == ids, "a full shard of which nothing is gone is as it was"


def test_a_layout_of_shards_of_another_size_or_a_broken_one_is_not_followed(tmp_path: Path) -> None:
    shards = [("train-00000.parquet", ["a", "bc"]), ("val-00000.parquet", ["b"])]
    write_layout(tmp_path, 3, "secret", shards)
    read = Layout.read(tmp_path, 3)
    for file, samples in shards:
        assert [read.find(sample) for sample in samples] == [
            (file, place) for place in range(len(samples))
        ]
    assert read.find("") is read.find("bb") is read.find("c") is None
    assert Layout.read(tmp_path, 4).find("a") is None
    (tmp_path / "layout.parquet").write_bytes(b"cut off")
    assert Layout.read(tmp_path, 3).find("a") is None


@pytest.mark.parametrize("missing", [True, False])
def test_without_a_layout_there_is_none(tmp_path: Path, missing: bool) -> None:
    assert Layout.read(tmp_path / "no" if missing else tmp_path, 3).files == []
