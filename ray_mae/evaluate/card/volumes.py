"""The part of a card that is of volumes: contrasts, sites, sizes, intensities, slices.

Heads may be recognisable, so slices are all that is drawn, and never a surface.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from ray_mae.config import InspectConfig
from ray_mae.data.decoding.voxels import decode_voxels
from ray_mae.data.ingest.study_counts import described_attribute
from ray_mae.data.schema import SPLITS, Manifest
from ray_mae.evaluate.card.attributes import NUMBERS, by_split
from ray_mae.evaluate.card.charts import choose, contact_sheet, density, rows_at, tile
from ray_mae.evaluate.card.probeable import too_few
from ray_mae.evaluate.cohort import count_labels, label_targets
from ray_mae.evaluate.pages.page import png, svg
from ray_mae.transforms.slices import CONVENTION, axial, coronal, lettered, sagittal

_COLUMNS = ("site", "modality", "voxels", "encoding", "dtype", "shape", "spacing_mm")


def volume_sections(
    config: InspectConfig, manifest: Manifest, table: pa.Table
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Numbers for card.json, and what the page shows beside them."""
    rows = table.to_pylist()
    for row in rows:
        row["site"] = row["site"] or "unknown"
        row["face"] = row.get("face") or "unknown"  # of shards of earlier versions
    extents = np.array([np.multiply(row["shape"], row["spacing_mm"]) for row in rows])
    numbers = {
        "modalities": _by_split(rows, "modality"),
        "sites": _by_split(rows, "site"),
        "faces": _by_split(rows, "face"),
        "attributes": _attributes(rows, manifest.attributes),
        "extent_mm": _range(extents),
        "spacing_mm": _range(np.array([row["spacing_mm"] for row in rows])),
        "intensities": _intensities(rows),
        "labels": _labels(rows),
        "too_few_to_probe": _too_few(rows),
    }
    groups = [(row["modality"], row["site"]) for row in rows]
    by_modality: dict[str, list[np.ndarray]] = defaultdict(list)
    by_site: dict[str, list[np.ndarray]] = defaultdict(list)
    slices: dict[str, list[np.ndarray]] = defaultdict(list)
    sample = choose(groups, config.sample, config.seed)
    pictured = _choose_pictures(groups, sample, config)
    for index, row in zip(sample, rows_at(config.shards, manifest, sample, _COLUMNS), strict=True):
        volume = decode_voxels(row).astype(np.float32)
        values = volume[volume != 0][::17]
        by_modality[row["modality"]].append(values)
        by_site[row["site"] or "unknown"].append(values)
        if index in pictured:
            slices[row["modality"]] += middles(volume, row["spacing_mm"])
    panels = [
        (f"Intensities by {name}", svg(density(_join(values), "z-score", (-4, 6))))
        for name, values in (("contrast", by_modality), ("site", by_site))
    ]
    pictures = [
        (
            f"{modality}: axial, coronal and sagittal middle of {len(planes) // 3} volumes "
            f"({CONVENTION})",
            png(sheet),
        )
        for modality, planes in sorted(slices.items())
        if (sheet := contact_sheet(planes, 6))
    ]
    return numbers, {"panels": panels, "pictures": pictures}


def _choose_pictures(
    groups: list[tuple[str, str]], sample: list[int], config: InspectConfig
) -> set[int]:
    """Which volumes of the sample are on the page: at random, two of a contrast and site."""
    of_group: Counter[tuple[str, str]] = Counter()
    of_contrast: Counter[str] = Counter()
    pictures = set()
    for index in np.random.default_rng(config.seed).permutation(sample):
        group = groups[index]
        if of_group[group] < 2 and of_contrast[group[0]] < config.pictures:
            of_group[group] += 1
            of_contrast[group[0]] += 1
            pictures.add(int(index))
    return pictures


