"""The part of a card that is of studies: views, labels, reports, grey values, contact sheets."""

import re
from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pyarrow as pa

from ray_mae.config import InspectConfig
from ray_mae.data.images import decode
from ray_mae.data.labels import CHEXPERT_LABELS, STATE_NAMES
from ray_mae.data.schema import SPLITS, VIEWS, Manifest
from ray_mae.evaluate.card_figures import bars, contact_sheet, density, tile
from ray_mae.evaluate.card_sample import chosen, rows_at
from ray_mae.evaluate.page import png, svg

MOST_WORDS = 40


def study_sections(
    config: InspectConfig, manifest: Manifest, table: pa.Table
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Figures for card.json, and what the page shows beside them."""
    rows = table.to_pylist()
    views = {split: Counter[str]() for split in SPLITS}
    per_study = {split: Counter[int]() for split in SPLITS}
    for row in rows:
        views[row["split"]].update(view["view"] for view in row["views"])
        per_study[row["split"]][len(row["views"])] += 1
    texts = [" ".join(filter(None, (row["findings"], row["impression"]))) for row in rows]
    lengths = [len(text.split()) for text in texts if text]
    words = Counter(w for text in texts for w in re.findall(r"[^\W\d_]{3,}", text.lower()))
    figures = {
        "views": {split: dict(views[split]) for split in SPLITS},
        "views_per_study": {
            s: {str(n): k for n, k in sorted(per_study[s].items())} for s in SPLITS
        },
        "reports": {
            "with_findings": sum(row["findings"] is not None for row in rows),
            "with_impression": sum(row["impression"] is not None for row in rows),
            "words_median": float(np.median(lengths)) if lengths else 0.0,
            "words_most": max(lengths, default=0),
            "frequent_words": dict(words.most_common(MOST_WORDS)),
        },
        "labels": _labels(rows),
        "years": _years(rows),
    }
    first = [row["views"][0]["view"] for row in rows]
    several = [f"{len(row['views'])} {view}" for row, view in zip(rows, first, strict=True)]
    images: dict[str, list[np.ndarray]] = defaultdict(list)
    picked = chosen(several, config.sample, config.seed)
    for row in rows_at(config.shards, manifest, picked, ("views",)):
        for view in row["views"]:
            images[view["view"]].append(decode(view["image"]))
    for found in images.values():  # the rows come by split
        np.random.default_rng(config.seed).shuffle(found)
    greys = {
        f"{view} ({len(images[view])})": np.concatenate([i.ravel()[::7] for i in images[view]])
        for view in VIEWS
        if images[view]
    }
    drawn = {
        "panels": [
            ("Words per report", svg(bars(lengths, "words", "reports"))),
            ("Grey values by view", svg(density(greys, "grey value", (-0.5, 255.5)))),
        ],
        "pictures": [
            (f"{view}: {min(len(images[view]), config.pictures)} of a random sample", png(sheet))
            for view in VIEWS
            if (sheet := contact_sheet([tile(i) for i in images[view][: config.pictures]], 6))
        ],
    }
    return figures, drawn


def _years(rows: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Studies by bucket of years and split; empty where no date is kept."""
    counts = Counter((row.get("years") or "unknown", row["split"]) for row in rows)
    buckets = sorted({years for years, _ in counts})
    if buckets == ["unknown"]:
        return {}
    return {years: {split: counts[years, split] for split in SPLITS} for years in buckets}


def _labels(rows: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, int]]]:
    """Studies by label, split and state."""
    counts: Counter[tuple[str, str, int]] = Counter(
        (label, row["split"], state)
        for row in rows
        for label, state in zip(CHEXPERT_LABELS, row["labels"], strict=True)
    )
    return {
        label: {
            split: {name: counts[label, split, state] for state, name in STATE_NAMES.items()}
            for split in SPLITS
        }
        for label in CHEXPERT_LABELS
    }
