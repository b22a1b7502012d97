"""New files as the archives that `ingest` reads: listed, grouped, decoded alike, but under their own names.

Nothing is split, pseudonymised or stored: whoever asks for predictions has the files.
"""

import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ray_mae.checkpoint.format import EncoderFacts
from ray_mae.config import IngestConfig, PredictConfig, VolumeSettings
from ray_mae.data.archives import READERS, VOLUME_READERS
from ray_mae.data.archives.folders import volume_files
from ray_mae.data.archives.records import Archive, ImageRecord, Progress, VolumeRecord
from ray_mae.data.archives.studies.dicom import files_below
from ray_mae.data.disk_list import DiskList
from ray_mae.data.file_types import VOLUME_SUFFIXES
from ray_mae.data.ingest import studies as study_shards
from ray_mae.data.ingest import volumes as volume_shards
from ray_mae.data.ingest.shards import IngestJob
from ray_mae.data.paths import resolve_path, walk
from ray_mae.data.privacy.pseudonyms import pseudonym
from ray_mae.data.schema import Manifest

SAMPLES_PER_TASK = 32
TABLES = (".csv", ".tsv", ".parquet")
IMAGES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")


_ARCHIVES = {
    "study": {"images": "dicom"},
    "volume": {"table": "volume-table", "dicom": "dicom-series"},
}
"""The archive whose settings apply to a format, where it has another name."""


@dataclass(frozen=True)
class Source:
    """New files, listed."""

    root: Path
    job: IngestJob
    """Their plans, one for each task."""
    names: dict[str, str]
    """The source's own names of studies or volumes by those of the plans."""


def format_of(source: Path, wanted: str, kind: str) -> str:
    """Returns how a source is read: shards, table, dicom or images; for volumes dicom, or nifti.

    Args:
        source: folder or file.
        wanted: of the settings; auto looks.
        kind: study or volume: what the classifier reads.

    Raises:
        FileNotFoundError: there is no such source.
        ValueError: the classifier reads no such files.
    """
    if not source.exists():
        raise FileNotFoundError(f"{source} does not exist (source)")
    images = "images" if kind == "study" else "nifti"
    if wanted == "auto":
        wanted = _look(source, images)
    elif wanted in ("images", "nifti") and wanted != images:
        raise ValueError(
            f"format {wanted} is not for this classifier, which reads {kind}s: take {images}"
        )
    return wanted


def _look(source: Path, images: str) -> str:
    if source.is_file():
        return "table" if source.suffix.lower() in TABLES else images
    if (source / Manifest.FILE).is_file():
        return "shards"
    suffixes = IMAGES if images == "images" else VOLUME_SUFFIXES
    names = [name.lower() for _, files in walk(source, source / "-") for name in files]
    if images == "images" and any(name.endswith(".dcm") for name in names):
        return "dicom"
    return images if any(name.endswith(suffixes) for name in names) else "dicom"


def read_source(
    config: PredictConfig, form: str, kind: str, encoder: EncoderFacts, progress: Progress
) -> Source:
    """Lists the files and plans their decoding.

    Args:
        config: of the command.
        form: of `format_of`, not shards.
        kind: study or volume.
        encoder: of the classifier: samples are made as those that it was trained on.
        progress: told how far the listing is.

    Raises:
        ValueError, FileNotFoundError: for what is wrong with the source as a whole.
    """
    archive: Any = _ARCHIVES[kind].get(form, form)
    stored = encoder.decoding if kind == "study" else {}
    if config.image_size:
        stored["image_size"] = config.image_size
    ingest = IngestConfig(
        archive=archive,
        source=resolve_path(config.source),
        output=resolve_path(config.output),
        columns=config.columns,
        burned_in=config.burned_in,
        secondary_captures=config.secondary_captures,
        for_processing=config.for_processing,
        max_views=config.max_views,
        studies_per_shard=SAMPLES_PER_TASK,
        validation_share=0,
        test_share=0,
        **stored,
        volumes=VolumeSettings(spacing_mm=encoder.spacing_mm, volumes_per_shard=SAMPLES_PER_TASK),
    )
    key = secrets.token_bytes(32)  # pseudonyms of this call alone, to find the names again
    names: dict[str, str] = {}
    if kind == "study":
        images = _images(ingest) if form == "images" else READERS[form](ingest, progress)
        records = DiskList(_studies(images.records, key, names))
        return Source(
            images.root, study_shards.prepare(replace(images, records=records), ingest, key), names
        )
    volumes = (
        _volumes(ingest) if form == "nifti" else VOLUME_READERS[ingest.archive](ingest, progress)
    )
    of_volumes = list(_named(volumes.records, key, names))
    return Source(
        volumes.root,
        volume_shards.prepare(replace(volumes, records=of_volumes), ingest, key),
        names,
    )


def _images(config: IngestConfig) -> Archive[ImageRecord]:
    """A folder of image files of any format that is read, or one: each is a study."""
    passed_over: dict[str, int] = {}
    if config.source.is_file():
        root, files = config.source.parent, DiskList([config.source.name])
    else:
        root = config.source
        files, passed_over = files_below(root, config.output)
    records = DiskList(ImageRecord(path=p, study=p, patient=p, view="unknown") for p in files)
    return Archive(root, records, {"files_passed_over": passed_over})


def _volumes(config: IngestConfig) -> Archive[VolumeRecord]:
    """A folder of NIfTI files, or one: each is a volume."""
    passed_over: dict[str, int] = {}
    others: list[VolumeRecord] = []
    if config.source.is_file():
        root, files = config.source.parent, [config.source.name]
    else:
        root, files, passed_over, others = volume_files(config)
    records = [VolumeRecord(paths=(p,), volume=p, patient=p, modality="unknown") for p in files]
    return Archive(root, records + others, {"files_passed_over": passed_over})


def _studies(
    records: Iterable[ImageRecord], key: bytes, names: dict[str, str]
) -> Iterator[ImageRecord]:
    """The same without what a prediction does not use; whose patient it is does not matter."""
    for record in records:
        names[pseudonym(key, "study", record.study)] = record.study
        yield replace(
            record, patient=record.study, text=None, labels=None, other_labels=(), split=None
        )


def _named(
    records: Iterable[VolumeRecord], key: bytes, names: dict[str, str]
) -> Iterator[VolumeRecord]:
    for record in records:
        names[pseudonym(key, "volume", record.volume)] = record.volume
        yield replace(record, patient=record.volume, split=None, labels={}, segmentation=None)
