"""Labels as targets of a training: by the key of a sample, whatever batch it comes in."""

from pathlib import Path

import numpy as np
import pytest

from ray_mae.config.sections import LabelTargets
from ray_mae.data.labels import NOT_LABELLED, NOT_MENTIONED, POSITIVE, UNCERTAIN
from ray_mae.data.loading.integrity import DamagedShard
from ray_mae.data.loading.order import key_of
from ray_mae.data.loading.targets import read_targets
from ray_mae.data.shard_set import ShardSet
from tests.data.test_findings import EDEMA, labels_of
from tests.shards import rewrite, write_shards, write_volume_shards


def wanted(
    *names: str,
    uncertain: str = "ignore",
    unmentioned: str = "zeros",
    most: float = 20.0,
    named: bool = True,
) -> LabelTargets:
    return LabelTargets(names, uncertain, unmentioned, most, named)  # type: ignore[arg-type]


def keys(*names: str) -> np.ndarray:
    return np.array([key_of(name) for name in names])


@pytest.fixture
def studies(tmp_path: Path) -> ShardSet:
    write_shards(tmp_path)
    rewrite(tmp_path, lambda row: row.update(labels=labels_of(row)))
    return ShardSet.read(tmp_path)


def test_positives_weigh_what_negatives_outnumber_them_by_within_the_limit(
    studies: ShardSet,
) -> None:
    targets = read_targets(studies, wanted("Edema", "fracture"))
    arrays = targets.of(keys("train-5", "train-0", "train-22", "train-23"))
    assert arrays["target"].tolist() == [[1, 0], [1, 1], [0, 0], [0, 0]]
    # 12 of 24 have an edema; of 21 known ones, 3 being uncertain, one has a fracture
    assert arrays["target_weight"].tolist() == [[1, 1], [1, 20], [1, 0], [1, 1]]
    assert targets.table() == {
        "Edema": {"positives": 12, "negatives": 12, "weight": 1},
        "fracture": {"positives": 1, "negatives": 20, "weight": 20},
    }
    low = read_targets(studies, wanted("Edema", "Fracture", most=4))
    assert low.positive_weight.tolist() == [1, 4]


def test_states_count_as_the_settings_say(studies: ShardSet, tmp_path: Path) -> None:
    def states(row: dict) -> None:
        own = list(row["labels"])
        place = {1: UNCERTAIN, 2: NOT_MENTIONED, 3: NOT_LABELLED, 4: POSITIVE}
        own[EDEMA] = place.get(int(row["study_id"].split("-")[1]), own[EDEMA])
        row.update(labels=own)

    rewrite(tmp_path, states)
    shards = ShardSet.read(tmp_path)
    seen = keys("train-1", "train-2", "train-3")
    for uncertain, unmentioned, target, known in (
        ("ignore", "zeros", [0, 0, 0], [0, 1, 0]),
        ("ones", "ignore", [1, 0, 0], [1, 0, 0]),
        ("zeros", "zeros", [0, 0, 0], [1, 1, 0]),
    ):
        policy = wanted("Edema", uncertain=uncertain, unmentioned=unmentioned)
        arrays = read_targets(shards, policy).of(seen)
        assert arrays["target"][:, 0].tolist() == target
        assert (arrays["target_weight"][:, 0] > 0).tolist() == [bool(k) for k in known]


def test_of_other_patients_nothing_is_known(studies: ShardSet) -> None:
    """Those of validation and test have labels, too, and none of them is a target of training."""
    arrays = read_targets(studies, wanted("Edema")).of(keys("val-0", "test-1", "strange"))
    assert not arrays["target_weight"].any()
    held_out = read_targets(studies, wanted("Edema"), "val", positive_weight=[3.0])
    assert held_out.of(keys("val-0"))["target_weight"].tolist() == [[3.0]]
    assert not held_out.of(keys("train-0"))["target_weight"].any()


def test_a_label_that_is_named_must_be_there_with_both_classes(studies: ShardSet) -> None:
    with pytest.raises(ValueError, match=r"'Edeema' .*there are 'Edema'"):
        read_targets(studies, wanted("Edeema", "Fracture"))
    with pytest.raises(ValueError, match=r"method\.labels: Pneumonia has 0 positive and 24 neg"):
        read_targets(studies, wanted("Edema", "Pneumonia"))
    targets = read_targets(studies, wanted("Edema", "Pneumonia", "Own", named=False))
    assert targets.cautions[0].startswith("Pneumonia, Own: no positive or no negative")
    assert not targets.of(keys("train-0"))["target_weight"][:, 1:].any()
    weights = targets.positive_weight.tolist()
    held_out = read_targets(
        studies, wanted("Edema", "Pneumonia", "Own"), "val", positive_weight=weights
    )
    assert (held_out.of(keys("val-0"))["target_weight"] > 0).tolist() == [[True, False, False]]


def test_labels_of_volumes_are_classes_or_one_value_of_several(tmp_path: Path) -> None:
    write_volume_shards(tmp_path)
    shards = ShardSet.read(tmp_path)
    targets = read_targets(shards, wanted("Rough", "age=52"))
    arrays = targets.of(keys("train-0", "train-1", "train-2"))
    assert arrays["target"].tolist() == [[1, 0], [0, 0], [1, 1]]
    assert targets.positive_weight.tolist() == [1, 20]
    with pytest.raises(ValueError, match=r"age has other values than 0 and 1 \(50, .*age=59"):
        read_targets(shards, wanted("age"))
    with pytest.raises(ValueError, match=r"'tumour' .*there are 'rough'"):
        read_targets(shards, wanted("tumour"))
    with pytest.raises(ValueError, match="age=7 has 0 positive and 24 negative"):
        read_targets(shards, wanted("age=7"))


def test_of_a_damaged_file_nothing_is_known_where_rows_may_be_skipped(
    studies: ShardSet, tmp_path: Path
) -> None:
    (tmp_path / "train-00001.parquet").write_bytes(b"none")
    with pytest.raises(DamagedShard, match="train-00001"):
        read_targets(studies, wanted("Edema"))
    targets = read_targets(studies, wanted("Edema"), skip=True)
    assert len(targets.keys) == 14


def test_of_several_folders_a_label_is_known_where_it_is_labelled(
    studies: ShardSet, tmp_path: Path
) -> None:
    write_shards(tmp_path / "other", train=6)

    def named(row: dict) -> None:
        own = [NOT_LABELLED] * 14
        row.update(study_id=f"other-{row['study_id']}", labels=own, other_labels=["Own"])

    rewrite(tmp_path / "other", named)
    both = ShardSet.read([tmp_path, tmp_path / "other"])
    arrays = read_targets(both, wanted("Edema", "Own", named=False)).of(
        keys("train-0", "other-train-0")
    )
    assert (arrays["target_weight"] > 0).tolist() == [[True, False], [False, False]]
    assert len(read_targets(both, wanted("Edema")).keys) == 30
