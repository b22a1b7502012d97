"""The shards of studies: how they are planned, and the rows of one."""

import errno
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ray_mae.config import IngestConfig
from ray_mae.data.archives.record import Archive, ImageRecord
from ray_mae.data.dicom import Header, is_dicom, most_bytes
from ray_mae.data.guard import read_dicom_guarded
from ray_mae.data.images import Encoding, encode, read_image, shrink
from ray_mae.data.labels import CHEXPERT_LABELS, STATE_NAMES
from ray_mae.data.layout import Layout, cut
from ray_mae.data.places import on_disk, patiently, place_of
from ray_mae.data.quarantine import Refusal, Unusable, said
from ray_mae.data.schema import STUDY_SCHEMA, VIEWS
from ray_mae.data.shards import RESULTS, Job, Plan
from ray_mae.data.spool import Spool
from ray_mae.data.studies import Image, Study, group

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
class StudyPlan(Plan):
    """A shard of studies."""

    schema = STUDY_SCHEMA
    parquet = _PARQUET

    studies: list[Study]
    image_size: int
    encoding: Encoding
    jpeg_quality: int
    max_pixels: int
    max_aspect: float
    burned_in: Literal["quarantine", "keep"]

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "StudyPlan":
        studies = [
            Study(**{**study, "images": [Image(**image) for image in study["images"]]})
            for study in fields["studies"]
        ]
        return cls(**{**fields, "studies": studies})

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
        self, root: Path, refusals: list[Refusal], counts: Counter[str]
    ) -> Iterator[dict[str, Any]]:
        for study in self.studies:
            views = []
            for image in study.images:
                try:
                    views.append(_view(image, root, self, counts))
                except Unusable as why:
                    refusals.append(
                        Refusal("image", image.path, study.study_id, why.reason, why.detail)
                    )
            if not views:
                refusals.append(Refusal("study", None, study.study_id, "no-usable-image", ""))
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


def prepare(archive: Archive[ImageRecord], config: IngestConfig, key: bytes) -> Job:
    """Group the images into studies and plan their shards."""
    grouped = group(
        archive.records,
        key=key,
        validation_share=config.validation_share,
        test_share=config.test_share,
        max_views=config.max_views,
        year_bucket=config.year_bucket,
    )
    earlier = Layout.read(config.output / RESULTS, config.studies_per_shard)
    plans: Spool[Plan] = Spool(
        StudyPlan(
            file=file,
            dataset=config.dataset,
            split=split,
            rows_per_row_group=config.studies_per_row_group,
            studies=studies,
            image_size=config.image_size,
            encoding=config.encoding,
            jpeg_quality=config.jpeg_quality,
            max_pixels=config.max_pixels,
            max_aspect=config.max_aspect,
            burned_in=config.burned_in,
        )
        for file, split, studies in cut(
            grouped.studies, lambda study: study.split, lambda study: study.study_id, earlier
        )
    )
    notes = {
        "studies_with_several_texts": grouped.several_texts,
        "texts_without_findings_or_impression": grouped.texts_without_sections,
        **archive.notes,
    }
    listed = {"image": len(archive.records), "study": grouped.listed}
    return Job(
        "study",
        StudyPlan,
        plans,
        listed,
        grouped.refusals,
        notes,
        config.studies_per_shard,
        _describe,
    )


def _view(image: Image, root: Path, plan: StudyPlan, counts: Counter[str]) -> dict[str, Any]:
    view, position = image.view, image.position
    pixels, header = _read(place_of(root, image.path), plan.max_pixels)
    if header is not None:
        if header.burned_in and plan.burned_in == "quarantine":
            raise Unusable("burned-in", "BurnedInAnnotation is YES")
        counts["burned in"] += header.burned_in
        if view == "unknown":  # a table need not repeat what the file knows
            view, position = header.view, position or header.position
    long, short = max(pixels.shape), min(pixels.shape)
    if long > plan.max_aspect * short:
        raise Unusable("elongated", f"{pixels.shape[0]} x {pixels.shape[1]} pixels")
    pixels = shrink(pixels, plan.image_size)
    return {
        "image": encode(pixels, plan.encoding, plan.jpeg_quality),
        "encoding": plan.encoding,
        "height": pixels.shape[0],
        "width": pixels.shape[1],
        "view": view,
        "position": position,
    }


def _read(path: Path, max_pixels: int) -> tuple[NDArray[np.uint8], Header | None]:
    """The image, and its header if it is DICOM. Raises Unusable for all that can be wrong with it."""

    def read(file: Path) -> tuple[NDArray[np.uint8], Header | None]:
        try:
            dicom = file.suffix.lower() == ".dcm" or is_dicom(file)
        except (OSError, ValueError):
            dicom = False  # the reader of images says what is wrong with it
        return (
            read_dicom_guarded(file, max_pixels) if dicom else (read_image(file, max_pixels), None)
        )

    try:
        with on_disk(path, most_bytes(max_pixels)) as file:
            return patiently(lambda: read(file), remote=False)
    except FileNotFoundError as error:
        raise Unusable("missing") from error
    except OSError as error:  # of a store, after several attempts
        if error.errno == errno.ENOSPC:
            raise
        raise Unusable("unreadable", said(error)) from error


def _count(counts: Counter[str], study: Study, views: list[dict[str, Any]]) -> None:
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
        "image_bytes": counts["image bytes"],
    }


def _under(counts: Counter[str], prefix: str) -> dict[str, int]:
    found = {name.removeprefix(prefix): n for name, n in counts.items() if name.startswith(prefix)}
    return dict(sorted(found.items(), key=lambda item: int(item[0])))
