"""CheXpert (v1.0 and its small version) and CheXpert Plus.

Irvin et al. 2019, https://stanfordaimi.azurewebsites.net: train.csv and valid.csv, perhaps test.csv,
with a path, the view and 14 label states per image; no reports. The images lie in folders patientNNNNN
below train, valid and test, or below the folders of the four batches of the full version.

Chambon et al. 2024, CheXpert Plus: df_chexpert_plus_240401.csv with the report and its sections per
image, the images as PNG, JPEG or DICOM files in the same folders, and label states in
chexbert_labels/report_fixed.json: those of the whole report, as in MIMIC-CXR. (In findings_fixed.json
every study without findings is one of No Finding.)

valid is the validation split; without valid.csv some patients of train are taken.
"""

import json
import os
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ray_mae.config import IngestConfig
from ray_mae.data.archives.attributes import AttributeReader, Attributes
from ray_mae.data.archives.label_reader import LabelReader, published_names
from ray_mae.data.archives.published import (
    IMAGE_SUFFIXES,
    find_published,
    rows_with,
    source_folder,
    word,
)
from ray_mae.data.archives.records import NOT_TEST, Archive, ImageRecord, Progress
from ray_mae.data.archives.tables import TableRow
from ray_mae.data.decoding.views import position_of, view_of
from ray_mae.data.labels import CHEXPERT_LABELS
from ray_mae.data.paths import list_folder, walk
from ray_mae.data.privacy.pseudonyms import split_named
from ray_mae.data.quarantine import QuarantineError

PLUS, PLUS_LABELS = r"df_chexpert_plus.*\.csv", r"report_fixed\.json"
TABLES = {"train": r"train\.csv", "val": r"valid\.csv", "test": r"test(?:_labels)?\.csv"}
ATTRIBUTES = {"sex": "Sex", "age": "Age"}
"""Columns; in the table of CheXpert Plus they are in small letters, and tables of test labels have none."""
NO_AGE = "0"  # of three images; everybody else is grown up
DEEPEST = 4  # folders between the source and a patient, as in PNG/PNG/train
_PATIENT = re.compile(r"patient\d+")
_IMAGE_PATH = re.compile(
    r"(?P<patient>patient\d+)/(?P<study>study\d+)/(?P<file>[^/]+)\.(?:jpg|png|dcm)$"
)


def read(config: IngestConfig, progress: Progress) -> Archive[ImageRecord]:
    """List the images of the tables. FileNotFoundError or ValueError if it is not this archive."""
    root = source_folder(config, "folders of patients and train.csv or df_chexpert_plus_240401.csv")
    plus = find_published(config, PLUS)
    images = _Images.below(root)
    wanted = published_names(config.columns, config.archive, CHEXPERT_LABELS)
    labels = LabelReader.of_columns(wanted or CHEXPERT_LABELS)
    read_tables = partial(_plus, table=plus) if plus else _v1
    attributes = AttributeReader(config.attributes)
    records, notes = read_tables(config, images=images, labels=labels, attributes=attributes)
    progress(len(records), len(records))
    unknown = sum(record.view == "unknown" for record in records)
    notes = {"images_of_unknown_view": unknown, **notes, **labels.notes(), **attributes.notes()}
    return Archive(root, records, notes, label_names=labels.names)


def _v1(
    config: IngestConfig, images: "_Images", labels: LabelReader, attributes: AttributeReader
) -> tuple[list[ImageRecord], dict[str, Any]]:
    """CheXpert: a table for each split."""
    tables = {split: find_published(config, pattern) for split, pattern in TABLES.items()}
    if not tables["train"] and not tables["val"]:
        raise FileNotFoundError(
            f"{config.tables or config.source} holds neither train.csv nor df_chexpert_plus_240401.csv: "
            "put one of them there, or name the folder it is in (tables)"
        )
    records = []
    for split, table in tables.items():
        if not config.official_split:
            row_split = None
        elif split == "train" and not tables["val"]:
            row_split = NOT_TEST
        else:
            row_split = split
        columns = attributes.columns(ATTRIBUTES if split != "test" else {})
        for row in rows_with(table, "Path", "Edema", *columns) if table else ():
            path = word(row, "Path")
            record = images.record(path, _view_words(row, "Frontal/Lateral", "AP/PA") or path)
            about = _attributes(row, attributes)
            records.append(
                ImageRecord(**record, labels=labels.read(row), attributes=about, split=row_split)
            )
    return records, {}


