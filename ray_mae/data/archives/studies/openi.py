"""Open-i, the Indiana University collection (IU X-ray): XML reports, PNG or DICOM files.

Demner-Fushman et al. 2016, https://openi.nlm.nih.gov. The XML files lie in a folder (ecgen-radiology)
or in NLMCXR_reports.tgz; they name their images. No report says of which person it is, and each has
another PatientID in the DICOM headers: a report is a patient. There is no official split.

Which image is the lateral one the reports do not say. A table does, if it is there: the
indiana_projections.csv that is published with the images on Kaggle, or nlmcxr_dicom_metadata.csv with
the tags of the DICOM files. Otherwise the view of a PNG file is unknown; a DICOM file knows its own.
That table says years of birth and study as well, so an age, but neither sex nor scanner: they were emptied.

Two readers indexed each report with a heading of MeSH or RadLex, then qualifiers for place, side and
degree: "Opacity/lung/base/left". What a heading means among the 14 CheXpert labels is our own table, by
the decisions of `padchest_labels`: scars of the lung are opacities, congestion and failure go to Edema,
what has healed and left lime is no lesion, clips and sutures are no devices. Only what is there is
indexed: no label is ever negative.
"""

import ast
import os
import re
import tarfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from ray_mae.config import IngestConfig
from ray_mae.data.archives.attributes import AttributeReader, Attributes, age_between
from ray_mae.data.archives.label_reader import published_names
from ray_mae.data.archives.published import (
    Images,
    find_published,
    require_published,
    rows_with,
    source_folder,
    word,
)
from ray_mae.data.archives.records import Archive, ImageRecord, Progress
from ray_mae.data.archives.report_files import read_member, read_report
from ray_mae.data.decoding.compressed import DAMAGE, check_to_end
from ray_mae.data.decoding.views import position_of, view_from_orientation, view_of
from ray_mae.data.labels import CHEXPERT_LABELS, NOT_MENTIONED, POSITIVE, UNCERTAIN, states_of
from ray_mae.data.paths import local_file, walk
from ray_mae.data.quarantine import QuarantineError

TGZ = "NLMCXR_reports.tgz"
TAGS, BIRTH, DATE = "nlmcxr_dicom_metadata.csv", "Patient's Birth Date", "Study Date"
# CXR1000_IM-0003-1001.png, 1000_IM-0003-1001.dcm.png on Kaggle, and CXR1_1_IM-0001-3001 in report 1
_NAME = re.compile(r"(?:CXR)?(\d+)(?:_\1)?_(IM-[\d-]+)", re.IGNORECASE)


def read(config: IngestConfig, progress: Progress) -> Archive[ImageRecord]:
    """List the images of the reports. FileNotFoundError or ValueError if it is not this archive."""
    root = source_folder(config, f"PNG files and {TGZ} or the XML files of it")
    images = Images.below(root, config, _key)
    views = _views(config)
    attributes = AttributeReader(config.attributes)
    about = _attributes(config, attributes)
    reports, damaged = _all_reports(config)
    headings = {heading(term) for *_, terms in reports.values() for term in terms}
    wanted = published_names(config.columns, config.archive, sorted(headings))
    unmapped: Counter[str] = Counter()

    records, used = [], 0
    without_images = without_view = 0
    for study, (names, text, terms) in reports.items():
        without_images += not names
        states, other_headings = _labels(terms, wanted)
        unmapped.update(other_headings)
        others = tuple(dict.fromkeys(other_headings))
        for name in names:
            path = images.paths.get(_key(name))
            used += path is not None
            view, position = views.get(_key(name), ("unknown", None))
            without_view += view == "unknown"
            records.append(
                ImageRecord(
                    path=path or name,
                    study=study,
                    patient=study,
                    view=view,
                    position=position,
                    text=text,
                    labels=states,
                    other_labels=others,
                    attributes=about.get(_key(name)),
                    problem=None
                    if path
                    else QuarantineError("missing", f"the report {study} names it"),
                )
            )
    if not reports:
        raise FileNotFoundError(
            f"{config.reports or root} holds no XML reports: put {TGZ} or the folder made of it there, "
            "or name it (reports)"
        )
    progress(len(records), len(records))
    notes: dict[str, Any] = {
        "reports": len(reports),
        "reports_without_images": without_images,
        "reports_not_understood": damaged,
        "images_of_unknown_view": without_view,
        **images.notes(used),
        "labels_not_mapped": dict(unmapped.most_common()),
        **attributes.notes(),
    }
    return Archive(root, records, notes, label_names=tuple(wanted or CHEXPERT_LABELS))


