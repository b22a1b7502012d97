"""Studies in ingest: images grouped into studies, the plans of their shards, and their rows.

`prepare` is what the driver does before any pixel is read; `StudyShardPlan.rows` is what a worker does.
"""

import errno
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import combinations, groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal

from ray_mae.config import IngestConfig
from ray_mae.data.archives.records import NOT_TEST, Archive, ImageRecord
from ray_mae.data.decoding.decoder_process import prepare_image_isolated
from ray_mae.data.decoding.dicom import most_bytes
from ray_mae.data.decoding.image_preprocessing import ImagePreparation, PreparedImage
from ray_mae.data.disk_list import DiskList
from ray_mae.data.ingest.layout import Layout, cut_into_shards
from ray_mae.data.ingest.listed import find_problem, named_stores
from ray_mae.data.ingest.quarantine_table import QuarantineTable
from ray_mae.data.ingest.shards import RESULTS, IngestJob, ShardPlan
from ray_mae.data.labels import CHEXPERT_LABELS, NOT_MENTIONED, STATE_NAMES, strongest
from ray_mae.data.paths import local_file, retry_transient, source_path
from ray_mae.data.privacy.pseudonyms import pseudonym, split_by_hash
from ray_mae.data.privacy.report_sections import sections
from ray_mae.data.privacy.years import bucket_of
from ray_mae.data.quarantine import QuarantineError, QuarantineRow, error_text
from ray_mae.data.schema import SPLITS, STUDY_SCHEMA, VIEWS


@dataclass(frozen=True)
class ImageEntry:
    """An image to be read."""

    path: str
    view: str
    position: str | None


@dataclass(frozen=True)
class StudyEntry:
    """A study to be written, under its pseudonyms."""

    study_id: str
    patient_id: str
    split: str
    images: list[ImageEntry]
    """By path."""
    findings: str | None
    impression: str | None
    labels: list[int]
    other_labels: list[str] | None
    """By name; None where there are none."""
    years: str | None
    """The bucket of its date; None where no date is kept."""


def prepare(
    archive: Archive[ImageRecord],
    config: IngestConfig,
    key: bytes,
    splits: Mapping[str, str] | None = None,
) -> IngestJob:
    """Group the images into studies and plan their shards.

    Args:
        archive: as its reader lists it.
        config: of the ingest.
        key: of the pseudonyms.
        splits: of some patients, by pseudonym, where the archive has none and their hash does not count.
    """
    grouped = group_studies(
        archive.records,
        key=key,
        validation_share=config.validation_share,
        test_share=config.test_share,
        max_views=config.max_views,
        year_bucket=config.year_bucket,
        stores=named_stores(config),
        splits=splits,
    )
    preparation = ImagePreparation(
        max_pixels=config.max_pixels,
        image_size=config.image_size,
        encoding=config.encoding,
        jpeg_quality=config.jpeg_quality,
        max_aspect=config.max_aspect,
        burned_in=config.burned_in,
        secondary_captures=config.secondary_captures,
        body_parts=config.body_parts,
    )
    earlier = Layout.read(config.output / RESULTS, config.studies_per_shard)
    plans: DiskList[ShardPlan] = DiskList(
        StudyShardPlan(
            file=file,
            dataset=config.dataset,
            split=split,
            rows_per_row_group=config.studies_per_row_group,
            studies=studies,
            preparation=preparation,
            for_processing=config.for_processing,
        )
        for file, split, studies in cut_into_shards(
            grouped.studies, lambda study: study.split, lambda study: study.study_id, earlier
        )
    )
    notes = {
        "studies_with_several_texts": grouped.several_texts,
        "texts_without_findings_or_impression": grouped.texts_without_sections,
        **archive.notes,
    }
    listed = {"image": len(archive.records), "study": grouped.listed}
    return IngestJob(
        "study",
        StudyShardPlan,
        plans,
        listed,
        grouped.quarantine,
        notes,
        config.studies_per_shard,
        _describe,
    )


# ---------------------------------------------------------------------------------------- grouping


