"""What a head is: arrays of frozen features in, a fitted model as arrays out. No files, no Ray."""

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ray_mae.config.suite import Heads

FloatArray = NDArray[np.floating]

Kind = Literal["labels", "number", "survival", "retrieval"]
"""Of tasks, as in a suite."""

POOLS = ("cls", "mean", "cls+mean")
"""Vectors that a view may have, in the order in which they are tried."""


@dataclass(frozen=True)
class Trial:
    """One setting that validation looked at."""

    settings: dict[str, Any]
    """Such as pool and C."""
    score: float
    """On validation patients; larger is better. NaN where it failed."""


@dataclass(frozen=True)
class Tokens:
    """Patch features of views: those of one sample are one sequence."""

    values: NDArray[np.float16]
    """[N, T, D] of N views."""
    sample: NDArray[np.intp]
    """[N] row of Data that the view is of."""
    view: NDArray[np.intp]
    """[N] index in ray_mae.data.schema.VIEWS."""


@dataclass(frozen=True)
class Data:
    """Samples of one split: n of them, with L targets."""

    vectors: dict[str, NDArray[np.float32]]
    """[n, D] by pool, one of POOLS; none for heads that look at nothing."""
    targets: NDArray[np.float64]
    """[n, L] 0, 1, or NaN where unknown; or numbers; of survival [n, 2] time and event."""
    patient: NDArray[np.str_]
    """[n]"""
    tokens: Tokens | None = None
    kind: Kind = "labels"
    """What the targets are."""
    views_of: NDArray[np.intp] | None = None
    """[n] where rows are views whose logits are averaged: the study of each, from 0 on. Settings are then
    chosen by the averages."""

    def __post_init__(self) -> None:
        states = self.kind in ("labels", "retrieval")
        if states and not np.isin(self.targets[~np.isnan(self.targets)], (0, 1)).all():
            raise ValueError(
                f"targets of {self.kind} must be 0, 1 or NaN: those of numbers are of kind number"
            )

    def __len__(self) -> int:
        return len(self.patient)

    def rows(self, index: NDArray[np.intp]) -> "Data":
        """Those samples alone, in that order, no one twice."""
        tokens = self.tokens
        if tokens is not None:
            place = np.full(len(self), -1)
            place[index] = np.arange(len(index))
            there = place[tokens.sample] >= 0
            sample = place[tokens.sample[there]]
            tokens = Tokens(tokens.values[there], sample, tokens.view[there])
        vectors = {pool: x[index] for pool, x in self.vectors.items()}
        studies = None
        if self.views_of is not None:
            studies = np.unique(self.views_of[index], return_inverse=True)[1]
        return Data(vectors, self.targets[index], self.patient[index], tokens, self.kind, studies)

    @property
    def pools(self) -> list[str]:
        """Those there are, in the order of POOLS."""
        return sorted(self.vectors, key=POOLS.index)


@dataclass(frozen=True)
class HeadFit:
    """A fitted head, and what is told of how it came about."""

    chosen: dict[str, Any]
    """Plain values of the setting taken, such as {"pool": "cls", "C": [1.0, 0.1]}."""
    arrays: dict[str, NDArray[Any]]
    """What `predict` needs."""
    trials: list[Trial] = field(default_factory=list)
    """As many for every encoder of as many pools."""
    at_edge: list[str] = field(default_factory=list)
    """Labels, or names of settings, that lie at an end of what there was to choose from."""
    constant: list[str] = field(default_factory=list)
    """Labels with one class among the labelled: everybody is given the prevalence."""
    converged: bool = True
    parameters: int = 0
    """That were trained, in the setting taken."""
    samples_seen: int = 0
    """In training, of all trials together."""
    columns: list[str] = field(default_factory=list)
    """Names of the columns of predictions, where these are not the labels."""


class Head(Protocol):
    """A module or an object of `ray_mae.evaluate.heads`."""

    def fit(self, train: Data, val: Data, labels: list[str], settings: Heads, seed: int) -> HeadFit:
        """Fits to training patients each setting there is, and takes the one best on validation patients.

        Args:
            train: labelled samples alone.
            val: those that choose; its arrays may have no row for heads that choose nothing.
            labels: [L] names of the columns of targets.
            settings: of the suite.
            seed: of whatever is random.
        """
        ...

    def predict(
        self, chosen: dict[str, Any], arrays: dict[str, NDArray[Any]], data: Data, train: Data
    ) -> NDArray[np.float32]:
        """Returns [m, L] logits, or numbers in the target's unit.

        Args:
            chosen: of the fit.
            arrays: of the fit.
            data: m samples. Their targets are looked at by `retrieval` alone.
            train: the samples that it was fitted to, as they were then: kNN looks them up again.
        """
        ...
