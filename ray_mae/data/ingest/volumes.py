"""Volumes in ingest: volumes with pseudonyms and splits, the plans of their shards, and their rows.

`prepare` is what the driver does before any voxel is read; `VolumeShardPlan.rows` is what a worker does.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ray_mae.config import IngestConfig, VolumeSettings
from ray_mae.data.archives.records import Archive, VolumeRecord
from ray_mae.data.decoding.decoder_process import prepare_volume_isolated
from ray_mae.data.decoding.preprocessing import MASKS, Preparation
from ray_mae.data.decoding.voxels import LARGEST, VoxelType
from ray_mae.data.disk_list import DiskList
from ray_mae.data.ingest.faces import check_faces, describe_faces, face_by_name, face_of, mask_of
from ray_mae.data.ingest.layout import Layout, cut_into_shards
from ray_mae.data.ingest.listed import find_problem, named_stores
from ray_mae.data.ingest.quarantine_table import QuarantineTable
from ray_mae.data.ingest.shards import RESULTS, Besides, IngestJob, ShardPlan
from ray_mae.data.ingest.study_counts import described_attribute
from ray_mae.data.paths import local_file, retry_transient, source_path
from ray_mae.data.privacy.pseudonyms import pseudonym, split_by_hash
from ray_mae.data.quarantine import QuarantineError, QuarantineRow
from ray_mae.data.schema import volume_schema


@dataclass(frozen=True)
class VolumeEntry:
    """A volume to be read, under its pseudonyms."""

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
    face: str | None
    labels: dict[str, float]
    face_by_name: str | None
    """What the archive or the file's name says, see `face_by_name`."""
    attributes: dict[str, Any] = field(default_factory=dict)


SAMPLE = 6
"""Volumes whose names are shown before anything is written."""


def describe_sample(records: Sequence[VolumeRecord]) -> str:
    """A few files with what their names were taken to say: patient, session, contrast, label map.

    From the whole list evenly, for whoever looks on; nothing that the files' paths do not say.
    """
    scans = [record for record in records if not record.problem]
    step = max(1, len(scans) // SAMPLE)
    lines = [
        f"  {record.paths[0]} → patient {record.patient or '?'}, session {record.session or '-'}, "
        f"contrast {record.modality}, label map {record.segmentation or '-'}"
        for record in scans[::step][:SAMPLE]
    ]
    patients = len({record.patient for record in scans if record.patient})
    return "\n".join(
        [f"{len(scans):,} volumes of {patients:,} patients, by the names of files, such as", *lines]
    )


def prepare(
    archive: Archive[VolumeRecord],
    config: IngestConfig,
    key: bytes,
    splits: Mapping[str, str] | None = None,
) -> IngestJob:
    """Give the volumes pseudonyms and splits, and plan their shards.

    Args:
        archive: as its reader lists it.
        config: of the ingest.
        key: of the pseudonyms.
        splits: of some patients, by pseudonym, where the archive has none and their hash does not count.
    """
    settings = config.volumes
    _check_orientation(settings.orientation)
    check_faces(settings)
    entries = sort_volumes(
        archive.records,
        key=key,
        validation_share=config.validation_share,
        test_share=config.test_share,
        archive=config.archive,
        settings=settings,
        stores=named_stores(config),
        splits=splits,
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
            attributes=list(config.attributes),
        )
        for file, split, volumes in cut_into_shards(
            entries.volumes, lambda v: v.split, lambda v: v.volume_id, earlier
        )
    )
    listed = {"volume": len(archive.records)}
    return IngestJob(
        "volume",
        VolumeShardPlan,
        plans,
        listed,
        entries.quarantine,
        archive.notes,
        settings.volumes_per_shard,
        partial(_describe, attributes=config.attributes),
        {"attributes": list(config.attributes)},
    )


_AXES = {"R": 0, "L": 0, "A": 1, "P": 1, "S": 2, "I": 2}