# Every set of splits, so that many patients share each.
_SPLIT_SETS = {
    frozenset(names): frozenset(names)
    for count in range(1, len(SPLITS) + 2)
    for names in combinations((*SPLITS, NOT_TEST), count)
}


@dataclass(frozen=True)
class GroupedStudies:
    """Every image of the archive: in a study, or in quarantine."""

    studies: DiskList[StudyEntry]
    """By pseudonym."""
    quarantine: QuarantineTable
    listed: int
    """Studies that the archive lists."""
    several_texts: int
    """Studies whose images bring different texts; the first one is used."""
    texts_without_sections: int
    """Studies with a text that has neither findings nor an impression."""


def group_studies(
    records: Iterable[ImageRecord],
    *,
    key: bytes,
    validation_share: float,
    test_share: float,
    max_views: int,
    year_bucket: int = 0,
    stores: Collection[str] = (),
    splits: Mapping[str, str] | None = None,
) -> GroupedStudies:
    """Group images into studies, and put into quarantine what must not be used.

    An image may be unusable by itself, or with its whole study: without a patient, of several patients
    or splits, with too many images.

    Args:
        records: the archive's images, in any order.
        key: of the pseudonyms.
        validation_share, test_share: of the patients, by a hash of their pseudonym, where the archive
            has no split.
        max_views: images of a study at most.
        year_bucket: years that a study's date is coarsened to; 0 keeps no date.
        stores: where paths may lie that are URLs.
        splits: of some patients, see `prepare`.
    """
    images: DiskList[tuple[str, ImageRecord]] = DiskList()
    archive_splits: dict[str, frozenset[str]] = {}
    quarantine = QuarantineTable()
    for record in records:
        words = (record.text, record.position, *record.other_labels)
        if not record.problem and (found := find_problem((record.path,), words, stores)):
            record = replace(record, problem=found, text=None, position=None, other_labels=())
        if record.study:
            study_id = pseudonym(key, "study", record.study)
            images.add((study_id, record), study_id)
            if record.split:
                before = archive_splits.get(record.patient, frozenset())
                archive_splits[record.patient] = _SPLIT_SETS[before | {record.split}]
        else:
            quarantine.add(_quarantine_row(record, None, ("no-study", "")))

    studies: DiskList[StudyEntry] = DiskList()
    several_texts = without_sections = studies_listed = 0
    for study_id, group in groupby(images, key=itemgetter(0)):
        listed = [record for _, record in group]
        studies_listed += 1
        usable = sorted((r for r in listed if not r.problem), key=lambda r: r.path)
        problem = _study_problem(usable, archive_splits, max_views)
        for record in listed:
            if record.problem or problem:
                quarantine.add(_quarantine_row(record, study_id, problem))
        if problem or not usable:
            quarantine.add(
                QuarantineRow("study", None, study_id, *(problem or ("no-usable-image", "")))
            )
            continue

        patient_id = pseudonym(key, "patient", usable[0].patient)
        split = next(iter(archive_splits.get(usable[0].patient, ())), None)
        if split in (None, NOT_TEST):
            wanted = (splits or {}).get(patient_id)
            of_test = 0.0 if split else test_share
            if wanted is None or (split == NOT_TEST and wanted == "test"):
                wanted = split_by_hash(patient_id, validation_share, of_test)
            split = wanted
        texts = list(dict.fromkeys(r.text for r in listed if r.text and r.text.strip()))
        findings, impression = sections(texts[0] if texts else None)
        several_texts += len(texts) > 1
        without_sections += bool(texts) and findings is None and impression is None
        studies.add(
            StudyEntry(
                study_id=study_id,
                patient_id=patient_id,
                split=split,
                images=[ImageEntry(r.path, r.view, r.position) for r in usable],
                findings=findings,
                impression=impression,
                labels=_labels(listed),
                other_labels=sorted({n for r in listed for n in r.other_labels}) or None,
                years=bucket_of(min((r.year for r in listed if r.year), default=None), year_bucket),
            )
        )
    return GroupedStudies(studies, quarantine, studies_listed, several_texts, without_sections)


