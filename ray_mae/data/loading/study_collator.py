"""Rows of studies → the arrays of a packed batch, without PyTorch."""

from dataclasses import dataclass
from itertools import repeat
from typing import Any, ClassVar

import numpy as np

from ray_mae.data.decoding.stored_images import DEFAULT, decode
from ray_mae.data.letterbox import flatten
from ray_mae.data.loading.findings import StudyWeights
from ray_mae.data.loading.order import key_of, mix, permutation
from ray_mae.data.loading.targets import Targets
from ray_mae.data.loading.view_windows import WindowJitter
from ray_mae.data.schema import VIEWS, Row
from ray_mae.random_streams import Draw


@dataclass(frozen=True)
class StudyCollator:
    """How rows of STUDY_SCHEMA become a packed batch."""

    max_views: int
    text: str = "impression"
    """impression, findings or both"""
    tokenizer: str | None = None
    """A tokenizers JSON document; None gives batches without text."""
    max_tokens: int = 128
    seed: int = 0
    weights: StudyWeights | None = None
    """Of training studies, by their findings; None: all alike."""
    targets: Targets | None = None
    """Labels of training studies; None: a batch brings none along."""
    windows: WindowJitter | None = None
    """How training chooses the windows of views anew; None: each as its file has it."""

    kind: ClassVar[str] = "study"
    columns: ClassVar[tuple[str, ...]] = (
        *("study_id", "patient_id", "split", "labels"),
        *("views", "findings", "impression"),
    )
    """What is read of a row."""

    def describe(self, rows: list[Row]) -> dict[str, list[Any]]:
        """What an evaluation wants to know of the rows, by name."""
        names = self.columns[:4]
        return {name: [row[name] for row in rows] for name in names} | {
            "views": [len(row["views"]) for row in rows]
        }

    def collate(self, rows: list[Row], epochs: list[int]) -> dict[str, np.ndarray]:
        """The arrays of a StudyBatch, by name, its images as of `flatten`.

        epochs: which drawing of each row it is.
        """
        keys = np.array([key_of(row["study_id"]) for row in rows], dtype=np.int64)
        draws = mix(self.seed, np.array(epochs), keys)
        places = [
            (index, slot)
            for index, row in enumerate(rows)
            for slot in self._chosen(len(row["views"]), int(draws[index]))
        ]
        views = [rows[index]["views"][slot] for index, slot in places]
        study, slots = np.array(places, dtype=np.int64).reshape(-1, 2).T
        view_draws = mix(draws[study], Draw.PLACE + slots)
        contents = [view["image"] for view in views]
        windows = self.windows.of(contents, view_draws) if self.windows else repeat(DEFAULT)
        images = [decode(data, window) for data, window in zip(contents, windows, strict=False)]
        pixels, shape = flatten(images)
        tokens, has_report = self._tokens(rows)
        weights = {"study_weight": self.weights.of(keys)} if self.weights else {}
        targets = self.targets.of(keys) if self.targets else {}
        return {
            **weights,
            **targets,
            "pixels": pixels,
            "shape": shape,
            "study": study,
            "view": np.array([VIEWS.index(view["view"]) for view in views], dtype=np.int64),
            "key": keys,
            "draw": draws,
            "view_draw": view_draws,
            "tokens": tokens,
            "has_report": has_report,
        }

    def _chosen(self, views: int, draw: int) -> list[int]:
        if views <= self.max_views:
            return list(range(views))
        return sorted(permutation(views, draw, 0)[: self.max_views].tolist())

    def _tokens(self, rows: list[Row]) -> tuple[np.ndarray, np.ndarray]:
        if self.tokenizer is None:
            return np.zeros((len(rows), 2), np.int64), np.zeros(len(rows), bool)
        from ray_mae.data.loading.tokenizer import encode_reports, report_text

        return encode_reports(
            self.tokenizer, [report_text(row, self.text) for row in rows], self.max_tokens
        )
