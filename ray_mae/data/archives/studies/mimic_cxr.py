"""MIMIC-CXR (DICOM files) and MIMIC-CXR-JPG, with the reports of the former and tables of the latter.

Johnson et al. 2019, https://physionet.org/content/mimic-cxr and /mimic-cxr-jpg. Images lie in
files/p10/p10000032/s50414267/DICOM_ID.dcm or .jpg; reports in files/p10/p10000032/s50414267.txt, as a
folder or in mimic-cxr-reports.zip. The tables are the metadata (or cxr-record-list, which the DICOM
release has), split, and the label states of one of two labelers; without a table of labels every
label is not mentioned. Findings and impression are cut out of a report by the habits of that corpus.

None of these says who somebody is: sex and age come from patients.csv of MIMIC-IV, whose dates are shifted
as those of the images are.
"""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile, ZipFile

from ray_mae.config import IngestConfig
from ray_mae.data.archives.attributes import OLDEST, AttributeReader, Attributes
from ray_mae.data.archives.label_reader import LabelReader, published_names
from ray_mae.data.archives.published import (
    IMAGE_SUFFIXES,
    find_published,
    official_split_file,
    rows_with,
    source_folder,
    word,
)
from ray_mae.data.archives.records import Archive, ImageRecord, Progress
from ray_mae.data.archives.report_files import read_member, read_report
from ray_mae.data.archives.tables import TableRow
from ray_mae.data.decoding.views import position_of, view_of
from ray_mae.data.labels import CHEXPERT_LABELS
from ray_mae.data.paths import list_folder, local_file
from ray_mae.data.privacy.pseudonyms import split_named
from ray_mae.data.privacy.report_headings import (
    CIRCUMSTANCES,
    EXAMINATION,
    EXAMINATION_LINE,
    FINDINGS,
    IMPRESSION,
    REMARK,
    mend_headings,
)
from ray_mae.data.privacy.report_text import plain_text
from ray_mae.data.privacy.years import year_of
from ray_mae.data.quarantine import QuarantineError

METADATA, RECORDS = r"mimic-cxr-[\d.]+-metadata\.csv", r"cxr-record-list\.csv"
SPLIT, LABELS = r"mimic-cxr-[\d.]+-split\.csv", r"mimic-cxr-[\d.]+-{labeler}\.csv"
PATIENTS, DATE = r"patients\.csv", "StudyDate"
ZIP = "mimic-cxr-reports.zip"
_PROGRESS_EVERY = 10_000  # images between two calls of progress
Reports = Callable[[str, str], str | None]
"""The report of (subject, study) as it is, None where there is none."""


def read(config: IngestConfig, progress: Progress) -> Archive[ImageRecord]:
    """List the images of the table. FileNotFoundError or ValueError if it is not this archive."""
    root = source_folder(config, "files/p10 … p19")
    table = find_published(config, METADATA) or find_published(config, RECORDS)
    if table is None:
        raise FileNotFoundError(
            f"{config.tables or config.source} holds neither mimic-cxr-2.0.0-metadata.csv nor "
            "cxr-record-list.csv: put one of them there, or name the folder it is in (tables)"
        )
    wanted = published_names(config.columns, config.archive, CHEXPERT_LABELS)
    labels = LabelReader.of_columns(wanted or CHEXPERT_LABELS)
    states = _states(config, labels)
    splits = _splits(config)
    people = _People.of(config, table)
    folders = _ImageFolders(root)
    texts: dict[str, str | None] = {}
    records, without_split = [], 0
    with _reports(config, folders) as report_of:
        for row in rows_with(table, "dicom_id", "subject_id", "study_id"):
            subject, study = word(row, "subject_id"), word(row, "study_id")
            if study not in texts:
                report = report_of(subject, study)
                texts[study] = None if report is None else findings_and_impression(report)
            view = _view_words(row)
            split = splits.get(study)
            without_split += bool(splits) and split is None
            path, problem = folders.find(subject, study, word(row, "dicom_id"))
            records.append(
                ImageRecord(
                    path=path,
                    study=study,
                    patient=subject,
                    view=view_of(view) or "unknown",
                    position=position_of(view),
                    text=texts[study],
                    labels=states.get(study),
                    attributes=people.attributes(subject, word(row, DATE)),
                    split=split,
                    year=year_of(word(row, DATE)) if config.year_bucket else None,
                    problem=problem,
                )
            )
            if len(records) % _PROGRESS_EVERY == 0:
                progress(len(records), len(records))
    if folders.suffix is None:
        raise FileNotFoundError(
            f"{folders.files} holds none of the {len(records)} images that {table} lists"
        )
    if config.reports and not any(texts.values()):
        raise FileNotFoundError(
            f"{config.reports} holds no report of a study that {table} lists (reports): "
            "files/p10/p10000032/s50414267.txt and so on are expected in it"
        )
    progress(len(records), len(records))
    notes: dict[str, Any] = {
        "images_without_split": without_split,
        "studies_without_report": sum(text is None for text in texts.values()),
        "studies_without_labels": len(texts.keys() - states.keys()),
        "label_rows_without_study": len(states.keys() - texts.keys()),
        **labels.notes(),
        **people.notes(),
    }
    return Archive(root, records, notes, label_names=labels.names)


