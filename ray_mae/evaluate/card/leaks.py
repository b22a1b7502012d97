"""What is in more than one split or data set: counted, and the first pairs named and shown.

Patients by their pseudonyms; images or volumes byte for byte; images of different patients that look the
same.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ray_mae.data.decoding.stored_images import decode
from ray_mae.data.decoding.voxels import decode_voxels
from ray_mae.data.loading.integrity import check_content
from ray_mae.data.look_alikes import ContentIndex, Item, Pairs, bits_of
from ray_mae.data.paths import local_file
from ray_mae.data.schema import SPLITS, Manifest
from ray_mae.evaluate.card.charts import contact_sheet, rows_at, tile
from ray_mae.evaluate.card.volumes import middles
from ray_mae.evaluate.pages.page import png

_CONTENT = {"study": "views.list.element.image", "volume": "voxels"}
_SHOWN = {
    "study": ["views"],
    "volume": ["voxels", "encoding", "dtype", "shape", "spacing_mm"],
}


@dataclass(frozen=True)
class CardShards:
    """A folder of shards: what it holds, and its rows without images or voxels."""

    name: str
    """The data set's; with a number where two folders hold one of that name."""
    folder: Path
    manifest: Manifest
    small: pa.Table

    def splits_and_patients(self) -> Iterator[tuple[str, str]]:
        """Of every row."""
        return zip(
            self.small["split"].to_pylist(), self.small["patient_id"].to_pylist(), strict=True
        )

    def patients(self) -> dict[str, set[str]]:
        """By split."""
        by_split: dict[str, set[str]] = {split: set() for split in SPLITS}
        for split, patient in self.splits_and_patients():
            by_split[split].add(patient)
        return by_split


@dataclass(frozen=True)
class Leaks:
    """Of one or several data sets."""

    counts: dict[str, int | None]
    """By kind; None where the images were not read."""
    named: dict[str, dict[str, Any]]
    """By kind, for the card: in which data sets, the first pairs, and how many are not shown."""
    pictures: dict[str, list[str]]
    """By kind, of each pair that is named: its two images side by side, as the source of an image."""


def find_leaks(all_shards: Sequence[CardShards], most: int, duplicates: bool) -> Leaks:
    """Look for leaks between the splits of all data sets, and between the data sets.

    Args:
        all_shards: the data sets.
        most: pairs of each kind that are named.
        duplicates: read every image or volume, to find the same one twice.
    """
    images = all_shards[0].manifest.kind == "study"
    shared = _shared_patients(all_shards, most)
    same: dict[str, Pairs] = {}
    alike: dict[str, Pairs] = {}  # of images alone
    if duplicates:
        index = ContentIndex(most)
        for shards in all_shards:
            for split, patient, content, row, view in _contents(shards.folder, shards.manifest):
                bits = bits_of(decode(content)) if images else b""
                index.add(shards.name, split, patient, content, bits, row=row, view=view)
        same, alike = index.same(), index.alike() if images else {}
    counts: dict[str, int | None] = {}
    pairs: dict[str, Pairs] = {}
    for group in ("splits", "datasets")[: 2 if len(all_shards) > 1 else 1]:
        for kind, of in (
            (f"patients_in_two_{group}", shared),
            (f"same_content_in_two_{group}", same),
            (f"alike_in_two_{group}", alike),
        ):
            counts[kind] = of[group].number if group in of else None
            if counts[kind]:
                pairs[kind] = of[group]
    by_name = {shards.name: shards for shards in all_shards}
    pictures = _pictures({i for of in pairs.values() for pair in of.first for i in pair}, by_name)
    return Leaks(
        counts,
        {
            kind: {
                "datasets": {
                    " and ".join(sorted(names)): number
                    for names, number in of.datasets.most_common()
                },
                "pairs": [[_describe(item, by_name) for item in pair] for pair in of.first],
                "not_shown": of.number - len(of.first),
            }
            for kind, of in pairs.items()
        },
        {
            kind: [png(contact_sheet([pictures[item] for item in pair], 2)) for pair in of.first]
            for kind, of in pairs.items()
        },
    )


def _shared_patients(all_shards: Sequence[CardShards], most: int) -> dict[str, Pairs]:
    """Patients in two splits, in two data sets; of each the first row in the one and in the other."""
    rows: dict[str, dict[tuple[str, str], int]] = {}
    for shards in all_shards:
        for number, (split, patient) in enumerate(shards.splits_and_patients()):
            rows.setdefault(patient, {}).setdefault((shards.name, split), number)
    found = {"splits": Pairs(), "datasets": Pairs()}
    for places in rows.values():
        if len(places) == 1:
            continue
        items = [(name, split, Item(name, row, 0)) for (name, split), row in places.items()]
        for group, which in (("datasets", 0), ("splits", 1)):
            others = [item for item in items if item[which] != items[0][which]]
            if others:
                pairs = found[group]
                pairs.number += 1
                pairs.datasets[frozenset(name for name, _, _ in items)] += 1
                if len(pairs.first) < most:
                    pairs.first.append((items[0][2], others[0][2]))
    return found


def _contents(shards: Path, manifest: Manifest) -> Iterator[tuple[str, str, bytes, int, int]]:
    """Split, patient and bytes of every image or volume, its row and its view; a row group at a time."""
    column = _CONTENT[manifest.kind]
    first = 0
    for shard in manifest.shards:
        with local_file(shards / shard.file) as path:
            check_content(path, shard, wait=True)
            with pq.ParquetFile(path) as file:
                for group in range(file.num_row_groups):
                    rows = file.read_row_group(group, columns=["patient_id", column]).to_pylist()
                    for number, row in enumerate(rows, first):
                        images = (
                            [v["image"] for v in row["views"]]
                            if "views" in row
                            else [row["voxels"]]
                        )
                        for view, image in enumerate(images):
                            yield shard.split, row["patient_id"], image, number, view
                    first += len(rows)


def _describe(item: Item, by_name: dict[str, CardShards]) -> dict[str, Any]:
    """An image or volume by its pseudonyms."""
    shards = by_name[item.dataset]
    identifier = f"{shards.manifest.kind}_id"
    row = shards.small.slice(item.row, 1).to_pylist()[0]
    view = {"view": item.view} if shards.manifest.kind == "study" else {}
    return {
        "dataset": item.dataset,
        "split": row["split"],
        "patient_id": row["patient_id"],
        identifier: row[identifier],
        **view,
    }


def _pictures(items: set[Item], by_name: dict[str, CardShards]) -> dict[Item, np.ndarray]:
    """A tile [S, S] uint8 of each image, or of the axial middle of each volume."""
    pictures = {}
    for name, shards in by_name.items():
        wanted = sorted({item.row for item in items if item.dataset == name})
        columns = _SHOWN[shards.manifest.kind]
        rows = rows_at(shards.folder, shards.manifest, wanted, columns)
        for number, row in zip(wanted, rows, strict=True):
            for item in (i for i in items if (i.dataset, i.row) == (name, number)):
                pictures[item] = (
                    tile(decode(row["views"][item.view]["image"]))
                    if "views" in row
                    else middles(decode_voxels(row).astype(np.float32), row["spacing_mm"])[0]
                )
    return pictures
