"""From the images of an archive to its studies: pseudonyms, splits, and what cannot be kept."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations, groupby
from operator import itemgetter

from ray_mae.data.archives.record import NOT_TEST, ImageRecord
from ray_mae.data.identity import pseudonym, split_by_hash
from ray_mae.data.labels import CHEXPERT_LABELS, NOT_MENTIONED, strongest
from ray_mae.data.quarantine import Refusal
from ray_mae.data.refusals import Refusals
from ray_mae.data.reports import sections
from ray_mae.data.schema import SPLITS
from ray_mae.data.spool import Spool
from ray_mae.data.years import bucket_of

# Each set of splits once, as there are many patients.
_TOGETHER = {
    frozenset(names): frozenset(names)
    for count in range(1, len(SPLITS) + 2)
    for names in combinations((*SPLITS, NOT_TEST), count)
}


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

    studies: Spool[Study]
    """By pseudonym."""
    refusals: Refusals
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
    images: Spool[tuple[str, ImageRecord]] = Spool()
    splits_given: dict[str, frozenset[str]] = {}
    refusals = Refusals()
    for record in records:
        if record.study:
            study_id = pseudonym(key, "study", record.study)
            images.add((study_id, record), study_id)
            if record.split:
                before = splits_given.get(record.patient, frozenset())
                splits_given[record.patient] = _TOGETHER[before | {record.split}]
        else:
            refusals.add(_refusal(record, None, ("no-study", "")))

    studies: Spool[Study] = Spool()
    several_texts = without_sections = studies_listed = 0
    for study_id, found in groupby(images, key=itemgetter(0)):
        listed = [record for _, record in found]
        studies_listed += 1
        good = sorted((r for r in listed if not r.problem), key=lambda r: r.path)
        wrong = _wrong_with(good, splits_given, max_views)
        for record in listed:
            if record.problem or wrong:
                refusals.add(_refusal(record, study_id, wrong))
        if wrong or not good:
            refusals.add(Refusal("study", None, study_id, *(wrong or ("no-usable-image", ""))))
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
        studies.add(
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
    return Grouped(studies, refusals, studies_listed, several_texts, without_sections)


def _refusal(image: ImageRecord, study_id: str | None, other: tuple[str, str] | None) -> Refusal:
    """The image's own problem, else the other one, which it shares with its whole study."""
    problem = (image.problem.reason, image.problem.detail) if image.problem else other
    assert problem is not None
    return Refusal("image", image.path, study_id, *problem)


def _wrong_with(
    images: list[ImageRecord], splits_given: dict[str, frozenset[str]], max_views: int
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
    splits = splits_given.get(images[0].patient, frozenset())
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
