"""Fits of the online probe: to training patients, scored on validation patients, never on test patients."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline

from ray_mae.config.suite import Heads
from ray_mae.evaluate.cohort import Cohort, draw_patients
from ray_mae.evaluate.delong import clustered
from ray_mae.evaluate.heads.base import Data, Head
from ray_mae.evaluate.heads.registry import HEADS
from ray_mae.evaluate.metrics import Estimate, macro, measure
from ray_mae.evaluate.probe.scaling import FeatureScaler
from ray_mae.evaluate.scores import evidence_of, label_estimate

C_VALUES = (1e-3, 1e-2, 1e-1, 1.0)
"""Inverse strengths of the regularisation to choose from."""
SETTINGS = Heads(k=[10, 20, 50], lr=[3e-4, 1e-3, 3e-3], weight_decay=[0.1], attentive_steps=300)
"""What neighbours and attention choose from."""
CHOSEN = ("k", "lr", "weight_decay")


@dataclass(frozen=True)
class ProbedSamples:
    """Whom a probe is fitted to and scored on, and on which labels."""

    cohort: Cohort
    """Of training and validation patients alone."""
    targets: NDArray
    """[S, L] 0, 1, or NaN where unknown."""
    labels: dict[int, str]
    """Columns of targets with enough of both classes, and their names."""
    left_out: list[str]
    """The names of the others."""
    rows: dict[str, NDArray]
    """Rows of the cohort by split."""
    selection: NDArray
    """[n] bool of the training rows: the selection split, which chooses the regularisation C."""


@dataclass(frozen=True)
class LabelScore:
    """A label, or the mean over labels, on the validation patients."""

    value: float
    resampled: NDArray
    """[R]"""
    error: float
    """Of AUROC, by DeLong; NaN where nobody is told apart."""


@dataclass(frozen=True)
class MacroScore:
    """The mean over labels and draws."""

    auroc: Estimate
    resampled: NDArray
    """[R]"""


@dataclass(frozen=True)
class OtherHead:
    """A head of `ray_mae.evaluate.heads` with its settings chosen."""

    head: Head
    chosen: dict[str, Any]
    data: dict[str, Data]
    """Training and validation samples."""
    names: list[str]
    seed: int

    def logits(self, part: NDArray) -> NDArray:
        """[V, L] of the validation samples, from a fit with these settings to the part [n]."""
        train = self.data["train"].rows(np.flatnonzero(part))
        one: dict[str, Any] = {name: [self.chosen[name]] for name in CHOSEN if name in self.chosen}
        # of one setting there is nothing to choose
        nobody = self.data["val"].rows(np.arange(0))
        fitted = self.head.fit(train, nobody, self.names, replace(SETTINGS, **one), self.seed)
        return self.head.predict(self.chosen, fitted.arrays, self.data["val"], train)


class ValidationProbe:
    """Fits to training samples, scored on validation samples."""

    def __init__(
        self,
        samples: ProbedSamples,
        x: dict[str, NDArray],
        patient: NDArray,
        weights: NDArray,
    ) -> None:
        """x: features by split; patient [V], weights [V, R]: of the validation samples."""
        self._samples, self._x = samples, x
        self._patient, self._weights = patient, weights
        self._train, self._val = (samples.targets[samples.rows[s]] for s in ("train", "val"))
        self.evidence = {i: evidence_of(self._val[:, i], patient, weights) for i in samples.labels}
        """By label."""

    def choose_head(self, head: str, data: dict[str, Data], seed: int) -> "OtherHead":
        """A head of all labels whose settings do best on the selection split, fitted to the others.

        Args:
            head: name in `ray_mae.evaluate.heads`.
            data: training and validation samples, with `samples.labels` as columns of their targets.
            seed: of its training.
        """
        selection = self._samples.selection
        fit, select = (data["train"].rows(np.flatnonzero(of)) for of in (~selection, selection))
        names = list(self._samples.labels.values())
        chosen = HEADS[head].head.fit(fit, select, names, SETTINGS, seed).chosen
        return OtherHead(HEADS[head].head, chosen, data, names, seed)

    def choose_regularisation(self, label: int) -> float:
        """The C whose fit to the others does best on the selection split; of equals the smallest."""

        x, y = self._x["train"], self._train[:, label]
        known, selection = ~np.isnan(y), self._samples.selection
        fit, score = known & ~selection, known & selection
        scores = {
            C: roc_auc_score(y[score], _logits(x[fit], y[fit], C, x[score])) for C in C_VALUES
        }
        return max(scores, key=lambda C: (scores[C], -C))

    def fit_and_score(
        self, part: NDArray, chosen: "dict[int, float] | OtherHead"
    ) -> dict[int, LabelScore]:
        """Each label by its C, or all by another head, fitted to the part [n] of the training samples.

        A half where the part knows one class alone: such a fit tells nobody apart.
        """
        other = chosen.logits(part) if isinstance(chosen, OtherHead) else np.zeros((0, 0))
        scores = {}
        for place, i in enumerate(self._samples.labels):
            y, y_val = self._train[:, i], self._val[:, i]
            fit, known = part & ~np.isnan(y), ~np.isnan(y_val)
            if len(np.unique(y[fit])) < 2:
                half = np.full(self._weights.shape[1], 0.5)
                scores[i] = LabelScore(0.5, half, np.nan)
                continue
            if isinstance(chosen, OtherHead):
                z = other[known, place]
            else:
                z = _logits(self._x["train"][fit], y[fit], chosen[i], self._x["val"][known])
            p, target = expit(z), y_val[known]
            resampled = measure(target, p, self._weights[known], score=z)["auroc"]
            error = clustered(target, z, self._patient[known]).error
            value = float(measure(target, p, score=z)["auroc"][0])
            scores[i] = LabelScore(value, resampled, error)
        return scores

    def macro(self, draws: Sequence[dict[int, LabelScore]]) -> MacroScore:
        """The mean over labels of each draw, and its interval over patients, of three draws or more also
        over these; of one label by what its patients can tell."""
        values = [float(np.mean([s.value for s in of.values()])) for of in draws]
        resampled = [macro(np.stack([s.resampled for s in of.values()])) for of in draws]
        sole = len(self.evidence) == 1
        errors = [next(iter(of.values())).error if sole else np.nan for of in draws]
        evidence = next(iter(self.evidence.values())) if sole else None
        patients = len(np.unique(self._patient))
        e = label_estimate("auroc", values, resampled, errors, evidence, patients)
        return MacroScore(e, np.mean(resampled, axis=0))


def quarter(patient: NDArray, seed: int) -> NDArray:
    """[n] bool: samples of a random quarter of the patients."""
    patients = np.unique(patient)
    quarter = np.random.default_rng(seed).permutation(patients)[: max(1, len(patients) // 4)]
    return np.isin(patient, quarter)


def at_most(cohort: Cohort, rows: NDArray, most: int, seed: int) -> NDArray:
    """Rows of patients drawn by seed, at most so many: all of a patient, but of the last one."""
    drawn = draw_patients(cohort.patient[rows], most, seed)
    order = {patient: place for place, patient in enumerate(drawn)}
    place = np.array([order.get(patient, len(order)) for patient in cohort.patient[rows]])
    return np.sort(rows[np.argsort(place, kind="stable")][:most])


def probeable(
    target: NDArray,
    patient: NDArray,
    rows: dict[str, NDArray],
    selection: NDArray,
    least: int,
) -> bool:
    """Whether there are patients enough of both classes to fit and to score, and one each to choose by.

    target, patient: [S]; rows: by split; selection: [n] of the training rows.
    """
    train = rows["train"]
    parts = ((train[~selection], least), (rows["val"], least), (train[selection], 1))
    return all(
        len(np.unique(patient[part[target[part] == c]])) >= n for part, n in parts for c in (0, 1)
    )


def _logits(x: NDArray, y: NDArray, C: float, x_val: NDArray) -> NDArray:
    """Logits of x_val [m, D] from a fit to x [n, D], y [n]."""
    model = make_pipeline(FeatureScaler(), LogisticRegression(C=C, max_iter=2000))
    logits: NDArray = model.fit(x, y).decision_function(x_val)
    return logits
