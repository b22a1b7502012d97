"""Heads without training, few-shot and attentive heads, and what all have in common."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from ray_mae.config.suite import HEADS as IN_SUITES
from ray_mae.config.suite import Heads
from ray_mae.evaluate.heads import attentive, few_shot, knn, linear, prevalence, retrieval
from ray_mae.evaluate.heads.base import Data, Tokens
from ray_mae.evaluate.heads.registry import HEADS, suiting


def planted(n: int, seed: int, labels: int = 2, width: int = 8) -> Data:
    """Studies of one or two views; labels are told by features, and by one token of one view."""
    draw = np.random.default_rng(seed)
    y = draw.integers(0, 2, (n, labels)).astype(float)
    x = draw.normal(size=(n, width)).astype(np.float32)
    x[:, :labels] += 2 * y
    sample = np.concatenate([np.arange(n), np.arange(0, n, 2)])
    values = 0.3 * draw.normal(size=(len(sample), 4, width))
    first = np.arange(len(sample)) < n
    for i in range(labels):
        values[first, draw.integers(0, 4, len(sample))[first], i] += np.where(y[:, i] == 1, 3, 0)
    order = draw.permutation(len(sample))
    tokens = Tokens(values[order].astype(np.float16), sample[order], (~first * 1)[order])
    patient = np.array([f"{seed}-{i // 2}" for i in range(n)])
    return Data(
        {"cls": x, "mean": draw.normal(size=(n, width)).astype(np.float32)}, y, patient, tokens
    )


TINY = Heads(lr=[3e-3, 1e-2], weight_decay=[0.01], attentive_steps=150, shots=[4], k=[5, 20])


@pytest.mark.parametrize("name", [name for name in HEADS if "labels" in HEADS[name].kinds])
def test_every_head_of_labels_gives_the_same_twice_and_looks_at_no_target(name: str) -> None:
    train, val = planted(60, 0), planted(40, 1)
    head, settings = HEADS[name].head, replace(TINY, attentive_steps=5)
    found, again = (head.fit(train, val, ["a", "b"], settings, 3) for _ in range(2))
    said = head.predict(found.chosen, found.arrays, val, train)
    assert said.dtype == np.float32
    assert said.shape == (40, 2)
    assert np.isfinite(said).all()
    unseen = replace(val, targets=np.full((40, 2), np.nan))
    assert (head.predict(again.chosen, again.arrays, unseen, train) == said).all()


@pytest.mark.parametrize("name", ["linear", "knn", "attentive"])
def test_trials_depend_on_settings_and_vectors_alone(name: str) -> None:
    head, settings = HEADS[name].head, replace(TINY, attentive_steps=3)
    counts = {
        len(head.fit(planted(n, n), planted(50, 1), ["a", "b"], settings, 0).trials)
        for n in (12, 40, 80)
    }
    assert len(counts) == 1


def test_suites_and_registry_know_the_same_heads() -> None:
    asked = {entry.used_by or name for name, entry in HEADS.items()} - {"-"}
    assert asked | {"finetune"} == set(IN_SUITES)
    assert suiting(["few_shot", "linear", "ridge"], "labels") == [
        "linear",
        "few_shot",
        "few_shot_mean",
    ]
    assert suiting(["linear", "knn", "ridge"], "number") == ["knn", "ridge"]
    assert suiting(list(IN_SUITES), "retrieval") == ["retrieval"]


def test_neighbours_vote_by_their_similarity() -> None:
    train, val = planted(200, 0), planted(30, 1)
    train.targets[:60, 1] = np.nan
    found = knn.predict({"pool": "cls", "k": 7}, {}, val, train)
    index = NearestNeighbors(n_neighbors=7, metric="cosine").fit(train.vectors["cls"])
    distance, rows = index.kneighbors(val.vectors["cls"])
    for i in range(2):
        y = train.targets[rows, i]
        w = np.exp((1 - distance) / knn.TEMPERATURE) * ~np.isnan(y)
        share = (w * np.nan_to_num(y)).sum(axis=1) / w.sum(axis=1)
        assert 1 / (1 + np.exp(-found[:, i])) == pytest.approx(share, abs=1e-4)


def test_of_more_neighbours_than_samples_all_are_taken() -> None:
    train, val = planted(9, 0), planted(30, 1)
    few, all_of_them = (knn.predict({"pool": "cls", "k": k}, {}, val, train) for k in (200, 9))
    assert (few == all_of_them).all()


def test_who_has_no_neighbour_with_a_known_state_is_given_the_prevalence() -> None:
    train, val = planted(50, 0), planted(30, 1)
    train.targets[5:, 0] = np.nan
    train.targets[:5, 0] = [1, 0, 0, 0, 0]
    for data in (train, val):
        data.vectors["cls"][:] = [1, *[0] * 7]
    train.vectors["cls"][:5] *= -1
    said = knn.predict({"pool": "cls", "k": 20}, {}, val, train)
    assert np.unique(said[:, 0]) == pytest.approx([np.log(1.5 / 4.5)])


def test_shots_are_patients_of_each_class_and_nested() -> None:
    train = planted(200, 0)
    few, more = (few_shot.drawn(train, shots, 5) for shots in (3, 8))
    for i in range(2):
        for shots, found in ((3, few), (8, more)):
            positive, negative = (train.patient[found[:, i] == state] for state in (1, 0))
            assert len(set(positive)) == len(positive) == shots
            assert len(set(negative)) == len(negative) == shots
            assert not set(positive) & set(negative)
        drawn = ~np.isnan(few[:, i])
        assert (few[drawn, i] == train.targets[drawn, i]).all()
        assert set(np.flatnonzero(few[:, i] == 1)) <= set(np.flatnonzero(more[:, i] == 1))
    assert (few_shot.drawn(train, 3, 5) == few)[~np.isnan(few)].all()
    assert not np.array_equal(np.isnan(few_shot.drawn(train, 3, 6)), np.isnan(few))


def test_few_shots_are_a_logistic_regression_on_features_scaled_by_all() -> None:
    train, val = planted(200, 0), planted(100, 1)
    settings = Heads(shots=[8])
    found = few_shot.logistic.fit(train, val, ["a", "b"], settings, 2)
    said = few_shot.logistic.predict(found.chosen, found.arrays, val, train)
    x = train.vectors["mean"]  # of the two the later in base.POOLS
    mean, deviation = x.mean(axis=0), x.std(axis=0)
    y = few_shot.drawn(train, 8, 2)[:, 0]
    rows = ~np.isnan(y)
    model = LogisticRegression(C=1.0, tol=1e-8).fit((x[rows] - mean) / deviation, y[rows])
    expected = model.decision_function((val.vectors["mean"] - mean) / deviation)
    assert said[:, 0] == pytest.approx(expected, abs=1e-2)
    assert found.chosen["patients"] == [[8, 8], [8, 8]]
    assert found.trials == []


def test_the_nearest_class_mean_tells_what_is_planted() -> None:
    train, val = (
        replace(d, vectors={"cls": d.vectors["cls"]}) for d in (planted(200, 0), planted(400, 1))
    )
    found = few_shot.class_mean.fit(train, val, ["a", "b"], Heads(shots=[16]), 2)
    said = few_shot.class_mean.predict(found.chosen, found.arrays, val, train)
    assert roc_auc_score(val.targets[:, 0], said[:, 0]) > 0.8
    train.targets[:, 1] = 1
    found = few_shot.class_mean.fit(train, val, ["a", "b"], Heads(shots=[16]), 2)
    assert found.constant == ["b"]
    said = few_shot.class_mean.predict(found.chosen, found.arrays, val, train)
    assert np.ptp(said[:, 1]) == 0


def test_shots_are_given_one_at_a_time() -> None:
    with pytest.raises(ValueError, match="one number"):
        few_shot.logistic.fit(planted(20, 0), planted(20, 1), ["a", "b"], Heads(), 0)


def test_attention_finds_a_token_that_a_mean_hides() -> None:
    train, val = planted(400, 0, width=16), planted(400, 1, width=16)
    train.targets[:100, 1] = np.nan
    found = attentive.fit(train, val, ["a", "b"], TINY, 0)
    said = attentive.predict(found.chosen, found.arrays, val, train)
    aurocs = [roc_auc_score(val.targets[:, i], said[:, i]) for i in range(2)]
    assert min(aurocs) > 0.95
    assert len(found.trials) == 2
    assert max(trial.score for trial in found.trials) == pytest.approx(np.mean(aurocs), abs=1e-6)
    assert found.samples_seen >= 2 * 150 * 8


def test_attention_does_not_depend_on_who_else_is_in_the_batch() -> None:
    train, val = planted(64, 0), planted(9, 1)
    found = attentive.fit(train, val, ["a", "b"], replace(TINY, attentive_steps=5), 0)
    together = attentive.predict(found.chosen, found.arrays, val, train)
    for i in range(9):  # one view or two, in a batch of its own
        of = val.tokens.sample == i
        alone = Tokens(val.tokens.values[of], np.zeros(of.sum(), int), val.tokens.view[of])
        one = Data({}, val.targets[:1], val.patient[:1], alone)
        said = attentive.predict(found.chosen, found.arrays, one, train)
        assert said[0] == pytest.approx(together[i], abs=1e-4)


def test_attention_tells_numbers_in_their_unit() -> None:
    train, val = (
        replace(d, targets=60 + 10 * d.targets[:, :1], kind="number")
        for d in (planted(300, 0), planted(200, 1))
    )
    found = attentive.fit(train, val, ["age"], TINY, 0)
    said = attentive.predict(found.chosen, found.arrays, val, train)
    assert np.abs(said - val.targets).mean() < 2.5  # the median: 5


def test_attention_needs_tokens() -> None:
    train = replace(planted(20, 0), tokens=None)
    with pytest.raises(ValueError, match="looks at tokens"):
        attentive.fit(train, train, ["a", "b"], TINY, 0)


def brute_force(x: np.ndarray, y: np.ndarray, patient: np.ndarray, q: int) -> list[float]:
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    others = [j for j in np.argsort(-(x @ x[q]), kind="stable") if j != q]
    gallery = [j for j in others if patient[j] != patient[q]]
    relevant = [bool((y[q] * y[j]).any()) for j in gallery]
    own = (
        [float(patient[others[0]] == patient[q])] if (patient == patient[q]).sum() > 1 else [np.nan]
    )
    R = sum(relevant)
    if not R:
        return [np.nan] * 6 + own
    jaccard = [(y[q] * y[j]).sum() / max(np.maximum(y[q], y[j]).sum(), 1) for j in gallery]
    discount = 1 / np.log2(np.arange(2, len(gallery) + 2))
    precision = sum(np.mean(relevant[: k + 1]) for k in range(R) if relevant[k]) / R
    return [
        *(float(any(relevant[:k])) for k in (1, 5, 10)),
        float(np.mean(relevant[:10])),
        float(precision),
        float((jaccard * discount).sum() / (np.sort(jaccard)[::-1] * discount).sum()),
        *own,
    ]


@pytest.mark.parametrize("n", [3, 40])
def test_retrieval_is_what_counting_by_hand_gives(n: int) -> None:
    draw = np.random.default_rng(n)
    x = draw.normal(size=(n, 6)).astype(np.float32)
    y = (draw.random((n, 3)) < 0.2).astype(float)
    y[draw.random(y.shape) < 0.1] = np.nan
    patient = draw.integers(0, max(2, n // 3), n).astype(str)
    found = retrieval.retrieved(x, y, patient)
    for q in range(n):
        expected = brute_force(x.astype(float), (y == 1).astype(float), patient, q)
        assert found[q] == pytest.approx(expected, abs=1e-5, nan_ok=True)


def test_retrieval_takes_the_vector_that_validates_better() -> None:
    train, val = (replace(planted(n, n), kind="retrieval") for n in (20, 200))
    found = retrieval.fit(train, val, ["a", "b"], Heads(), 0)
    assert found.chosen == {"pool": "cls"}
    said = retrieval.predict(found.chosen, found.arrays, val, train)
    assert said.shape == (200, len(found.columns))
    column = found.columns.index("mAP@R")
    best = max(trial.score for trial in found.trials)
    assert np.nanmean(said[:, column]) == pytest.approx(best)


def test_prevalence_needs_no_features() -> None:
    train = replace(planted(100, 0), vectors={}, tokens=None)
    train.targets[:, 0] = np.repeat([1.0, 0.0], [20, 80])
    found = prevalence.fit(train, train, ["a", "b"], Heads(), 0)
    said = prevalence.predict(found.chosen, found.arrays, train, train)
    assert said[0, 0] == pytest.approx(np.log(20.5 / 80.5))
    assert found.constant == ["a", "b"]


def test_a_linear_head_on_the_mean_of_views_is_the_mean_of_logits() -> None:
    train, val = planted(100, 0), planted(100, 1)
    found = linear.fit(train, val, ["a", "b"], Heads(), 0)
    other = replace(val, vectors=planted(100, 2).vectors)
    both = {pool: (val.vectors[pool] + other.vectors[pool]) / 2 for pool in val.vectors}
    one, two, mean = (
        linear.predict(found.chosen, found.arrays, data, train)
        for data in (val, other, replace(val, vectors=both))
    )
    assert mean == pytest.approx((one + two) / 2, abs=1e-4)


def test_rows_of_data_keep_their_views() -> None:
    data = planted(30, 0)
    part = data.rows(np.array([4, 1, 7]))
    assert part.patient.tolist() == data.patient[[4, 1, 7]].tolist()
    for place, row in enumerate([4, 1, 7]):
        of, whole = part.tokens.sample == place, data.tokens.sample == row
        assert (part.tokens.values[of] == data.tokens.values[whole]).all()
        assert (part.tokens.view[of] == data.tokens.view[whole]).all()


def test_attention_is_that_of_pytorch() -> None:
    torch.manual_seed(0)
    probe = attentive.AttentiveProbe(128, 3)
    theirs = torch.nn.MultiheadAttention(128, 2, batch_first=True)
    parts = (probe.to_query, probe.to_key, probe.to_value)
    theirs.in_proj_weight.data = torch.cat([part.weight.data for part in parts])
    theirs.in_proj_bias.data = torch.cat(
        [probe.to_query.bias.data, torch.randn(128), probe.to_value.bias.data]
    )
    theirs.out_proj.load_state_dict(probe.project.state_dict())
    tokens, view = torch.randn(2, 2, 5, 128), torch.tensor([[0, 1], [2, -1]])
    x = (probe.norm(tokens) + probe.view[view.clamp(min=0)][:, :, None]).flatten(1, 2)
    absent = (view < 0).repeat_interleave(5, dim=1)
    found, _ = theirs(probe.query.expand(2, -1, -1), x, x, key_padding_mask=absent)
    expected = (probe.norm_out(found) * probe.weight).sum(-1) + probe.bias
    assert torch.allclose(probe(tokens, view), expected, atol=1e-5)
