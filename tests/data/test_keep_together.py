"""Patients who look alike come into one split, where ingest is asked for that."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ray_mae.config import InspectConfig
from ray_mae.data.ingest.job import ingest
from ray_mae.data.schema import SPLITS, Manifest
from ray_mae.evaluate.card.command import inspect
from tests.data.test_ingest import settings
from tests.data.volume_files import ball, write_nifti
from tests.data.volume_files import settings as volume_settings

pytestmark = pytest.mark.usefixtures("local_ray")
SHARES: dict[str, Any] = {"validation_share": 0.3, "test_share": 0.3}


def film(path: Path, seed: int) -> None:
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 9), dtype=np.uint8)
    Image.fromarray(coarse).resize((80, 90), Image.Resampling.BICUBIC).save(path)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """32 patients: 0, 1 and 2 look alike by one film each time, and so do 4 and 5, 6 and 7 … to 19."""
    folder = tmp_path / "archive"
    folder.mkdir()
    rows = []
    for patient in range(32):
        film(folder / f"{patient}.png", patient)
        rows.append({"study": patient, "patient": f"p{patient}", "path": f"{patient}.png"})
    chain = [(0, 1), (1, 2)]
    for one, other in [*chain, *((n, n + 1) for n in range(4, 20, 2))]:
        with Image.open(folder / f"{one}.png") as image:  # the same film, printed once more
            brighter = image.point(lambda grey: round(20 + 0.85 * grey))
            brighter.resize((75, 84)).save(folder / f"{other}-again.jpg", quality=92)
        rows.append({"study": other, "patient": f"p{other}", "path": f"{other}-again.jpg"})
    pd.DataFrame(rows).to_csv(folder / "table.csv", index=False)
    return folder / "table.csv"


def splits(output: Path) -> dict[str, set[str]]:
    """Patients by split."""
    tables = [(s.split, pq.read_table(output / s.file)) for s in Manifest.read(output).shards]
    return {
        split: {p for of, table in tables if of == split for p in table["patient_id"].to_pylist()}
        for split in SPLITS
    }


@pytest.mark.slow
def test_who_looks_alike_is_in_one_split_and_nobody_in_two(table: Path, tmp_path: Path) -> None:
    apart, together = tmp_path / "apart", tmp_path / "together"
    assert "look_alikes" not in ingest(settings(table, apart, **SHARES))
    leaks = inspect(InspectConfig(shards=apart, pictures=0))["leaks"]
    assert leaks["alike_in_two_splits"] > 0
    assert leaks["patients_in_two_splits"] == 0

    summary = ingest(settings(table, together, leaks="keep_together", **SHARES))
    found = summary["look_alikes"]
    assert found["groups_of_patients"] == 9
    assert found["patients"] == 3 + 2 * 8
    assert found["largest_group"] == 3
    assert found["pairs_of_images"] >= 10
    assert found["groups_that_the_archive_splits"] == 0
    leaks = inspect(InspectConfig(shards=together, pictures=0))["leaks"]
    assert leaks["alike_in_two_splits"] == leaks["patients_in_two_splits"] == 0
    before, after = splits(apart), splits(together)
    moved = {p for split in SPLITS for p in after[split] - before[split]}
    assert found["patients_moved"] == len(moved) > 0
    assert before["train"] <= after["train"]  # none that may have been trained on is held out now
    assert (
        ingest(settings(table, together, leaks="keep_together", **SHARES))["shards"]["written"] == 0
    )


def test_who_has_a_split_of_the_archive_keeps_it_and_the_others_follow(
    table: Path, tmp_path: Path
) -> None:
    rows = pd.read_csv(table)
    official = {"p0": "test", "p4": "train", "p5": "test", "p6": "val"}
    rows["split"] = rows["patient"].map(official)
    rows.to_csv(table, index=False)
    output = tmp_path / "out"
    summary = ingest(settings(table, output, leaks="keep_together", **SHARES))
    assert summary["look_alikes"]["groups_that_the_archive_splits"] == 1  # p4 and p5
    leaks = inspect(InspectConfig(shards=output, pictures=0, leaks=100))
    pairs = leaks["leaks_named"]["alike_in_two_splits"]["pairs"]
    assert {one["split"] for pair in pairs for one in pair} == {"train", "test"}
    assert len({one["patient_id"] for pair in pairs for one in pair}) == 2


def test_volumes_with_the_same_voxels_are_kept_together(tmp_path: Path) -> None:
    source, output = tmp_path / "archive", tmp_path / "out"
    for subject in range(6):
        write_nifti(
            source / f"sub-{subject}" / "anat" / f"sub-{subject}_T1w.nii.gz", ball(seed=subject)
        )
    for subject in (6, 7, 8, 9):
        file = source / f"sub-{subject}" / "anat" / f"sub-{subject}_T1w.nii.gz"
        file.parent.mkdir(parents=True)
        shutil.copy(source / "sub-0" / "anat" / "sub-0_T1w.nii.gz", file)
    config = replace(volume_settings("bids", source, output), leaks="keep_together", **SHARES)
    summary = ingest(config)
    assert summary["look_alikes"]["groups_of_patients"] == 1
    assert summary["look_alikes"]["patients"] == 5
    assert inspect(InspectConfig(shards=output))["leaks"]["same_content_in_two_splits"] == 0
