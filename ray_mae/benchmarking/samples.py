"""Who is in a data set of the suite, and what is to be told of them, of the splits that are asked for."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ray_mae.benchmarking.label_maps import read_regions
from ray_mae.benchmarking.records import SampleTable
from ray_mae.config.suite import DatasetEntry, TaskEntry
from ray_mae.data.label_names import check_there, of_volumes, pooled_names, states_by_name
from ray_mae.data.labels import binary_targets
from ray_mae.data.parquet import map_files, open_parquet, read_columns
from ray_mae.data.schema import Row, Shard
from ray_mae.data.shard_set import ShardSet
from ray_mae.evaluate.cohort import check_splits, label_targets

TEST = "test"
OF_MANIFEST = ("session_id", "site", "modality", "years")
"""Columns that are attributes, where rows have them, beside those that the manifest names."""


@dataclass(frozen=True)
class LabelSet:
    """The labels of a task, fixed before a test label was read."""

    names: list[str]
    """[L]"""
    left_out: dict[str, str]
    """Name → why."""


def read_samples(entry: DatasetEntry) -> SampleTable:
    """Returns who is in a data set, without any target.

    Of an external data set every sample is a test sample.

    Raises:
        FileNotFoundError: there are no shards.
        ValueError: a patient is in two splits.
        DamagedShard: a file is not of the size that its manifest says.
    """
    shards = ShardSet.read(entry.shards)
    shards.check_sizes()
    (folder,) = shards.folders
    kind, attributes = shards.kind, list(folder.manifest.attributes)
    columns = [f"{kind}_id", "patient_id", "split"]

    def read(path: Path, shard: Shard) -> list[Row]:
        with open_parquet(path, shard) as file:
            there = file.schema_arrow.names
            own = [name for name in (*OF_MANIFEST, *attributes) if name in there]
            inner = ["views.list.element.view", "views.list.element.position"]
            wanted = columns + own + (inner if kind == "study" else [])
            return cast(list[Row], file.read(columns=wanted).to_pylist())

    files = [(folder.path / shard.file, shard) for shard in folder.manifest.shards]
    rows = [row for of_file in map_files(read, files) for row in of_file]
    sample, patient, split = (np.array([row[c] for row in rows], dtype=np.str_) for c in columns)
    if entry.role == "external":
        split = np.full(len(rows), TEST)
    else:
        check_splits(patient, split, sorted(set(split.tolist())))
    order = np.argsort(sample)
    table = SampleTable(sample, patient, split, _attributes(rows, attributes, kind))
    return take(table, order)


def take(table: SampleTable, rows: NDArray[Any]) -> SampleTable:
    """Some samples of a table, in the order of `rows`."""
    return SampleTable(
        table.sample[rows],
        table.patient[rows],
        table.split[rows],
        {name: values[rows] for name, values in table.attributes.items()},
        {task: values[rows] for task, values in table.targets.items()},
        dict(table.names),
    )


def _attributes(rows: Sequence[Row], named: list[str], kind: str) -> dict[str, NDArray[Any]]:
    found = {name: [row.get(name) for row in rows] for name in (*OF_MANIFEST, *named)}
    if kind == "study":
        views = [[view["view"] for view in row["views"]] for row in rows]
        positions = [{v["position"] for v in row["views"] if v["position"]} for row in rows]
        found["views"] = [len(of) for of in views]
        found["view"] = ["+".join(sorted(set(of))) for of in views]
        found["position"] = ["+".join(sorted(of)) or None for of in positions]
    arrays = {}
    for name, values in found.items():
        if any(value is not None for value in values):
            arrays[name] = np.empty(len(values), dtype=object)
            arrays[name][:] = values
    return arrays


# ------------------------------------------------------------------------------------------- targets


def read_targets(
    entry: DatasetEntry,
    table: SampleTable,
    task: TaskEntry,
    splits: Sequence[str],
    names: Sequence[str] | None,
) -> tuple[NDArray[np.float64], list[str], dict[str, str]]:
    """Returns targets [S, L] of a task in the splits that may be looked at, NaN elsewhere.

    Args:
        entry: the data set.
        table: who is in it.
        task: what is to be told.
        splits: whose labels are read; files of others are not opened for it.
        names: [L] of the labels, once they are fixed; None: those that the task or the data set names.

    Returns:
        Targets, names, and labels that are none, with the reason.

    Raises:
        ValueError: the data set has no such label.
    """
    if task.kind == "number" and task.labels and task.labels[0] in table.attributes:
        return _of_attribute(table, task.labels[0], splits), list(task.labels), {}
    shards = ShardSet.read(entry.shards)
    if task.kind == "segmentation":
        return read_regions(shards, table, task, splits, names)
    (folder,) = shards.folders
    wanted = list(names) if names is not None else (list(task.labels) or None)
    external = entry.role == "external"
    columns = [f"{shards.kind}_id", "labels"] + ["other_labels"] * (shards.kind == "study")
    rows: list[Row] = []
    files = [
        (folder.path / shard.file, shard)
        for shard in folder.manifest.shards
        if (TEST if external else shard.split) in splits
    ]
    for of_file in read_columns(files, columns):
        rows += of_file.to_pylist()
    if names is None and wanted:
        check_there(shards, rows, wanted)
    left_out: dict[str, str] = {}
    if shards.kind == "study":
        wanted = wanted or pooled_names(shards)
        states = states_by_name(rows, folder.manifest.label_names, wanted)
        values: NDArray[Any] = binary_targets(states, task.uncertain, task.unmentioned)
    elif task.kind in ("number", "survival"):
        wanted = wanted or []
        labels = of_volumes(rows, wanted)
        values = np.array([[row.get(n, np.nan) for n in wanted] for row in labels], np.float64)
    elif names is not None:
        values = _as_named(of_volumes(rows, None), wanted or [])
    else:
        values, wanted, left_out = label_targets(of_volumes(rows, wanted))
    place = {name: i for i, name in enumerate(table.sample.tolist())}
    targets = np.full((len(table.sample), len(wanted or [])), np.nan)
    if rows:
        targets[[place[row[columns[0]]] for row in rows]] = values
    return targets, list(wanted or []), left_out


def _of_attribute(table: SampleTable, name: str, splits: Sequence[str]) -> NDArray[np.float64]:
    try:
        values = [np.nan if v is None else float(v) for v in table.attributes[name]]
    except ValueError as error:
        raise ValueError(f"the attribute {name} is no number: {error}") from error
    numbers = np.array(values)[:, None]
    numbers[~np.isin(table.split, list(splits))] = np.nan
    return numbers


def _as_named(labels: Sequence[dict[str, float]], names: Sequence[str]) -> NDArray[np.float64]:
    """Targets [V, L] of volumes by names that `label_targets` gave, such as grade or grade=2."""
    targets = np.full((len(labels), len(names)), np.nan)
    for column, name in enumerate(names):
        base, _, value = name.rpartition("=")
        for i, row in enumerate(labels):
            if name in row:
                targets[i, column] = row[name] if np.isnan(row[name]) else row[name] != 0
            elif base and base in row:
                targets[i, column] = row[base] == float(value)
    return targets


def few_patients(
    targets: NDArray[np.float64], patient: NDArray[np.str_], least: int
) -> dict[str, int] | None:
    """Patients of each class of one label, where those of one are fewer than `least`; else None.

    Args:
        targets: [S] of 0, 1 or NaN.
        patient: [S]
        least: patients of a class.
    """
    counts = {
        word: len(np.unique(patient[targets == value]))
        for word, value in (("positive", 1), ("negative", 0))
    }
    return counts if min(counts.values()) < least else None


def fix_labels(
    table: SampleTable,
    task: TaskEntry,
    targets: NDArray[np.float64],
    names: Sequence[str],
    left_out: dict[str, str],
    splits: Sequence[str] = ("train", "val"),
) -> LabelSet:
    """Returns the labels of a task that have patients enough of each class in each of the splits; of regions
    it is those who have it that count."""
    if task.kind not in ("labels", "segmentation"):
        return LabelSet(list(names), dict(left_out))
    kept, out = [], dict(left_out)
    for i, name in enumerate(names):
        for split in splits:
            rows = table.split == split
            if why := _too_few(task, targets[rows, i], table.patient[rows], split):
                out[name] = why
                break
        else:
            kept.append(name)
    return LabelSet(kept, out)


def _too_few(
    task: TaskEntry, target: NDArray[np.float64], patient: NDArray[np.str_], split: str
) -> str:
    """Why a split cannot tell of a label [S]; "" where it can."""
    if task.kind == "segmentation":
        have = len(np.unique(patient[target == 1]))
        told = f"{have} patients have it in {split}; at least {task.least_patients}"
        return "" if have >= task.least_patients else f"{told} needed (least_patients)"
    if few := few_patients(target, patient, task.least_patients):
        return (
            f"{few['positive']} positive and {few['negative']} negative patients in {split}; "
            f"at least {task.least_patients} of each needed (least_patients)"
        )
    return ""


def with_targets(
    table: SampleTable, task: str, targets: NDArray[np.float64], names: list[str]
) -> SampleTable:
    """The table with the targets of one more task."""
    return replace(
        table, targets={**table.targets, task: targets}, names={**table.names, task: names}
    )
