"""`inspect`: the card of a data set: what is in its shards, as numbers and as one page."""

import json
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from ray_mae.config import InspectConfig
from ray_mae.data.ingest.job import QUARANTINE
from ray_mae.data.loading.integrity import check_sizes
from ray_mae.data.parquet import open_parquet, read_columns
from ray_mae.data.paths import resolve_path
from ray_mae.data.quarantine import QUARANTINE_REASONS
from ray_mae.data.schema import ATTRIBUTES, FACES, NOUNS, PSEUDONYMS, SPLITS, Manifest
from ray_mae.evaluate.card import croissant
from ray_mae.evaluate.card.leaks import CardShards, find_leaks
from ray_mae.evaluate.card.probeable import LEAST
from ray_mae.evaluate.card.studies import study_sections
from ray_mae.evaluate.card.volumes import volume_sections
from ray_mae.evaluate.pages.page import environment, generated
from ray_mae.files import write_whole
from ray_mae.summary import FILE as SUMMARY

CARD, PAGE = "card.json", "card.html"
LEAKS = {
    "patients_in_two_splits": "Patients in two splits",
    "same_content_in_two_splits": "The same in two splits, byte for byte",
    "alike_in_two_splits": "Different patients in two splits who look the same",
    "patients_in_two_datasets": "Patients in two data sets",
    "same_content_in_two_datasets": "The same in two data sets, byte for byte",
    "alike_in_two_datasets": "Different patients in two data sets who look the same",
}
"""Titles of what leaks, by its name in the card."""
NAMES_FILES = frozenset({"duplicate", "missing", "unreadable"})
"""Reasons whose details may name files of the archive, as those of a store's errors do."""
_NOTES = (
    "label_cells_by_text", "columns_like_labels_not_read", "attribute_cells_not_understood"
)  # fmt: skip
"""Of the ingest's summary: what of the tables was not read."""
_SMALL = {
    "study": ["study_id", "patient_id", "split", "findings", "impression", "labels", "other_labels",
              "years", *ATTRIBUTES,
              "views.list.element.view", "views.list.element.height", "views.list.element.width"],
    "volume": ["volume_id", "patient_id", "session_id", "split", "modality", "shape",
               "spacing_mm", "mean", "std", "labels", "face", *ATTRIBUTES],
}  # fmt: skip


def inspect(config: InspectConfig) -> dict[str, Any]:
    """Counts what shards hold, looks for leaks between splits and draws a sample.

    Writes card.json and card.html, and into the shards' own folder croissant.json as well.

    Args:
        config: settings of the command.

    Returns:
        The card, as in card.json.

    Raises:
        FileNotFoundError: where there are no shards.
        ValueError: where studies are held against volumes.
    """
    began = time.monotonic()
    manifest = Manifest.read(config.shards)
    config = replace(config, shards=resolve_path(config.shards))
    output = resolve_path(config.output) if config.output else config.shards
    output.mkdir(parents=True, exist_ok=True)
    all_shards = _all_shards(config, manifest)
    table = all_shards[0].small
    sections = study_sections if manifest.kind == "study" else volume_sections
    numbers, parts_of_page = sections(config, manifest, table)
    noun = NOUNS[manifest.kind]
    leaks = find_leaks(all_shards, config.leaks, config.duplicates)
    card = {
        "command": "inspect",
        "dataset": manifest.dataset,
        "kind": manifest.kind,
        "shards": len(manifest.shards),
        "bytes": sum(shard.bytes for shard in manifest.shards),
        "pseudonyms": manifest.pseudonyms,
        "splits": _splits(all_shards[0], noun),
        "datasets": {one.name: _splits(one, noun) for one in all_shards},
        "leaks": leaks.counts,
        "leaks_named": leaks.named,
        **_from_ingest(config.shards, manifest.kind),
        **numbers,
    }
    page = environment().get_template("card.html.j2")
    write_whole(
        output / PAGE,
        page.render(
            card=card,
            nouns=noun,
            generated=generated({"dataset": manifest.dataset}),
            reasons=QUARANTINE_REASONS,
            pseudonyms=PSEUDONYMS.get(manifest.pseudonyms or ""),
            leak_titles=LEAKS,
            faces=FACES,
            least=LEAST,
            leak_pictures=leaks.pictures,
            **parts_of_page,
        ),
    )
    card |= {"page": str(output / PAGE), "seconds": round(time.monotonic() - began, 1)}
    write_whole(output / CARD, json.dumps(card, indent=1) + "\n")
    if output == config.shards:  # it names files from where it lies, and can name none elsewhere
        described = croissant.croissant(config.shards, manifest)
        write_whole(output / croissant.FILE, json.dumps(described, indent=1) + "\n")
    return card


def _all_shards(config: InspectConfig, manifest: Manifest) -> list[CardShards]:
    """Those of the card first, then those they are held against."""
    by_name = {
        manifest.dataset: CardShards(
            manifest.dataset, config.shards, manifest, _small_columns(config.shards, manifest)
        )
    }
    for path in config.against:
        other, folder = Manifest.read(path), resolve_path(path)
        if other.kind != manifest.kind:
            raise ValueError(
                f"{folder} holds {NOUNS[other.kind]}, {config.shards} {NOUNS[manifest.kind]}: only "
                "one kind can be held against its own (against)"
            )
        name, number = other.dataset, 2
        while name in by_name:
            name, number = f"{other.dataset} ({number})", number + 1
        by_name[name] = CardShards(name, folder, other, _small_columns(folder, other))
    return list(by_name.values())


def _small_columns(shards: Path, manifest: Manifest) -> pa.Table:
    """Every row, without its images or voxels."""
    check_sizes(shards, manifest)
    files = [(shards / shard.file, shard) for shard in manifest.shards]
    # parts of a struct, too, which a dataset does not read
    return pa.concat_tables(read_columns(files, list(_SMALL[manifest.kind])))


def _splits(shards: CardShards, noun: str) -> dict[str, dict[str, int]]:
    rows, patients = Counter[str](shards.small["split"].to_pylist()), shards.patients()
    images = Counter[str]()
    for shard in shards.manifest.shards:
        images[shard.split] += shard.images
    return {
        split: {noun: rows[split], "patients": len(patients[split]), "images": images[split]}
        for split in SPLITS
    }


def _from_ingest(shards: Path, kind: str) -> dict[str, Any]:
    """What came in and what did not, if the ingest's own files are still beside the shards."""
    flows, refused, burned_in, notes = {}, {}, 0, {}
    examples: dict[str, dict[str, str]] = {}
    if (shards / SUMMARY).is_file():
        summary = json.loads((shards / SUMMARY).read_text())
        flows = {
            noun: summary[noun] for noun in ("images", "reports", NOUNS[kind]) if noun in summary
        }
        notes = {name: found for name in _NOTES if (found := summary.get("notes", {}).get(name))}
        splits = summary["splits"].values()
        burned_in = sum(split.get("images_with_burned_in_text", 0) for split in splits)
    if (shards / QUARANTINE).is_file():
        with open_parquet(shards / QUARANTINE) as file:
            table = file.read(columns=["kind", "reason", "detail"]).to_pylist()
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
        "not_read": notes,
        "quarantined": refused,
        "quarantine_examples": examples,
    }