def _view_words(row: dict[str, str]) -> str:
    """ViewPosition, or where it names no view the meaning of the code: antero-posterior, lateral …"""
    position, meaning = word(row, "ViewPosition"), word(row, "ViewCodeSequence_CodeMeaning")
    return meaning if view_of(position) is None and view_of(meaning) else position


def _states(config: IngestConfig, labels: LabelReader) -> dict[str, tuple[int, ...]]:
    """The states of each study. FileNotFoundError where only the other labeler's table is there."""
    table = find_published(config, LABELS.format(labeler=config.labeler))
    if table is None:
        other = find_published(config, LABELS.format(labeler="(?:chexpert|negbio)"))
        if other:
            raise FileNotFoundError(
                f"{other} is there, but mimic-cxr-2.0.0-{config.labeler}.csv is not: put it there, "
                "or choose the other labeler (labeler)"
            )
        return {}
    return {word(row, "study_id"): labels.read(row) for row in rows_with(table, "study_id")}


def _splits(config: IngestConfig) -> dict[str, str]:
    """The official split of each study; empty where it is not wanted."""
    table = official_split_file(config, SPLIT, "mimic-cxr-2.0.0-split.csv")
    splits: dict[str, str] = {}
    for row in rows_with(table, "study_id", "split") if table else ():
        split = split_named(word(row, "split"))
        if split is None:
            raise ValueError(f"{table}: {row['split']!r} is no split: train, validate or test")
        if splits.setdefault(word(row, "study_id"), split) != split:
            raise ValueError(f"{table}: study {row['study_id']} is in two splits")
    return splits


class _People:
    """Sex and age of subjects, from the table of patients of MIMIC-IV."""

    def __init__(self, rows: dict[str, TableRow], reader: AttributeReader) -> None:
        self._rows, self._reader = rows, reader
        self._strangers: set[str] = set()

    @classmethod
    def of(cls, config: IngestConfig, table: Path) -> "_People":
        """Nobody where nothing is asked for. FileNotFoundError or ValueError where it cannot be known."""
        reader = AttributeReader(config.attributes)
        if not config.attributes:
            return cls({}, reader)
        patients = find_published(config, PATIENTS)
        if patients is None:
            raise FileNotFoundError(
                f"{config.tables or config.source} holds no patients.csv: attributes asks for "
                f"{' and '.join(config.attributes)}, which no table of MIMIC-CXR says; put the table of "
                "MIMIC-IV (hosp/patients.csv.gz) there, or ask for nothing (attributes)"
            )
        if "age" in config.attributes:
            rows_with(table, DATE)  # ValueError: the list of the DICOM release has no dates
        columns = ("subject_id", "gender", "anchor_age", "anchor_year")
        return cls({word(r, "subject_id"): r for r in rows_with(patients, *columns)}, reader)

    def attributes(self, subject: str, date: str) -> Attributes | None:
        """Those of a subject on a date."""
        if not self._reader.wanted:
            return None
        row = self._rows.get(subject)
        if row is None:
            self._strangers.add(subject)
            return None
        return self._reader.read({"sex": word(row, "gender"), "age": _age(row, date)})

    def notes(self) -> dict[str, Any]:
        if not self._reader.wanted:
            return {}
        return {"patients_without_patients_row": len(self._strangers), **self._reader.notes()}


def _age(row: TableRow, date: str) -> str:
    """The age in the year of a date, as a cell; all above 89 are 91 in the table, whenever that was."""
    age, anchor, year = word(row, "anchor_age"), year_of(word(row, "anchor_year")), year_of(date)
    if not age.isdigit() or anchor is None or year is None:
        return ""
    return age if int(age) > OLDEST else str(int(age) + year - anchor)


