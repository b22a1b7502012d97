"""Labels by name: pooled, chosen, missing. What was never labelled is nobody's negative."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ray_mae.config import OnlineProbeConfig, PretrainConfig
from ray_mae.config.parser import parse, parser_for
from ray_mae.data.label_names import states_by_name
from ray_mae.data.labels import (
    CHEXPERT_LABELS,
    NEGATIVE,
    NOT_LABELLED,
    NOT_MENTIONED,
    POSITIVE,
    UNCERTAIN,
    binary_targets,
)
from ray_mae.data.schema import Manifest, study_schema
from ray_mae.data.shard_set import ShardSet
from ray_mae.evaluate.cohort import Cohort, read_cohort
from ray_mae.evaluate.probe.online import probed_samples
from ray_mae.methods.registry import as_general, config_class
from tests.shards import record, rewrite, write_shards, write_volume_shards

STATES = st.sampled_from([POSITIVE, NEGATIVE, UNCERTAIN, NOT_MENTIONED, NOT_LABELLED])


def policy(uncertain: Any = "zeros", unmentioned: Any = "zeros") -> Any:
    return SimpleNamespace(uncertain=uncertain, unmentioned=unmentioned)


def relabel(folder: Path, names: list[str], states: Any, others: Any = lambda i: None) -> Path:
    """Other labels for the shards of `write_shards`; states(i, split) of the i-th row of a split."""
    manifest = Manifest.read(folder)
    for shard in manifest.shards:
        table = pq.read_table(folder / shard.file)
        rows = table.to_pylist()
        for row in rows:
            number = int(row["study_id"].split("-")[1])
            row["labels"], row["other_labels"] = states(number, row["split"]), others(number)
        made = pa.Table.from_pylist(rows, study_schema(len(names)))
        pq.write_table(made, folder / shard.file, row_group_size=4)
    replace(manifest, labels=names, dataset=folder.name).write(folder)
    record(folder)
    return folder


@given(
    arrays(np.int8, (7, 3), elements=STATES),
    st.sampled_from(["zeros", "ones", "ignore"]),
    st.sampled_from(["zeros", "ignore"]),
)
def test_the_policies_decide_of_their_own_state_alone(
    states: np.ndarray, uncertain: Any, unmentioned: Any
) -> None:
    targets = binary_targets(states, uncertain, unmentioned)
    values = {"zeros": 0.0, "ones": 1.0, "ignore": np.nan}
    expected = {
        POSITIVE: 1.0, NEGATIVE: 0.0, NOT_LABELLED: np.nan,
        UNCERTAIN: values[uncertain], NOT_MENTIONED: values[unmentioned],
    }  # fmt: skip
    for state, value in expected.items():
        np.testing.assert_array_equal(targets[states == state], value)


@given(st.lists(st.tuples(STATES, STATES), min_size=1, max_size=8))
def test_a_column_that_never_says_anything_is_not_labelled(rows: list[tuple[int, int]]) -> None:
    found = states_by_name([{"labels": list(row)} for row in rows], ["a", "b"], ["b", "x", "a"])
    for name, column in (("a", 2), ("b", 0)):
        of_name = np.array([row["ab".index(name)] for row in rows])
        says = bool({1, 0, -1} & set(of_name.tolist()))
        np.testing.assert_array_equal(found[:, column], of_name if says else NOT_LABELLED)
    assert (found[:, 1] == NOT_LABELLED).all()


def pooled(tmp_path: Path) -> ShardSet:
    """`a` knows Flail chest and ICU, `b` ICU and Hernia, and of Hernia nothing is ever said there."""
    for name in ("a", "b"):
        write_shards(tmp_path / name, train=12, held_out=8)
        rewrite(
            tmp_path / name,
            lambda row, name=name: row.update(patient_id=f"{name} {row['patient_id']}"),
        )
    states = lambda i, split: [(POSITIVE, NOT_MENTIONED)[i % 2], NEGATIVE]  # noqa: E731
    relabel(tmp_path / "a", ["Flail chest", "ICU"], states)
    relabel(
        tmp_path / "b", ["icu", "Hernia"], lambda i, split: [POSITIVE, NOT_MENTIONED],
        lambda i: ["flail_chest"] if i == 3 else None,
    )  # fmt: skip
    return ShardSet.read([tmp_path / "a", tmp_path / "b"])


@pytest.mark.parametrize("unmentioned", ["zeros", "ignore"])
def test_data_sets_are_pooled_by_name_and_lend_each_other_no_negatives(
    tmp_path: Path, unmentioned: str
) -> None:
    cohort = read_cohort(pooled(tmp_path))
    targets, names, _ = cohort.targets(policy(unmentioned=unmentioned))
    assert list(names) == ["Flail chest", "ICU", "Hernia"]
    of_b = np.array([at.folder == 1 for at in cohort.location])
    empty = 0.0 if unmentioned == "zeros" else np.nan
    assert set(targets[~of_b, 1]) == {0.0}
    assert set(targets[of_b, 1]) == {1.0}, "icu and ICU are one label"
    assert np.isnan(targets[:, 2]).all(), "in `b` nobody was ever asked, `a` has no such label"
    flail = targets[~of_b, 0]
    np.testing.assert_array_equal(np.unique(flail), np.unique([1.0, empty]))
    # of `b` the name stands in other_labels, three times: in the third study of each split
    assert (targets[of_b, 0] == 1).sum() == 3
    np.testing.assert_array_equal(np.unique(targets[of_b, 0]), np.unique([1.0, empty]))


def test_labels_are_chosen_by_name_also_among_the_other_names(tmp_path: Path) -> None:
    shards = pooled(tmp_path)
    cohort = read_cohort(shards, labels=["Flail_Chest"])
    assert cohort.label_names == ["Flail_Chest"]
    everything = read_cohort(shards)
    np.testing.assert_array_equal(cohort.labels[:, 0], everything.labels[:, 0])
    with pytest.raises(
        ValueError, match=r"has a label 'Flail' \(labels\); of 3 there are 'Flail chest'"
    ):
        read_cohort(shards, labels=["Flail"])
    write_volume_shards(tmp_path / "v", train=12, held_out=8)
    volumes = ShardSet.read(tmp_path / "v")
    assert read_cohort(volumes, labels=["rough"]).targets(policy())[1:] == (["rough"], {})
    with pytest.raises(ValueError, match=r"none of the volumes in .* has a label 'ages'"):
        read_cohort(volumes, labels=["ages"])


def test_old_shards_have_the_14_labels(tmp_path: Path) -> None:
    write_shards(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    del manifest["labels"], manifest["attributes"]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    cohort: Cohort = read_cohort(ShardSet.read(tmp_path))
    assert tuple(cohort.targets(policy())[1]) == CHEXPERT_LABELS
    assert cohort.labels.shape == (40, 14)


def states_of_probe(number: int, split: str) -> list[int]:
    return [
        POSITIVE if number % 2 else NOT_MENTIONED,
        (POSITIVE, NEGATIVE, NOT_MENTIONED)[number % 3],
        POSITIVE if number == 0 else NEGATIVE,
    ]


@pytest.fixture
def own(tmp_path: Path) -> ShardSet:
    write_shards(tmp_path / "own", train=48, held_out=24)
    names = ["Tube", "Cast", "Rare"]
    return ShardSet.read(relabel(tmp_path / "own", names, states_of_probe))


def test_the_online_probe_takes_the_labels_that_a_search_is_to_choose_by(own: ShardSet) -> None:
    settings = OnlineProbeConfig(every=1, min_positive=3)
    everything = probed_samples(own, settings)
    assert set(everything.labels.values()) == {"Tube", "Cast"}
    assert everything.left_out == ["Rare"]
    one = probed_samples(own, replace(settings, labels=["Cast"]))
    assert one.labels == {0: "Cast"}
    ignoring = probed_samples(own, replace(settings, unmentioned="ignore"))
    assert set(ignoring.labels.values()) == {"Cast"}, "Tube has no negatives but the unmentioned"
    with pytest.raises(ValueError, match=r"Rare of .* lacks 3 patients with a positive"):
        probed_samples(own, replace(settings, labels=["Cast", "Rare"]))
    with pytest.raises(ValueError, match=r"Tube of .*unmentioned ignore"):
        probed_samples(own, replace(settings, labels=["Tube"], unmentioned="ignore"))


def test_a_run_is_told_the_labels_of_its_probe_by_settings() -> None:
    cls = config_class(PretrainConfig, "mvmae", "vit")
    values = {"method": {"name": "mvmae"}, "shards": "s", "output": "o",
              "probe": {"every": 1, "labels": ["Tube"], "unmentioned": "ignore"}}  # fmt: skip
    run = as_general(parse(parser_for(cls), cls, values))
    assert (run.probe.labels, run.probe.unmentioned) == (["Tube"], "ignore")
    values["probe"] = {"labels": []}
    with pytest.raises(ValueError, match=r"probe\.labels must hold at least one value"):
        parse(parser_for(cls), cls, values)