def _plus(
    config: IngestConfig,
    table: Path,
    images: "_Images",
    labels: LabelReader,
    attributes: AttributeReader,
) -> tuple[list[ImageRecord], dict[str, Any]]:
    """CheXpert Plus: one table, and the labels by path."""
    file = find_published(config, PLUS_LABELS)
    states = _states(file, labels) if file else {}
    texts: dict[str, str | None] = {}
    records, without_labels, other_splits = [], 0, 0
    columns = ("path_to_image", "section_findings", "section_impression", "split")
    for row in rows_with(table, *columns, *map(str.lower, attributes.columns(ATTRIBUTES))):
        path = word(row, "path_to_image")
        record = images.record(path, _view_words(row, "frontal_lateral", "ap_pa") or path)
        label_states = states.get(_key(path))
        split = split_named(word(row, "split")) if config.official_split else None
        without_labels += label_states is None
        other_splits += config.official_split and split is None
        # Each image of a study repeats its report: one text is kept.
        text = texts.setdefault(record["study"], _text(row))
        about = _attributes(row, attributes)
        records.append(
            ImageRecord(**record, text=text, labels=label_states, attributes=about, split=split)
        )
    notes = {
        "images_without_labels": without_labels,
        "images_without_split": other_splits,
        "studies_without_report": sum(text is None for text in texts.values()),
    }
    return records, notes


def _attributes(row: TableRow, attributes: AttributeReader) -> Attributes | None:
    """What a row of either table says."""
    cells = {n: word(row, c) or word(row, c.lower()) for n, c in ATTRIBUTES.items()}
    return attributes.read({n: "" if c.split(".")[0] == NO_AGE else c for n, c in cells.items()})


def _text(row: TableRow) -> str | None:
    """The two sections that the archive itself found in the report, nothing else of it."""
    findings, impression = word(row, "section_findings"), word(row, "section_impression")
    if not findings and not impression:
        return None
    return f"FINDINGS: {findings}\nIMPRESSION: {impression}"


def _states(file: Path, labels: LabelReader) -> dict[str, tuple[int, ...]]:
    """The states of each image, from one JSON object per line."""
    states = {}
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                line_values = json.loads(line)
                cells = {name: "" if v is None else str(v) for name, v in line_values.items()}
                states[_key(cells["path_to_image"])] = labels.read(cells)
            except (ValueError, KeyError, AttributeError) as error:
                raise ValueError(
                    f"{file}, line {number}: one JSON object with path_to_image and label states is "
                    f"expected in each line ({type(error).__name__}: {error})"
                ) from error
    return states


def _view_words(row: TableRow, *columns: str) -> str:
    return " ".join(filter(None, (word(row, column) for column in columns)))


def _key(path: str) -> str:
    """An image, whatever folder and format it is in: patient00001/study1/view1_frontal."""
    match = _IMAGE_PATH.search(path)
    return "/".join(match.groups()) if match else path


@dataclass(frozen=True)
class _Images:
    """Where the patients' folders are, and in which format the images."""

    folders: dict[str, str]
    """Path below the source of the folder that holds a patient's."""
    suffix: str | None
    """Of the image files, None where no patient is there."""

    @classmethod
    def below(cls, root: Path) -> "_Images":
        """All folders of patients. ValueError where one is there twice, FileNotFoundError for none."""
        folders: dict[str, str] = {}
        to_do = [("", 0)]
        while to_do:
            inner, depth = to_do.pop()
            for name, is_folder in list_folder(root / inner if inner else root):
                if name.startswith(".") or not is_folder:
                    continue
                if not _PATIENT.fullmatch(name):
                    if depth < DEEPEST:
                        to_do.append((os.path.join(inner, name), depth + 1))
                elif (other := folders.setdefault(name, inner)) != inner:
                    raise ValueError(
                        f"{root} holds {name} in {other or '.'} and in {inner or '.'}: name the "
                        "folder of one version as the source, and the folder of its tables (tables)"
                    )
        if not folders:
            raise FileNotFoundError(
                f"{root} holds no folders named patient00001 and so on (source)"
            )
        patient, inner = min(folders.items())
        suffixes = {
            Path(name).suffix.lower()
            for _, names in walk(root / inner / patient, root)
            for name in names
        }
        return cls(folders, next((s for s in IMAGE_SUFFIXES if s in suffixes), None))

    def record(self, listed: str, view: str) -> dict[str, Any]:
        """Fields of the record of an image under the path that a table lists."""
        match = _IMAGE_PATH.search(listed)
        fields: dict[str, Any] = {
            "path": listed,
            "study": "",
            "patient": "",
            "view": view_of(view.replace("_", " ")) or "unknown",
            "position": position_of(view.replace("_", " ").rpartition("/")[2]),
        }
        if not match:
            return fields
        patient = match["patient"]
        # study1 is another study of each patient
        fields |= {"patient": patient, "study": f"{patient}/{match['study']}"}
        if patient not in self.folders:
            return fields | {
                "problem": QuarantineError("missing", "there is no folder of this patient")
            }
        file = match["file"] + (self.suffix or Path(listed).suffix)
        return fields | {"path": os.path.join(self.folders[patient], patient, match["study"], file)}
