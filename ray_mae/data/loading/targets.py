"""Labels of samples as targets of a training: by the key of the sample, without its images."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ray_mae.config.sections import LabelTargets
from ray_mae.data.label_names import check_there, states_by_name
from ray_mae.data.labels import NEGATIVE, NOT_LABELLED, POSITIVE, binary_targets, normalised
from ray_mae.data.loading.order import key_of
from ray_mae.data.loading.rows import damage_by
from ray_mae.data.parquet import map_files, open_parquet
from ray_mae.data.schema import NOUNS, Manifest, Row, Shard
from ray_mae.data.shard_set import ShardSet

UNKNOWN = -1


@dataclass(frozen=True, eq=False)
class Targets:
    """Of the samples of a split."""

    keys: NDArray[np.int64]
    """[K] of the samples, by `key_of`, rising."""
    values: NDArray[np.int8]
    """[K, L] 0, 1, or UNKNOWN."""
    names: tuple[str, ...]
    """[L]"""
    positive_weight: NDArray[np.float32]
    """[L] factor of positives, 0 for a label of which nothing is learnt; that of negatives is 1."""
    cautions: tuple[str, ...] = ()
    """What a user may not have meant, in sentences."""

    def table(self) -> dict[str, dict[str, float]]:
        """By label: samples with it, without it, and the weight of a positive."""
        return {
            name: {
                "positives": int((column == 1).sum()),
                "negatives": int((column == 0).sum()),
                "weight": round(float(weight), 4),
            }
            for name, column, weight in zip(
                self.names, self.values.T, self.positive_weight, strict=True
            )
        }

    def of(self, keys: NDArray[np.int64]) -> dict[str, NDArray[np.float32]]:
        """Arrays of a batch, by name, of samples by their keys [S]; of others nothing is known."""
        values = np.full((len(keys), self.values.shape[1]), UNKNOWN, np.int8)
        if len(self.keys):
            at = np.searchsorted(self.keys, keys).clip(max=len(self.keys) - 1)
            found = self.keys[at] == keys
            values[found] = self.values[at[found]]
        target = (values == 1).astype(np.float32)
        known = (values != UNKNOWN) & (self.positive_weight > 0)
        weight = np.where(values == 1, self.positive_weight, 1) * known
        return {"target": target, "target_weight": weight.astype(np.float32)}


def read_targets(
    shards: ShardSet,
    wanted: LabelTargets,
    split: str = "train",
    *,
    positive_weight: Sequence[float] | None = None,
    skip: bool = False,
) -> Targets:
    """Reads labels and identifiers of one split, and no other column.

    Args:
        shards: what a run reads.
        wanted: which labels, and what their states count as.
        split: whose rows are read.
        positive_weight: [L] that of the training split, for the others; None: it is that of these rows,
            n⁻/n⁺ between 1 and `wanted.positive_most`.
        skip: of files that cannot be read nothing is known.

    Raises:
        DamagedShard: a file cannot be read.
        ValueError: there is no such label, or it is no class.
    """
    read = partial(_read, wanted.names, skip)
    files = [
        file
        for folder in shards.folders
        for file in map_files(
            partial(read, folder.manifest),
            [(folder.path / shard.file, shard) for shard in folder.manifest.of_split(split)],
        )
    ]
    states = np.concatenate([np.zeros((0, len(wanted.names)), np.int8), *(f[1] for f in files)])
    keys = np.concatenate([np.zeros(0, np.int64), *(f[0] for f in files)])
    known = binary_targets(states, wanted.uncertain, wanted.unmentioned)
    values = np.where(np.isnan(known), UNKNOWN, known).astype(np.int8)
    cautions: list[str] = []
    if positive_weight is None:
        positive, negative = (values == 1).sum(0), (values == 0).sum(0)
        lacking = (positive == 0) | (negative == 0)
        if lacking.any():
            _require(shards, wanted, files, positive, negative)
            cautions = [_lacks(shards, wanted, lacking, split)]
        ratio = (negative / positive.clip(min=1)).clip(1, wanted.positive_most)
        positive_weight = np.where(lacking, 0, ratio).tolist()
    keys, first = np.unique(keys, return_index=True)
    factors = np.asarray(positive_weight, dtype=np.float32)
    return Targets(keys, values[first], wanted.names, factors, tuple(cautions))


_File = tuple[NDArray[np.int64], NDArray[np.int8], list[Row]]
"""Of a file keys [n], states [n, L], and its rows."""


def _read(names: Sequence[str], skip: bool, manifest: Manifest, path: Path, shard: Shard) -> _File:
    column = f"{manifest.kind}_id"
    columns = [column, "labels"] + (["other_labels"] if manifest.kind == "study" else [])
    try:
        with open_parquet(path, shard) as file:
            rows = file.read(columns=columns).to_pylist()
    except (OSError, pa.ArrowException) as error:
        damage = damage_by(error, path, shard, "labels")
        if not skip:
            raise damage from error
        rows = []
    keys = np.array([key_of(row.pop(column)) for row in rows], np.int64)
    if manifest.kind == "study":
        return keys, states_by_name(rows, manifest.label_names, names), rows
    return keys, _states_of_volumes(rows, names), rows


def _states_of_volumes(rows: Sequence[Row], names: Sequence[str]) -> NDArray[np.int8]:
    """The states [V, L] of volumes, as those of studies. Raises ValueError for a label that is no class."""
    labels = [{normalised(name): value for name, value in row["labels"]} for row in rows]
    there = {name for row in labels for name in row}
    states = np.full((len(rows), len(names)), NOT_LABELLED, np.int8)
    for column, name in enumerate(names):
        label, wanted = _value_of(name, there)
        values = np.array([row.get(label, np.nan) for row in labels], np.float64)
        known = ~np.isnan(values)
        if wanted is None and not np.isin(values[known], (0, 1)).all():
            several = ", ".join(f"{v:g}" for v in np.unique(values[known])[:5])
            raise ValueError(
                f"method.labels: {name} has other values than 0 and 1 ({several}): name one of them, such "
                f"as {name}={values[known].max():g}, against all others"
            )
        is_it = values == (1 if wanted is None else wanted)
        states[known, column] = np.where(is_it, POSITIVE, NEGATIVE)[known]
    return states


def _value_of(name: str, there: set[str]) -> tuple[str, float | None]:
    """A label of volumes, and which value of it is meant; None: 1."""
    label, equals, value = name.rpartition("=")
    if equals and normalised(name) not in there:
        try:
            return normalised(label), float(value)
        except ValueError:
            pass
    return normalised(name), None


def _require(
    shards: ShardSet,
    wanted: LabelTargets,
    files: Sequence[_File],
    positive: NDArray[np.int64],
    negative: NDArray[np.int64],
) -> None:
    """Raise ValueError where a label that somebody named is not there, or has one class alone."""
    if not wanted.named and positive.any():
        return
    rows = [row for file in files for row in file[2]]
    there = (
        {normalised(name) for row in rows for name, _ in row["labels"]}
        if (shards.kind == "volume")
        else set()
    )
    plain = [_value_of(n, there)[0] if shards.kind == "volume" else n for n in wanted.names]
    check_there(shards, rows, plain if wanted.named else [])
    for name, yes, no in zip(wanted.names, positive, negative, strict=True):
        if yes == 0 or no == 0:
            raise ValueError(
                f"method.labels: {name} has {yes} positive and {no} negative training "
                f"{NOUNS[shards.kind]}, and both are needed: name others, or see method.uncertain and "
                "method.unmentioned"
            )


def _lacks(shards: ShardSet, wanted: LabelTargets, lacking: NDArray[np.bool_], split: str) -> str:
    names = ", ".join(name for name, no in zip(wanted.names, lacking, strict=True) if no)
    return (
        f"{names}: no positive or no negative {NOUNS[shards.kind]} of the {split} split, so nothing is "
        "learnt of them (method.labels)"
    )