def middles(volume: np.ndarray, spacing_mm: Sequence[float]) -> list[np.ndarray]:
    """Axial, coronal and sagittal middle [128, 128] uint8 of [X, Y, Z] in RAS: front and top up.

    In radiological convention, with letters: the person's right is on the left of axial and coronal
    slices, the front on the left of the sagittal one. Grey values from the 1st to the 99th percentile of
    the volume, squares with black around.
    """
    low, high = np.percentile(volume[volume != 0] if volume.any() else volume, [1, 99])
    grey = ((volume - low) / max(high - low, 1e-6)).clip(0, 1)
    grey[volume == 0] = 0
    x, y, z = (side // 2 for side in volume.shape)
    planes = (
        (axial(grey[:, :, z]), (0, 1), "RL"),
        (coronal(grey[:, y, :]), (0, 2), "RL"),
        (sagittal(grey[x, :, :]), (1, 2), "AP"),
    )
    finest = min(spacing_mm)
    slices = []
    for plane, axes, sides in planes:
        wide, high = (
            max(1, round(volume.shape[axis] * spacing_mm[axis] / finest)) for axis in axes
        )
        picture = Image.fromarray((plane * 255).astype(np.uint8))
        square = tile(np.asarray(picture.resize((wide, high), Image.Resampling.BILINEAR)))
        slices.append(lettered(square, *sides))
    return slices


def _join(values: dict[str, list[np.ndarray]]) -> dict[str, np.ndarray]:
    """Values by name and number of volumes, the most frequent first."""
    order = sorted(values, key=lambda name: -len(values[name]))
    return {f"{name} ({len(values[name])})": np.concatenate(values[name]) for name in order}


def _by_split(rows: list[dict[str, Any]], column: str) -> dict[str, dict[str, int]]:
    """Volumes by value of the column and by split, the most frequent first."""
    total = Counter(row[column] for row in rows)
    counts = Counter((row[column], row["split"]) for row in rows)
    return {value: {s: counts[value, s] for s in SPLITS} for value, _ in total.most_common()}


def _attributes(
    rows: list[dict[str, Any]], names: Sequence[str]
) -> dict[str, dict[str, dict[str, int]]]:
    """Volumes by value and split of each attribute but the site, which every card has."""
    return {
        name: by_split(
            Counter((described_attribute(name, row[name]), row["split"]) for row in rows),
            rising=name in NUMBERS,
        )
        for name in names
        if name != "site"
    }


def _range(values: np.ndarray) -> dict[str, list[float]]:
    """Smallest, median and largest along each axis."""
    by_name = {"smallest": values.min(0), "median": np.median(values, 0), "largest": values.max(0)}
    return {name: [round(float(v), 2) for v in axes] for name, axes in by_name.items()}


def _intensities(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Per contrast and site: volumes, and medians of the foreground's mean and deviation as scanned."""
    groups: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        groups[f"{row['modality']} at {row['site']}"].append((row["mean"], row["std"]))
    return {
        name: {
            "volumes": len(pairs),
            "mean": round(float(np.median([m for m, _ in pairs])), 3),
            "std": round(float(np.median([s for _, s in pairs])), 3),
        }
        for name, pairs in sorted(groups.items())
    }


def _too_few(rows: list[dict[str, Any]]) -> dict[str, dict[str, str]]:
    """By split the labels that a probe leaves out by its own settings, with what they lack."""
    targets, names, _ = label_targets([dict(row["labels"]) for row in rows])
    patient, split = (np.array([row[name] for row in rows]) for name in ("patient_id", "split"))
    return too_few({s: count_labels(targets, patient, split == s, names) for s in SPLITS})


def _labels(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Per label: volumes that have it by split, and its values if they are few."""
    by_split: dict[str, Counter[str]] = defaultdict(Counter)
    values: dict[str, Counter[float]] = defaultdict(Counter)
    for row in rows:
        for name, value in row["labels"]:
            by_split[name][row["split"]] += 1
            values[name][value] += 1
    return {
        name: {s: counts[s] for s in SPLITS}
        | {"values": {f"{v:g}": n for v, n in sorted(values[name].items())} if len(values[name]) <= 6
           else f"{len(values[name])} values, {min(values[name]):g} to {max(values[name]):g}"}
        for name, counts in sorted(by_split.items())
    }  # fmt: skip
