"""Studies in ingest: the plans of their shards, and their rows.

`prepare` is what the driver does before any pixel is read; `StudyShardPlan.rows` is what a worker does.
"""

import errno
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from ray_mae.config import IngestConfig
from ray_mae.data.archives.records import Archive, ImageRecord
from ray_mae.data.decoding.decoder_process import prepare_image_isolated
from ray_mae.data.decoding.dicom import most_bytes
from ray_mae.data.decoding.image_preprocessing import ImagePreparation, PreparedImage
from ray_mae.data.decoding.stored_images import decode
from ray_mae.data.disk_list import DiskList
from ray_mae.data.ingest.grouping import ImageEntry, StudyEntry, group_studies
from ray_mae.data.ingest.layout import Layout, cut_into_shards
from ray_mae.data.ingest.listed import named_stores
from ray_mae.data.ingest.reports import ReportReader, read_decisions
from ray_mae.data.ingest.shards import RESULTS, Besides, IngestJob, ShardPlan
from ray_mae.data.ingest.study_counts import count_header, count_study, describe
from ray_mae.data.look_alikes import bits_of
from ray_mae.data.paths import local_file, retry_transient, source_path
from ray_mae.data.privacy.report_sections import Sections
from ray_mae.data.quarantine import QuarantineError, QuarantineRow, error_text
from ray_mae.data.schema import study_schema


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
        labels=len(archive.label_names),
        attributes=config.attributes,
        decisions=read_decisions(config.names.reviewed, config.table_encoding),
        splits=splits,
    )
    preparation = ImagePreparation.of(config)
    reports = ReportReader.of(config.names)
    earlier = Layout.read(config.output / RESULTS, config.studies_per_shard)
    plans: DiskList[ShardPlan] = DiskList(
        StudyShardPlan(
            file=file,
            dataset=config.dataset,
            split=split,
            rows_per_row_group=config.studies_per_row_group,
            studies=studies,
            preparation=preparation,
            reports=reports,
            for_processing=config.for_processing,
            label_names=list(archive.label_names),
            attributes=list(config.attributes),
        )
        for file, split, studies in cut_into_shards(
            grouped.studies, lambda study: study.split, lambda study: study.study_id, earlier
        )
    )
    notes = {
        "studies_with_several_texts": grouped.several_texts,
        **archive.notes,
    }
    if config.attributes:
        notes["studies_whose_attributes_differ"] = dict(grouped.attributes_differ)
    listed = {"image": len(archive.records), "report": grouped.reports, "study": grouped.listed}
    return IngestJob(
        "study",
        StudyShardPlan,
        plans,
        listed,
        grouped.quarantine,
        notes,
        config.studies_per_shard,
        partial(describe, label_names=archive.label_names, attributes=config.attributes),
        {"labels": list(archive.label_names), "attributes": list(config.attributes)},
    )


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

    parquet = _PARQUET

    studies: list[StudyEntry]
    preparation: ImagePreparation
    reports: ReportReader
    for_processing: Literal["alone", "quarantine", "keep"]
    label_names: list[str]
    attributes: list[str]

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "StudyShardPlan":
        studies = [
            StudyEntry(**{**study, "images": [ImageEntry(**image) for image in study["images"]]})
            for study in fields["studies"]
        ]
        preparation = ImagePreparation(**fields["preparation"])
        reports = ReportReader(**fields["reports"])
        return cls(**{**fields, "studies": studies, "preparation": preparation, "reports": reports})

    @property
    def schema(self) -> pa.Schema:
        return study_schema(len(self.label_names), self.attributes)

    @property
    def entries(self) -> int:
        return sum(len(study.images) for study in self.studies)

    @property
    def sources(self) -> list[str]:
        return [image.path for study in self.studies for image in study.images]

    @property
    def samples(self) -> list[tuple[str, str]]:
        return [(study.study_id, study.patient_id) for study in self.studies]

    def rows(self, root: Path, besides: Besides) -> Iterator[dict[str, Any]]:
        quarantined, counts = besides.quarantined, besides.counts
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
                    count_header(counts, prepared)
            if not views:
                kinds: tuple[Literal["study", "report"], ...] = ("study", "report")
                quarantined += [
                    QuarantineRow(kind, None, study.study_id, "no-usable-image", "")
                    for kind in (kinds if study.text else kinds[:1])
                ]
                continue
            report = self._report(study, besides)
            count_study(counts, study, report, views, self.label_names, self.attributes)
            yield {
                "study_id": study.study_id,
                "patient_id": study.patient_id,
                "dataset": self.dataset,
                "split": study.split,
                "views": views,
                **report._asdict(),
                "labels": study.labels,
                "other_labels": study.other_labels,
                "years": study.years,
                **{name: study.attributes.get(name) for name in self.attributes},
            }

    def looks(self, root: Path) -> Iterator[tuple[str, bytes]]:
        for study in self.studies:
            for _, prepared in self._images(study, root):
                if isinstance(prepared, PreparedImage):
                    yield study.patient_id, bits_of(decode(prepared.image))

    def _report(self, study: StudyEntry, besides: Besides) -> Sections:
        """Findings and impression; None for both where there is no report, or it goes aside."""
        nothing = Sections(None, None)
        if not study.text:
            return nothing
        try:
            report = self.reports.read(study.text, study.decision)
            if report.kinds:
                besides.review.append(report.review(study.study_id, study.text))
                found = ", ".join(f"{kind} {number}" for kind, number in report.kinds.items())
                raise QuarantineError("name-found", found)
        except QuarantineError as error:
            besides.quarantined.append(
                QuarantineRow("report", None, study.study_id, error.reason, error.detail)
            )
            return nothing
        return report.sections

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
