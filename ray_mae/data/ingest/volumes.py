"""The shards of volumes: volumes sorted with pseudonyms and splits, plans, and rows."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ray_mae.config import IngestConfig
from ray_mae.data.archives.records import Archive, VolumeRecord
from ray_mae.data.decoding.preprocessing import MASKS, Preparation
from ray_mae.data.decoding.voxels import (
    ENCODING,
    LARGEST,
    VoxelType,
    encode_labels,
    encode_valid,
    encode_voxels,
)
from ray_mae.data.disk_list import DiskList
from ray_mae.data.ingest.layout import Layout, cut
from ray_mae.data.ingest.quarantine_table import QuarantineTable
from ray_mae.data.ingest.shards import RESULTS, IngestJob, ShardPlan
from ray_mae.data.paths import local_file, retry_transient, source_path
from ray_mae.data.privacy.pseudonyms import pseudonym, split_by_hash
from ray_mae.data.quarantine import QuarantineError, QuarantineRow
from ray_mae.data.schema import VOLUME_SCHEMA


@dataclass(frozen=True)
class VolumeEntry:
    """One volume to be read, under its pseudonyms."""

    volume_id: str
    patient_id: str
    session_id: str | None
    split: str
    modality: str
    site: str | None
    paths: list[str]
    valid: str | None
    anonymised: str | None
    anatomy: str | None
    segmentation: str | None
    labels: dict[str, float]


@dataclass(frozen=True)
class SortedVolumes:
    """Every volume of the archive: to be read, or refused."""

    volumes: list[VolumeEntry]
    """By pseudonyms of patient and volume, so that a patient's volumes lie together."""
    refusals: QuarantineTable


def sort_volumes(
    records: Iterable[VolumeRecord],
    *,
    key: bytes,
    validation_share: float,
    test_share: float,
    modalities: list[str] | None,
) -> SortedVolumes:
    """Give each volume its pseudonyms and split, and refuse what must not be used."""
    records = list(records)
    splits_given: dict[str, set[str]] = defaultdict(set)
    for record in records:
        splits_given[record.patient].update([record.split] if record.split else [])
    seen: set[str] = set()
    volumes, refusals = [], QuarantineTable()
    for record in records:
        volume_id = pseudonym(key, "volume", record.volume)
        given = splits_given[record.patient]
        if wrong := _wrong_with(record, given, seen, modalities):
            refusals.add(QuarantineRow("volume", record.paths[0], volume_id, *wrong))
            continue
        seen.add(record.volume)
        patient_id = pseudonym(key, "patient", record.patient)
        session = record.session and pseudonym(
            key, "session", f"{record.patient}\0{record.session}"
        )
        split = (
            next(iter(given)) if given else split_by_hash(patient_id, validation_share, test_share)
        )
        volumes.append(
            VolumeEntry(
                volume_id=volume_id,
                patient_id=patient_id,
                session_id=session or None,
                split=split,
                modality=record.modality,
                site=record.site,
                paths=list(record.paths),
                valid=record.valid,
                anonymised=record.anonymised,
                anatomy=record.anatomy,
                segmentation=record.segmentation,
                labels=record.labels,
            )
        )
    volumes.sort(key=lambda volume: (volume.patient_id, volume.volume_id))
    return SortedVolumes(volumes, refusals)


def _wrong_with(
    record: VolumeRecord, splits: set[str], seen: set[str], modalities: list[str] | None
) -> tuple[str, str] | None:
    """Why a volume cannot be used, as reason and detail."""
    if record.problem:
        return record.problem.reason, record.problem.detail
    if not record.patient:
        return "no-patient", ""
    if len(splits) > 1:
        return "split-conflict", ", ".join(sorted(splits))
    if modalities is not None and record.modality not in modalities:
        return "other-modality", record.modality
    if record.volume in seen:
        return "duplicate", "the archive lists this volume before"
    return None


_NAMES = ["volume_id", "patient_id", "session_id", "dataset", "site", "split", "modality"]
# Voxels are compressed already; see study_shards for why there are no statistics.
_PARQUET: dict[str, Any] = {
    "compression": {name: "zstd" for name in [*_NAMES, "valid"]},
    "use_dictionary": ["dataset", "site", "split", "modality"],
    "write_statistics": _NAMES,
}


