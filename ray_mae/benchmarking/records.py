"""What a benchmark keeps of each fit: the rows that every number of the page is rebuilt from."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_mae.evaluate.heads.base import Trial as Trial  # part of the contract

ALL = 0
"""Labelled studies of a cell that takes all there are."""

EXPOSURES = ("none", "images", "patients", "labels", "unknown")
"""What an encoder's pretraining saw of the test patients of a data set, from the least to the worst; unknown
where nobody says."""


@dataclass(frozen=True, order=True)
class Cell:
    """A place of the table: everything but the encoder and its seeds."""

    task: str
    head: str
    views: str
    studies: int = ALL
    """Labelled ones; ALL for all; of few_shot patients of each class."""
    validation: str = "full"
    """full, spent, or folds: see `benchmarking.folds`."""
    held_out: str = ""
    """Value of the task's `leave_out` that no head saw; "" where nothing is left out."""


@dataclass(frozen=True, order=True)
class FitKey:
    """One fitted model."""

    cell: Cell
    encoder: str
    pretraining: int = 0
    """Which of the encoder's seeds: the place in its paths, or in its seeds of random weights."""
    draw: int = 0
    """Of the labelled patients."""
    seed: int = 0
    """Of the head."""

    @property
    def id(self) -> str:
        """Name of its files: a hash of the key."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:24]


@dataclass(frozen=True)
class Fit:
    """A fitted model as its row tells of it. No test label has been looked at for it."""

    key: FitKey
    labels: list[str]
    """[L] names of the columns of its predictions."""
    status: str = "done"
    """done, failed, unavailable, or constant where no class can be told from another."""
    reason: str = ""
    chosen: dict[str, Any] = field(default_factory=dict)
    """The setting taken; of linear heads C is a list [L]."""
    trials: list[Trial] = field(default_factory=list)
    at_edge: list[str] = field(default_factory=list)
    """Labels whose setting lies at an end of what there is to choose from, and settings."""
    constant: list[str] = field(default_factory=list)
    """Labels with one class among the labelled: their prediction is the prevalence for everybody."""
    converged: bool = True
    train_studies: int = 0
    train_patients: int = 0
    val_studies: int = 0
    dimensions: int = 0
    parameters: int = 0
    """That were trained."""
    samples_seen: int = 0
    """In training, of all trials together."""
    seconds: float = 0.0
    """Of all trials together."""
    inputs: str = ""
    """Hash of what it depends on: weights, shards, labels, settings of its head, version."""


@dataclass(frozen=True)
class SampleTable:
    """Who is in a data set, and what is to be told of them: S samples."""

    sample: NDArray[np.str_]
    """[S] identifiers."""
    patient: NDArray[np.str_]
    """[S]"""
    split: NDArray[np.str_]
    """[S]"""
    attributes: dict[str, NDArray[Any]]
    """[S] each, None where unknown: sex, age, site, manufacturer, model, years, modality; views (how many)
    and view (frontal, lateral, or frontal+lateral)."""
    targets: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    """[S, L] by task; NaN where unknown. While fitting, NaN of every test sample."""
    names: dict[str, list[str]] = field(default_factory=dict)
    """[L] by task."""

    def rows(self, split: str) -> NDArray[np.intp]:
        """Indices of a split's samples."""
        return np.flatnonzero(self.split == split)


@dataclass(frozen=True)
class Predictions:
    """What a fit says of the samples of one split of one data set."""

    sample: NDArray[np.str_]
    """[T] identifiers; those that a fit cannot see (no lateral view) are not among them."""
    values: NDArray[np.float32]
    """[T, L] logits of labels, or numbers in the target's unit; NaN where there is none."""


@dataclass(frozen=True)
class Cases:
    """What a fit outlined in the test volumes of one data set."""

    sample: NDArray[np.str_]
    """[T] identifiers, of those with a label map."""
    patient: NDArray[np.str_]
    """[T]"""
    labels: list[str]
    """[L] regions."""
    values: dict[str, NDArray[np.float64]]
    """[T, L] by the columns of `evaluate.segment.cases`; NaN where there is no such number."""
