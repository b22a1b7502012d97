"""From the volumes of an archive to those to be written: pseudonyms, splits, what cannot be kept."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from ray_mae.data.archives.record import VolumeRecord
from ray_mae.data.identity import pseudonym, split_by_hash
from ray_mae.data.quarantine import Refusal
from ray_mae.data.refusals import Refusals


@dataclass(frozen=True)
class Listed:
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
class Sorted:
    """Every volume of the archive: to be read, or refused."""

    volumes: list[Listed]
    """By pseudonyms of patient and volume, so that a patient's volumes lie together."""
    refusals: Refusals


def sort(
    records: Iterable[VolumeRecord],
    *,
    key: bytes,
    validation_share: float,
    test_share: float,
    modalities: list[str] | None,
) -> Sorted:
    """Give each volume its pseudonyms and split, and refuse what must not be used."""
    records = list(records)
    splits_given: dict[str, set[str]] = defaultdict(set)
    for record in records:
        splits_given[record.patient].update([record.split] if record.split else [])
    seen: set[str] = set()
    volumes, refusals = [], Refusals()
    for record in records:
        volume_id = pseudonym(key, "volume", record.volume)
        given = splits_given[record.patient]
        if wrong := _wrong_with(record, given, seen, modalities):
            refusals.add(Refusal("volume", record.paths[0], volume_id, *wrong))
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
            Listed(
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
    return Sorted(volumes, refusals)


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