class _ImageFolders:
    """The folders of the images: which patients are there, and in which format."""

    def __init__(self, root: Path) -> None:
        self.files = next((p for p in (root / "files", root) if _groups(p)), root)
        if not _groups(self.files):
            raise FileNotFoundError(f"{root} holds no folder files with p10 and so on (source)")
        self.inner = "files" if self.files != root else ""
        self.patients = {
            name for group in _groups(self.files) for name, _ in list_folder(self.files / group)
        }
        self.suffix: str | None = None
        """Of the images, None until one is found."""

    def find(self, subject: str, study: str, image: str) -> tuple[str, QuarantineError | None]:
        """The path of an image below the root, and what is wrong with it, None if nothing is."""
        patient = f"p{subject}"
        inner = os.path.join(self.inner, patient[:3], patient, f"s{study}")
        if patient not in self.patients:
            return f"{inner}/{image}", QuarantineError(
                "missing", "there is no folder of this patient"
            )
        if self.suffix is None:
            folder = self.files / patient[:3] / patient / f"s{study}"
            self.suffix = next(
                (s for s in IMAGE_SUFFIXES if (folder / (image + s)).is_file()), None
            )
        return f"{inner}/{image}{self.suffix or '.dcm'}", None


def _groups(folder: Path) -> list[str]:
    """p10 to p19, as far as they are there."""
    if not folder.is_dir():
        return []
    return [name for name, _ in list_folder(folder) if re.fullmatch(r"p\d\d", name)]


@contextmanager
def _reports(config: IngestConfig, folders: _ImageFolders) -> Iterator[Reports]:
    """Where the reports are: in what `reports` names, in the zip beside the images, among them."""
    location = config.reports
    if location is None:
        beside = [folder / ZIP for folder in (config.source, config.tables) if folder]
        location = next((path for path in beside if path.is_file()), folders.files)
    if location.is_dir():
        folder = location / "files" if (location / "files").is_dir() else location
        yield lambda subject, study: _text(folder / _report_path(subject, study))
    elif location.is_file():
        try:
            with local_file(location) as file, ZipFile(file) as archive:
                yield _in_zip(archive)
        except BadZipFile as error:
            raise ValueError(f"{location} is no zip file (reports): {error}") from error
    else:
        raise FileNotFoundError(
            f"{location} does not exist (reports): {ZIP} or the folder made of it"
        )


def _report_path(subject: str, study: str) -> str:
    return f"p{subject[:2]}/p{subject}/s{study}.txt"


def _text(path: Path) -> str | None:
    content = read_report(path)
    return None if content is None else content.decode(errors="replace")


def _in_zip(archive: ZipFile) -> Reports:
    """Reports of a zip, whatever folders it has above p10."""
    names = {"/".join(name.split("/")[-3:]): name for name in archive.namelist()}

    def text(subject: str, study: str) -> str | None:
        name = names.get(_report_path(subject, study))
        if name is None:
            return None
        with archive.open(name) as file:
            content = read_member(file)
        return None if content is None else content.decode(errors="replace")

    return text


# ------------------------------------------------------- findings and impression of a report

# Before this line stand preliminary readings with their date and author, and addenda.
_BANNER = re.compile(r"^[^\w\n]*FINAL REPORT[^\w\n]*$", re.MULTILINE)
_NAMES = {
    "findings": FINDINGS,
    "impression": IMPRESSION,
    "reason": (
        r"(?:clinical )?(?:indications?|history|information|data)|(?:clinical )?reason(?: for \w+)*"
        r"|patient history|medical condition"
    ),
    "circumstances": (
        r"(?:type of )?exam(?:ination)?s?|study|technique|comparisons?|views?|procedure"
    ),
    "end": (
        r"notifications?|recommendations?(?:\(s\))?|addendum|wet[ -]?read|communication|attestation"
        r"|dictated|signed|attending"
    ),
}
_HEADER = re.compile(
    r"[ \t]*(?:"
    + "|".join(f"(?P<{kind}>{name})" for kind, name in _NAMES.items())
    + rf"){REMARK}[ \t]*:",
    re.IGNORECASE,
)
_LONE_HEADER = re.compile(r"[ \t]*(?:(?P<findings>FINDINGS)|(?P<impression>IMPRESSION))[ \t]*$")
_VIEWS = re.compile(rf"[ \t]*(?:{CIRCUMSTANCES})[ \t]*:", re.IGNORECASE)
# PORTABLE CHEST, ___: or FRONTAL AND LATERAL VIEWS OF THE CHEST: opens a description.
_EXAM = re.compile(rf"[ \t]*(?P<name>(?=[A-Z])(?:(?i:{EXAMINATION})|{EXAMINATION_LINE}):)(?=\s|$)")
_SENTENCE_END = re.compile(r"(?<=[.?!])\s+")


