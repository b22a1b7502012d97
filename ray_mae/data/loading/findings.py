"""How rare the findings of training samples are: weights of studies, and how often samples are drawn.

Counts are of the train split alone, over all folders that a run reads; no other row is opened. What is
uncertain, not mentioned or not labelled is no finding, and neither is "No Finding".
"""

from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ray_mae.data.labels import POSITIVE, label_named, normalised
from ray_mae.data.loading.order import key_of
from ray_mae.data.loading.rows import damage_by
from ray_mae.data.parquet import map_files, open_parquet
from ray_mae.data.schema import NOUNS, Manifest, Shard
from ray_mae.data.shard_set import ShardSet

_NORMAL = "No Finding"


@dataclass(frozen=True, eq=False)
class StudyWeights:
    """The weight of each training study."""

    keys: NDArray[np.int64]
    """[K] of studies with a finding, rising."""
    values: NDArray[np.float32]
    """[K] their weights."""
    other: float
    """Weight of all others."""

    def of(self, keys: NDArray[np.int64]) -> NDArray[np.float32]:
        """[S] weights of studies by their keys [S]."""
        weights = np.full(len(keys), self.other, np.float32)
        if len(self.keys):
            at = np.searchsorted(self.keys, keys).clip(max=len(self.keys) - 1)
            found = self.keys[at] == keys
            weights[found] = self.values[at[found]]
        return weights


@dataclass(frozen=True, eq=False)
class Findings:
    """Of the training samples of a run."""

    kind: str
    """study or volume"""
    positives: dict[str, int]
    """Samples with each finding, of all folders together."""
    keys: tuple[NDArray[np.int64], ...]
    """Of each folder [n], by `key_of`, in file order."""
    commonness: tuple[NDArray[np.int64], ...]
    """Of each folder [n]: how many samples have the rarest finding of this one; 0 where it has none."""
    unread: tuple[str, ...] = ()
    """Why the samples of a file count as having no finding."""

    @property
    def samples(self) -> int:
        return sum(len(keys) for keys in self.keys)

    def weights(self, power: float, most: float) -> StudyWeights:
        """Weights by the rarest finding c of a study: (n_max / n_c)^power, with the mean 1 over all studies.

        Args:
            power: 0 gives all the weight 1, less than 0 makes rare findings count less.
            most: limit of the weights, and 1 / most of those below 1, before they are divided by their mean.
        """
        rarest = np.concatenate(self.commonness)
        weights = self._raw_weights(rarest, power, most)
        mean = float(weights.mean())
        keys, first = np.unique(np.concatenate(self.keys), return_index=True)
        has = rarest[first] > 0
        values = (weights[first] / mean).astype(np.float32)
        return StudyWeights(keys[has], values[has], 1 / mean)

    def _raw_weights(
        self, rarest: NDArray[np.int64], power: float, most: float
    ) -> NDArray[np.float64]:
        rarity = max(self.positives.values()) / np.maximum(rarest, 1)
        return np.where(rarest > 0, rarity**power, 1.0).clip(1 / most, most)

    def extra_draws(self, below: float, most: float) -> list[NDArray[np.float64]]:
        """How much oftener than once samples are drawn in an epoch: repeat factor sampling, less 1.

        r = max(1, √(below / f_c)) with f_c the share of samples that have the rarest finding c of this one
        (Gupta et al., LVIS, CVPR 2019).

        Args:
            below: share from which on a finding is repeated.
            most: limit of r; LVIS has none.

        Returns:
            Of each folder [n], in file order; changed a little, so that each sums to a whole number.
        """
        extras = []
        for rarest in self.commonness:
            extra = self._raw_draws(rarest, below, most) - 1
            total = float(extra.sum())
            extras.append(extra * (round(total) / total if total else 0.0))
        return extras

    def _raw_draws(
        self, rarest: NDArray[np.int64], below: float, most: float
    ) -> NDArray[np.float64]:
        share = np.maximum(rarest, 1) / self.samples
        return np.where(rarest > 0, np.sqrt(below / share), 1.0).clip(1, most)

    def table(
        self, weights: tuple[float, float] | None, draws: tuple[float, float] | None
    ) -> dict[str, dict[str, float]]:
        """By finding: samples with it, and of one that has no rarer finding the weight and draws of an epoch.

        Args:
            weights: what `weights` takes; None where studies have none.
            draws: what `extra_draws` takes; None where nothing is repeated.
        """
        found: dict[str, dict[str, float]] = {}
        for name, n in [*self.positives.items(), ("none", 0)]:
            one = np.array([n])
            row: dict[str, float] = {"positives": n} if n else {}
            if weights:
                mean = self._raw_weights(np.concatenate(self.commonness), *weights).mean()
                row["weight"] = round(float(self._raw_weights(one, *weights)[0] / mean), 4)
            if draws:
                row["draws"] = round(float(self._raw_draws(one, *draws)[0]), 4)
            found[name] = row
        return found

    def cautions(self, shards: ShardSet, below: float) -> list[str]:
        """What a user of the labels may not have meant, in sentences.

        Args:
            shards: that they are of.
            below: of `extra_draws`; 0 where nothing is repeated.
        """
        noun = NOUNS[self.kind]
        told = [
            f"no {noun} of {folder.path} has a finding: they count as ones without"
            for folder, rarest in zip(shards.folders, self.commonness, strict=True)
            if not rarest.any()
        ]
        if below and min(self.positives.values()) >= below * self.samples:
            name, n = min(self.positives.items(), key=lambda item: item[1])
            told.append(
                f"data.repeat_below ({below:g}) repeats nothing: the rarest finding, {name}, is in "
                f"{n / self.samples:.1%} of the {noun}"
            )
        return [*self.unread, *told]


