"""The part of a card that is of studies: views, labels, reports, grey values, contact sheets."""

import re
import sys
from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pyarrow as pa
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from ray_mae.config import InspectConfig, ProbeConfig
from ray_mae.data.decoding.stored_images import decode
from ray_mae.data.ingest.study_counts import described_attribute
from ray_mae.data.labels import NOT_MENTIONED, STATE_NAMES, binary_targets
from ray_mae.data.schema import SPLITS, VIEWS, Manifest
from ray_mae.evaluate.card.attributes import NUMBERS, by_split
from ray_mae.evaluate.card.charts import bars, choose, contact_sheet, density, rows_at, tile
from ray_mae.evaluate.card.probeable import too_few
from ray_mae.evaluate.cohort import count_labels
from ray_mae.evaluate.pages.page import png, svg

MOST_WORDS = 40
STOP_WORDS = ENGLISH_STOP_WORDS - {"no", "not", "nor", "without", "none", "never", "empty", "full",
                                   "bottom", "front", "back", "side", "top"}  # fmt: skip
"""Words that say nothing of a report; what denies and what names a place does."""
MOST_OTHER_LABELS = 40


def study_sections(
    config: InspectConfig, manifest: Manifest, table: pa.Table
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Numbers for card.json, and what the page shows beside them."""
    counts = _Counts(manifest)
    for batch in table.to_batches(
        max_chunksize=4096
    ):  # as Python values they take ten times as much
        for row in batch.to_pylist():
            counts.add(row)
    numbers = counts.numbers()
    images: dict[str, list[np.ndarray]] = defaultdict(list)
    sample = choose(counts.composition, config.sample, config.seed)
    for row in rows_at(config.shards, manifest, sample, ("views",)):
        for view in row["views"]:
            images[view["view"]].append(decode(view["image"]))
    for of_view in images.values():  # the rows come by split
        np.random.default_rng(config.seed).shuffle(of_view)
    greys = {
        f"{view} ({len(images[view])})": np.concatenate([i.ravel()[::7] for i in images[view]])
        for view in VIEWS
        if images[view]
    }
    parts_of_page = {
        "panels": [
            *(
                [("Words per report", svg(bars(counts.lengths, "words", "reports")))]
                if counts.lengths
                else []
            ),
            ("Grey values by view", svg(density(greys, "grey value", (-0.5, 255.5)))),
        ],
        "pictures": [
            (f"{view}: {min(len(images[view]), config.pictures)} of a random sample", png(sheet))
            for view in VIEWS
            if (sheet := contact_sheet([tile(i) for i in images[view][: config.pictures]], 6))
        ],
    }
    return numbers, parts_of_page


class _Counts:
    """What a card counts of the rows of studies, one after the other."""

    def __init__(self, manifest: Manifest) -> None:
        self.label_names, self.attributes_kept = manifest.label_names, manifest.attributes
        self.other_labels: Counter[tuple[str, str]] = Counter()
        self.unstated: Counter[str] = Counter()
        """Studies of which no label says anything, by split."""
        self.attributes: dict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
        self.views: Counter[tuple[str, str]] = Counter()
        self.per_study: Counter[tuple[str, int]] = Counter()
        self.labels: Counter[tuple[str, str, int]] = Counter()
        self.patients: list[str] = []
        self.splits: list[str] = []
        self.states: list[np.ndarray] = []
        """Patient, split and label states of each study."""
        self.years: Counter[tuple[str, str]] = Counter()
        self.words: Counter[str] = Counter()
        self.findings = self.impressions = 0
        self.lengths: list[int] = []
        """Words of each report."""
        self.composition: list[str] = []
        """Of each study, how many views it has, and which one first: what a sample is dealt over."""

    def add(self, row: dict[str, Any]) -> None:
        """One study."""
        split, views = row["split"], row["views"]
        self.views.update((split, view["view"]) for view in views)
        self.per_study[split, len(views)] += 1
        self.composition.append(sys.intern(f"{len(views)} {views[0]['view']}"))
        self.years[row.get("years") or "unknown", split] += 1
        self.labels.update(
            (label, split, state)
            for label, state in zip(self.label_names, row["labels"], strict=True)
        )
        self.patients.append(row["patient_id"])
        self.splits.append(sys.intern(split))
        self.states.append(np.array(row["labels"], np.int8))
        self.unstated[split] += max(row["labels"]) <= NOT_MENTIONED
        self.other_labels.update((name, split) for name in row.get("other_labels") or ())
        for name in self.attributes_kept:
            self.attributes[name][described_attribute(name, row[name]), split] += 1
        self.findings += row["findings"] is not None
        self.impressions += row["impression"] is not None
        if text := " ".join(filter(None, (row["findings"], row["impression"]))):
            self.lengths.append(len(text.split()))
            words = re.findall(r"[^\W\d_]{3,}", text.lower())
            self.words.update(word for word in words if word not in STOP_WORDS)

    def numbers(self) -> dict[str, Any]:
        """For card.json."""
        most = max((n for _, n in self.per_study), default=0)
        return {
            "views": {
                split: {view: n for view in VIEWS if (n := self.views[split, view])}
                for split in SPLITS
            },
            "views_per_study": {
                split: {str(n): k for n in range(1, most + 1) if (k := self.per_study[split, n])}
                for split in SPLITS
            },
            "reports": {
                "with_findings": self.findings,
                "with_impression": self.impressions,
                "words_median": float(np.median(self.lengths)) if self.lengths else 0.0,
                "words_most": max(self.lengths, default=0),
                "frequent_words": dict(self.words.most_common(MOST_WORDS)),
            },
            "labels": {
                label: {
                    split: {n: self.labels[label, split, state] for state, n in STATE_NAMES.items()}
                    for split in SPLITS
                }
                for label in self.label_names
            },
            "too_few_to_probe": self._too_few(),
            "studies_without_any_label": {split: self.unstated[split] for split in SPLITS},
            "other_labels": by_split(self.other_labels, MOST_OTHER_LABELS),
            "other_labels_in_all": len({name for name, _ in self.other_labels}),
            "attributes": {
                name: by_split(self.attributes[name], rising=name in NUMBERS)
                for name in self.attributes_kept
            },
            "years": self._by_years(),
        }

    def _too_few(self) -> dict[str, dict[str, str]]:
        """By split the labels that a probe leaves out by its own settings, with what they lack."""
        states = np.array(self.states, np.int8).reshape(len(self.states), len(self.label_names))
        targets = binary_targets(states, ProbeConfig.uncertain, ProbeConfig.unmentioned)
        patient, split = np.array(self.patients), np.array(self.splits)
        names = self.label_names
        return too_few({s: count_labels(targets, patient, split == s, names) for s in SPLITS})

    def _by_years(self) -> dict[str, dict[str, int]]:
        """Studies by bucket of years and split; empty where no date is kept."""
        buckets = sorted({years for years, _ in self.years})
        if buckets == ["unknown"]:
            return {}
        return {y: {split: self.years[y, split] for split in SPLITS} for y in buckets}