class _Paragraph(NamedTuple):
    header: str | None
    """A name of _NAMES, "exam" for the name of the examination, None without a header of its own."""
    text: str
    exam: str = ""
    """The name of the examination, as it is written."""


def findings_and_impression(report: str) -> str:
    """The report's findings and impression under these two headers; nothing else of it.

    Most reports name both. Where one has no FINDINGS, what describes the images stands
    - under the name of the examination, as in "PORTABLE CHEST, ___:", or
    - without a header, in paragraphs after the one that INDICATION, COMPARISON or the like opens and
      before IMPRESSION, or in a report without any header; or else, without an impression, too,
    - behind the first sentence of the last of COMPARISON, TECHNIQUE and EXAMINATION ("COMPARISON:
      ___. The lungs are clear.").
    A title is no description. What stands before FINAL REPORT is left out. The name of another
    examination within the findings or the impression stays with its text.
    """
    report = mend_headings(plain_text(report))
    banners = [banner.end() for banner in _BANNER.finditer(report)]
    paragraphs = _paragraphs(report[banners[-1] :] if banners else report)
    named = any(paragraph.header == "findings" for paragraph in paragraphs)
    parts: dict[str, list[str]] = {"findings": [], "impression": []}
    section: str | None = None
    opened = False  # the section's header has had its own paragraph
    for header, text, exam in paragraphs:
        if header == "exam" and (section in parts or parts["findings"]):
            text = f"{exam} {text}"
            section = section if section in parts else "findings"
        elif header:
            section = "findings" if header == "exam" and not named else header
            opened = bool(text)
        elif section and not opened:
            opened = True
        elif section not in ("findings", "impression", "end") and not (
            named or parts["impression"] or _is_title(text)
        ):
            section = "findings"
        if section in parts and text:
            parts[section].append(text)
    if not any(parts.values()):
        parts["findings"] = _after_first_sentence(paragraphs)
    return "\n".join(f"{name.upper()}: " + "\n".join(texts) for name, texts in parts.items())


def _paragraphs(report: str) -> list[_Paragraph]:
    """The report cut at blank lines and before headers; the headers are left out of the text."""
    parts: list[tuple[str | None, list[str], str]] = []
    for line in report.splitlines():
        if _VIEWS.match(line) and _is_empty_section(parts):
            parts[-1][1].append(line)  # how it was looked at, and then what was seen
        elif known := _HEADER.match(line) or _LONE_HEADER.match(line):
            parts.append((known.lastgroup, [line[known.end() :]], ""))
        elif exam := _EXAM.match(line):
            parts.append(("exam", [line[exam.end() :]], exam["name"]))
        elif not line.strip() or not parts:
            parts.append((None, [line], ""))
        else:
            parts[-1][1].append(line)
    paragraphs = [
        _Paragraph(header, "\n".join(lines).strip(), exam) for header, lines, exam in parts
    ]
    return [paragraph for paragraph in paragraphs if paragraph.header or paragraph.text]


def _is_empty_section(parts: list[tuple[str | None, list[str], str]]) -> bool:
    """Whether FINDINGS or IMPRESSION was opened last, and nothing stands there yet."""
    if not parts or parts[-1][0] not in ("findings", "impression"):
        return False
    return not "".join(parts[-1][1]).strip()


def _is_title(text: str) -> bool:
    """CHEST RADIOGRAPH, or Portable chest radiograph: capitals, or a line that is no sentence."""
    return not re.search(r"[a-z]", text) or ("\n" not in text and text[-1] not in ".:;?!")


def _after_first_sentence(paragraphs: list[_Paragraph]) -> list[str]:
    for header, text, _ in reversed(paragraphs):
        sentences = _SENTENCE_END.split(text, maxsplit=1)
        if header in ("circumstances", "exam") and len(sentences) == 2:
            return sentences[1:]
    return []
