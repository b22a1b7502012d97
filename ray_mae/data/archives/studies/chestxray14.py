"""ChestX-ray14 (NIH): PNG files, Data_Entry_2017 with label names, two lists of the official split.

Wang et al. 2017, https://nihcc.app.box.com/v/ChestXray-NIHCC. Each image is a study of its own: the
archive knows no others, and has no reports. The images may lie in one folder or in images_001 to
images_012. The official split has no validation patients: they are taken from its training patients.
"""

from pathlib import Path

from ray_mae.config import IngestConfig
from ray_mae.data.archives.attributes import AttributeReader
from ray_mae.data.archives.label_reader import LabelReader, published_names
from ray_mae.data.archives.published import (
    Images,
    official_split_file,
    require_published,
    rows_with,
    source_folder,
    word,
)
from ray_mae.data.archives.records import NOT_TEST, Archive, ImageRecord, Progress
from ray_mae.data.decoding.views import position_of, view_of
from ray_mae.data.quarantine import QuarantineError

TABLE_NAME = "Data_Entry_2017.csv"
OWN_LABELS = (
    "No Finding", "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Emphysema",
    "Fibrosis", "Hernia", "Infiltration", "Mass", "Nodule", "Pleural_Thickening", "Pneumonia",
    "Pneumothorax",
)  # fmt: skip
ATTRIBUTES = {"sex": "Patient Gender", "age": "Patient Age"}
"""Columns. Ages of the first version of the table are 058Y, and some are none, such as 411."""
LISTS = {NOT_TEST: "train_val_list.txt", "test": "test_list.txt"}


def read(config: IngestConfig, progress: Progress) -> Archive[ImageRecord]:
    """List the images of the table. FileNotFoundError or ValueError if it is not this archive."""
    root = source_folder(config, f"PNG files, {TABLE_NAME}, {' and '.join(LISTS.values())}")
    table = require_published(config, r"Data_Entry_2017.*\.csv", TABLE_NAME)
    splits = _splits(config)
    images = Images.below(root, config)
    wanted = published_names(config.columns, config.archive, OWN_LABELS)
    labels = LabelReader.of_names("Finding Labels", wanted)

    attributes = AttributeReader(config.attributes)
    records, used, without_split = [], 0, 0
    columns = ("Image Index", "Finding Labels", "Patient ID", "View Position")
    for row in rows_with(table, *columns, *attributes.columns(ATTRIBUTES)):
        name, view = word(row, "Image Index"), word(row, "View Position")
        path = images.paths.get(name)
        used += path is not None
        without_split += bool(splits) and name not in splits
        records.append(
            ImageRecord(
                path=path or name,
                study=Path(name).stem,
                patient=word(row, "Patient ID"),
                view=view_of(view) or "unknown",
                position=position_of(view),
                labels=labels.read(row),
                other_labels=labels.others(row),
                attributes=attributes.of_row(row, ATTRIBUTES),
                split=splits.get(name),
                problem=None if path else QuarantineError("missing", "the table lists it"),
            )
        )
    progress(len(records), len(records))
    notes = {
        "images_in_neither_list": without_split,
        **images.notes(used),
        **labels.notes(),
        **attributes.notes(),
    }
    return Archive(root, records, notes, label_names=labels.names)


def _splits(config: IngestConfig) -> dict[str, str]:
    """The split of each image name; empty where the official split is not wanted."""
    splits: dict[str, str] = {}
    for split, name in LISTS.items():
        path = official_split_file(config, name.replace(".txt", r".*\.txt"), name)
        listed = path.read_text().split() if path else []
        if path and not listed:
            raise ValueError(f"{path} is empty: it is the list of the {split} images")
        if twice := splits.keys() & set(listed):
            raise ValueError(
                f"{path}: {len(twice)} images, such as {min(twice)}, are in {LISTS[NOT_TEST]} too"
            )
        splits.update(dict.fromkeys(listed, split))
    return splits