def _check_orientation(axes: str | None) -> None:
    """Raise ValueError unless it is None, or names each of the three axes once."""
    if axes is not None and sorted(_AXES.get(a, 3) for a in axes.upper()) != [0, 1, 2]:
        raise ValueError(
            "volumes.orientation must be three letters, one of R and L, one of A and P, one of S and I, "
            f"such as LAS, got {axes!r}"
        )


# --------------------------------------------------------------------------- pseudonyms and splits


@dataclass(frozen=True)
class SortedVolumes:
    """Every volume of the archive: to be read, or in quarantine."""

    volumes: list[VolumeEntry]
    """By pseudonyms of patient and volume, so that a patient's volumes lie together."""
    quarantine: QuarantineTable


def sort_volumes(
    records: Iterable[VolumeRecord],
    *,
    key: bytes,
    validation_share: float,
    test_share: float,
    archive: str,
    settings: VolumeSettings,
    stores: Collection[str] = (),
    splits: Mapping[str, str] | None = None,
) -> SortedVolumes:
    """Give each volume its pseudonyms and split, and put into quarantine what must not be used.

    Args:
        records: the archive's volumes.
        key: of the pseudonyms.
        validation_share, test_share: of the patients, by a hash of their pseudonym, where the archive
            has no split.
        archive: its layout.
        settings: of volumes: the modalities that are used, and what becomes of faces.
        stores: where paths may lie that are URLs.
        splits: of some patients, see `prepare`.
    """
    records = [
        _checked(replace(record, face=mask_of(record, settings)), stores) for record in records
    ]
    archive_splits: dict[str, set[str]] = defaultdict(set)
    for record in records:
        archive_splits[record.patient].update([record.split] if record.split else [])
    seen: set[str] = set()
    volumes, quarantine = [], QuarantineTable()
    for record in records:
        volume_id = pseudonym(key, "volume", record.volume)
        of_archive = archive_splits[record.patient]
        if problem := _volume_problem(record, of_archive, seen, settings.modalities):
            quarantine.add(QuarantineRow("volume", record.paths[0], volume_id, *problem))
            continue
        seen.add(record.volume)
        patient_id = pseudonym(key, "patient", record.patient)
        session = record.session and pseudonym(
            key, "session", f"{record.patient}\0{record.session}"
        )
        split = next(iter(of_archive), None) or (splits or {}).get(patient_id)
        volumes.append(
            VolumeEntry(
                volume_id=volume_id,
                patient_id=patient_id,
                session_id=session or None,
                split=split or split_by_hash(patient_id, validation_share, test_share),
                modality=record.modality,
                site=record.site or (record.attributes or {}).get("site"),
                paths=list(record.paths),
                valid=record.valid,
                anonymised=record.anonymised,
                anatomy=record.anatomy,
                segmentation=record.segmentation,
                face=record.face,
                labels=record.labels,
                face_by_name=face_by_name(record, archive),
                attributes=record.attributes or {},
            )
        )
    volumes.sort(key=lambda volume: (volume.patient_id, volume.volume_id))
    return SortedVolumes(volumes, quarantine)


def _checked(record: VolumeRecord, stores: Collection[str]) -> VolumeRecord:
    """The record, with what is wrong with its paths and texts."""
    masks = (getattr(record, name) for name in MASKS)
    texts = [record.site, record.modality, *map(str, (record.attributes or {}).values())]
    found = find_problem([*record.paths, *masks], texts, stores)
    return replace(record, problem=found) if found and not record.problem else record


