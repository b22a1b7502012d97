"""What features know besides disease: site, scanner, sex, view, age, by a linear head and by variance."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

Floats = NDArray[np.floating[Any]]
Rows = NDArray[np.intp]

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""C of the logistic head."""
PENALTIES = (1.0, 0.1, 0.01, 0.001, 0.0001)
"""Of the ridge, beside the mean squared error."""
LEAST_PATIENTS = 5
"""Of a value in the training and in the test split: values with fewer are left out."""
MOST_CLASSES = 10
"""Numbers of so many different values or fewer are classes."""
BLOCK = 10_000
"""Samples at a time."""
COMPONENTS = 50
RESAMPLES = 1000
EVERYBODY = "everybody"


@dataclass(frozen=True)
class Knowledge:
    """What a linear head tells of an attribute of test patients."""

    attribute: str
    among: str
    """EVERYBODY, or the label state within which heads were fitted and tested: an attribute that goes with a
    disease is otherwise known by it."""
    metric: str = "balanced accuracy"
    """Of numbers R2."""
    value: float = float("nan")
    low: float = float("nan")
    high: float = float("nan")
    """95 % over test patients."""
    chance: float = float("nan")
    """1 / K; of numbers 0."""
    chance_low: float = float("nan")
    chance_high: float = float("nan")
    """95 % of the values where the attribute is dealt out among the test patients at random."""
    values: tuple[str, ...] = ()
    """[K] that are told apart."""
    left_out: tuple[str, ...] = ()
    """Values of too few patients."""
    patients: int = 0
    """Of the test split."""
    reason: str = ""
    """Why there is no value."""


def knows(
    features: Floats,
    name: str,
    attribute: NDArray[Any],
    patient: NDArray[np.str_],
    split: NDArray[np.str_],
    *,
    within: NDArray[np.bool_] | None = None,
    among: str = EVERYBODY,
    seed: int = 0,
) -> Knowledge:
    """How well a linear head tells an attribute from features.

    It is fitted on training patients, its strength chosen on validation patients, and scored once on test
    patients: with numbers ridge regression, else logistic regression with balanced classes.

    Args:
        features: [S, D].
        name: of the attribute.
        attribute: [S] objects; None where unknown.
        patient: [S].
        split: [S] train, val and test.
        within: [S] samples that take part, such as those of No Finding; default: all.
        among: what `within` is called.
        seed: of the resamples.
    """
    known = np.array([_is_known(v) for v in attribute], bool)
    known &= np.ones(len(known), bool) if within is None else within
    rows = {s: np.flatnonzero(known & (split == s)) for s in ("train", "val", "test")}
    numbers = _are_numbers(attribute[known])
    if numbers:
        kept: list[str] = []
        left_out: list[str] = []
        few = {s: len(set(patient[r].tolist())) for s, r in rows.items()}
        if min(few.values()) < LEAST_PATIENTS:
            reason = (
                f"{few['train']}, {few['val']} and {few['test']} patients in train, val and test"
            )
            return Knowledge(name, among, metric="R2", reason=reason)
        target: NDArray[Any] = np.array(
            [float(v) if k else np.nan for v, k in zip(attribute, known, strict=True)]
        )
    else:
        kept, left_out = _values(attribute, patient, rows)
        if len(kept) < 2:
            reason = "fewer than two values with patients enough in train and test"
            return Knowledge(name, among, left_out=tuple(left_out), reason=reason)
        place = {value: i for i, value in enumerate(kept)}
        target = np.array([place.get(str(v), -1) for v in attribute])
        rows = {s: r[target[r] >= 0] for s, r in rows.items()}
    predicted = (_ridge if numbers else _logistic)(features, target, rows)
    test = rows["test"]
    score = (_R2 if numbers else _BalancedAccuracy)(
        target[test], predicted, patient[test], len(kept)
    )
    low, high, chance_low, chance_high = score.intervals(np.random.default_rng(seed))
    return Knowledge(
        name,
        among,
        "R2" if numbers else "balanced accuracy",
        score.value,
        low,
        high,
        0.0 if numbers else 1 / len(kept),
        chance_low,
        chance_high,
        tuple(kept),
        tuple(left_out),
        len(set(patient[test].tolist())),
    )


def _is_known(value: Any) -> bool:
    return value is not None and value == value  # NaN is not itself


