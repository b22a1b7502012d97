"""Images grouped into studies, before any pixel is read."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, groupby
from operator import itemgetter

from ray_mae.data.archives.attributes import Attributes, first_of_each
from ray_mae.data.archives.records import NOT_TEST, ImageRecord
from ray_mae.data.disk_list import DiskList
from ray_mae.data.ingest.listed import find_problem
from ray_mae.data.ingest.quarantine_table import QuarantineTable
from ray_mae.data.ingest.reports import digest
from ray_mae.data.labels import CHEXPERT_LABELS, NOT_LABELLED, strongest
from ray_mae.data.privacy.pseudonyms import pseudonym, split_by_hash
from ray_mae.data.privacy.years import bucket_of
from ray_mae.data.quarantine import QuarantineRow
from ray_mae.data.schema import SPLITS


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
    text: str | None
    """The report as it is; a worker reads its sections."""
    labels: list[int]
    """A state for each of the archive's label_names."""
    other_labels: list[str] | None
    """By name; None where there are none."""
    years: str | None
    """The bucket of its date; None where no date is kept."""
    attributes: Attributes = field(default_factory=dict)
    """What is known of those that were asked for."""
    decision: str | None = None
    """Of a person on the report, see ray_mae.data.ingest.reports."""


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
    reports: int
    """Studies with a text."""
    several_texts: int
    """Studies whose images bring different texts; the first one is used."""
    attributes_differ: Counter[str]
    """Studies whose images disagree, by attribute; what the first image says is kept."""


def group_studies(
    records: Iterable[ImageRecord],
    *,
    key: bytes,
    validation_share: float,
    test_share: float,
    max_views: int,
    year_bucket: int = 0,
    stores: Collection[str] = (),
    labels: int = len(CHEXPERT_LABELS),
    attributes: Sequence[str] = (),
    decisions: Mapping[tuple[str, str], str] | None = None,
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
        labels: how many label states a record has.
        attributes: which ones are kept.
        decisions: of a person on reports, by study and digest of the text.
        splits: of some patients, by pseudonym, where the archive has none and their hash does not count.
    """
    images: DiskList[tuple[str, ImageRecord]] = DiskList()
    archive_splits: dict[str, frozenset[str]] = {}
    quarantine = QuarantineTable()
    for record in records:
        if not record.problem and (found := find_problem((record.path,), _words(record), stores)):
            record = replace(
                record, problem=found, text=None, position=None, other_labels=(), attributes=None
            )
        if record.study:
            study_id = pseudonym(key, "study", record.study)
            images.add((study_id, record), study_id)
            if record.split:
                before = archive_splits.get(record.patient, frozenset())
                archive_splits[record.patient] = _SPLIT_SETS[before | {record.split}]
        else:
            quarantine.add(_quarantine_row(record, None, ("no-study", "")))

    studies: DiskList[StudyEntry] = DiskList()
    several_texts = reports = studies_listed = 0
    differ = Counter[str]()
    for study_id, group in groupby(images, key=itemgetter(0)):
        listed = [record for _, record in group]
        studies_listed += 1
        usable = sorted((r for r in listed if not r.problem), key=lambda r: r.path)
        problem = _study_problem(usable, archive_splits, max_views)
        # the first usable image's, whatever order the archive has
        ordered = sorted(listed, key=lambda r: (bool(r.problem), r.path))
        texts = list(dict.fromkeys(r.text for r in ordered if r.text and r.text.strip()))
        reports += bool(texts)
        for record in listed:
            if record.problem or problem:
                quarantine.add(_quarantine_row(record, study_id, problem))
        if problem or not usable:
            why = problem or ("no-usable-image", "")
            quarantine.add(QuarantineRow("study", None, study_id, *why))
            if texts:
                quarantine.add(QuarantineRow("report", None, study_id, *why))
            continue

        patient_id = pseudonym(key, "patient", usable[0].patient)
        split = next(iter(archive_splits.get(usable[0].patient, ())), None)
        if split in (None, NOT_TEST):
            wanted = (splits or {}).get(patient_id)
            of_test = 0.0 if split else test_share
            if wanted is None or (split == NOT_TEST and wanted == "test"):
                wanted = split_by_hash(patient_id, validation_share, of_test)
            split = wanted
        several_texts += len(texts) > 1
        text = texts[0] if texts else None
        known, differing = first_of_each(attributes, [record.attributes for record in usable])
        differ.update(differing)
        studies.add(
            StudyEntry(
                study_id=study_id,
                patient_id=patient_id,
                split=split,
                images=[ImageEntry(r.path, r.view, r.position) for r in usable],
                text=text,
                labels=_labels(listed, labels),
                other_labels=sorted({n for r in listed for n in r.other_labels}) or None,
                years=bucket_of(min((r.year for r in listed if r.year), default=None), year_bucket),
                attributes=known,
                decision=text and (decisions or {}).get((study_id, digest(text))),
            )
        )
    return GroupedStudies(studies, quarantine, studies_listed, reports, several_texts, differ)


def _words(record: ImageRecord) -> Iterator[str | None]:
    """All text of a record that may get into a row."""
    yield from (record.text, record.position, *record.other_labels)
    yield from filter(lambda value: isinstance(value, str), (record.attributes or {}).values())


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


def _labels(images: list[ImageRecord], count: int) -> list[int]:
    """The study's states: for each label the strongest that any of its images brings."""
    states = [record.labels for record in images if record.labels is not None]
    if not states:
        return [NOT_LABELLED] * count
    return [strongest(*of_label) for of_label in zip(*states, strict=True)]
