"""Who is in shards: rows by location, patient, split and labels, without their images."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ray_mae.data.labels import CHEXPERT_LABELS, binary_targets
from ray_mae.data.loading.order import RowLocation
from ray_mae.data.schema import SPLITS, Manifest
from ray_mae.data.shard_set import ShardSet
from ray_mae.evaluate.metrics import FloatArray


@dataclass(frozen=True)
class LabelCount:
    """Studies of one split by their target for one label."""

    positive: int
    negative: int
    ignored: int


@dataclass(frozen=True)
class SplitCount:
    """What one split holds, after the choice of training studies."""

    studies: int
    patients: int
    labels: dict[str, LabelCount]
    """All labels, also those left out."""


@dataclass(frozen=True)
class Cohort:
    """S studies or volumes, in the order of the files."""

    kind: str
    """study or volume"""
    location: list[RowLocation]
    """[S] where its row lies."""
    name: NDArray[np.str_]
    """[S] study_id or volume_id."""
    patient: NDArray[np.str_]
    """[S]"""
    split: NDArray[np.str_]
    """[S]"""
    labels: list[Any]
    """[S] label states of a study, or the labels of a volume by name."""

    def rows(self, split: str, wanted: NDArray[np.bool_] | None = None) -> NDArray[np.intp]:
        """Indices of a split's rows, or of the wanted [S] ones among them."""
        inside = self.split == split
        return np.flatnonzero(inside if wanted is None else inside & wanted)

    def labelled(self, targets: FloatArray, split: str) -> NDArray[np.intp]:
        """Indices of a split's rows of which one of the targets [S, L] is known."""
        return self.rows(split, np.asarray(~np.isnan(targets).all(axis=1)))

    def targets(self, uncertain: Any) -> tuple[FloatArray, Sequence[str], dict[str, str]]:
        """Targets [S, L] (0, 1, NaN where ignored or unknown), names of the labels, and what is no class.

        uncertain: what an uncertain label of a study counts as.
        """
        if self.kind == "volume":
            return label_targets(self.labels)
        states = np.array(self.labels, dtype=np.int8).reshape(-1, len(CHEXPERT_LABELS))
        return binary_targets(states, uncertain), CHEXPERT_LABELS, {}


def read_cohort(shards: ShardSet, splits: Sequence[str] = SPLITS) -> Cohort:
    """Reads who is in the shards, without their images.

    Args:
        shards: one folder, or several of a kind.
        splits: whose rows are read.

    Raises:
        ValueError: if a patient is in two of the splits, or one is empty.
        DamagedShard: if a file is not of the size that its manifest says.
    """
    shards.check_sizes()
    identifier = f"{shards.kind}_id"
    columns = [identifier, "patient_id", "split", "labels"]
    location, rows = [], []
    for i, folder in enumerate(shards.folders):
        for shard in (s for s in folder.manifest.shards if s.split in splits):
            rows += pq.read_table(folder.path / shard.file, columns=columns).to_pylist()
            location += [
                RowLocation(shard.file, group, row, 0, i)
                for group, count in enumerate(shard.row_groups)
                for row in range(count)
            ]
        if len(rows) != len(location):
            raise ValueError(
                f"{folder.path} holds {len(rows)} rows, {Manifest.FILE} tells of {len(location)}: restore "
                "the shards or ingest again"
            )
    volumes = shards.kind == "volume"
    cohort = Cohort(
        shards.kind,
        location,
        np.array([row[identifier] for row in rows]),
        np.array([row["patient_id"] for row in rows]),
        np.array([row["split"] for row in rows]),
        [dict(row["labels"]) if volumes else row["labels"] for row in rows],
    )
    check_splits(cohort.patient, cohort.split, splits)
    return cohort


def check_splits(patient: NDArray, split: NDArray, splits: Sequence[str] = SPLITS) -> None:
    """Raise ValueError where a split [S] has no row, or a patient [S] is in two splits."""
    if unknown := sorted(set(split.tolist()) - set(SPLITS)):
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {', '.join(unknown)}")
    if missing := [s for s in splits if s not in split]:
        needed = f"{', '.join(splits[:-1])} and {splits[-1]}"
        raise ValueError(f"{needed} patients are needed, got none in {missing[0]}")
    patients = {s: set(patient[split == s].tolist()) for s in splits}
    for a, b in itertools.combinations(splits, 2):
        if both := patients[a] & patients[b]:
            raise ValueError(
                f"{len(both)} patients are in {a} and in {b}, such as {min(both)}: the numbers "
                "would be of patients already seen; split by patient and ingest again"
            )


def count_labels(
    targets: FloatArray, patient: NDArray, rows: NDArray[np.bool_], names: Sequence[str]
) -> SplitCount:
    """Positive, negative and ignored targets [S, L] of some rows [S], by label."""
    t = targets[rows]
    return SplitCount(
        studies=int(rows.sum()),
        patients=len(np.unique(patient[rows])),
        labels={
            name: LabelCount(
                positive=int((t[:, i] == 1).sum()),
                negative=int((t[:, i] == 0).sum()),
                ignored=int(np.isnan(t[:, i]).sum()),
            )
            for i, name in enumerate(names)
        },
    )


def too_rare(counts: dict[str, SplitCount], least: int) -> dict[str, str]:
    """Labels with fewer than `least` rows of a class in a split, with the counts as reason."""
    left_out = {}
    for name in next(iter(counts.values())).labels:
        few = [
            f"{n} {kind} in {split}"
            for split, count in counts.items()
            for kind, n in (
                ("positive", count.labels[name].positive),
                ("negative", count.labels[name].negative),
            )
            if n < least
        ]
        if few:
            left_out[name] = f"{', '.join(few)}; at least {least} needed"
    return left_out


MOST_CLASSES = 10


def label_targets(
    labels: Sequence[dict[str, float]],
) -> tuple[FloatArray, list[str], dict[str, str]]:
    """Targets [V, L] (0, 1, NaN where a volume has no such label), their names, and what was left out.

    labels: of each volume, by name. A label of the values 0 and 1 is one target; one of a few whole
    numbers is a target for each, one against the rest, named LABEL=VALUE. A label with more values
    (an age) is no class: it is left out, with the reason.
    """
    columns, names, left_out = [], [], {}
    for name in sorted({name for row in labels for name in row}):
        values = np.array([row.get(name, np.nan) for row in labels], dtype=np.float64)
        known = np.unique(values[~np.isnan(values)])
        if len(known) < 2:
            left_out[name] = "one value only"
        elif len(known) > MOST_CLASSES or (known % 1).any():
            left_out[name] = f"{len(known)} values: a number, no class"
        else:
            binary = known.tolist() == [0.0, 1.0]
            for value in known[-1:] if binary else known:
                columns.append(np.where(np.isnan(values), np.nan, values == value))
                names.append(name if binary else f"{name}={value:g}")
    targets = np.stack(columns, axis=1) if columns else np.empty((len(labels), 0))
    return targets, names, left_out