def _are_numbers(values: NDArray[Any]) -> bool:
    """Few different ones, such as field strengths or numbers of views, are told apart as classes."""
    return len(set(values.tolist())) > MOST_CLASSES and all(
        isinstance(v, (int, float, np.number)) and not isinstance(v, bool) for v in values
    )


def _values(
    attribute: NDArray[Any], patient: NDArray[np.str_], rows: dict[str, Rows]
) -> tuple[list[str], list[str]]:
    """Values with patients enough, and the others."""
    by_split = {s: [(str(attribute[i]), patient[i]) for i in rows[s]] for s in ("train", "test")}
    every = sorted({value for pairs in by_split.values() for value, _ in pairs})
    patients = {
        (s, value): len({who for v, who in pairs if v == value})
        for s, pairs in by_split.items()
        for value in every
    }
    kept = [v for v in every if min(patients[s, v] for s in by_split) >= LEAST_PATIENTS]
    return kept, [v for v in every if v not in kept]


# -------------------------------------------------------------------------------------------- heads


def _scaled(features: Floats, rows: dict[str, Rows]) -> dict[str, Floats]:
    """In the precision of the features, each split once."""
    there = {s: features[r] for s, r in rows.items() if len(r)}
    scaler = _scaler(there["train"])
    return {s: scaler.transform(x) for s, x in there.items()}


def _scaler(x: Floats) -> StandardScaler:
    """That changes arrays in place; fitted part by part, as it takes several arrays of the size of each."""
    scaler = StandardScaler(copy=False)
    for first in range(0, len(x), BLOCK):
        scaler.partial_fit(x[first : first + BLOCK])
    return scaler


def _logistic(features: Floats, target: NDArray[Any], rows: dict[str, Rows]) -> NDArray[Any]:
    """Predicted classes of the test rows; of equal strengths the smaller."""
    x, y = _scaled(features, rows), {s: target[r] for s, r in rows.items()}
    fits = []
    for strength in STRENGTHS if len(y["val"]) else STRENGTHS[2:3]:
        model = LogisticRegression(C=strength, class_weight="balanced", max_iter=1000)
        fits.append(model.fit(x["train"], y["train"]))
    scores = [_recalls(y["val"], fit.predict(x["val"])) for fit in fits] if len(y["val"]) else [0.0]
    return np.asarray(fits[int(np.argmax(scores))].predict(x["test"]))


def _ridge(features: Floats, target: NDArray[Any], rows: dict[str, Rows]) -> NDArray[Any]:
    """Predicted numbers of the test rows."""
    x, y = _scaled(features, rows), {s: target[r] for s, r in rows.items()}
    mean = float(y["train"].mean())
    squares = (x["train"].T @ x["train"]).astype(np.float64)
    products = (x["train"].T @ (y["train"] - mean).astype(x["train"].dtype)).astype(np.float64)
    inside = np.eye(len(squares)) * len(y["train"])
    fits = [np.linalg.solve(squares + c * inside, products) for c in PENALTIES]
    errors = [float(((x["val"] @ w + mean - y["val"]) ** 2).mean()) for w in fits]
    return np.asarray(x["test"] @ fits[int(np.argmin(errors))] + mean)


def _recalls(truth: NDArray[Any], predicted: NDArray[Any]) -> float:
    """Balanced accuracy over the classes that are there."""
    return float(np.mean([(predicted[truth == c] == c).mean() for c in np.unique(truth)]))


# ------------------------------------------------------------------------------------------- scores