def _volume_problem(
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


# -------------------------------------------------------------------------------------------- rows


_NAMES = ["volume_id", "patient_id", "session_id", "dataset", "site", "split", "modality"]
# Voxels are compressed already; see studies.py for why there are no statistics.
_PARQUET: dict[str, Any] = {
    "compression": {name: "zstd" for name in [*_NAMES, "valid", "face"]},
    "use_dictionary": ["dataset", "site", "split", "modality", "face"],
    "write_statistics": _NAMES,
}


@dataclass(frozen=True, kw_only=True)
class VolumeShardPlan(ShardPlan):
    """The plan of a shard of volumes."""

    parquet = _PARQUET

    volumes: list[VolumeEntry]
    preparation: Preparation
    dtype: VoxelType
    compression: int
    attributes: list[str]

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "VolumeShardPlan":
        volumes = [VolumeEntry(**volume) for volume in fields["volumes"]]
        preparation = Preparation.from_json(fields["preparation"])
        return cls(**{**fields, "volumes": volumes, "preparation": preparation})

    @property
    def schema(self) -> pa.Schema:
        return volume_schema(self.attributes)

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

    def rows(self, root: Path, besides: Besides) -> Iterator[dict[str, Any]]:
        for volume in self.volumes:
            try:
                row, mended = self._row(volume, root)
            except QuarantineError as error:
                besides.quarantined.append(
                    QuarantineRow(
                        "volume", volume.paths[0], volume.volume_id, error.reason, error.detail
                    )
                )
                continue
            _count(besides.counts, row, self.attributes)
            besides.counts.update(f"mended/{what}" for what in mended)
            left_out = volume.segmentation is not None and row["segmentation"] is None
            besides.counts["segmentations left out"] += left_out
            yield row

    def looks(self, root: Path) -> Iterator[tuple[str, bytes]]:
        for row in self.rows(root, Besides()):  # a checksum: only the same voxels are alike
            yield row["patient_id"], hashlib.sha256(row["voxels"]).digest()

    def _row(self, volume: VolumeEntry, root: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
        """The row of one volume, and what was mended in its file. Raises QuarantineError."""
        with ExitStack() as copies:

            def file(path: str) -> Path:
                return copies.enter_context(local_file(source_path(root, path)))

            masks = {name: file(path) for name in MASKS if (path := getattr(volume, name))}
            paths = [file(path) for path in volume.paths]
            preparation = asdict(self.preparation)
            columns = retry_transient(
                lambda: prepare_volume_isolated(
                    paths, masks, preparation, self.dtype, self.compression
                ),
                remote=False,
            )
        mended = tuple(columns.pop("mended"))
        row = {
            **{name: getattr(volume, name) for name in _NAMES if name != "dataset"},
            "dataset": self.dataset,
            **columns,
            "face": face_of(volume.face_by_name, columns["face"]),
            "labels": sorted(volume.labels.items()),
            **{name: volume.attributes.get(name) for name in self.attributes if name != "site"},
        }
        return row, mended


def _count(counts: Counter[str], row: dict[str, Any], attributes: Sequence[str]) -> None:
    counts["volume"] += 1
    counts["voxels"] += int(np.prod(row["shape"]))
    counts["voxel bytes"] += len(row["voxels"])
    counts["with a mask"] += row["valid"] is not None
    counts["with a segmentation"] += row["segmentation"] is not None
    counts[f"modality/{row['modality']}"] += 1
    counts[f"face/{row['face']}"] += 1
    counts[f"site/{row['site'] or 'unknown'}"] += 1
    counts.update(f"label/{name}" for name, _ in row["labels"])
    for name in attributes:
        counts[f"attributes/{name}/{described_attribute(name, row[name])}"] += 1


def _describe(counts: Counter[str], attributes: Sequence[str]) -> dict[str, Any]:
    """What the summary says of a split."""

    def under(prefix: str) -> dict[str, int]:
        below = {n.removeprefix(prefix): k for n, k in counts.items() if n.startswith(prefix)}
        return dict(sorted(below.items()))

    mended = under("mended/")
    return {
        "modalities": under("modality/"),
        "faces": describe_faces(counts),
        "sites": under("site/"),
        "with_mask": counts["with a mask"],
        "with_segmentation": counts["with a segmentation"],
        # label maps with labels above 255; their images are kept
        "segmentations_left_out": counts["segmentations left out"],
        "labels": under("label/"),
        **(
            {"attributes": {name: under(f"attributes/{name}/") for name in attributes}}
            if attributes
            else {}
        ),
        "voxels": counts["voxels"],
        "voxel_bytes": counts["voxel bytes"],
        # of the files: only what leaves no doubt
        **({"mended": mended} if mended else {}),
    }
