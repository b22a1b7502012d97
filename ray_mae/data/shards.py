"""One shard: a plan on paper, and the task that turns it into one Parquet file."""

import hashlib
import json
import os
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ray_mae.config import IngestConfig
from ray_mae.data.dicom import is_dicom
from ray_mae.data.guard import read_dicom_guarded
from ray_mae.data.images import Encoding, encode, read_image, shrink
from ray_mae.data.labels import CHEXPERT_LABELS, STATE_NAMES
from ray_mae.data.quarantine import PASSING, Refusal, Unusable
from ray_mae.data.schema import SCHEMA_VERSION, SPLITS, STUDY_SCHEMA
from ray_mae.data.studies import Image, Study

# Where the finished shards' results are noted, so that a job that is started again can go on.
RESULTS = ".ingest"


@dataclass(frozen=True)
class Plan:
    """Everything that decides the bytes of one shard, except the archive's own files."""

    file: str
    dataset: str
    split: str
    studies: list[Study]
    image_size: int
    encoding: Encoding
    jpeg_quality: int
    studies_per_row_group: int
    max_pixels: int
    schema_version: int = SCHEMA_VERSION

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "Plan":
        """The plan of `asdict`."""
        studies = [
            Study(**{**study, "images": [Image(**image) for image in study["images"]]})
            for study in fields["studies"]
        ]
        return cls(**{**fields, "studies": studies})

    def fingerprint(self) -> str:
        """Changes if and only if the plan does."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def plan_shards(studies: list[Study], config: IngestConfig) -> list[Plan]:
    """The shards of these studies, which come sorted by pseudonym, split by split."""
    plans = []
    for split in SPLITS:
        of_split = [study for study in studies if study.split == split]
        for start in range(0, len(of_split), config.studies_per_shard):
            plans.append(
                Plan(
                    file=f"{split}-{start // config.studies_per_shard:05d}.parquet",
                    dataset=config.dataset,
                    split=split,
                    studies=of_split[start : start + config.studies_per_shard],
                    image_size=config.image_size,
                    encoding=config.encoding,
                    jpeg_quality=config.jpeg_quality,
                    studies_per_row_group=config.studies_per_row_group,
                    max_pixels=config.max_pixels,
                )
            )
    return plans


def finished(plan: Plan, output: Path) -> dict[str, Any] | None:
    """The result of a shard that an earlier run finished with this very plan, else None."""
    try:
        result: dict[str, Any] = json.loads(_result_path(plan.file, output).read_text())
    except (FileNotFoundError, ValueError):
        return None
    if result["plan"] != plan.fingerprint() or PASSING & {r["reason"] for r in result["refusals"]}:
        return None
    if result["rows"]:
        shard = output / plan.file
        if not shard.is_file() or shard.stat().st_size != result["bytes"]:
            return None
    return result


def _result_path(file: str, output: Path) -> Path:
    return output / RESULTS / f"{file}.json"


def write_shard(plan: Plan, root: Path, output: Path) -> dict[str, Any]:
    """Decode, check, encode and write the plan's studies. Returns figures and refusals.

    The file appears under its name when it is complete, never before.
    """
    refusals: list[Refusal] = []
    counts: Counter[str] = Counter()
    rows = _rows(plan, root, refusals, counts)
    target = output / plan.file
    unfinished = output / RESULTS / f"{plan.file}.{uuid.uuid4().hex[:8]}.unfinished"
    unfinished.parent.mkdir(parents=True, exist_ok=True)

    row_groups: list[int] = []
    with pq.ParquetWriter(unfinished, _schema(), **_PARQUET) as writer:
        while group := list(islice(rows, plan.studies_per_row_group)):
            writer.write_table(pa.Table.from_pylist(group, schema=_schema()))
            row_groups.append(len(group))
    result: dict[str, Any] = {
        "file": plan.file,
        "plan": plan.fingerprint(),
        "split": plan.split,
        "rows": sum(row_groups),
        "row_groups": row_groups,
        "images": counts["images"],
        "bytes": unfinished.stat().st_size,
        "sha256": _sha256(unfinished),
        "counts": dict(sorted(counts.items())),
        "refusals": [asdict(refusal) for refusal in refusals],
    }
    if row_groups:
        os.replace(unfinished, target)
    else:  # not one study of the plan was usable: there is nothing to keep a file for
        unfinished.unlink()
        target.unlink(missing_ok=True)
    note = unfinished.with_suffix(".note")
    note.write_text(json.dumps(result))
    os.replace(note, _result_path(plan.file, output))
    return result


def _rows(
    plan: Plan, root: Path, refusals: list[Refusal], counts: Counter[str]
) -> Iterator[dict[str, Any]]:
    """The studies as rows of STUDY_SCHEMA, one by one; refusals and counts are filled on the way."""
    for study in plan.studies:
        views = []
        for image in study.images:
            try:
                views.append(_view(image, root, plan))
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
            "dataset": plan.dataset,
            "split": study.split,
            "views": views,
            "findings": study.findings,
            "impression": study.impression,
            "labels": study.labels,
        }


def _view(image: Image, root: Path, plan: Plan) -> dict[str, Any]:
    path = root / image.path
    view, position = image.view, image.position
    try:
        dicom = path.suffix.lower() == ".dcm" or is_dicom(path)
    except (OSError, ValueError):
        dicom = False  # the reader of images says what is wrong with it
    if dicom:
        pixels, header = read_dicom_guarded(path, plan.max_pixels)
        if view == "unknown":  # a table need not repeat what the file knows
            view, position = header.view, position or header.position
    else:
        pixels = read_image(path, plan.max_pixels)
    pixels = shrink(pixels, plan.image_size)
    return {
        "image": encode(pixels, plan.encoding, plan.jpeg_quality),
        "encoding": plan.encoding,
        "height": pixels.shape[0],
        "width": pixels.shape[1],
        "view": view,
        "position": position,
    }


def _count(counts: Counter[str], study: Study, views: list[dict[str, Any]]) -> None:
    counts["studies"] += 1
    counts["images"] += len(views)
    counts["image bytes"] += sum(len(view["image"]) for view in views)
    counts["with findings"] += study.findings is not None
    counts["with impression"] += study.impression is not None
    counts["with report"] += study.findings is not None or study.impression is not None
    counts[f"views per study/{len(views)}"] += 1
    counts.update(f"views/{view['view']}" for view in views)
    for label, state in zip(CHEXPERT_LABELS, study.labels, strict=True):
        counts[f"labels/{label}/{STATE_NAMES[state]}"] += 1


def _schema() -> pa.Schema:
    return STUDY_SCHEMA.with_metadata({"ray_mae.schema_version": str(SCHEMA_VERSION)})


_TEXT = ["study_id", "patient_id", "dataset", "split", "findings", "impression"]
_SMALL = [f"views.list.element.{name}" for name in ("encoding", "view", "position")]
# Images are compressed already: no second compression, no dictionary of them, and above all no
# statistics, which would repeat the least and the greatest image in the footer of the file.
_PARQUET: dict[str, Any] = {
    "compression": {name: "zstd" for name in [*_TEXT, *_SMALL]},
    "use_dictionary": ["dataset", "split", *_SMALL],
    "write_statistics": ["study_id", "patient_id", "dataset", "split"],
}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
