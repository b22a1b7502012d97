"""What the label maps of a task of segmentation hold: its regions, and which volumes have each of them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from ray_mae.benchmarking.records import SampleTable
from ray_mae.config.suite import TaskEntry
from ray_mae.data.parquet import open_parquet
from ray_mae.data.shard_set import ShardSet
from ray_mae.evaluate.segment.crops import values_in

VALUE = "label "
"""Before a value that is scored by itself."""


def values_of(task: TaskEntry, region: str) -> tuple[int, ...]:
    """The values of label maps that a region is."""
    return tuple(task.regions.get(region) or [int(region.removeprefix(VALUE))])


def classes_of(task: TaskEntry, regions: Sequence[str]) -> tuple[int, ...]:
    """The values that a network learns to tell apart, the background first: those of the scored regions."""
    return (0, *sorted({value for region in regions for value in values_of(task, region)}))


def read_regions(
    shards: ShardSet,
    table: SampleTable,
    task: TaskEntry,
    splits: Sequence[str],
    names: Sequence[str] | None,
) -> tuple[NDArray[np.float64], list[str], dict[str, str]]:
    """Returns targets [S, L]: 1 where a volume has a region, 0 where it has not, NaN without a label map.

    Args:
        shards: one folder of volumes.
        table: who is in it.
        task: with its regions.
        splits: whose label maps are read; files of others are not opened.
        names: of the regions, once they are fixed; None: those of the task, or the training volumes' values.

    Returns:
        Targets, names, and what is no region or cannot be learnt, with the reason.

    Raises:
        ValueError: the volumes hold no label map with more than background.
    """
    found = _values(shards, table, splits)
    left_out: dict[str, str] = {}
    if names is None:
        names, left_out = _named(shards, table, task, found)
    targets = np.full((len(table.sample), len(names)), np.nan)
    for i, name in enumerate(table.sample.tolist()):
        if (there := found.get(name)) is not None:
            targets[i] = [bool(there & {*values_of(task, region)}) for region in names]
    return targets, list(names), left_out


def _values(
    shards: ShardSet, table: SampleTable, splits: Sequence[str]
) -> dict[str, frozenset[int] | None]:
    """The values of each volume's label map by its name, of some splits of the table; None without one."""
    (folder,) = shards.folders
    wanted = {*table.sample[np.isin(table.split, splits)].tolist()}
    found: dict[str, frozenset[int] | None] = {}
    for shard in folder.manifest.shards:
        with open_parquet(folder.path / shard.file, shard) as file:
            names = file.read(columns=["volume_id"])["volume_id"].to_pylist()
        if not wanted & {*names}:
            continue
        values = values_in({"shards": str(folder.path), "shard": asdict(shard)})
        for name, of_row in zip(names, values, strict=True):
            found[name] = None if of_row is None else frozenset(of_row)
    return found


def _named(
    shards: ShardSet,
    table: SampleTable,
    task: TaskEntry,
    found: Mapping[str, frozenset[int] | None],
) -> tuple[list[str], dict[str, str]]:
    """Names of the regions that training volumes hold, and of the others with the reason."""
    (folder,) = shards.folders
    by_split = {
        split: {v for n in table.sample[table.split == split].tolist() for v in found.get(n) or ()}
        for split in ("train", "val")
    }
    learnt = by_split["train"] - {0}
    if not learnt:
        raise ValueError(
            f"{folder.path} holds no label map with more than background in train: ingest volumes with "
            "their segmentations"
        )
    if not task.regions:
        return [f"{VALUE}{value}" for value in sorted(learnt)], {
            f"{VALUE}{value}": "not in the training volumes; counts as background"
            for value in sorted(by_split["val"] - learnt - {0})
        }
    missing = {n: v for n, v in task.regions.items() if not learnt & {*v}}
    there = ", ".join(map(str, sorted(learnt)))
    why = f"no training volume has any of its values; there are {there}"
    return [n for n in task.regions if n not in missing], dict.fromkeys(missing, why)
