"""One shard: its plan, and the task that turns the plan into one Parquet file."""

import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from itertools import chain, islice
from pathlib import Path
from typing import Any, ClassVar, Self

import pyarrow as pa
import pyarrow.parquet as pq

from ray_mae.data.disk_list import DiskList
from ray_mae.data.ingest.quarantine_table import QuarantineTable
from ray_mae.data.parallel_map import to_json
from ray_mae.data.parquet import footer_sha256
from ray_mae.data.paths import (
    atomic_write,
    is_remote,
    join_path,
    remove,
    retry_transient,
    sha256_of,
)
from ray_mae.data.quarantine import MOST_STARTS, TRANSIENT_REASONS, QuarantineRow
from ray_mae.data.schema import SCHEMA_VERSION

RESULTS = ".ingest"
"""Folder of the notes on finished shards, so that a job that is started again can go on."""


@dataclass(frozen=True)
class Besides:
    """What is to be said of a shard, besides its rows."""

    quarantined: list[QuarantineRow] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    review: list[dict[str, Any]] = field(default_factory=list)
    """Reports that wait for a person."""


@dataclass(frozen=True, kw_only=True)
class ShardPlan(ABC):
    """Everything that decides the bytes of one shard, except the content of the archive's files."""

    file: str
    dataset: str
    split: str
    rows_per_row_group: int
    schema_version: int = SCHEMA_VERSION

    parquet: ClassVar[dict[str, Any]]
    """How the columns are written."""

    @classmethod
    @abstractmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """The plan that has become JSON and plain values of it."""

    @property
    @abstractmethod
    def schema(self) -> pa.Schema:
        """Of the rows."""

    @property
    @abstractmethod
    def entries(self) -> int:
        """What is to be read, for the line that shows how far it is: images or volumes."""

    @property
    @abstractmethod
    def sources(self) -> list[str]:
        """Every file that is read, relative to the archive's root, or absolute."""

    @property
    @abstractmethod
    def samples(self) -> list[tuple[str, str]]:
        """Pseudonyms of each study or volume and of its patient."""

    @abstractmethod
    def rows(self, root: Path, besides: "Besides") -> Iterator[dict[str, Any]]:
        """The rows, one by one; `besides` is filled on the way.

        Among its counts are what was written of each kind of entry: image, report, study, volume.
        """

    @abstractmethod
    def looks(self, root: Path) -> Iterator[tuple[str, bytes]]:
        """Pseudonym of the patient of each image or volume, and bits that tell what it looks like.

        Those of two that look alike differ in few bits.
        """

    def fingerprint(self) -> str:
        """Changes if the plan does, or the software that follows it."""
        planned = to_json([version("ray-mae"), self], sort_keys=True)
        return hashlib.sha256(planned.encode()).hexdigest()

    def state_of_sources(self, root: Path) -> str:
        """Changes if one of the files is replaced, as far as size and time of change tell."""
        state = hashlib.sha256()
        for path in self.sources:
            try:
                stat = join_path(root, path).stat()
                state.update(f"{stat.st_size} {stat.st_mtime_ns}\n".encode())
            except (OSError, ValueError):
                state.update(b"not there\n")
        return state.hexdigest()


@dataclass(frozen=True)
class IngestJob:
    """An archive that is cut into shards, still to be written."""

    kind: str
    """study or volume: what a row is."""
    plan: type[ShardPlan]
    plans: DiskList[ShardPlan]
    listed: dict[str, int]
    """Entries that the archive lists, by kind: the smallest first."""
    quarantine: QuarantineTable
    """At first of the entries that are in no plan; those that a shard leaves out are added."""
    notes: dict[str, Any]
    """For the summary."""
    per_shard: int
    """Samples of a full shard."""
    describe: Callable[[Counter[str]], dict[str, Any]]
    """What the summary says of one split, from its counts."""
    manifest: dict[str, Any] = field(default_factory=dict)
    """What the manifest says besides, of this kind of samples."""


def earlier_result(plan: ShardPlan, root: Path, output: Path) -> dict[str, Any] | None:
    """The result of a shard that an earlier run made of these files by this very plan, else None."""
    if _read_note(plan.file, output) is None:  # the state of thousands of files may take long
        return None
    result = _note_on(plan, plan.state_of_sources(root), output)
    if result is None:
        return None
    starts = result.get("starts", 1)
    if any(starts < MOST_STARTS.get(reason, math.inf) for _, reason in _transient(result)):
        return None
    if result["rows"] and not _is_as_written(output / plan.file, result):
        return None
    return result


