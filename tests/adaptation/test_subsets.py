"""Parts of an archive: whole patients, smaller within larger ones, other splits untouched."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from upath import UPath

from ray_mae.adaptation.subsets import write_subset
from ray_mae.data.schema import Manifest
from ray_mae.data.shard_set import ShardSet
from ray_mae.evaluate.cohort import draw_patients, read_cohort
from tests.shards import write_shards, write_volume_shards


@pytest.fixture(scope="module", params=["study", "volume"])
def shards(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    (write_shards if request.param == "study" else write_volume_shards)(folder)
    return folder


def training_patients(shards: Path) -> np.ndarray:
    cohort = read_cohort(ShardSet.read(shards))
    return cohort.patient[cohort.split == "train"]


def test_a_smaller_choice_lies_within_a_larger_one_and_is_no_larger_than_it_must_be() -> None:
    draw = np.random.default_rng(0)
    patient = np.array([f"p{i}" for i in draw.integers(0, 60, 200)])
    last: set[str] = set()
    for wanted in (1, 10, 50, 199, 200, 500):
        chosen = set(draw_patients(patient, wanted, 3))
        samples = np.isin(patient, list(chosen)).sum()
        assert samples >= min(wanted, 200)
        assert last <= chosen
        if wanted < 200:
            most = np.unique(patient, return_counts=True)[1].max()
            assert samples < wanted + most
        last = chosen
    assert last == set(patient)
    assert draw_patients(patient, 50, 3) == draw_patients(patient[::-1], 50, 3)
    assert draw_patients(patient, 50, 3) != draw_patients(patient, 50, 4)


def test_a_part_has_all_rows_of_its_patients_as_they_were(shards: Path, tmp_path: Path) -> None:
    patient = training_patients(shards)
    chosen = set(draw_patients(patient, len(patient) // 2, 0))
    manifest = write_subset(shards, chosen, tmp_path / "part")
    assert manifest.rows("train") == np.isin(patient, list(chosen)).sum()
    assert set(training_patients(tmp_path / "part")) == chosen
    whole = Manifest.read(shards)
    for split in ("val", "test"):
        assert manifest.of_split(split) == whole.of_split(split)

    def rows(folder: Path, of: Manifest) -> list:
        tables = [pq.read_table(folder / s.file).to_pylist() for s in of.of_split("train")]
        return [row for table in tables for row in table if row["patient_id"] in chosen]

    assert rows(tmp_path / "part", manifest) == rows(shards, whole)
    for shard in manifest.of_split("train"):
        with pq.ParquetFile(tmp_path / "part" / shard.file) as file:
            sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        assert sizes == shard.row_groups
        if manifest.kind == "study":
            views = pq.read_table(tmp_path / "part" / shard.file)["views"].to_pylist()
            assert shard.images == sum(map(len, views))


def test_one_that_a_kill_left_unfinished_is_written_again(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "rest").write_text("")
    chosen = set(draw_patients(training_patients(shards), 1, 0))
    before = write_subset(shards, chosen, tmp_path / "part")
    assert not (tmp_path / "part" / "rest").exists()
    assert write_subset(shards, chosen, tmp_path / "part") == before


def test_a_part_of_shards_in_a_store_is_that_of_those_on_disk(
    shards: Path, store: str, tmp_path: Path
) -> None:
    there = UPath(store)
    there.fs.put(f"{shards}/", there.path, recursive=True)
    chosen = set(draw_patients(training_patients(shards), 6, 0))
    here = write_subset(shards, chosen, tmp_path / "here")
    assert write_subset(there, chosen, tmp_path / "there") == here
    for shard in here.shards:
        assert (tmp_path / "there" / shard.file).read_bytes() == (
            tmp_path / "here" / shard.file
        ).read_bytes()
