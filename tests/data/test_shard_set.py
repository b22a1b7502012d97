"""Folders of shards together: their shares, their names, and what cannot go together."""

import re
from pathlib import Path

import pytest

from ray_mae.data.schema import SCHEMA_VERSION, Manifest, Shard
from ray_mae.data.shard_set import ShardSet


def folder(
    path: Path,
    train: int = 8,
    *,
    kind: str = "study",
    dataset: str | None = None,
    spacing_mm: float | None = None,
) -> Path:
    """Only the manifest of shards, with two validation samples; the data set is called as the folder."""
    path.mkdir(parents=True)
    rows = {"train": train, "val": 2}
    shards = [
        Shard(f"{split}-00000.parquet", split, n, [n], n, 100 * n, "")
        for split, n in rows.items()
        if n
    ]
    Manifest(kind, dataset or path.name, SCHEMA_VERSION, shards, spacing_mm).write(path)
    return path


def shares(shards: ShardSet) -> dict[str, float]:
    return {f.name: f.share for f in shards.folders}


def test_by_default_each_folder_has_the_share_that_it_has_of_all_training_samples(
    tmp_path: Path,
) -> None:
    paths = [folder(tmp_path / name, train) for name, train in (("a", 60), ("b", 30), ("c", 10))]
    shards = ShardSet.read(paths)
    assert shares(shards) == pytest.approx({"a": 0.6, "b": 0.3, "c": 0.1})
    assert (len(shards), shards.kind, shards.paths) == (3, "study", tuple(paths))
    assert (shards.rows("train"), shards.rows("val"), shards.rows("test")) == (100, 6, 0)
    assert [path for path, _ in shards.of_split("train")] == [
        path / "train-00000.parquet" for path in paths
    ]


@pytest.mark.parametrize("given", [[3, 1], [0.75, 0.25], [30.0, 10.0]])
def test_shares_may_be_in_any_unit(tmp_path: Path, given: list[float]) -> None:
    paths = [folder(tmp_path / "a", 10), folder(tmp_path / "b", 1000)]
    assert shares(ShardSet.read(paths, given)) == {"a": 0.75, "b": 0.25}


def test_one_folder_is_a_set_too_with_samples_of_training_or_without(tmp_path: Path) -> None:
    for name, train in (("a", 10), ("b", 0)):
        shards = ShardSet.read(folder(tmp_path / name, train))
        assert shares(shards) == {name: 1.0}
        assert shards.describe() == f"in {tmp_path / name}"
    assert shares(ShardSet.read([tmp_path / "a"], [0.2])) == {"a": 1.0}


def test_what_a_run_reads_is_described_with_its_shares(tmp_path: Path) -> None:
    paths = [folder(tmp_path / "a", 1500), folder(tmp_path / "b", 500)]
    assert (
        ShardSet.read(paths).describe()
        == "of a (1,500, 75.0% of the draws), b (500, 25.0% of the draws)"
    )


def test_data_sets_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    paths = [
        folder(tmp_path / "2019", dataset="hospital"),
        folder(tmp_path / "2020", dataset="hospital"),
        folder(tmp_path / "public"),
    ]
    assert ShardSet.read(paths).names == ("hospital (2019)", "hospital (2020)", "public")


def test_data_sets_and_folders_of_one_name_are_told_apart_by_the_folders_above(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    north = folder(tmp_path / "north" / "shards", dataset="hospital")
    south = folder(tmp_path / "south" / "shards", dataset="hospital")
    names = ShardSet.read([north, south]).names
    assert names == ("hospital (north/shards)", "hospital (south/shards)")
    monkeypatch.chdir(south)
    assert ShardSet.read([north, Path()]).names == names


def test_kinds_do_not_go_together(tmp_path: Path) -> None:
    a, b = folder(tmp_path / "a"), folder(tmp_path / "b", kind="volume")
    with pytest.raises(ValueError, match=f"must be of one kind: {a} study, {b} volume"):
        ShardSet.read([a, b])


def test_volumes_of_other_spacings_do_not_go_together(tmp_path: Path) -> None:
    a, b, c = (
        folder(tmp_path / name, kind="volume", spacing_mm=spacing)
        for name, spacing in (("a", 1.0), ("b", 2.0), ("c", None))
    )
    with pytest.raises(ValueError, match=rf"must be of one spacing in mm: {a} 1\.0, {b} 2\.0"):
        ShardSet.read([a, b])
    with pytest.raises(ValueError, match=rf"must be of one spacing in mm: {a} 1\.0, {c} None"):
        ShardSet.read([a, c])
    assert ShardSet.read(a).spacing_mm == 1.0


def test_there_is_a_share_for_each_folder(tmp_path: Path) -> None:
    paths = [folder(tmp_path / "a"), folder(tmp_path / "b")]
    for given in ([1.0], [0.5, 0.25, 0.25]):
        text = ", ".join(f"{share:g}" for share in given)
        with pytest.raises(
            ValueError,
            match=re.escape(f"shares ({text}) must be as many as the folders of shards, 2"),
        ):
            ShardSet.read(paths, given)


@pytest.mark.parametrize("share", [0.0, -1.0])
def test_a_share_is_more_than_nothing(tmp_path: Path, share: float) -> None:
    paths = [folder(tmp_path / "a"), folder(tmp_path / "b")]
    with pytest.raises(ValueError, match=f"must be more than 0, got {share:g} for {paths[1]}"):
        ShardSet.read(paths, [1.0, share])


def test_a_folder_is_not_taken_twice_by_whatever_path(tmp_path: Path) -> None:
    a = folder(tmp_path / "a")
    (tmp_path / "link").symlink_to(a)
    for again in (a, tmp_path / "b" / ".." / "a", tmp_path / "link"):
        with pytest.raises(ValueError, match=f"shards names {a} twice: .* larger share by shares"):
            ShardSet.read([a, again])


def test_a_folder_without_training_samples_is_no_part_of_a_set(tmp_path: Path) -> None:
    paths = [folder(tmp_path / "a"), folder(tmp_path / "b", train=0)]
    for given in (None, [1.0, 1.0]):
        with pytest.raises(
            ValueError, match=f"{paths[1]} holds no studies of the train split: leave it out"
        ):
            ShardSet.read(paths, given)


def test_no_folder_and_one_without_shards_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shards names no folder"):
        ShardSet.read([])
    with pytest.raises(FileNotFoundError, match=f"{tmp_path} holds no shards; run `ray-mae ingest"):
        ShardSet.read([folder(tmp_path / "a"), tmp_path])
