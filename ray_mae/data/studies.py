"""From the images of an archive to its studies: pseudonyms, splits, and what cannot be kept."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from ray_mae.data.archives.record import NOT_TEST, ImageRecord
from ray_mae.data.identity import pseudonym, split_by_hash
from ray_mae.data.labels import CHEXPERT_LABELS, NOT_MENTIONED, strongest
from ray_mae.data.quarantine import Refusal
from ray_mae.data.reports import sections
from ray_mae.data.years import bucket_of


@dataclass(frozen=True)
class Image:
    """One image to be read."""

    path: str
    view: str
    position: str | None


@dataclass(frozen=True)
class Study:
    """One study to be written, under its pseudonyms."""

    study_id: str
    patient_id: str
    split: str
    images: list[Image]
    """By path."""
    findings: str | None
    impression: str | None
    labels: list[int]
    other_labels: list[str] | None
    """By name; None where there are none."""
    years: str | None
    """The bucket of its date; None where no date is kept."""


@dataclass(frozen=True)
class Grouped:
    """Every image of the archive: in a study, or refused."""

    studies: list[Study]
    """By pseudonym."""
    refusals: list[Refusal]
    listed: int
    """Studies that the archive lists."""
    several_texts: int
    """Studies whose images bring different texts; the first one is used."""
    texts_without_sections: int
    """Studies with a text that has neither findings nor an impression."""


def group(
    records: Iterable[ImageRecord],
    *,
    key: bytes,
    validation_share: float,
    test_share: float,
    max_views: int,
    year_bucket: int = 0,
) -> Grouped:
    """Group images into studies and refuse what must not be used, image by image and as a study."""
    by_study: dict[str, list[ImageRecord]] = defaultdict(list)
    splits_given: dict[str, set[str]] = defaultdict(set)
    refusals: list[Refusal] = []
    for record in records:
        if record.study:
            by_study[record.study].append(record)
            splits_given[record.patient].update([record.split] if record.split else [])
        else:
            refusals.append(_refusal(record, None, ("no-study", "")))

    studies, several_texts, without_sections = [], 0, 0
    for name, listed in by_study.items():
        study_id = pseudonym(key, "study", name)
        good = sorted((r for r in listed if not r.problem), key=lambda r: r.path)
        wrong = _wrong_with(good, splits_given, max_views)
        refusals += [_refusal(r, study_id, wrong) for r in listed if r.problem or wrong]
        if wrong:
            refusals.append(Refusal("study", None, study_id, *wrong))
            continue
        if not good:
            refusals.append(Refusal("study", None, study_id, "no-usable-image", ""))
            continue

        patient_id = pseudonym(key, "patient", good[0].patient)
        split = next(iter(splits_given.get(good[0].patient, ())), None)
        if split in (None, NOT_TEST):
            of_test = 0.0 if split else test_share
            split = split_by_hash(patient_id, validation_share, of_test)
        texts = list(dict.fromkeys(r.text for r in listed if r.text and r.text.strip()))
        findings, impression = sections(texts[0] if texts else None)
        several_texts += len(texts) > 1
        without_sections += bool(texts) and findings is None and impression is None
        studies.append(
            Study(
                study_id=study_id,
                patient_id=patient_id,
                split=split,
                images=[Image(r.path, r.view, r.position) for r in good],
                findings=findings,
                impression=impression,
                labels=_labels(listed),
                other_labels=sorted({n for r in listed for n in r.other_labels}) or None,
                years=bucket_of(min((r.year for r in listed if r.year), default=None), year_bucket),
            )
        )
    studies.sort(key=lambda study: study.study_id)
    return Grouped(studies, refusals, len(by_study), several_texts, without_sections)


def _refusal(image: ImageRecord, study_id: str | None, other: tuple[str, str] | None) -> Refusal:
    """The image's own problem, else the other one, which it shares with its whole study."""
    problem = (image.problem.reason, image.problem.detail) if image.problem else other
    assert problem is not None
    return Refusal("image", image.path, study_id, *problem)


def _wrong_with(
    images: list[ImageRecord], splits_given: dict[str, set[str]], max_views: int
) -> tuple[str, str] | None:
    """Why the study as a whole cannot be used, as reason and detail."""
    patients = {record.patient for record in images}
    if not images:
        return None
    if "" in patients:
        return "no-patient", ""
    if len(patients) > 1:
        return "patient-conflict", (
            f"{len(patients)} patients; if study numbers restart for each patient, join the two"
        )
    splits = splits_given.get(images[0].patient, set())
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
