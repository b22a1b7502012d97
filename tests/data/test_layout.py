from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_mae.data.layout import Layout, cut
from ray_mae.data.schema import SPLITS

IDS = st.lists(st.text("abcdef", min_size=1, max_size=4), unique=True, max_size=40)


def laid(ids: list[str], earlier: Layout) -> dict[str, list[str]]:
    """The split of a sample follows from its name."""
    shards = cut(sorted(ids), lambda i: SPLITS[ord(i[0]) % 3], lambda i: i, earlier)
    found = {}
    for file, split, samples in shards:
        assert file.startswith(f"{split}-")
        assert file not in found
        found[file] = samples
    return found


def test_without_an_earlier_run_the_samples_are_cut_in_order() -> None:
    assert laid(list("cfad"), Layout(1, {})) == {
        "train-00000.parquet": ["c"], "train-00001.parquet": ["f"],
        "val-00000.parquet": ["a"], "val-00001.parquet": ["d"],
    }  # fmt: skip


@given(IDS, IDS, st.integers(1, 5))
def test_what_grows_or_shrinks_keeps_its_place(
    before: list[str], after: list[str], per_shard: int
) -> None:
    first = laid(before, Layout(per_shard, {}))
    second = laid(after, Layout(per_shard, first))
    assert sorted(i for ids in second.values() for i in ids) == sorted(after)
    assert all(1 <= len(ids) <= per_shard for ids in second.values())
    assert laid(after, Layout(per_shard, second)) == second
    for file, ids in first.items():
        kept = [i for i in ids if i in after]
        assert second.get(file, [])[: len(kept)] == kept
        if kept == ids and len(ids) == per_shard:
            assert second[file] == ids, "a full shard of which nothing is gone is as it was"


def test_a_layout_of_shards_of_another_size_or_a_broken_one_is_not_followed(tmp_path: Path) -> None:
    layout = Layout(3, {"train-00000.parquet": ["a", "b"], "val-00000.parquet": ["c"]})
    layout.write(tmp_path)
    assert Layout.read(tmp_path, 3) == layout
    assert Layout.read(tmp_path, 4) == Layout(4, {})
    (tmp_path / "layout.parquet").write_bytes(b"cut off")
    assert Layout.read(tmp_path, 3) == Layout(3, {})


@pytest.mark.parametrize("missing", [True, False])
def test_without_a_layout_there_is_none(tmp_path: Path, missing: bool) -> None:
    assert Layout.read(tmp_path / "no" if missing else tmp_path, 3).shards == {}