def read_findings(shards: ShardSet, skip: bool = False) -> Findings:
    """Reads labels and identifiers of the train split, and no other column.

    Args:
        shards: what a run reads.
        skip: samples of files that cannot be read count as having no finding.

    Raises:
        DamagedShard: a file cannot be read.
        ValueError: no training sample has a finding.
    """
    files = [
        list(
            map_files(
                partial(_read, folder.manifest, skip),
                [(folder.path / shard.file, shard) for shard in folder.manifest.of_split("train")],
            )
        )
        for folder in shards.folders
    ]
    every = [file for folder in files for file in folder]
    numbers = {name for file in every for name in file.numbers}
    counts: Counter[str] = Counter()
    for file in every:
        counts.update({name: int(has.sum()) for name, has in file.findings.items()})
    positives = {name: n for name, n in sorted(counts.items()) if n and name not in numbers}
    if not positives:
        raise ValueError(
            f"no {shards.kind} of the train split of {', '.join(map(str, shards.paths))} has a label that is "
            "positive, and this run goes by them (method.labels, method.rare_power, data.repeat_below): "
            "ingest with labels, or leave such settings out"
        )
    written = {
        normalised(name): name for f in shards.folders[::-1] for name in f.manifest.label_names
    }
    empty = np.zeros(0, np.int64)
    return Findings(
        shards.kind,
        {written.get(name, name): n for name, n in positives.items()},
        tuple(np.concatenate([empty, *(f.keys for f in folder)]) for folder in files),
        tuple(np.concatenate([empty, *(f.rarest(positives) for f in folder)]) for folder in files),
        tuple(file.unread for file in every if file.unread),
    )


@dataclass(frozen=True, eq=False)
class _File:
    """What is read of one."""

    keys: NDArray[np.int64]
    """[n] of its samples."""
    findings: dict[str, NDArray[np.bool_]]
    """[n] who has it, by name."""
    numbers: tuple[str, ...] = ()
    """Labels that are no findings, such as an age: they have other values than 0 and 1."""
    unread: str = ""
    """Why it could not be read."""

    def rarest(self, positives: dict[str, int]) -> NDArray[np.int64]:
        """[n] positives of the rarest finding of each sample; 0 where it has none."""
        none = np.iinfo(np.int64).max
        rarest = np.full(len(self.keys), none)
        for name, has in self.findings.items():
            if name in positives:
                rarest[has] = np.minimum(rarest[has], positives[name])
        return np.where(rarest == none, 0, rarest)


def _read(manifest: Manifest, skip: bool, path: Path, shard: Shard) -> _File:
    column = f"{manifest.kind}_id"
    try:
        with open_parquet(path, shard) as file:
            table = file.read(columns=[column, "labels"])
    except (OSError, pa.ArrowException) as error:
        damage = damage_by(error, path, shard, "labels")
        if not skip:
            raise damage from error
        return _File(
            np.zeros(shard.rows, np.int64),
            {},
            unread=f"{damage}; its samples count as having no finding",
        )
    keys = np.array([key_of(name) for name in table[column].to_pylist()], np.int64)
    if manifest.kind == "volume":
        return _of_volumes(keys, [dict(row) for row in table["labels"].to_pylist()])
    names = manifest.label_names
    states = np.array(table["labels"].to_pylist(), np.int8).reshape(len(keys), len(names))
    found = {
        normalised(name): states[:, k] == POSITIVE
        for k, name in enumerate(names)
        if label_named(name) != _NORMAL
    }
    return _File(keys, found)


def _of_volumes(keys: NDArray[np.int64], rows: list[dict[str, float]]) -> _File:
    names = {name for row in rows for name in row}
    return _File(
        keys,
        {normalised(name): np.array([row.get(name) == 1 for row in rows]) for name in names},
        tuple(normalised(n) for n in names if not {row.get(n, 0.0) for row in rows} <= {0.0, 1.0}),
    )