def _all_reports(
    config: IngestConfig,
) -> tuple[dict[str, tuple[list[str], str | None, list[str]]], int]:
    """Names of images, text and index terms of each study; and how many files are no report.

    ValueError where two reports are of one study.
    """
    reports: dict[str, tuple[list[str], str | None, list[str]]] = {}
    damaged = 0
    for file in _xml_files(config):
        try:
            study, names, text, terms = _report(file or b"")
        except (ElementTree.ParseError, ValueError):
            damaged += 1
            continue
        if study in reports:
            raise ValueError(f"two reports are named {study} (reports): leave one of them there")
        reports[study] = (names, text, terms)
    return reports, damaged


def _labels(terms: list[str], wanted: list[str] | None) -> tuple[tuple[int, ...] | None, list[str]]:
    """The states of a study with these index terms, and the headings that say nothing of the labels.

    wanted: headings that are labels themselves; None for the 14 of CheXpert that terms mean. Nobody has
    labelled a study without any term.
    """
    if not terms:
        return None, []
    if wanted is None:
        return openi_states(terms), [heading(term) for term in terms if not statements(term)]
    headings = [heading(term) for term in terms]
    states = tuple(POSITIVE if name in headings else NOT_MENTIONED for name in wanted)
    return states, [name for name in headings if name not in wanted]


def _key(name: str) -> str:
    """An image, whatever its file is called: 1000_im-0003-1001."""
    match = _NAME.match(name)
    return f"{match[1]}_{match[2].lower()}" if match else name


def _xml_files(config: IngestConfig) -> Iterator[bytes | None]:
    """The XML files of the folder or tgz, in order of their names; None for one that is no report."""
    location = config.reports or config.source
    if location.is_dir() and (location / TGZ).is_file():
        location /= TGZ
    if location.is_dir():
        paths = [
            os.path.join(folder, name)
            for folder, names in walk(location, config.output)
            for name in names
            if name.lower().endswith(".xml")
        ]
        yield from (read_report(location / path) for path in sorted(paths))
    elif location.is_file():
        try:
            with local_file(location) as file, tarfile.open(file) as archive:
                check_to_end(file)  # tar ends before the checksum of what is around it
                for member in sorted(archive, key=lambda member: member.name):
                    if member.name.lower().endswith(".xml") and member.isfile():
                        content = archive.extractfile(member)
                        yield read_member(content) if content else None
        except tarfile.TarError as error:
            raise ValueError(f"{location} is no tar archive (reports): {error}") from error
        except DAMAGE as error:
            raise ValueError(
                f"{location} is damaged (reports): {error}; download it again"
            ) from error
    else:
        raise FileNotFoundError(
            f"{location} does not exist (reports): {TGZ} or the folder made of it"
        )


def _report(file: bytes) -> tuple[str, list[str], str | None, list[str]]:
    """Study, names of its images, text and index terms. ValueError if it is no report."""
    tree = ElementTree.fromstring(file)
    uid = tree.find("uId")
    if uid is None or not uid.get("id"):
        raise ValueError("no uId")
    parts = {part.get("Label", ""): (part.text or "").strip() for part in tree.iter("AbstractText")}
    findings, impression = parts.get("FINDINGS", ""), parts.get("IMPRESSION", "")
    text = f"FINDINGS: {findings}\nIMPRESSION: {impression}" if findings or impression else None
    names = [name for image in tree.iter("parentImage") if (name := image.get("id", ""))]
    terms = [term.text.strip() for term in tree.iter("major") if term.text and term.text.strip()]
    return uid.get("id", ""), names, text, terms


def _views(config: IngestConfig) -> dict[str, tuple[str, str | None]]:
    """View and position of each image, from the tables that know it. The first one counts."""
    views: dict[str, tuple[str, str | None]] = {}
    projections = find_published(config, r"indiana_projections\.csv")
    for row in rows_with(projections, "filename", "projection") if projections else ():
        words = word(row, "projection")
        views.setdefault(
            _key(word(row, "filename")), (view_of(words) or "unknown", position_of(words))
        )
    tags = find_published(config, re.escape(TAGS))
    for row in rows_with(tags, "imageid", "View Position") if tags else ():
        words = word(row, "View Position")
        view = view_of(words) or view_from_orientation(_orientation(row)) or "unknown"
        views.setdefault(_key(word(row, "imageid")), (view, position_of(words)))
    return views


