"""Who is in shards: rows by location, patient, split and labels, without their images."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ray_mae.data.label_names import check_there, of_volumes, pooled_names, states_by_name
from ray_mae.data.labels import Uncertain, Unmentioned, binary_targets
from ray_mae.data.loading.order import RowLocation, permutation
from ray_mae.data.parquet import read_columns
from ray_mae.data.schema import SPLITS, Manifest, Row
from ray_mae.data.shard_set import ShardSet
from ray_mae.evaluate.metrics import FloatArray


@dataclass(frozen=True)
class LabelCount:
    """Studies of one split by their target for one label, and the patients that they are of."""

    positive: int
    negative: int
    ignored: int
    positive_patients: int
    """With a positive study; a patient may have both."""
    negative_patients: int


@dataclass(frozen=True)
class SplitCount:
    """What one split holds, after the choice of training studies."""

    studies: int
    patients: int
    labels: dict[str, LabelCount]
    """All labels, also those left out."""


class LabelPolicy(Protocol):
    """Settings that say what label states count as."""

    @property
    def uncertain(self) -> Uncertain: ...

    @property
    def unmentioned(self) -> Unmentioned: ...


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
    labels: Any
    """[S, L] int8 label states of studies, or a list [S] of the labels of a volume by name."""
    label_names: Sequence[str] = ()
    """[L] of studies."""

    def rows(self, split: str, wanted: NDArray[np.bool_] | None = None) -> NDArray[np.intp]:
        """Indices of a split's rows, or of the wanted [S] ones among them."""
        inside = self.split == split
        return np.flatnonzero(inside if wanted is None else inside & wanted)

    def labelled(self, targets: FloatArray, split: str) -> NDArray[np.intp]:
        """Indices of a split's rows of which one of the targets [S, L] is known."""
        return self.rows(split, np.asarray(~np.isnan(targets).all(axis=1)))

    def targets(self, policy: LabelPolicy) -> tuple[FloatArray, Sequence[str], dict[str, str]]:
        """Targets [S, L] (0, 1, NaN where ignored or unknown), names of the labels, and what is no class."""
        if self.kind == "volume":
            return label_targets(self.labels)
        states = np.asarray(self.labels, dtype=np.int8)
        targets = binary_targets(states, policy.uncertain, policy.unmentioned)
        return targets, self.label_names, {}


def describe_policy(kind: str, policy: LabelPolicy) -> dict[str, str]:
    """The policy for a summary; nothing for volumes, whose labels have no such states."""
    if kind == "volume":
        return {}
    return {"uncertain": policy.uncertain, "unmentioned": policy.unmentioned}


def hint_of_policy(policy: LabelPolicy) -> str:
    """What an error adds where labels lack studies."""
    ignored = ", where what is not mentioned counts as nothing (unmentioned ignore)"
    return ignored if policy.unmentioned == "ignore" else ""


def read_cohort(
    shards: ShardSet, splits: Sequence[str] = SPLITS, labels: Sequence[str] | None = None
) -> Cohort:
    """Reads who is in the shards, without their images.

    Of several folders the labels are pooled by name. A finding that a folder does not have, or of which
    none of its studies says anything, is not labelled in it: its studies are nobody's negatives.

    Args:
        shards: one folder, or several of a kind.
        splits: whose rows are read.
        labels: names of those that are read; default: all. Of studies also names in other_labels.

    Raises:
        ValueError: if a patient is in two of the splits, one is empty, or there is no such label.
        DamagedShard: if a file is not of the size that its manifest says.
    """
    shards.check_sizes()
    identifier = f"{shards.kind}_id"
    columns = [identifier, "patient_id", "split", "labels", "other_labels"]
    location: list[RowLocation] = []
    rows: list[Row] = []
    states = []
    names = list(labels or pooled_names(shards))
    for i, folder in enumerate(shards.folders):
        first = len(rows)
        files = [(folder.path / s.file, s) for s in folder.manifest.shards if s.split in splits]
        for (_, shard), table in zip(files, read_columns(files, columns), strict=True):
            rows += table.to_pylist()
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
        if shards.kind == "study":
            states.append(states_by_name(rows[first:], folder.manifest.label_names, names))
    if labels:
        check_there(shards, rows, labels)
    cohort = Cohort(
        shards.kind,
        location,
        np.array([row[identifier] for row in rows]),
        np.array([row["patient_id"] for row in rows]),
        np.array([row["split"] for row in rows]),
        np.concatenate(states) if states else of_volumes(rows, labels),
        names,
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
    t, of = targets[rows], patient[rows]
    return SplitCount(
        studies=int(rows.sum()),
        patients=len(np.unique(patient[rows])),
        labels={
            name: LabelCount(
                positive=int((t[:, i] == 1).sum()),
                negative=int((t[:, i] == 0).sum()),
                ignored=int(np.isnan(t[:, i]).sum()),
                positive_patients=len(np.unique(of[t[:, i] == 1])),
                negative_patients=len(np.unique(of[t[:, i] == 0])),
            )
            for i, name in enumerate(names)
        },
    )


def too_rare(counts: dict[str, SplitCount], least: int) -> dict[str, str]:
    """Labels with fewer than `least` patients of a class in a split, with the counts as reason.

    Patients and not studies: six positive studies of one patient are one case, which most resamples of the
    patients hold in a body or not at all.
    """
    left_out = {}
    for name in next(iter(counts.values())).labels:
        few = [
            f"{n} {kind} in {split}"
            for split, count in counts.items()
            for kind, n in (
                ("positive", count.labels[name].positive_patients),
                ("negative", count.labels[name].negative_patients),
            )
            if n < least
        ]
        if few:
            left_out[name] = f"{', '.join(few)}; at least {least} patients needed"
    return left_out


def draw_patients(patient: NDArray[np.str_], wanted: int, *seed: int) -> list[str]:
    """Draws patients until they have so many samples.

    Args:
        patient: [S] of each sample that may be drawn.
        wanted: samples, at least.
        seed: of the draw. With one seed a smaller choice is the beginning of a larger one.

    Returns:
        The patients, in the order drawn; all of them where there are not so many samples.
    """
    names, counts = np.unique(patient, return_counts=True)
    # by name and not by place: the draw does not depend on the order of the files
    order = permutation(len(names), *seed)
    enough = int(np.searchsorted(np.cumsum(counts[order]), wanted)) + 1
    drawn: list[str] = names[order[:enough]].tolist()
    return drawn


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
