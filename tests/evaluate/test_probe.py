"""What a probe may see, what it leaves out and says so, and that signal ranks above noise."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conftest import Cohort, probe
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from ray_mae.config import ProbeConfig
from ray_mae.data.labels import CHEXPERT_LABELS, POSITIVE, UNCERTAIN
from ray_mae.evaluate.metrics import patient_resamples
from ray_mae.evaluate.probe.fits import FitPath, beyond, split_by_patient
from ray_mae.evaluate.probe.labelled import Draw, ProbeData, draws_of
from ray_mae.evaluate.probe.linear import pixel_components
from ray_mae.evaluate.probe.result import ProbeResult
from ray_mae.evaluate.scores import score_label

Config = Callable[..., ProbeConfig]
EDEMA = CHEXPERT_LABELS.index("Edema")


def _chosen(result: ProbeResult) -> dict[tuple[str, str], float]:
    return {
        (name, label): one.C
        for name, score in result.features.items()
        for label, one in score.labels.items()
    }


def test_signal_ranks_above_noise(cohort: Cohort, config: Config) -> None:
    result = probe(*cohort, config())
    auroc = {name: score.macro["auroc"] for name, score in result.features.items()}
    assert auroc["trained"].value > 0.85
    assert auroc["trained"].low > auroc["random"].high
    assert auroc["random"].value > auroc["pixels"].value
    assert result.differences["random"].low > 0
    assert result.differences["pixels"].value == pytest.approx(
        auroc["trained"].value - auroc["pixels"].value
    )


def test_differences_are_paired(cohort: Cohort, config: Config) -> None:
    twin = {"trained": cohort.features["trained"], "random": cohort.features["trained"] * 2 + 1}
    difference = probe(twin, *cohort[1:], config()).differences["random"]
    assert [difference.value, difference.low, difference.high] == pytest.approx([0, 0, 0], abs=1e-3)


def test_the_macro_value_is_the_mean_over_the_labels(cohort: Cohort, config: Config) -> None:
    score = probe(*cohort, config()).features["trained"]
    values = [one.metrics["brier"].value for one in score.labels.values()]
    assert score.macro["brier"].value == pytest.approx(np.mean(values))


def test_the_same_seed_gives_the_same_numbers(cohort: Cohort, config: Config) -> None:
    assert probe(*cohort, config()).to_dict() == probe(*cohort, config()).to_dict()


def test_the_choice_of_regularisation_never_looks_at_test_labels(
    cohort: Cohort, config: Config
) -> None:
    strengths = [1e-4, 1e-3, 1e-2, 1e-1, 1.0]
    test = np.flatnonzero(cohort.split == "test")
    permuted = cohort.labels.copy()
    permuted[test] = permuted[np.random.default_rng(1).permutation(test)]
    before = probe(*cohort, config(strengths=strengths))
    after = probe(cohort.features, permuted, *cohort[2:], config(strengths=strengths))
    assert _chosen(before) == _chosen(after)
    assert len(set(_chosen(before).values())) > 1
    assert after.features["trained"].macro["auroc"].value < 0.65


def test_test_features_change_nothing_that_is_fitted(cohort: Cohort, config: Config) -> None:
    test = cohort.split == "test"
    moved = {name: np.where(test[:, None], x + 100, x) for name, x in cohort.features.items()}
    before, after = probe(*cohort, config()), probe(moved, *cohort[1:], config())
    for name, score in before.features.items():
        for label, one in score.labels.items():
            assert after.features[name].labels[label].validation_auroc == one.validation_auroc


def test_of_equally_good_regularisations_the_smallest_c_is_chosen(
    cohort: Cohort, config: Config
) -> None:
    perfect = (cohort.labels == POSITIVE).astype(float)
    result = probe({"trained": perfect}, *cohort[1:], config(strengths=[1.0, 0.01, 0.1]))
    assert set(_chosen(result).values()) == {0.01}


def test_ignored_studies_count_for_no_fit_and_no_metric(cohort: Cohort, config: Config) -> None:
    result = probe(*cohort, config(uncertain="ignore"))
    for split, count in result.counts.items():
        rows = cohort.split == split
        edema = count.labels["Edema"]
        assert edema.ignored == (cohort.labels[rows, EDEMA] == UNCERTAIN).sum() > 0
        assert edema.positive + edema.negative + edema.ignored == count.studies == rows.sum()
    bins = result.features["trained"].labels["Edema"].reliability
    test = result.counts["test"].labels["Edema"]
    assert sum(b.studies for b in bins) == test.positive + test.negative

    broken = {name: x.copy() for name, x in cohort.features.items()}
    ignored_test = (cohort.split == "test") & (cohort.labels[:, EDEMA] == UNCERTAIN)
    broken["trained"][ignored_test] = 1e6  # scored for other labels, not for this one
    again = probe(broken, *cohort[1:], config(uncertain="ignore"))
    assert again.features["trained"].labels["Edema"] == result.features["trained"].labels["Edema"]


@pytest.mark.parametrize(("uncertain", "gained"), [("zeros", False), ("ones", True)])
def test_the_policy_decides_what_uncertain_counts_as(
    cohort: Cohort, config: Config, uncertain: str, gained: bool
) -> None:
    edema = probe(*cohort, config(uncertain=uncertain)).counts["train"].labels["Edema"]
    states = cohort.labels[cohort.split == "train", EDEMA]
    assert edema.positive == (states == POSITIVE).sum() + gained * (states == UNCERTAIN).sum()
    assert edema.ignored == 0


def test_a_label_with_too_few_positives_is_named_with_the_reason(
    cohort: Cohort, config: Config
) -> None:
    rare = np.flatnonzero((cohort.split == "val") & (cohort.labels[:, EDEMA] == POSITIVE))[2:]
    cohort.labels[rare, EDEMA] = 0
    result = probe(*cohort, config())
    assert result.labels == ["Cardiomegaly", "Pleural Effusion", "Fracture"]
    assert result.left_out["Edema"] == "2 positive in val; at least 5 patients needed"
    assert "0 positive in train, 0 positive in val" in result.left_out["Pneumonia"]
    assert set(result.labels) | set(result.left_out) == set(CHEXPERT_LABELS)


def test_without_any_label_the_probe_says_what_to_do(cohort: Cohort, config: Config) -> None:
    with pytest.raises(ValueError, match="lower min_positive"):
        probe(*cohort, config(min_positive=1000))


def test_a_patient_in_two_splits_is_refused(cohort: Cohort, config: Config) -> None:
    split = cohort.split.copy()
    train = np.flatnonzero(split == "train")[0]
    split[train] = "test"  # the patient's other study stays in train
    with pytest.raises(ValueError, match="1 patients are in train and in test"):
        probe(*cohort[:3], split, config())


def test_broken_input_is_refused_by_name(cohort: Cohort, config: Config) -> None:
    broken = {"random": cohort.features["random"].copy()}
    broken["random"][3, 2] = np.nan
    with pytest.raises(ValueError, match="features random are not finite in 1 of 600 studies"):
        probe(broken, *cohort[1:], config())
    with pytest.raises(ValueError, match=r"features trained must be \[600, D\]"):
        probe({"trained": cohort.features["trained"][1:]}, *cohort[1:], config())
    with pytest.raises(ValueError, match="got none in val"):
        probe(*cohort[:3], np.where(cohort.split == "val", "train", cohort.split), config())
    with pytest.raises(ValueError, match="must be one of train, val, test, got validate"):
        probe(*cohort[:3], np.where(cohort.split == "val", "validate", cohort.split), config())


def _drawn(cohort: Cohort, settings: ProbeConfig) -> list[Draw]:
    targets = (cohort.labels == POSITIVE).astype(float)
    return draws_of(ProbeData(targets, CHEXPERT_LABELS, cohort.patient, cohort.split), settings)


@pytest.mark.parametrize("validation", ["full", "spent"])
def test_fewer_training_studies_are_whole_patients_drawn_by_seed_and_nested(
    cohort: Cohort, config: Config, validation: str
) -> None:
    few, many = (
        _drawn(cohort, config(train_studies=n, validation=validation, draws=4)) for n in (50, 100)
    )
    train = cohort.split == "train"
    assert len(few) == len(many) == 4
    for small, large in zip(few, many, strict=True):
        labelled = small.fit | (small.choose & train)
        assert labelled.sum() == 50  # two studies of each patient
        assert not set(cohort.patient[labelled]) & set(cohort.patient[train & ~labelled])
        assert not (small.fit & small.choose).any()
        assert (large.fit | ~small.fit).all()
        assert (large.choose | ~small.choose).all()
        if validation == "spent":
            assert (small.choose & ~train).sum() == 0
            assert len(set(cohort.patient[small.choose])) == 5  # of 25
        else:
            np.testing.assert_array_equal(small.choose, cohort.split == "val")
    fits = [tuple(draw.fit) for draw in few]
    assert len(set(fits)) == 4
    other = _drawn(cohort, config(train_studies=50, validation=validation, seed=1))
    assert tuple(other[0].fit) not in fits


def test_fewer_training_studies_leave_the_test_studies_alone(
    cohort: Cohort, config: Config
) -> None:
    everything, fifty = probe(*cohort, config()), probe(*cohort, config(train_studies=50))
    assert fifty.counts["train"].studies == 50
    assert fifty.counts["test"] == everything.counts["test"]
    assert any(note.startswith("50 of") and "each of 3 draws" in note for note in fifty.notes)
    few, many = (r.features["trained"].macro["auroc"].value for r in (fifty, everything))
    assert few < many
    edema = fifty.features["trained"].labels["Edema"]
    assert len(edema.draws) == 3
    assert edema.metrics["auroc"].value == pytest.approx(np.mean(edema.draws))
    assert not probe(*cohort, config(train_studies=50, draws=2)).differences["random"].known


def test_a_curve_is_of_the_same_labels_at_every_number_and_a_constant_one_is_a_half(
    cohort: Cohort, config: Config
) -> None:
    trained = {"trained": cohort.features["trained"]}
    results = {n: probe(trained, *cohort[1:], config(train_studies=n)) for n in (2, 8, 200)}
    assert {tuple(r.labels) for r in results.values()} == {
        tuple(probe(trained, *cohort[1:], config()).labels)
    }
    fewest = results[2].features["trained"]
    constant = [label for label, one in fewest.labels.items() if one.constant == 3]
    assert constant
    prevalence = results[2].counts["test"].labels
    for label in constant:
        metrics = fewest.labels[label].metrics
        count = prevalence[label]
        assert metrics["auroc"].value == metrics["auroc"].low == metrics["auroc"].high == 0.5
        assert metrics["average_precision"].value == pytest.approx(
            count.positive / (count.positive + count.negative)
        )
        assert np.isfinite(metrics["log_loss"].value)  # whose prevalence is not 0
    assert fewest.macro["auroc"].value == pytest.approx(
        np.mean([one.metrics["auroc"].value for one in fewest.labels.values()])
    )
    assert set(constant) <= set(results[2].constants["trained"])
    assert any("has one class among the labelled" in note for note in results[2].notes)
    assert results[200].constants == {}


def test_spent_validation_never_looks_at_the_validation_split(
    cohort: Cohort, config: Config
) -> None:
    few: dict[str, Any] = {"train_studies": 60, "draws": 1, "bootstrap": 20}
    settings = config(validation="spent", **few)
    trained = {"trained": cohort.features["trained"]}
    val = np.flatnonzero(cohort.split == "val")
    permuted = cohort.labels.copy()
    permuted[val] = permuted[np.random.default_rng(1).permutation(val)]
    before = probe(trained, *cohort[1:], settings)
    after = probe(trained, permuted, *cohort[2:], settings)
    assert before.features == after.features
    full = probe(trained, permuted, *cohort[2:], config(**few))
    assert full.features != before.features
    with pytest.raises(ValueError, match="give train_studies"):
        config(validation="spent")


def test_a_label_is_counted_by_patients_and_not_by_studies(cohort: Cohort, config: Config) -> None:
    """Six positive test studies of three patients are three."""
    test = np.flatnonzero((cohort.split == "test") & (cohort.labels[:, EDEMA] != UNCERTAIN))
    patients = np.unique(cohort.patient[test])[:3]
    cohort.labels[test, EDEMA] = 0
    cohort.labels[test[np.isin(cohort.patient[test], patients)], EDEMA] = POSITIVE
    result = probe(*cohort, config(min_positive=4))
    positive = result.counts["test"].labels["Edema"]
    assert (positive.positive > 4, positive.positive_patients) == (True, 3)
    assert result.left_out["Edema"] == "3 positive in test; at least 4 patients needed"

    told = probe(*cohort, config(min_positive=3))
    evidence = told.evidence["Edema"]
    assert (evidence.positive_patients, evidence.interval) == (3, "none")
    assert evidence.usable < 1
    edema = told.features["trained"].labels["Edema"].metrics
    assert np.isfinite(edema["auroc"].value)
    assert not any(e.known for e in edema.values())
    assert told.too_few == ["Edema"]
    assert any(note.startswith("Edema: 3 test patients") for note in told.notes)


def test_the_interval_of_a_label_with_few_patients_is_of_its_error_on_the_logit(
    cohort: Cohort, config: Config
) -> None:
    result = probe(*cohort, config())
    test = cohort.split == "test"
    for label, one in result.evidence.items():
        assert 10 <= one.positive_patients < 50, label
        assert one.interval == "logit_delong"
    edema = result.features["trained"].labels["Edema"].metrics["auroc"]
    odds = [v / (1 - v) for v in (edema.low, edema.value, edema.high)]
    assert odds[1] ** 2 == pytest.approx(odds[0] * odds[2])  # in the middle, on the logit
    assert len(np.unique(cohort.patient[test])) > 50


def test_distant_logits_rank_and_do_not_tie(cohort: Cohort, config: Config) -> None:
    """As probabilities they are all 1."""
    target = np.array([0.0, 1.0] * 50)
    logits = 40 + np.arange(100) + 3 * target
    patient = np.arange(100)
    weights = patient_resamples(patient, 20, 0)
    values = score_label(target, logits, patient, weights)
    assert values.value["auroc"] == pytest.approx(roc_auc_score(target, logits))
    assert roc_auc_score(target, expit(logits)) == pytest.approx(0.5, abs=0.01)
    assert values.value["log_loss"] > 40 / 2


def test_a_label_with_few_positive_validation_patients_takes_the_c_of_all_labels(
    cohort: Cohort, config: Config
) -> None:
    grid = [1e-4, 1e-3, 1e-2, 1e-1, 1.0]
    rare = np.flatnonzero((cohort.split == "val") & (cohort.labels[:, EDEMA] == POSITIVE))[20:]
    cohort.labels[rare, EDEMA] = 0
    scores = probe(*cohort, config(strengths=grid)).features["trained"].labels
    shared = {label: one.C for label, one in scores.items() if not one.own_choice}
    assert "Edema" in shared
    assert len(set(shared.values())) == 1
    assert any(one.own_choice for one in scores.values())


def test_two_c_beyond_an_end_are_tried(cohort: Cohort, config: Config) -> None:
    assert beyond([0.1, 1.0, 10.0], "largest") == pytest.approx([100, 1000])
    assert beyond([10.0, 1.0, 0.1], "smallest") == pytest.approx([0.001, 0.01])
    assert beyond([1.0, 10.0], "largest") == []  # a choice of the user's
    trained = {"trained": cohort.features["trained"]}
    narrow, wide = (
        probe(trained, *cohort[1:], config(strengths=grid)).features["trained"].labels
        for grid in ([1e-3, 1e-2, 1e-1], [1e-3, 1e-2, 1e-1, 1.0, 10.0])
    )
    assert [one.C for one in narrow.values()] == pytest.approx([1.0] * 4)
    for label, one in narrow.items():
        assert one.metrics == wide[label].metrics


def test_a_fit_that_does_not_converge_is_noted(
    cohort: Cohort, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray_mae.evaluate.probe.fits.MAX_ITERATIONS", 1)
    notes = probe(*cohort, config(strengths=[10.0])).notes
    assert any(note.startswith("trained features: Edema did not converge") for note in notes)


def test_resamples_without_both_classes_are_noted(cohort: Cohort, config: Config) -> None:
    test = np.flatnonzero((cohort.split == "test") & (cohort.labels[:, EDEMA] == POSITIVE))
    cohort.labels[test[1:], EDEMA] = 0
    result = probe(*cohort, config(min_positive=1))
    assert any(note.startswith("Edema: ") and "one class only" in note for note in result.notes)
    assert np.isfinite(result.features["trained"].macro["auroc"].low)


def test_a_constant_feature_does_no_harm(cohort: Cohort, config: Config) -> None:
    constant = np.concatenate([cohort.features["trained"], np.full((600, 3), 7.0)], axis=1)
    result = probe({"trained": constant}, *cohort[1:], config())
    plain = probe({"trained": cohort.features["trained"]}, *cohort[1:], config())
    assert result.features["trained"].macro["auroc"].value == pytest.approx(
        plain.features["trained"].macro["auroc"].value, abs=1e-3
    )


def test_pixel_components_are_fitted_on_training_studies_only(cohort: Cohort) -> None:
    pixels = np.random.default_rng(0).normal(size=(600, 30))
    moved = np.where((cohort.split == "train")[:, None], pixels, pixels * 5)
    before, after = (pixel_components(p, cohort.split, 8) for p in (pixels, moved))
    assert before.shape == (600, 8)
    train = cohort.split == "train"
    np.testing.assert_allclose(before[train], after[train])
    assert pixel_components(pixels, cohort.split, 500).shape == (600, 30)


def test_a_result_becomes_json_and_keeps_every_number(cohort: Cohort, config: Config) -> None:
    result = probe(*cohort, config())
    plain = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    edema = plain["features"]["trained"]["labels"]["Edema"]
    assert edema["metrics"]["auroc"]["value"] == pytest.approx(
        result.features["trained"].labels["Edema"].metrics["auroc"].value
    )
    assert edema["false_positive_rate"][-1] == edema["true_positive_rate"][-1] == 1
    assert len(edema["reliability"]) == 15


def test_a_c_at_an_end_of_its_grid_is_told_and_one_inside_or_of_equals_is_not(
    cohort: Cohort, config: Config
) -> None:
    for auroc, edge in (
        ([0.7, 0.8, 0.9], "largest"),
        ([0.9, 0.8, 0.7], "smallest"),
        ([0.7, 0.9, 0.8], ""),
        ([0.9, 0.9, 0.8], ""),  # of equals the smallest is taken
        ([0.7, 0.9, 0.9], ""),
        ([0.9], ""),
    ):
        assert FitPath([0.1, 1.0, 10.0][: len(auroc)], auroc, [], []).at_edge == edge
    narrow = probe(*cohort, config(strengths=[1e-6, 1e-5]))
    assert narrow.edges()
    assert set(narrow.edges()) <= set(narrow.notes)
    perfect = (cohort.labels == POSITIVE).astype(float)
    even = probe({"trained": perfect}, *cohort[1:], config(strengths=[0.01, 0.1, 1.0]))
    assert even.edges() == []  # all are equally good, the smallest is taken


def test_folds_bring_back_labels_that_a_small_validation_split_drops(
    cohort: Cohort, config: Config
) -> None:
    rare = np.flatnonzero((cohort.split == "val") & (cohort.labels[:, EDEMA] == POSITIVE))[2:]
    cohort.labels[rare, EDEMA] = 0
    trained = {"trained": cohort.features["trained"]}
    few: dict[str, Any] = {"strengths": [0.01, 0.1], "bootstrap": 20}
    folds = config(cross_validate=5, **few)
    assert "Edema" in probe(trained, *cohort[1:], config(**few)).left_out
    result = probe(trained, *cohort[1:], folds)
    assert "Edema" in result.labels
    assert result.protocol["cross_validate"] == 5
    assert result.features["trained"].macro["auroc"].value > 0.85

    no_validation = np.where(cohort.split == "val", "train", cohort.split)
    again = probe(trained, *cohort[1:3], no_validation, folds)
    assert again.features == result.features  # validation patients are as good as training ones


def test_folds_never_look_at_test_patients(cohort: Cohort, config: Config) -> None:
    test = np.flatnonzero(cohort.split == "test")
    permuted = cohort.labels.copy()
    permuted[test] = permuted[np.random.default_rng(1).permutation(test)]
    folds = config(cross_validate=3, strengths=[0.01, 0.1], bootstrap=20)
    trained = {"trained": cohort.features["trained"]}
    before = probe(trained, *cohort[1:], folds)
    after = probe(trained, permuted, *cohort[2:], folds)
    for label, one in before.features["trained"].labels.items():
        assert after.features["trained"].labels[label].validation_auroc == one.validation_auroc
        assert after.features["trained"].labels[label].C == one.C
    split = cohort.split.copy()
    split[np.flatnonzero(split == "train")[0]] = "test"
    with pytest.raises(ValueError, match="1 patients are in train and in test"):
        probe(*cohort[:3], split, folds)


def test_no_patient_is_on_both_sides_of_a_fold_and_one_patient_alone_makes_none(
    config: Config,
) -> None:
    draw = np.random.default_rng(0)
    patient = np.repeat(np.arange(60), 3)
    y = (draw.random(180) < 0.15).astype(float)
    folds = split_by_patient(y, patient, config(cross_validate=5))
    assert len(folds) == 5
    shares = [y[scored].mean() for _, scored in folds]
    assert max(shares) - min(shares) < 0.1  # stratified
    assert sorted(np.concatenate([scored for _, scored in folds]).tolist()) == list(range(180))
    for fitted, scored in folds:
        assert not set(patient[fitted]) & set(patient[scored])
    of_one = (patient == 7).astype(float)
    assert split_by_patient(of_one, patient, config(cross_validate=5)) == []
    of_two = np.isin(patient, (7, 8)).astype(float)
    assert split_by_patient(of_two, patient, config(cross_validate=5))


def test_a_label_of_one_patient_is_left_out_of_folds_with_the_reason(
    cohort: Cohort, config: Config
) -> None:
    one = cohort.patient[np.flatnonzero(cohort.split == "train")[0]]
    outside = (cohort.split != "test") & (cohort.patient != one)
    cohort.labels[outside, EDEMA] = 0
    cohort.labels[cohort.patient == one, EDEMA] = POSITIVE
    trained = {"trained": cohort.features["trained"]}
    settings = config(cross_validate=3, min_positive=1, strengths=[0.01], bootstrap=20)
    result = probe(trained, *cohort[1:], settings)
    assert "too few patients for folds" in result.left_out["Edema"]
