"""PadChest: 16-bit PNG files and one table with Spanish reports and lists of labels.

Bustos et al. 2020, https://bimcv.cipf.es/bimcv-projects/padchest. The images may lie in one folder,
in the folders 0 to 54 that the archive comes in, or in any others: their names are unique. The reports
are as published, stemmed and without sections, so the whole text is the findings. The archive has no
split: patients are split by hash.
"""

import ast
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from ray_mae.config import IngestConfig
from ray_mae.data.archives.attributes import AttributeReader, Attributes, age_between
from ray_mae.data.archives.label_reader import by_value, published_names, shortened
from ray_mae.data.archives.published import (
    Images,
    require_published,
    rows_with,
    source_folder,
    word,
)
from ray_mae.data.archives.records import Archive, ImageRecord, Progress
from ray_mae.data.archives.studies.padchest_labels import (
    KNOWN,
    OWN_LABELS,
    SAYS_NOTHING,
    TABLE,
    UNFIT,
    normalise,
    padchest_states,
)
from ray_mae.data.archives.tables import TableRow
from ray_mae.data.decoding.views import position_of, view_of
from ray_mae.data.labels import CHEXPERT_LABELS, NOT_MENTIONED, POSITIVE
from ray_mae.data.privacy.years import year_of
from ray_mae.data.quarantine import QuarantineError

TABLE_NAME = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
COLUMNS = ("ImageID", "StudyID", "PatientID", "Projection", "Report", "Labels")
DATE, BIRTH = "StudyDate_DICOM", "PatientBirth"
ATTRIBUTES = {"sex": "PatientSex_DICOM", "age": BIRTH, "manufacturer": "Manufacturer_DICOM"}
"""Columns; the age is the difference of two years."""


def read(config: IngestConfig, progress: Progress) -> Archive[ImageRecord]:
    """List the images of the table. FileNotFoundError or ValueError if it is not this archive."""
    root = source_folder(config, f"PNG files and {TABLE_NAME}")
    table = require_published(config, r"PADCHEST_chest_x_ray_images_labels.*\.csv", TABLE_NAME)
    images = Images.below(root, config)
    labels = _Labels(published_names(config.columns, config.archive, sorted(OWN_LABELS)))
    attributes = AttributeReader(config.attributes)
    texts: dict[str, str] = {}

    records, used = [], 0
    more = [*attributes.columns(ATTRIBUTES), *([DATE] if "age" in config.attributes else [])]
    for row in rows_with(table, *COLUMNS, *more):
        name, view = word(row, "ImageID"), word(row, "Projection")
        study = word(row, "StudyID")
        text = word(row, "Report")
        states, others, unfit = labels.read(word(row, "Labels"))
        if view == "EXCLUDE":
            unfit = "Projection EXCLUDE"
        path = images.paths.get(name)
        used += path is not None
        problem = None
        if unfit:
            problem = QuarantineError("excluded", unfit)
        elif path is None:
            problem = QuarantineError("missing", "the table lists it")
        records.append(
            ImageRecord(
                path=path or name,
                study=study,
                patient=word(row, "PatientID"),
                view=view_of(view) or "unknown",
                position=position_of(view),
                text=texts.setdefault(text, text) or None,
                labels=states,
                other_labels=others,
                attributes=_attributes(row, attributes),
                year=year_of(word(row, DATE)) if config.year_bucket else None,
                problem=problem,
            )
        )
    progress(len(records), len(records))
    notes = {**images.notes(used), **labels.notes(), **attributes.notes()}
    return Archive(root, records, notes, label_names=labels.names)


def _attributes(row: TableRow, attributes: AttributeReader) -> Attributes | None:
    cells = {name: word(row, column) for name, column in ATTRIBUTES.items()}
    return attributes.read({**cells, "age": age_between(cells["age"], word(row, DATE))})


class _Cell(NamedTuple):
    states: tuple[int, ...] | None
    """One per label, None where nothing is said."""
    others: tuple[str, ...]
    """Names that are none of the labels."""
    unfit: str
    """The words that mark the image as unfit."""


class _Labels:
    """Cells like "['pleural effusion', 'kyphosis']" into states; each different cell is read once."""

    def __init__(self, wanted: Sequence[str] | None) -> None:
        """wanted: of the archive's own names; None for the 14 of CheXpert that they mean."""
        self.names = tuple(wanted or CHEXPERT_LABELS)
        self._wanted = wanted
        self._mapped = set(wanted) if wanted else TABLE.keys() | {"normal"}
        self.cells: dict[str, tuple[set[str] | None, _Cell]] = {}
        self.times: Counter[str] = Counter()

    def read(self, cell: str) -> "_Cell":
        """What the cell says."""
        self.times[cell] += 1
        if cell not in self.cells:
            names = _names(cell)
            states = self._states(names) if names else None
            labels = names or set()
            others = sorted(labels - self._mapped - UNFIT - SAYS_NOTHING)
            self.cells[cell] = (
                names,
                _Cell(states, tuple(others), ", ".join(sorted(UNFIT & labels))),
            )
        return self.cells[cell][1]

    def _states(self, names: set[str]) -> tuple[int, ...]:
        if self._wanted is None:
            return padchest_states(names)
        return tuple(POSITIVE if name in names else NOT_MENTIONED for name in self._wanted)

    def notes(self) -> dict[str, object]:
        """For the summary: what the labels leave out, by name and number of images."""
        unmapped, unknown, invalid = Counter[str](), Counter[str](), Counter[str]()
        contradicted = without = 0
        for cell, times in self.times.items():
            names = self.cells[cell][0]
            if names is None:
                invalid[shortened(cell)] += times
                continue
            without += times * (not names)
            contradicted += times * ("normal" in names and any(name in TABLE for name in names))
            for name in names - self._mapped:
                (unmapped if name in KNOWN else unknown)[name] += times
        return {
            "labels_not_mapped": dict(unmapped.most_common()),
            "labels_not_known": dict(unknown.most_common()),
            "label_cells_not_understood": invalid.total(),
            "label_cells_by_text": {"Labels": by_value(invalid)} if invalid else {},
            "images_without_labels": without,
            "images_normal_with_a_finding": contradicted,
        }


def _names(cell: str) -> set[str] | None:
    """The normalised labels of a cell; None if it is no list."""
    if not cell:
        return set()
    try:
        names = ast.literal_eval(cell)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    if not isinstance(names, list):
        return None
    return {normalise(str(name)) for name in names} - {""}
