"""The linear probe: how much of each label is linearly readable from frozen features.

One logistic regression per label and feature set, its regularisation C chosen on validation patients
(or by cross-validation over training and validation patients), its numbers taken on test patients. No ray
and no torch: features come in as arrays.

Late fusion over views: a study's score is the mean of its views' logits, all from one linear
head. A linear head of a mean is the mean of the heads, w·mean(h_v) + b = mean(w·h_v + b), so the
features that come in are the mean over a study's views, and fusion costs nothing more.
"""

from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit
from sklearn.metrics import roc_curve

from ray_mae.config import ProbeSettings
from ray_mae.data.schema import SPLITS
from ray_mae.evaluate.baselines import TRAINED
from ray_mae.evaluate.cohort import SplitCount, check_splits, count_labels, hint_of_policy, too_rare
from ray_mae.evaluate.metrics import (
    METRICS,
    FloatArray,
    estimate,
    macro,
    measure,
    patient_resamples,
    reliability,
)
from ray_mae.evaluate.probe.fits import (
    MAX_ITERATIONS,
    by_folds,
    by_validation,
    split_by_patient,
)
from ray_mae.evaluate.probe.result import FeatureScore, LabelScore, ProbeResult
from ray_mae.evaluate.probe.scaling import FeatureScaler, principal_components

ROC_POINTS = 200


def probe(
    features: dict[str, FloatArray],
    targets: FloatArray,
    patient: ArrayLike,
    split: ArrayLike,
    config: ProbeSettings,
    names: Sequence[str],
    each: Callable[[str, str, FloatArray], None] = lambda feature_set, label, probability: None,
) -> ProbeResult:
    """Probe every feature set on the same studies, labels and resamples.

    features: by name, [S, D] mean over the views of each study (D may differ between sets);
    targets: [S, L] of 0, 1 or NaN (unknown);
    names: of the L labels; patient, split: [S];
    each: called when a label of a feature set is done, with the names of both and the probabilities [S] of
    validation and test studies, NaN for those that were trained on.
    A label with fewer than `config.min_positive` positive or negative studies in a split is left
    out and named in the result; with cross-validation training and validation count as one.
    Raises ValueError if a patient is in two splits, if arrays do not
    fit together, if a feature is not finite, or if no label is left.
    """
    return probe_resampled(features, targets, patient, split, config, names, each)[0]


def probe_resampled(
    features: dict[str, FloatArray],
    targets: FloatArray,
    patient: ArrayLike,
    split: ArrayLike,
    config: ProbeSettings,
    names: Sequence[str],
    each: Callable[[str, str, FloatArray], None] = lambda feature_set, label, probability: None,
) -> tuple[ProbeResult, dict[str, FloatArray]]:
    """As `probe`; also the macro AUROC [R] of each feature set in every resample of the test patients."""
    patient, split = np.asarray(patient), np.asarray(split)
    _check(features, targets, patient, split, names, needed_splits(split, config))
    notes: list[str] = []

    fitted = fitted_on(split, config)
    keep = choose_studies(fitted, config.train_studies, config.seed)
    n_train, used = int(fitted.sum()), int(fitted[keep].sum())
    if used < n_train:
        notes.append(f"{used} of {n_train} training studies were used (train_studies).")
    elif config.train_studies is not None and config.train_studies > n_train:
        notes.append(f"train_studies is {config.train_studies}, but there are only {n_train}.")

    counts, left_out = probeable(targets, patient, split, keep, config, names)
    columns = {name: i for i, name in enumerate(names) if name not in left_out}

    weights = patient_resamples(patient[split == "test"], config.bootstrap, config.seed)
    results: dict[str, FeatureScore] = {}
    auroc: dict[str, FloatArray] = {}  # macro, [R]
    for name, x in features.items():
        results[name], auroc[name], of_set = _probe_one(
            x, targets, columns, split, patient, keep, weights, config, partial(each, name)
        )
        notes += [f"{name} features: {line}" for line in of_set]
    notes += _one_class_notes(targets[split == "test"], columns, weights)

    differences = {
        name: estimate(
            results[TRAINED].macro["auroc"].value - results[name].macro["auroc"].value,
            auroc[TRAINED] - auroc[name],
        )
        for name in results
        if TRAINED in results and name != TRAINED
    }
    protocol = {
        "uncertain": config.uncertain,
        "unmentioned": config.unmentioned,
        "strengths": sorted(config.strengths),
        "bootstrap": config.bootstrap,
        "min_positive": config.min_positive,
        "train_studies": config.train_studies,
        "cross_validate": config.cross_validate,
        "seed": config.seed,
    }
    result = ProbeResult(results, differences, counts, left_out, protocol, notes)
    return replace(result, notes=[*notes, *result.edges()]), auroc