def _is_as_written(shard: Path, result: dict[str, Any]) -> bool:
    """Whether a shard is the file that was written: by its checksum where its time is another one."""
    if not shard.is_file() or shard.stat().st_size != result["bytes"]:
        return False
    if is_remote(shard) or shard.stat().st_mtime_ns == result.get("written_ns"):
        return True
    return sha256_of(shard) == result["sha256"]


def _note_on(plan: ShardPlan, sources: str, output: Path) -> dict[str, Any] | None:
    """The result that an earlier run noted for this very plan and state of its sources."""
    result = _read_note(plan.file, output)
    if result is None:
        return None
    if "refusals" in result:  # as notes were written at first
        result["quarantined"] = result.pop("refusals")
    same = result["plan"] == plan.fingerprint() and result["sources"] == sources
    return result if same else None


def noted_plan(file: str, output: Path) -> str | None:
    """Fingerprint of the plan by which an earlier run made a shard; None where there is no such shard."""
    result = _read_note(file, output)
    return None if result is None else str(result["plan"])


def _read_note(file: str, output: Path) -> dict[str, Any] | None:
    try:
        note: dict[str, Any] = json.loads(_result_path(file, output).read_text())
    except (FileNotFoundError, ValueError):
        return None
    return note


def _transient(result: dict[str, Any]) -> set[tuple[str, str]]:
    """Paths and reasons of what is in quarantine for a reason that may be gone the next time."""
    return {
        (r["path"], r["reason"]) for r in result["quarantined"] if r["reason"] in TRANSIENT_REASONS
    }


def _result_path(file: str, output: Path) -> Path:
    return output / RESULTS / f"{file}.json"


def write_shard(plan: ShardPlan, root: Path, output: Path) -> dict[str, Any]:
    """Decode, check, encode and write what the plan lists.

    The file appears under its name when it is complete, never before. A disk or a line that is away for
    a moment costs the shard some time.

    Args:
        plan: of the shard.
        root: of the archive's files.
        output: folder of the shards.

    Returns:
        The result, as it is noted beside the shards: file, sizes, SHA-256, counts, and the rows that go
        to the quarantine table.
    """
    return retry_transient(lambda: _write_shard(plan, root, output), remote=False)


def _write_shard(plan: ShardPlan, root: Path, output: Path) -> dict[str, Any]:
    besides = Besides()
    sources = plan.state_of_sources(root)  # before they are read: a later change is seen next time
    rows = plan.rows(root, besides)
    schema = plan.schema.with_metadata({"ray_mae.schema_version": str(SCHEMA_VERSION)})
    target, notes = output / plan.file, output / RESULTS
    first = list(islice(rows, plan.rows_per_row_group))
    if not first:  # nothing of the plan is usable: there is no file
        remove(target)
        written: dict[str, Any] = {
            "rows": 0,
            "row_groups": [],
            "bytes": 0,
            "sha256": "",
            "footer": "",
        }
    else:
        with atomic_write(target, notes) as file:
            row_groups = _write_rows(file, chain([first], _groups(rows, plan)), schema, plan)
            written = {
                "rows": sum(row_groups),
                "row_groups": row_groups,
                "bytes": file.stat().st_size,
                "sha256": sha256_of(file),
                "footer": footer_sha256(file),
            }
    if written["rows"] and not is_remote(target):
        written["written_ns"] = target.stat().st_mtime_ns
    result: dict[str, Any] = {
        "file": plan.file,
        "plan": plan.fingerprint(),
        "sources": sources,
        "starts": 1,
        "split": plan.split,
        **written,
        "images": besides.counts.get("image", written["rows"]),
        "counts": dict(sorted(besides.counts.items())),
        "quarantined": [asdict(row) for row in besides.quarantined],
        "review": besides.review,
    }
    earlier = _note_on(plan, sources, output)
    if earlier and _transient(earlier) == _transient(result):
        result["starts"] += earlier.get("starts", 1)
    with atomic_write(_result_path(plan.file, output), notes, private=True) as file:
        file.write_text(json.dumps(result))
    return result


def _groups(rows: Iterator[dict[str, Any]], plan: ShardPlan) -> Iterator[list[dict[str, Any]]]:
    while group := list(islice(rows, plan.rows_per_row_group)):
        yield group


def _write_rows(
    file: Path, groups: Iterable[list[dict[str, Any]]], schema: pa.Schema, plan: ShardPlan
) -> list[int]:
    """Write a row group at a time, so that no more than one is in memory; their sizes."""
    sizes = []
    with pq.ParquetWriter(file, schema, write_page_checksum=True, **plan.parquet) as writer:
        for group in groups:
            writer.write_table(pa.Table.from_pylist(group, schema=schema))
            sizes.append(len(group))
    return sizes
