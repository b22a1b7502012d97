"""Patients whom several folders of shards hold are counted, by pairs of folders."""

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ray_mae.config import PlanConfig
from ray_mae.data import patients as module
from ray_mae.data.patients import find_shared_patients, summarise_shared
from ray_mae.data.schema import Manifest
from ray_mae.data.shard_set import ShardSet
from ray_mae.train.forecast.command import plan
from tests.settings import small
from tests.shards import damage, rewrite, write_shards


def write_dataset(folder: Path, dataset: str, **names: str) -> Path:
    """Shards whose patients are strangers to other data sets, but for those that get another's name."""
    write_shards(folder, train=12, held_out=4)

    def rename(row: dict) -> None:
        own = row["patient_id"]
        row["patient_id"] = names.get(own.replace("-", "_"), f"{dataset}-{own}")

    rewrite(folder, rename)
    replace(Manifest.read(folder), dataset=dataset).write(folder)
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """A and B share one patient of train and one whom B holds out; C holds out a patient whom B holds out."""
    return [
        write_dataset(tmp_path / "a", "A"),
        write_dataset(
            tmp_path / "b",
            "B",
            train_patient_0="A-train-patient-1",
            val_patient_0="A-train-patient-2",
        ),
        write_dataset(tmp_path / "c", "C", test_patient_1="B-val-patient-1"),
    ]


def test_patients_of_two_folders_are_counted(folders: list[Path]) -> None:
    ab, bc = find_shared_patients(ShardSet.read(folders))
    a, b, c = folders
    assert (ab.names, ab.patients, ab.seen_and_held_out) == (("A", "B"), 2, 1)
    assert ab.describe() == (
        "2 patients are in both A and B, 1 of them in the train split of one and the val or test split of "
        "the other: figures on what is held out would be of patients already seen; "
        f"`ray-mae inspect --shards {a} --against [{b}]` shows them"
    )
    assert (bc.names, bc.patients, bc.seen_and_held_out) == (("B", "C"), 1, 0)
    assert bc.describe() == (
        "1 patient is in both B and C, not in the train split of one and the val or test split of "
        f"the other; `ray-mae inspect --shards {b} --against [{c}]` shows them"
    )
    assert summarise_shared([ab, bc]) == {
        "A and B": {"patients": 2, "in_train_of_one_and_val_or_test_of_the_other": 1},
        "B and C": {"patients": 1, "in_train_of_one_and_val_or_test_of_the_other": 0},
    }
    assert find_shared_patients(ShardSet.read([a, c])) == []


def test_of_a_single_folder_nothing_is_read(
    folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    monkeypatch.setattr(
        module, "open_parquet", lambda path, _: opened.append(path) or pq.ParquetFile(path)
    )
    assert find_shared_patients(ShardSet.read(folders[0])) == []
    assert opened == []
    find_shared_patients(ShardSet.read(folders[:2]))
    assert len(opened) == sum(len(Manifest.read(folder).shards) for folder in folders[:2])


def test_a_damaged_shard_is_left_out(folders: list[Path]) -> None:
    """Training says what is wrong with it, or goes on without it."""
    damage(folders[1] / "val-00000.parquet", size=10**6)
    (pair,) = find_shared_patients(ShardSet.read(folders[:2]))
    assert (pair.patients, pair.seen_and_held_out) == (1, 0)


def test_plan_tells_of_them(
    folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = PlanConfig(shards=folders[:2], output=tmp_path / "plan", **small("mvmae", gamma=0.0))
    summary = plan(config)
    assert summary["shared_patients"]["A and B"]["patients"] == 2
    (told,) = (line for line in capsys.readouterr().out.splitlines() if "patients are" in line)
    assert told == find_shared_patients(ShardSet.read(folders[:2]))[0].describe()

    alone = plan(replace(config, shards=folders[0]))
    assert "shared_patients" not in alone
    assert "patients are" not in capsys.readouterr().out
