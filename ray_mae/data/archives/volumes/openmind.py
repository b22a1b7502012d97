"""OpenMind and other data sets of nnssl, by their manifest pretrain_data.json.

collection → datasets → subjects → sessions → images, each with name, modality, image_path and
associated_masks. Paths may start with $nnssl_raw or another variable of nnssl's. Of what is
said of a subject and of an image only what volumes.labels and attributes name is taken.

The quality of images was scored by data set, modality and what they were computed from
(derived_from), as dataset_info lists it: 1 is best, and what is above volumes.max_quality_score
goes to quarantine.
"""

import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ray_mae.config import IngestConfig, VolumeSettings
from ray_mae.data.archives.attributes import AttributeReader
from ray_mae.data.archives.folders import counts_above_zero, number_columns, read_numbers
from ray_mae.data.archives.records import Archive, Progress, VolumeRecord
from ray_mae.data.archives.volumes.contrasts import contrast_of
from ray_mae.data.quarantine import QuarantineError

_VARIABLE = re.compile(r"^\$(\w+)/?")
ATTRIBUTES = {
    "sex": "sex", "age": "age",  # of the subject; the others of the image
    "manufacturer": "manufacturer", "model": "model_name", "field_strength": "magnetic_field_strength",
}  # fmt: skip
RAW = "nnssl_raw"
VARIABLES = frozenset({RAW, "nnssl_preprocessed", "nnssl_results"})
"""Those that nnssl knows. Any other may hold a secret, which would become a part of a path."""


def read(config: IngestConfig, progress: Progress) -> Archive[VolumeRecord]:
    """List the images of the manifest. FileNotFoundError or ValueError if it is none."""
    path = config.source
    if path.is_dir():
        path /= "pretrain_data.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is no file (source): `openmind` reads pretrain_data.json")
    try:
        collection = json.loads(path.read_text())
        records, not_numbers = [], Counter[str]()
        people: dict[tuple[str, str], dict[str, Any]] = {}
        attributes = AttributeReader(config.attributes)
        scores = _scores(collection)
        counts: Counter[str] = Counter()
        for where, image, info in _images(collection):
            about = image.get("image_info") or {}
            score = _score(where[0], image, scores)
            counts["images_derived"] += bool(about.get("derived_from"))
            counts["images_without_quality_score"] += score is None
            masks = image.get("associated_masks") or {}
            dataset, subject, session = where
            people[dataset, subject] = info
            anonymised, anatomy = masks.get("anonymization_mask"), masks.get("anatomy_mask")
            records.append(
                VolumeRecord(
                    paths=(_resolve(image["image_path"], path),),
                    volume="/".join([*where, str(image["name"])]),
                    patient=f"{dataset}/{subject}",  # sub-01 is another person in each data set
                    session=session,
                    modality=contrast_of(str(image.get("modality") or "")),
                    site=dataset,
                    anonymised=anonymised and _resolve(anonymised, path),
                    anatomy=anatomy and _resolve(anatomy, path),
                    labels=read_numbers(info, config.volumes.labels, not_numbers),
                    attributes=attributes.of_row(_cells({**about, **info}), ATTRIBUTES),
                    problem=_problem(score, about.get("derived_from"), config.volumes),
                )
            )
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{path} is no manifest of nnssl ({type(error).__name__}: {error}): it needs datasets, "
            "subjects, sessions and images with name, image_path and modality"
        ) from error
    if not records:
        raise ValueError(f"{path} lists no images")
    for name in config.volumes.labels:
        if not any(name in info for info in people.values()):
            raise ValueError(f"{path} says no {name!r} of any subject (volumes.labels)")
    progress(len(records), len(records))
    notes = {
        "labels_not_numbers": counts_above_zero(not_numbers),
        "columns_of_numbers": number_columns(people.values()),
        **counts,
        **attributes.notes(),
    }
    return Archive(path.parent, records, notes)


def _cells(values: dict[str, Any]) -> dict[str, str]:
    return {name: "" if value is None else str(value) for name, value in values.items()}


Scores = dict[tuple[str, str, str], float]
"""Of image quality, by data set, modality and derived_from, which is "" for a scan."""


def _scores(collection: dict[str, Any]) -> Scores:
    scores = {}
    for dataset, of_dataset in collection["datasets"].items():
        for row in (of_dataset.get("dataset_info") or {}).get("image_quality_score") or []:
            if (score := _finite(row.get("image_quality_score"))) is not None:
                modality, origin = row.get("modality"), row.get("derived_from")
                scores[str(dataset), str(modality), str(origin or "")] = score
    return scores


def _score(dataset: str, image: dict[str, Any], scores: Scores) -> float | None:
    """The quality of an image: its own, or that of its like in the data set; None: not scored."""
    about = image.get("image_info") or {}
    own = _finite(about.get("image_quality_score"))
    like = dataset, str(image.get("modality")), str(about.get("derived_from") or "")
    return scores.get(like) if own is None else own


def _finite(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def _problem(
    score: float | None, derived_from: object, settings: VolumeSettings
) -> QuarantineError | None:
    """Why an image is not taken, by its quality and origin."""
    most = settings.max_quality_score
    if most is not None and score is not None and score > most:
        return QuarantineError("low-quality", f"image_quality_score {score:g}, at most {most:g}")
    if derived_from and settings.derived == "quarantine":
        return QuarantineError("derived", "the manifest says derived_from")
    return None


def _images(
    collection: dict[str, Any],
) -> Iterator[tuple[tuple[str, str, str], dict[str, Any], dict[str, Any]]]:
    """(dataset, subject, session), the image, and what is said of the subject."""
    for dataset, of_dataset in collection["datasets"].items():
        for subject, of_subject in of_dataset["subjects"].items():
            info = of_subject.get("subject_info") or {}
            for session, of_session in of_subject["sessions"].items():
                for image in of_session["images"]:
                    yield (str(dataset), str(subject), str(session)), image, info


def _resolve(listed_path: str, manifest: Path) -> str:
    """The path with its variable replaced. nnssl_raw is by default where the data set lies."""
    match = _VARIABLE.match(listed_path)
    if not match:
        return listed_path
    if match[1] not in VARIABLES:
        raise ValueError(
            f"{manifest} names paths below ${match[1]}: only {', '.join(sorted(VARIABLES))} are read "
            "from the environment; write the folder into the manifest"
        )
    folder = os.environ.get(match[1])
    if folder is None:
        if match[1] != RAW:
            raise ValueError(
                f"{manifest} names paths below ${match[1]}: set this variable of the environment"
            )
        folder = str(manifest.parent.parent)
    return str(Path(folder, listed_path[match.end() :]))