def _quarantine_row(
    image: ImageRecord, study_id: str | None, of_study: tuple[str, str] | None
) -> QuarantineRow:
    """The row for an image with its own problem, else with that of its whole study."""
    problem = (image.problem.reason, image.problem.detail) if image.problem else of_study
    assert problem is not None
    return QuarantineRow("image", image.path, study_id, *problem)


def _study_problem(
    images: list[ImageRecord], archive_splits: dict[str, frozenset[str]], max_views: int
) -> tuple[str, str] | None:
    """Why the study as a whole cannot be used, as reason and detail."""
    patients = {record.patient for record in images}
    if not images:
        return None
    if "" in patients:
        return "no-patient", (
            "PatientID or the patient's cell is empty: a table of --reports with columns study and "
            "patient brings it"
        )
    if len(patients) > 1:
        return "patient-conflict", (
            f"{len(patients)} patients; if study numbers restart for each patient, join the two"
        )
    splits = archive_splits.get(images[0].patient, frozenset())
    if len(splits) > 1:
        return "split-conflict", ", ".join(sorted(splits))
    if len(images) > max_views:
        return "too-many-images", f"{len(images)} images, at most {max_views}"
    return None


def _labels(images: list[ImageRecord]) -> list[int]:
    """The study's states: for each label the strongest that any of its images brings."""
    states = [record.labels for record in images if record.labels is not None]
    if not states:
        return [NOT_MENTIONED] * len(CHEXPERT_LABELS)
    return [strongest(*of_label) for of_label in zip(*states, strict=True)]


# -------------------------------------------------------------------------------------------- rows


_TEXT = ["study_id", "patient_id", "dataset", "split", "findings", "impression", "years"]
_OTHER = "other_labels.list.element"
_SMALL = [f"views.list.element.{name}" for name in ("encoding", "view", "position")]
# Images are compressed already: no second compression, no dictionary of them, and above all no
# statistics, which would repeat the least and the greatest image in the footer of the file.
_PARQUET: dict[str, Any] = {
    "compression": {name: "zstd" for name in [*_TEXT, *_SMALL, _OTHER]},
    "use_dictionary": ["dataset", "split", "years", *_SMALL, _OTHER],
    "write_statistics": ["study_id", "patient_id", "dataset", "split"],
}


@dataclass(frozen=True, kw_only=True)
class StudyShardPlan(ShardPlan):
    """The plan of a shard of studies."""

    schema = STUDY_SCHEMA
    parquet = _PARQUET

    studies: list[StudyEntry]
    preparation: ImagePreparation
    for_processing: Literal["alone", "quarantine", "keep"]

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "StudyShardPlan":
        studies = [
            StudyEntry(**{**study, "images": [ImageEntry(**image) for image in study["images"]]})
            for study in fields["studies"]
        ]
        preparation = ImagePreparation(**fields["preparation"])
        return cls(**{**fields, "studies": studies, "preparation": preparation})

    @property
    def entries(self) -> int:
        return sum(len(study.images) for study in self.studies)

    @property
    def sources(self) -> list[str]:
        return [image.path for study in self.studies for image in study.images]

    @property
    def samples(self) -> list[tuple[str, str]]:
        return [(study.study_id, study.patient_id) for study in self.studies]

    def rows(
        self, root: Path, quarantined: list[QuarantineRow], counts: Counter[str]
    ) -> Iterator[dict[str, Any]]:
        for study in self.studies:
            views = []
            for image, prepared in self._images(study, root):
                if isinstance(prepared, QuarantineError):
                    quarantined.append(
                        QuarantineRow(
                            "image", image.path, study.study_id, prepared.reason, prepared.detail
                        )
                    )
                else:
                    views.append(self._view(image, prepared))
                    _count_header(counts, prepared)
            if not views:
                quarantined.append(
                    QuarantineRow("study", None, study.study_id, "no-usable-image", "")
                )
                continue
            _count(counts, study, views)
            yield {
                "study_id": study.study_id,
                "patient_id": study.patient_id,
                "dataset": self.dataset,
                "split": study.split,
                "views": views,
                "findings": study.findings,
                "impression": study.impression,
                "labels": study.labels,
                "other_labels": study.other_labels,
                "years": study.years,
            }

    def _images(
        self, study: StudyEntry, root: Path
    ) -> list[tuple[ImageEntry, PreparedImage | QuarantineError]]:
        """The images of a study, or why each is not taken.

        A detector's raw values are one exposure with the picture that was made of them: not taken where
        the study has such a picture.
        """
        images: list[tuple[ImageEntry, PreparedImage | QuarantineError]] = []
        for image in study.images:
            try:
                path = source_path(root, image.path)
                images.append((image, _prepare(path, self.preparation)))
            except QuarantineError as error:
                images.append((image, error))
        shown = any(isinstance(p, PreparedImage) and not _is_raw(p) for _, p in images)
        if self.for_processing == "keep" or (self.for_processing == "alone" and not shown):
            return images
        problem = QuarantineError(
            "for-processing",
            "beside an image for presentation" if shown else "for_processing takes none",
        )
        return [(image, problem if _is_raw(p) else p) for image, p in images]

    def _view(self, image: ImageEntry, prepared: PreparedImage) -> dict[str, Any]:
        view, position, header = image.view, image.position, prepared.header
        if header and view == "unknown":  # a table need not repeat what the file knows
            view, position = header.view, position or header.position
        return {
            "image": prepared.image,
            "encoding": self.preparation.encoding,
            "height": prepared.height,
            "width": prepared.width,
            "view": view,
            "position": position,
        }