def probeable(
    targets: FloatArray,
    patient: NDArray,
    split: NDArray,
    keep: NDArray[np.bool_],
    config: ProbeSettings,
    names: Sequence[str],
) -> tuple[dict[str, SplitCount], dict[str, str]]:
    """What each split holds of the rows to keep [S], and which labels are too rare, with the reason.

    Raises ValueError where all are.
    """
    counts = {s: count_labels(targets, patient, keep & (split == s), names) for s in SPLITS}
    parts = counts
    if config.cross_validate:
        fitted = keep & fitted_on(split, config)
        parts = {
            "train and val": count_labels(targets, patient, fitted, names),
            "test": counts["test"],
        }
    left_out = too_rare(parts, config.min_positive)
    if config.cross_validate:
        left_out = _without_folds(targets, patient, fitted, config, names) | left_out
    if len(left_out) == len(names):
        raise ValueError(
            f"no label can be probed: none has {config.min_positive} positive and "
            f"{config.min_positive} negative studies in each of {', '.join(parts)}"
            f"{hint_of_policy(config)}; lower min_positive, "
            + ("" if config.cross_validate else "choose by folds (cross_validate 5), ")
            + "or bring more labelled studies"
        )
    return counts, left_out


def _without_folds(
    targets: FloatArray,
    patient: NDArray,
    fitted: NDArray[np.bool_],
    config: ProbeSettings,
    names: Sequence[str],
) -> dict[str, str]:
    """Labels of which no fold has both classes within and without, such as one of a single patient."""
    reasons = {}
    for i, name in enumerate(names):
        rows = fitted & ~np.isnan(targets[:, i])
        if not split_by_patient(targets[rows, i], patient[rows], config):
            reasons[name] = "its positive or its negative studies are of too few patients for folds"
    return reasons


def fitted_on(split: NDArray, config: ProbeSettings) -> NDArray[np.bool_]:
    """Mask [S] of the studies that the probe is fitted to: training, by folds validation as well."""
    return np.isin(split, ("train", "val") if config.cross_validate else ("train",))


def needed_splits(there: Container[str], config: ProbeSettings) -> list[str]:
    """Splits that must have patients: by folds the validation split need not be there."""
    return [s for s in SPLITS if s != "val" or not config.cross_validate or s in there]


def choose_studies(
    fitted: NDArray[np.bool_], train_studies: int | None, seed: int
) -> NDArray[np.bool_]:
    """Mask [S] of the studies used: all, or only `train_studies` of those to be fitted to, by seed.

    With one seed a smaller choice lies within a larger one, so that a curve of label efficiency
    adds studies and does not exchange them.
    """
    keep = np.ones(len(fitted), bool)
    if train_studies is not None:
        train = np.flatnonzero(fitted)
        keep[np.random.default_rng(seed).permutation(train)[train_studies:]] = False
    return keep


def pixel_components(
    pixels: FloatArray, split: ArrayLike, components: int, seed: int = 0
) -> FloatArray:
    """Raw-pixel baseline [S, k]: principal components, fitted on the training studies only.

    pixels: [S, P] mean over the views of each study's small, flattened images; k is at most `components`,
    one less than there are training studies, and P: see `principal_components`.
    """
    return principal_components(pixels, np.asarray(split) == "train", components, seed)


