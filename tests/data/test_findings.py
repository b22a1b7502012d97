"""How rare findings are: counts of the train split alone, weights with the mean 1, repeats."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ray_mae.data.labels import CHEXPERT_LABELS, NEGATIVE, NOT_LABELLED, POSITIVE, UNCERTAIN
from ray_mae.data.loading.findings import Findings, read_findings
from ray_mae.data.loading.integrity import DamagedShard
from ray_mae.data.loading.order import key_of
from ray_mae.data.schema import Manifest
from ray_mae.data.shard_set import ShardSet
from tests.shards import rewrite, write_shards, write_volume_shards

EDEMA, FRACTURE, NORMAL = (CHEXPERT_LABELS.index(n) for n in ("Edema", "Fracture", "No Finding"))


def labels_of(row: dict[str, Any]) -> list[int]:
    """Of 24 training studies 12 have an edema, one of these a fracture; 8 are normal, 3 are uncertain."""
    i = int(row["study_id"].split("-")[1])
    states = [NEGATIVE] * 14
    if i < 1:
        states[FRACTURE] = POSITIVE
    if i < 12:
        states[EDEMA] = POSITIVE
    elif i < 20:
        states[NORMAL] = POSITIVE
    elif i < 23:
        states[FRACTURE] = UNCERTAIN
    return states


def shards_with(
    folder: Path, labels: Callable[[dict[str, Any]], list[int]] = labels_of, train: int = 24
) -> ShardSet:
    write_shards(folder, train=train)
    rewrite(folder, lambda row: row.update(labels=labels(row)) if row["split"] == "train" else None)
    return ShardSet.read(folder)


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> Findings:
    return read_findings(shards_with(tmp_path_factory.mktemp("shards")))


def weight(found: Findings, study: int, power: float, most: float = 100.0) -> float:
    return float(found.weights(power, most).of(np.array([key_of(f"train-{study}")]))[0])


def test_only_what_is_positive_counts_and_no_finding_is_none(findings: Findings) -> None:
    assert findings.positives == {"Edema": 12, "Fracture": 1}
    assert findings.samples == 24
    commonness = dict(zip(findings.keys[0].tolist(), findings.commonness[0].tolist(), strict=True))
    assert [commonness[key_of(f"train-{i}")] for i in (0, 5, 15, 21)] == [1, 12, 0, 0]


@pytest.mark.parametrize("power", [-1.0, -0.5, 0.25, 0.5, 1.0])
def test_a_weight_is_a_power_of_the_rarity_and_its_mean_over_the_train_split_is_one(
    findings: Findings, power: float
) -> None:
    every = findings.weights(power, 100.0).of(findings.keys[0])
    assert every.mean(dtype=np.float64) == pytest.approx(1, abs=1e-6)
    normal = weight(findings, 15, power)
    assert weight(findings, 5, power) == pytest.approx(normal)  # the most common finding
    assert weight(findings, 21, power) == pytest.approx(normal)  # uncertain is no finding
    assert weight(findings, 0, power) / normal == pytest.approx(12.0**power, rel=1e-6)


@pytest.mark.parametrize(("power", "limit"), [(1.0, 3.0), (-1.0, 1 / 3)])
def test_weights_have_limits_on_both_sides(findings: Findings, power: float, limit: float) -> None:
    ratio = weight(findings, 0, power, most=3.0) / weight(findings, 5, power, most=3.0)
    assert ratio == pytest.approx(limit, rel=1e-6)


def test_validation_and_test_rows_change_nothing(findings: Findings, tmp_path: Path) -> None:
    shards = shards_with(tmp_path)
    rewrite(tmp_path, lambda row: row.update(labels=[1] * 14) if row["split"] != "train" else None)
    other = read_findings(ShardSet.read(shards.paths[0]))
    assert other.positives == findings.positives
    for shard in Manifest.read(tmp_path).shards:  # and they are not even opened
        if shard.split != "train":
            (tmp_path / shard.file).unlink()
    again = read_findings(ShardSet.read(tmp_path))
    keys = findings.keys[0]
    for found in (other, again):
        assert (found.weights(0.5, 10).of(keys) == findings.weights(0.5, 10).of(keys)).all()
        assert (found.extra_draws(0.5, 10)[0] == findings.extra_draws(0.5, 10)[0]).all()


def test_samples_of_a_rare_finding_are_drawn_by_the_root_of_their_share(
    findings: Findings,
) -> None:
    extra = findings.extra_draws(0.75, 100.0)[0]
    by_key = dict(zip(findings.keys[0].tolist(), extra.tolist(), strict=True))
    assert by_key[key_of("train-15")] == 0
    told = findings.table(None, (0.75, 100.0))
    assert told["Fracture"]["draws"] == pytest.approx(np.sqrt(0.75 * 24), abs=1e-4)
    assert told["Edema"]["draws"] == pytest.approx(np.sqrt(0.75 * 2), abs=1e-4)
    assert told["none"] == {"draws": 1.0}
    wanted = told["Fracture"]["draws"] - 1 + 11 * (told["Edema"]["draws"] - 1)
    assert extra.sum() == pytest.approx(round(wanted), abs=1e-9)
    assert by_key[key_of("train-0")] == pytest.approx(3.2426 * round(wanted) / wanted, rel=1e-4)
    assert findings.table(None, (0.75, 2.0))["Fracture"]["draws"] == 2.0
    assert findings.extra_draws(0.01, 10.0)[0].tolist() == [0] * 24


def test_a_label_that_the_split_has_not_is_left_out(tmp_path: Path) -> None:
    def all_but_one(row: dict[str, Any]) -> list[int]:
        return [NOT_LABELLED if k == FRACTURE else s for k, s in enumerate(labels_of(row))]

    found = read_findings(shards_with(tmp_path, all_but_one))
    assert found.positives == {"Edema": 12}
    every = found.weights(1.0, 10.0).of(found.keys[0])
    assert np.unique(every).tolist() == [1.0]


def test_shards_without_a_finding_are_refused_and_of_several_folders_told(
    findings: Findings, tmp_path: Path
) -> None:
    bare = shards_with(tmp_path / "bare", lambda row: [NOT_LABELLED] * 14)
    with pytest.raises(ValueError, match=r"no study of the train split of .*bare has a label"):
        read_findings(bare)
    normal = shards_with(tmp_path / "normal", lambda row: [1] + [0] * 13)
    with pytest.raises(ValueError, match="ingest with labels, or leave such settings out"):
        read_findings(normal)
    both = ShardSet.read([shards_with(tmp_path / "a").paths[0], bare.paths[0]])
    found = read_findings(both)
    assert found.positives == findings.positives
    assert [len(keys) for keys in found.keys] == [24, 24]
    assert [told for told in found.cautions(both, 0.5) if "bare has a finding" in told]
    assert len(found.extra_draws(0.75, 10)) == 2


def test_a_limit_that_repeats_nothing_is_told(findings: Findings, tmp_path: Path) -> None:
    shards = shards_with(tmp_path)
    assert findings.cautions(shards, 0.5) == findings.cautions(shards, 0.0) == []
    (told,) = findings.cautions(shards, 0.01)
    assert "the rarest finding, Fracture, is in 4.2% of the studies" in told


def test_findings_of_several_folders_count_together_by_name(tmp_path: Path) -> None:
    shards_with(tmp_path / "a")
    other = shards_with(tmp_path / "b")
    names = [name.upper() for name in reversed(CHEXPERT_LABELS)]  # another order, another case
    replace(Manifest.read(other.paths[0]), labels=names).write(other.paths[0])
    rewrite(tmp_path / "b", lambda row: row.update(labels=row["labels"][::-1]))
    found = read_findings(ShardSet.read([tmp_path / "a", tmp_path / "b"]))
    assert found.positives == {"Edema": 24, "Fracture": 2}


def test_labels_of_volumes_are_findings_where_they_are_yes_or_no(tmp_path: Path) -> None:
    write_volume_shards(tmp_path, train=24)
    found = read_findings(ShardSet.read(tmp_path))
    assert found.positives == {"rough": 12}  # and no age
    extra = found.extra_draws(1.0, 10.0)[0]
    assert extra.sum() == round(12 * (np.sqrt(2) - 1))
    rewrite(tmp_path, lambda row: row.update(labels=[("age", row["labels"][1][1])]))
    with pytest.raises(ValueError, match="no volume of the train split"):
        read_findings(ShardSet.read(tmp_path))


def test_a_file_that_cannot_be_read_ends_it_or_counts_as_without_findings(tmp_path: Path) -> None:
    shards = shards_with(tmp_path)
    (tmp_path / "train-00001.parquet").unlink()
    with pytest.raises(DamagedShard, match=r"train-00001.parquet"):
        read_findings(shards)
    found = read_findings(shards, skip=True)
    assert [len(keys) for keys in found.keys] == [24]
    assert found.positives == {"Edema": 10, "Fracture": 1}
    assert "its samples count as having no finding" in found.cautions(shards, 0)[0]