@dataclass(frozen=True, kw_only=True)
class VolumeShardPlan(ShardPlan):
    """A shard of volumes."""

    schema = VOLUME_SCHEMA
    parquet = _PARQUET

    volumes: list[VolumeEntry]
    preparation: Preparation
    dtype: VoxelType
    compression: int

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "VolumeShardPlan":
        volumes = [VolumeEntry(**volume) for volume in fields["volumes"]]
        preparation = Preparation.from_json(fields["preparation"])
        return cls(**{**fields, "volumes": volumes, "preparation": preparation})

    @property
    def entries(self) -> int:
        return len(self.volumes)

    @property
    def sources(self) -> list[str]:
        masks = [getattr(volume, name) for volume in self.volumes for name in MASKS]
        return [path for volume in self.volumes for path in volume.paths] + list(
            filter(None, masks)
        )

    @property
    def samples(self) -> list[tuple[str, str]]:
        return [(volume.volume_id, volume.patient_id) for volume in self.volumes]

    def rows(
        self, root: Path, refusals: list[QuarantineRow], counts: Counter[str]
    ) -> Iterator[dict[str, Any]]:
        for listed in self.volumes:
            try:
                row = self._row(listed, root)
            except QuarantineError as error:
                refusals.append(
                    QuarantineRow(
                        "volume", listed.paths[0], listed.volume_id, error.reason, error.detail
                    )
                )
                continue
            _count(counts, row)
            left_out = listed.segmentation is not None and row["segmentation"] is None
            counts["segmentations left out"] += left_out
            yield row

    def _row(self, listed: VolumeEntry, root: Path) -> dict[str, Any]:
        """The row of one volume. Raises QuarantineError."""
        with ExitStack() as copies:

            def file(path: str) -> Path:
                return copies.enter_context(local_file(source_path(root, path)))

            masks = {name: file(path) for name in MASKS if (path := getattr(listed, name))}
            paths = [file(path) for path in listed.paths]
            made = retry_transient(lambda: self.preparation.prepare(paths, masks), remote=False)
        image = made.image
        return {
            **{name: getattr(listed, name) for name in _NAMES if name != "dataset"},
            "dataset": self.dataset,
            "voxels": encode_voxels(image.values, self.dtype, self.compression),
            "encoding": ENCODING,
            "dtype": self.dtype,
            "shape": list(image.values.shape),
            "spacing_mm": image.spacing.tolist(),
            "affine": image.affine.ravel().tolist(),
            "mean": made.mean,
            "std": made.std,
            "valid": None if made.valid is None else encode_valid(made.valid),
            "segmentation": None
            if made.segmentation is None
            else encode_labels(made.segmentation, self.compression),
            "labels": sorted(listed.labels.items()),
        }


def prepare(archive: Archive[VolumeRecord], config: IngestConfig, key: bytes) -> IngestJob:
    """Give the volumes pseudonyms and splits, and plan their shards."""
    settings = config.volumes
    found = sort_volumes(
        archive.records,
        key=key,
        validation_share=config.validation_share,
        test_share=config.test_share,
        modalities=settings.modalities,
    )
    most = min(settings.max_deviation, LARGEST[settings.dtype])
    earlier = Layout.read(config.output / RESULTS, settings.volumes_per_shard)
    plans: DiskList[ShardPlan] = DiskList(
        VolumeShardPlan(
            file=file,
            dataset=config.dataset,
            split=split,
            rows_per_row_group=settings.volumes_per_row_group,
            volumes=volumes,
            preparation=Preparation.of(replace(settings, max_deviation=most), config.burned_in),
            dtype=settings.dtype,
            compression=settings.compression,
        )
        for file, split, volumes in cut(
            found.volumes, lambda v: v.split, lambda v: v.volume_id, earlier
        )
    )
    listed = {"volume": len(archive.records)}
    return IngestJob(
        "volume",
        VolumeShardPlan,
        plans,
        listed,
        found.refusals,
        archive.notes,
        settings.volumes_per_shard,
        _describe,
    )


def _count(counts: Counter[str], row: dict[str, Any]) -> None:
    counts["volume"] += 1
    counts["voxels"] += int(np.prod(row["shape"]))
    counts["voxel bytes"] += len(row["voxels"])
    counts["with a mask"] += row["valid"] is not None
    counts["with a segmentation"] += row["segmentation"] is not None
    counts[f"modality/{row['modality']}"] += 1
    counts[f"site/{row['site'] or 'unknown'}"] += 1
    counts.update(f"label/{name}" for name, _ in row["labels"])


def _describe(counts: Counter[str]) -> dict[str, Any]:
    """What the summary says of a split."""

    def under(prefix: str) -> dict[str, int]:
        found = {n.removeprefix(prefix): k for n, k in counts.items() if n.startswith(prefix)}
        return dict(sorted(found.items()))

    return {
        "modalities": under("modality/"),
        "sites": under("site/"),
        "with_mask": counts["with a mask"],
        "with_segmentation": counts["with a segmentation"],
        # label maps with labels above 255; their images are kept
        "segmentations_left_out": counts["segmentations left out"],
        "labels": under("label/"),
        "voxels": counts["voxels"],
        "voxel_bytes": counts["voxel bytes"],
    }
