"""The linear probe: how much of each label is linearly readable from frozen features.

One logistic regression per label and feature set, its regularisation C chosen on validation patients
(or by cross-validation over training and validation patients), its numbers taken on test patients. No ray
and no torch: features come in as arrays.

Late fusion over views: a study's score is the mean of its views' logits, all from one linear
head. A linear head of a mean is the mean of the heads, w·mean(h_v) + b = mean(w·h_v + b), so the
features that come in are the mean over a study's views, and fusion costs nothing more.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.metrics import roc_curve

from ray_mae.config import ProbeSettings
from ray_mae.evaluate.baselines import TRAINED
from ray_mae.evaluate.cohort import check_splits, count_labels
from ray_mae.evaluate.metrics import Estimate, FloatArray, macro, patient_resamples, reliability
from ray_mae.evaluate.probe.heads import Head, Heads, fit_heads
from ray_mae.evaluate.probe.labelled import (
    ProbeData,
    draws_of,
    fitted_on,
    needed_splits,
    probeable,
)
from ray_mae.evaluate.probe.notes import (
    notes_on_draws,
    notes_on_errors,
    notes_on_evidence,
    notes_on_fits,
)
from ray_mae.evaluate.probe.result import FeatureScore, LabelScore, ProbeResult
from ray_mae.evaluate.probe.scaling import principal_components
from ray_mae.evaluate.scores import (
    SCORES,
    Evidence,
    LabelDifference,
    LabelValues,
    difference_estimate,
    evidence_of,
    label_differences,
    label_estimate,
    score_label,
)

ROC_POINTS = 200

Each = Callable[[str, int, str, FloatArray], None]
"""Told of each head: names of the feature set and of the label with the draw between them, and logits [S] of
validation and test studies, NaN for those that were trained on."""


def probe(
    features: Mapping[str, FloatArray],
    data: ProbeData,
    config: ProbeSettings,
    each: Each = lambda feature_set, draw, label, logits: None,
) -> ProbeResult:
    """Probe every feature set on the same studies, labels, draws and resamples.

    A label with fewer than `config.min_positive` patients of a class in a split is left out and named in the
    result; with cross-validation training and validation count as one.

    Args:
        features: by name, [S, D] mean over the views of each study (D may differ between sets).
        data: S studies.
        config: settings of the probe.
        each: called when a head is done.

    Raises:
        ValueError: a patient is in two splits, arrays do not fit together, a feature is not finite, or no
            label is left.
    """
    _check(features, data, needed_splits(data.split, config))
    counts, left_out = probeable(data, config)
    columns = {name: i for i, name in enumerate(data.names) if name not in left_out}
    draws = draws_of(data, config)
    notes = notes_on_draws(data, draws, config)
    if config.train_studies is not None:
        used = draws[0].fit | draws[0].choose & fitted_on(data.split, config)
        splits = ("train", "val") if config.cross_validate else ("train",)
        for split in splits:
            rows = used & data.rows(split)
            counts[split] = count_labels(data.targets, data.patient, rows, data.names)

    test = data.rows("test")
    patient = data.patient[test]
    weights = patient_resamples(patient, config.bootstrap, config.seed)
    targets = {name: data.targets[test, column] for name, column in columns.items()}
    evidence = {name: evidence_of(y, patient, weights) for name, y in targets.items()}
    patients = len(np.unique(patient))

    results: dict[str, FeatureScore] = {}
    scored: dict[str, _Scored] = {}
    for name, x in features.items():
        of_draws = []
        for number, draw in enumerate(draws):
            heads = fit_heads(x, data, columns, draw, config)
            for label, head in heads.heads.items():
                each(name, number, label, head.logits)
            of_draws.append(heads)
        scored[name] = _score(of_draws, targets, test, patient, weights)
        results[name] = _result(
            x.shape[1], of_draws, scored[name], targets, test, evidence, patients
        )
        notes += notes_on_fits(name, of_draws)
        notes += notes_on_errors(name, scored[name].labels[0], evidence)
    notes += notes_on_evidence(evidence, config.bootstrap)

    others = [name for name in results if TRAINED in results and name != TRAINED]
    sole = _sole(evidence)
    differences = {
        name: _difference(scored[TRAINED], scored[name], sole, patients) for name in others
    }
    by_label = {
        name: _label_differences(scored[TRAINED], scored[name], evidence, patients)
        for name in others
    }
    protocol = {
        "uncertain": config.uncertain,
        "unmentioned": config.unmentioned,
        "strengths": sorted(config.strengths),
        "bootstrap": config.bootstrap,
        "min_positive": config.min_positive,
        "train_studies": config.train_studies,
        "draws": len(draws),
        "validation": config.validation,
        "cross_validate": config.cross_validate,
        "seed": config.seed,
    }
    resampled = {name: one.macro_resampled("auroc") for name, one in scored.items()}
    result = ProbeResult(
        results, differences, by_label, counts, evidence, left_out, protocol, notes, resampled
    )
    return replace(result, notes=[*notes, *result.edges()])


def pixel_components(
    pixels: FloatArray, split: NDArray, components: int, seed: int = 0
) -> FloatArray:
    """Raw-pixel baseline [S, k]: principal components, fitted on the training studies only.

    pixels: [S, P] mean over the views of each study's small, flattened images; k is at most `components`,
    one less than there are training studies, and P: see `principal_components`.
    """
    return principal_components(pixels, np.asarray(split) == "train", components, seed)


@dataclass(frozen=True)
class _Scored:
    """A feature set on the test patients, by draw."""

    labels: list[dict[str, LabelValues]]
    """By draw and label."""

    def macro(self, metric: str) -> list[float]:
        """By draw, the mean over labels; NaN where one has no value."""
        return [float(np.mean([v.value[metric] for v in of.values()])) for of in self.labels]

    def macro_by_draw(self, metric: str) -> list[FloatArray]:
        """[R] by draw, the mean over the labels that a resample can tell."""
        return [macro(np.stack([v.resampled[metric] for v in of.values()])) for of in self.labels]

    def macro_resampled(self, metric: str) -> FloatArray:
        """[R] the mean of that over draws."""
        mean: FloatArray = np.mean(self.macro_by_draw(metric), axis=0)
        return mean

    @property
    def metrics(self) -> list[str]:
        """Keys of those that were measured."""
        measured = next(iter(self.labels[0].values())).value
        return [metric for metric in SCORES if metric in measured]


def _score(
    draws: Sequence[Heads],
    targets: Mapping[str, FloatArray],
    test: NDArray[np.bool_],
    patient: NDArray,
    weights: NDArray,
) -> _Scored:
    labels = []
    for of in draws:
        values = {}
        for name, head in of.heads.items():
            known = ~np.isnan(targets[name])
            values[name] = score_label(
                targets[name][known],
                head.logits[test][known],
                patient[known],
                weights[known],
                head.temperature,
            )
        labels.append(values)
    return _Scored(labels)


def _result(
    dimensions: int,
    draws: Sequence[Heads],
    scored: _Scored,
    targets: Mapping[str, FloatArray],
    test: NDArray[np.bool_],
    evidence: Mapping[str, Evidence],
    patients: int,
) -> FeatureScore:
    """Means over draws with their intervals; curves and C of the first draw."""
    labels = {}
    for name, first in draws[0].heads.items():
        known = ~np.isnan(targets[name])
        y, logit = targets[name][known], first.logits[test][known]
        false, true, _ = roc_curve(y, logit)
        points = np.linspace(0, len(false) - 1, min(len(false), ROC_POINTS)).round().astype(int)
        runs = [of[name] for of in scored.labels]
        of_draws: list[Head] = [of.heads[name] for of in draws]
        labels[name] = LabelScore(
            C=first.C,
            own_choice=first.own,
            at_edge=first.at_edge,
            validation_auroc=first.choice_auroc,
            temperature=first.temperature,
            constant=sum(head.constant for head in of_draws),
            draws=[run.value["auroc"] for run in runs],
            metrics={
                metric: label_estimate(
                    metric,
                    [run.value[metric] for run in runs],
                    [run.resampled[metric] for run in runs],
                    [run.error for run in runs],
                    evidence[name],
                    patients,
                )
                for metric in scored.metrics
            },
            false_positive_rate=false[points].tolist(),
            true_positive_rate=true[points].tolist(),
            reliability=reliability(y, expit(logit)),
        )
    if len(labels) == 1:  # of one label the mean is the label
        (only,) = labels.values()
        return FeatureScore(dimensions, labels, only.metrics)
    nothing = [np.nan] * len(draws)
    overall = {
        metric: label_estimate(
            metric, scored.macro(metric), scored.macro_by_draw(metric), nothing, None, patients
        )
        for metric in scored.metrics
    }
    return FeatureScore(dimensions, labels, overall)


def _sole(evidence: Mapping[str, Evidence]) -> Evidence | None:
    """That of the only label; None of several, whose mean is asked for."""
    return next(iter(evidence.values())) if len(evidence) == 1 else None


def _difference(one: _Scored, other: _Scored, evidence: Evidence | None, patients: int) -> Estimate:
    """Macro AUROC of one less that of the other, draw by draw."""
    pairs = zip(one.macro("auroc"), other.macro("auroc"), strict=True)
    resampled = zip(one.macro_by_draw("auroc"), other.macro_by_draw("auroc"), strict=True)
    return difference_estimate(
        [a - b for a, b in pairs], [a - b for a, b in resampled], evidence, patients
    )


def _label_differences(
    one: _Scored, other: _Scored, evidence: Mapping[str, Evidence], patients: int
) -> dict[str, LabelDifference]:
    """AUROC of one less that of the other by label, draw by draw."""
    pairs = list(zip(one.labels, other.labels, strict=True))
    return label_differences(
        {n: [a[n].value["auroc"] - b[n].value["auroc"] for a, b in pairs] for n in evidence},
        {
            n: [a[n].resampled["auroc"] - b[n].resampled["auroc"] for a, b in pairs]
            for n in evidence
        },
        evidence,
        patients,
    )


def _check(features: Mapping[str, FloatArray], data: ProbeData, splits: Sequence[str]) -> None:
    studies = len(data.split)
    if not features:
        raise ValueError("features must hold at least one feature set, got none")
    if data.targets.shape != (studies, len(data.names)):
        raise ValueError(
            f"targets must be [{studies}, {len(data.names)}], got {list(data.targets.shape)}"
        )
    if data.patient.shape != (studies,):
        raise ValueError(f"patient must be [{studies}], got {list(data.patient.shape)}")
    for name, x in features.items():
        if x.ndim != 2 or len(x) != studies:
            raise ValueError(f"features {name} must be [{studies}, D], got {list(x.shape)}")
        broken = int((~np.isfinite(x)).any(axis=1).sum())
        if broken:
            raise ValueError(f"features {name} are not finite in {broken} of {studies} studies")
    check_splits(data.patient, data.split, splits)