class _Score(ABC):
    """Of predictions [T] of P patients: resampled over patients, and with the truth dealt out among them."""

    def __init__(
        self, truth: NDArray[Any], predicted: NDArray[Any], patient: NDArray[np.str_], classes: int
    ) -> None:
        _, first, of = np.unique(patient, return_index=True, return_inverse=True)
        self.truth, self.predicted, self.classes = truth, predicted, classes
        self.people, self.of, self.first = len(first), of, truth[first]
        self.value = float(self.score(np.ones((1, self.people)))[0])

    @abstractmethod
    def score(self, weights: NDArray[Any]) -> NDArray[np.float64]:
        """[R] with weights [R, P] of the patients."""

    @abstractmethod
    def dealt(self, other: NDArray[np.intp]) -> float:
        """A patient's samples get what the first one of another has; other: [P]."""

    def per_patient(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Sums [P] of values [T]."""
        return np.bincount(self.of, values.astype(float), self.people).astype(np.float64)

    def intervals(self, rng: np.random.Generator) -> tuple[float, float, float, float]:
        """95 % over patients, and by chance."""
        even = np.full(self.people, 1 / self.people)
        resampled = self.score(rng.multinomial(self.people, even, RESAMPLES))
        chance = [self.dealt(rng.permutation(self.people)) for _ in range(RESAMPLES)]
        low, high = np.nanpercentile(resampled, [2.5, 97.5])
        chance_low, chance_high = np.nanpercentile(chance, [2.5, 97.5])
        return float(low), float(high), float(chance_low), float(chance_high)


class _BalancedAccuracy(_Score):
    def score(self, weights: NDArray[Any]) -> NDArray[np.float64]:
        each = np.arange(self.classes)
        there = np.stack([self.per_patient(self.truth == c) for c in each], axis=1)  # [P, K]
        right = [self.per_patient((self.truth == c) & (self.predicted == c)) for c in each]
        return self._mean_recall(weights @ np.stack(right, axis=1), weights @ there)

    def dealt(self, other: NDArray[np.intp]) -> float:
        truth = self.first[other][self.of]
        there = np.bincount(truth, minlength=self.classes)
        right = np.bincount(truth, truth == self.predicted, self.classes)
        return float(self._mean_recall(right[None], there[None])[0])

    @staticmethod
    def _mean_recall(right: NDArray[Any], there: NDArray[Any]) -> NDArray[np.float64]:
        """[R] over the classes that are there: right, there [R, K]."""
        with np.errstate(invalid="ignore"):
            return np.asarray(np.nanmean(right / np.where(there > 0, there, np.nan), axis=1))


class _R2(_Score):
    def score(self, weights: NDArray[Any]) -> NDArray[np.float64]:
        return self._explained(weights, self.truth)

    def dealt(self, other: NDArray[np.intp]) -> float:
        return float(self._explained(np.ones((1, self.people)), self.first[other][self.of])[0])

    def _explained(self, weights: NDArray[Any], truth: NDArray[Any]) -> NDArray[np.float64]:
        parts = (np.ones(len(truth)), truth, truth**2, (truth - self.predicted) ** 2)
        n, total, squares, error = (weights @ self.per_patient(part) for part in parts)
        spread = squares - total**2 / n
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(spread > 0, 1 - error / spread, np.nan)


# ----------------------------------------------------------------------------------------- variance


@dataclass(frozen=True)
class VarianceShare:
    """Of features between groups of samples."""

    share: float
    """η²: sum of squares between the groups over the total, 0 to 1."""
    by_chance: float
    """What it would be if samples were grouped at random: (K − 1) / (n − 1)."""
    groups: int
    samples: int


def eta_squared(
    features: Floats, groups: dict[str, NDArray[Any]], rows: Rows | Sequence[int]
) -> dict[str, VarianceShare]:
    """How much of the features' variance lies between groups such as a label's, sites, sexes; by their name.

    Of the first COMPONENTS principal components of standardised features, weighted by their variance.

    Args:
        features: [S, D].
        groups: by name [S] objects; samples of None are left out.
        rows: samples that count.
    """
    chosen = np.asarray(rows, int)
    taken = features[chosen]
    scaled = _scaler(taken).transform(taken)
    samples, width = scaled.shape
    solver = "covariance_eigh" if samples > width else "full"
    pca = PCA(min(COMPONENTS, samples, width), svd_solver=solver, copy=False)
    parts = pca.fit_transform(scaled).astype(np.float64)
    return {name: _between(parts, values[chosen]) for name, values in groups.items()}


def _between(parts: NDArray[np.float64], group: NDArray[Any]) -> VarianceShare:
    """The sums over components are those of components weighted by their variance."""
    known = np.array([_is_known(v) for v in group], bool)
    parts = parts[known] - parts[known].mean(0) if known.any() else parts[known]
    _, which = np.unique(np.array([str(v) for v in group[known]], np.str_), return_inverse=True)
    samples, kinds = len(which), int(which.max(initial=-1)) + 1
    total = float((parts**2).sum())
    if kinds < 2 or total == 0:
        return VarianceShare(float("nan"), float("nan"), kinds, samples)
    sums = np.zeros((kinds, parts.shape[1]))
    np.add.at(sums, which, parts)
    between = float((sums**2 / np.bincount(which)[:, None]).sum())
    return VarianceShare(between / total, (kinds - 1) / (samples - 1), kinds, samples)