def _prepare(path: Path, preparation: ImagePreparation) -> PreparedImage:
    """The image of a file. Raises QuarantineError for all that can be wrong with it."""
    try:
        with local_file(path, most_bytes(preparation.max_pixels)) as file:
            return retry_transient(lambda: prepare_image_isolated(file, preparation), remote=False)
    except FileNotFoundError as error:
        raise QuarantineError("missing") from error
    except OSError as error:  # of a store, after several attempts
        if error.errno == errno.ENOSPC:
            raise
        raise QuarantineError("unreadable", error_text(error)) from error


def _is_raw(prepared: PreparedImage | QuarantineError) -> bool:
    return isinstance(prepared, PreparedImage) and (
        prepared.header is not None and prepared.header.for_processing
    )


def _count_header(counts: Counter[str], prepared: PreparedImage) -> None:
    """Count what the header says that is not in the row."""
    if header := prepared.header:
        counts["burned in"] += header.burned_in
        counts["for processing"] += header.for_processing
        counts[f"body part/{header.body_part}"] += 1


def _count(counts: Counter[str], study: StudyEntry, views: list[dict[str, Any]]) -> None:
    counts["study"] += 1
    counts["image"] += len(views)
    counts["image bytes"] += sum(len(view["image"]) for view in views)
    counts["with findings"] += study.findings is not None
    counts["with impression"] += study.impression is not None
    counts["with report"] += study.findings is not None or study.impression is not None
    counts[f"views per study/{len(views)}"] += 1
    counts.update(f"views/{view['view']}" for view in views)
    for label, state in zip(CHEXPERT_LABELS, study.labels, strict=True):
        counts[f"labels/{label}/{STATE_NAMES[state]}"] += 1


def _describe(counts: Counter[str]) -> dict[str, Any]:
    """What the summary says of a split."""
    return {
        "images": counts["image"],
        "views": {view: counts[f"views/{view}"] for view in VIEWS},
        "views_per_study": _under(counts, "views per study/"),
        "with_report": counts["with report"],
        "with_findings": counts["with findings"],
        "with_impression": counts["with impression"],
        "labels": {
            label: {name: counts[f"labels/{label}/{name}"] for name in STATE_NAMES.values()}
            for label in CHEXPERT_LABELS
        },
        "images_with_burned_in_text": counts["burned in"],
        "images_for_processing": counts["for processing"],
        "body_parts": _under(counts, "body part/"),
        "image_bytes": counts["image bytes"],
    }


def _under(counts: Counter[str], prefix: str) -> dict[str, int]:
    """The counts whose names begin so, by the rest of the name."""
    below = {name.removeprefix(prefix): n for name, n in counts.items() if name.startswith(prefix)}
    return dict(sorted(below.items(), key=lambda item: (len(item[0]), item[0])))
