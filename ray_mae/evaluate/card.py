"""`inspect`: the card of a data set: what is in its shards, as figures and as one page."""

import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ray_mae.config import InspectConfig
from ray_mae.data.images import decode
from ray_mae.data.ingest import QUARANTINE, SUMMARY
from ray_mae.data.quarantine import REASONS
from ray_mae.data.schema import NOUNS, SPLITS, Manifest
from ray_mae.evaluate.card_studies import study_sections
from ray_mae.evaluate.card_volumes import volume_sections
from ray_mae.evaluate.near_duplicates import Seen, bits_of
from ray_mae.evaluate.page import environment, generated

CARD, PAGE = "card.json", "card.html"
NAMES_FILES = frozenset({"duplicate", "missing", "unreadable"})
"""Reasons whose details may name files of the archive, as those of a store's errors do."""
_CONTENT = {"study": "views.list.element.image", "volume": "voxels"}
_SMALL = {
    "study": ["study_id", "patient_id", "split", "findings", "impression", "labels", "years",
              "views.list.element.view", "views.list.element.height", "views.list.element.width"],
    "volume": ["volume_id", "patient_id", "session_id", "site", "split", "modality", "shape",
               "spacing_mm", "mean", "std", "labels"],
}  # fmt: skip


def inspect(config: InspectConfig) -> dict[str, Any]:
    """Count what the shards hold, look for leaks between splits, draw a sample; returns the card.

    Writes card.json and card.html. Raises FileNotFoundError where there are no shards.
    """
    began = time.monotonic()
    manifest = Manifest.read(config.shards)
    output = config.output or config.shards
    output.mkdir(parents=True, exist_ok=True)
    table = _small_columns(config.shards, manifest)
    sections = study_sections if manifest.kind == "study" else volume_sections
    figures, drawn = sections(config, manifest, table)
    card = {
        "command": "inspect",
        "dataset": manifest.dataset,
        "kind": manifest.kind,
        "shards": len(manifest.shards),
        "bytes": sum(shard.bytes for shard in manifest.shards),
        "splits": _splits(table, NOUNS[manifest.kind]),
        "leaks": _leaks(config, manifest, table),
        **_from_ingest(config.shards, manifest.kind),
        **figures,
    }
    page = environment().get_template("card.html.j2")
    (output / PAGE).write_text(
        page.render(
            card=card,
            nouns=NOUNS[manifest.kind],
            generated=generated({"dataset": manifest.dataset}),
            reasons=REASONS,
            **drawn,
        ),
        "utf-8",
    )
    card |= {"page": str(output / PAGE), "seconds": round(time.monotonic() - began, 1)}
    (output / CARD).write_text(json.dumps(card, indent=1) + "\n")
    return card


def _small_columns(shards: Path, manifest: Manifest) -> pa.Table:
    """Every row, without its images or voxels."""
    tables = []
    for shard in manifest.shards:
        with pq.ParquetFile(
            shards / shard.file
        ) as file:  # reads parts of a struct; a dataset does not
            tables.append(file.read(columns=_SMALL[manifest.kind]))
    return pa.concat_tables(tables)


def _splits(table: pa.Table, noun: str) -> dict[str, dict[str, int]]:
    rows, patients = Counter(table["split"].to_pylist()), defaultdict(set)
    for split, patient in zip(
        *(table[c].to_pylist() for c in ("split", "patient_id")), strict=True
    ):
        patients[split].add(patient)
    return {split: {noun: rows[split], "patients": len(patients[split])} for split in SPLITS}


def _leaks(config: InspectConfig, manifest: Manifest, table: pa.Table) -> dict[str, int | None]:
    """What is in more than one split: patients; images or volumes byte for byte; pairs of images alike."""
    of: dict[str, set[str]] = defaultdict(set)
    for split, patient in zip(
        *(table[c].to_pylist() for c in ("split", "patient_id")), strict=True
    ):
        of[patient].add(split)
    found: dict[str, int | None] = {
        "patients_in_two_splits": sum(len(splits) > 1 for splits in of.values()),
        "same_content_in_two_splits": None,
        "alike_in_two_splits": None,  # of images alone
    }
    if config.duplicates:
        seen, images = Seen(), manifest.kind == "study"
        for split, patient, content in _contents(config.shards, manifest):
            seen.add(split, patient, content, bits_of(decode(content)) if images else b"")
        found["same_content_in_two_splits"] = seen.same_in_two_splits()
        if images:
            found["alike_in_two_splits"] = seen.alike_in_two_splits()
    return found


def _contents(shards: Path, manifest: Manifest) -> Iterator[tuple[str, str, bytes]]:
    """Split, patient and bytes of every image or volume, a row group at a time."""
    column = _CONTENT[manifest.kind]
    for shard in manifest.shards:
        with pq.ParquetFile(shards / shard.file) as file:
            for group in range(file.num_row_groups):
                rows = file.read_row_group(group, columns=["patient_id", column]).to_pylist()
                for row in rows:
                    images = (
                        [v["image"] for v in row["views"]] if "views" in row else [row["voxels"]]
                    )
                    yield from ((shard.split, row["patient_id"], image) for image in images)


def _from_ingest(shards: Path, kind: str) -> dict[str, Any]:
    """What came in and what did not, if the ingest's own files are still beside the shards."""
    flows, refused, burned_in = {}, {}, 0
    examples: dict[str, dict[str, str]] = {}
    if (shards / SUMMARY).is_file():
        said = json.loads((shards / SUMMARY).read_text())
        flows = {noun: said[noun] for noun in ("images", NOUNS[kind]) if noun in said}
        splits = said["splits"].values()
        burned_in = sum(split.get("images_with_burned_in_text", 0) for split in splits)
    if (shards / QUARANTINE).is_file():
        table = pq.read_table(shards / QUARANTINE, columns=["kind", "reason", "detail"]).to_pylist()
        refused = {
            entry: dict(Counter(r["reason"] for r in table if r["kind"] == entry).most_common())
            for entry in sorted({r["kind"] for r in table})
        }
        for row in table:  # a path may name a patient, and so may a detail that names another file
            detail = "" if row["reason"] in NAMES_FILES or kind == "volume" else row["detail"]
            examples.setdefault(row["kind"], {}).setdefault(row["reason"], detail)
    return {
        "flows": flows,
        "burned_in_kept": burned_in,
        "quarantined": refused,
        "quarantine_examples": examples,
    }