def _probe_one(
    x: FloatArray,
    targets: FloatArray,
    columns: dict[str, int],
    split: NDArray,
    patient: NDArray,
    keep: NDArray[np.bool_],
    weights: NDArray,
    config: ProbeSettings,
    each: Callable[[str, FloatArray], None],
) -> tuple[FeatureScore, FloatArray, list[str]]:
    """The scores of one feature set, its macro AUROC in each resample [R], and notes."""
    train = keep & fitted_on(split, config)
    val, test = split == "val", split == "test"
    # Standardised in double precision (an untrained encoder hardly varies around a large mean),
    # fitted in single: half the time at equal AUROC.
    x = np.asarray(x, np.float64)
    scaler = FeatureScaler().fit(x[train])
    x = scaler.transform(x).astype(np.float32)

    scores: dict[str, LabelScore] = {}
    resampled: dict[str, list[FloatArray]] = {metric: [] for metric in METRICS}
    notes = []
    if constant := int(scaler.constant_.sum()):
        notes.append(
            f"{constant} of {x.shape[1]} do not vary over the training studies and count nothing."
        )
    for name, column in columns.items():
        y = targets[:, column]
        known = ~np.isnan(y)
        fit, choose, score = train & known, val & known, test & known
        if config.cross_validate:
            folds = split_by_patient(y[fit], patient[fit], config)
            path = by_folds(x[fit], y[fit], folds, config.strengths)
        else:
            path = by_validation(x[fit], y[fit], x[choose], y[choose], config.strengths)
        C, best = path.choice
        held_out = test if config.cross_validate else val | test
        logit = np.full(len(y), np.nan)
        logit[held_out], failed = path.logits(x[held_out], x[fit], y[fit])
        if failed:
            at = ", ".join(f"{one:g}" for one in failed)
            notes.append(
                f"{name} did not converge in up to {MAX_ITERATIONS} iterations at C = {at} "
                f"(chosen: {C:g})."
            )
        probability = expit(logit)
        each(name, probability)
        p = probability[score]
        values = measure(y[score], p)
        of_resamples = measure(y[score], p, weights[known[test]])
        for metric in METRICS:
            resampled[metric].append(of_resamples[metric])
        false, true, _ = roc_curve(y[score], p)
        points = np.linspace(0, len(false) - 1, min(len(false), ROC_POINTS)).round().astype(int)
        scores[name] = LabelScore(
            C=C,
            at_edge=path.at_edge,
            validation_auroc=best,
            metrics={m: estimate(values[m][0], of_resamples[m], error=m == "ece") for m in METRICS},
            false_positive_rate=false[points].tolist(),
            true_positive_rate=true[points].tolist(),
            reliability=reliability(y[score], p),
        )

    means = {metric: macro(np.stack(resampled[metric])) for metric in METRICS}
    overall = {
        m: estimate(
            float(np.mean([s.metrics[m].value for s in scores.values()])),
            means[m],
            error=m == "ece",
        )
        for m in METRICS
    }
    return FeatureScore(x.shape[1], scores, overall), means["auroc"], notes


def _check(
    features: dict[str, FloatArray],
    targets: NDArray,
    patient: NDArray,
    split: NDArray,
    names: Sequence[str],
    splits: Sequence[str],
) -> None:
    studies = len(split)
    if not features:
        raise ValueError("features must hold at least one feature set, got none")
    if targets.shape != (studies, len(names)):
        raise ValueError(f"targets must be [{studies}, {len(names)}], got {list(targets.shape)}")
    if patient.shape != (studies,):
        raise ValueError(f"patient must be [{studies}], got {list(patient.shape)}")
    for name, x in features.items():
        if x.ndim != 2 or len(x) != studies:
            raise ValueError(f"features {name} must be [{studies}, D], got {list(x.shape)}")
        broken = int((~np.isfinite(x)).any(axis=1).sum())
        if broken:
            raise ValueError(f"features {name} are not finite in {broken} of {studies} studies")
    check_splits(patient, split, splits)


def _one_class_notes(targets: FloatArray, columns: dict[str, int], weights: NDArray) -> list[str]:
    """One line per label that some resamples cannot score; targets: [S_test, L]."""
    notes = []
    for name, column in columns.items():
        y = targets[:, column]
        present = weights > 0
        skipped = ~(present[y == 1].any(axis=0) & present[y == 0].any(axis=0))
        if skipped.any():
            notes.append(
                f"{name}: {int(skipped.sum())} of {len(skipped)} resamples hold one class only; "
                "the label is skipped in them."
            )
    return notes