def _attributes(config: IngestConfig, reader: AttributeReader) -> dict[str, Attributes | None]:
    """The age by image; FileNotFoundError where it is asked for and the table that says it is not there."""
    if not reader.wanted:
        return {}
    tags = require_published(config, re.escape(TAGS), TAGS)
    return {
        _key(word(row, "imageid")): reader.read(
            {"age": age_between(word(row, BIRTH), word(row, DATE))}
        )
        for row in rows_with(tags, "imageid", BIRTH, DATE)
    }


def _orientation(row: dict[str, str]) -> list[str]:
    """PatientOrientation, written as a list of Python: "['L', 'F']"."""
    try:
        values = ast.literal_eval(word(row, "Patient Orientation") or "[]")
    except (ValueError, SyntaxError):
        return []
    return [str(value) for value in values] if isinstance(values, list) else []


# ------------------------------------------------------------- labels from the index terms

_LABELS = {
    "No Finding": "normal",
    "Cardiomegaly": "cardiomegaly | cardiac shadow/enlarged",
    "Enlarged Cardiomediastinum": "mediastinum/prominent | mediastinum/enlarged | mass/mediastinum",
    "Lung Opacity": (
        "opacity | density | infiltrate | airspace disease | lung diseases, interstitial"
        " | cicatrix/lung | pulmonary fibrosis"
    ),
    "Lung Lesion": "nodule | mass | granuloma | cavitation",
    "Edema": "pulmonary edema | pulmonary congestion | heart failure",
    "Consolidation": "consolidation",
    "Pneumonia": "pneumonia",
    "Atelectasis": "pulmonary atelectasis",
    "Pneumothorax": "pneumothorax | hydropneumothorax | hemopneumothorax",
    "Pleural Effusion": "pleural effusion | hemothorax | hydropneumothorax | hemopneumothorax",
    "Pleural Other": "thickening/pleura | cicatrix/pleura",
    "Fracture": "fractures, bone",
    "Support Devices": (
        "catheters, indwelling | tube, inserted | implanted medical device | medical device | stents"
    ),
}
_UNCERTAIN = {
    "Pleural Effusion": "costophrenic angle/blunted",  # or a thickened pleura
    "Atelectasis": "volume loss",  # or a resection
}
# "Density/ribs" and "Nodule/breast" are none of the lung. Said of these headings alone.
_OF_THE_LUNG = frozenset({"opacity", "density", "nodule", "mass", "granuloma", "cavitation"})
_ELSEWHERE = frozenset(
    {
        "abdomen", "breast", "cervical vertebrae", "clavicle", "costophrenic angle", "humerus",
        "lumbar vertebrae", "lymph nodes", "mediastinum", "pleura", "ribs", "shoulder", "spine",
        "sternum", "thoracic vertebrae",
    }
)  # fmt: skip
# Statement by heading and the qualifier that it needs, "" for none.
_TABLE: dict[str, list[tuple[str, str, int]]] = {}
for _group, _state in ((_LABELS, POSITIVE), (_UNCERTAIN, UNCERTAIN)):
    for _label, _terms in _group.items():
        for _term in _terms.split(" | "):
            _heading, _, _qualifier = _term.partition("/")
            _TABLE.setdefault(_heading, []).append((_qualifier, _label, _state))


def heading(term: str) -> str:
    """What a term is about, without its qualifiers, in lower case."""
    return " ".join(term.partition("/")[0].lower().split())


def statements(term: str) -> list[tuple[str, int]]:
    """The statements (label, state) of one term; none where it is about none of the 14."""
    name = heading(term)
    qualifiers = {" ".join(part.split()) for part in term.lower().split("/")[1:]}
    if name in _OF_THE_LUNG and qualifiers & _ELSEWHERE and "lung" not in qualifiers:
        return [(label, state) for q, label, state in _TABLE[name] if q in qualifiers]
    return [(label, state) for q, label, state in _TABLE.get(name, ()) if not q or q in qualifiers]


def openi_states(terms: Iterable[str]) -> tuple[int, ...]:
    """The 14 states of a study with these index terms."""
    return states_of(statement for term in terms for statement in statements(term))
