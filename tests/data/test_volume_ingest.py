"""From an archive of volumes to shards: what studies are promised holds for volumes."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from dicom_files import SHARED, needs_shared
from pydicom import dcmread
from volume_files import ball, settings, write_nifti

from ray_mae.config import VolumeColumns
from ray_mae.data.decoding.voxels import decode_labels, decode_voxels
from ray_mae.data.ingest import job
from ray_mae.data.ingest.job import ingest
from ray_mae.data.phantoms.brain_cohort import write_volumes
from ray_mae.data.quarantine import QUARANTINE_REASONS
from ray_mae.data.schema import VOLUME_SCHEMA, Manifest

pytestmark = pytest.mark.usefixtures("local_ray")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_volumes(tmp_path_factory.mktemp("cohort"), 8, seed=0, size=24)


def rows(output: Path) -> list[dict[str, Any]]:
    files = [output / shard.file for shard in Manifest.read(output).shards]
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def quarantine(output: Path) -> dict[str, str]:
    table = pq.read_table(output / "quarantine.parquet").to_pylist()
    assert {row["reason"] for row in table} <= set(QUARANTINE_REASONS)
    return {row["path"]: row["reason"] for row in table}


def test_volumes_become_shards_as_the_manifest_says(cohort: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    config = settings("volume-table", cohort, output, spacing_mm=8.0, volumes_per_shard=10)
    summary = ingest(config)
    assert summary["volumes"] == {"in": 37, "out": 32, "quarantined": 5}
    assert sorted(quarantine(output).values()) == [
        "constant", "four-dimensional", "no-anatomy", "undecodable", "wrong-range",
    ]  # fmt: skip
    manifest = Manifest.read(output)
    assert manifest.kind == "volume"
    contrasts = manifest.form.pop("contrasts")
    assert manifest.form == {"normalisation": "z-scores over the foreground", "orientation": "RAS"}
    assert sum(sum(of_split.values()) for of_split in contrasts.values()) == 32
    assert set(contrasts["train"]) == {"T1w", "T2w", "FLAIR", "SWI"}
    for shard in manifest.shards:
        file = pq.ParquetFile(output / shard.file)
        assert file.schema_arrow.equals(VOLUME_SCHEMA)
        groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        assert groups == shard.row_groups
    assert json.loads((output / "summary.json").read_text()) == summary

    volumes = rows(output)
    assert len(volumes) == 32 == sum(s["volumes"] for s in summary["splits"].values())
    by_patient = pd.DataFrame(volumes).groupby("patient_id")
    assert (by_patient["split"].nunique() == 1).all()
    assert (by_patient["session_id"].nunique() == 1).all()
    assert (by_patient["modality"].nunique() == 4).all()
    for row in volumes:
        voxels, labels = decode_voxels(row), decode_labels(row)
        assert labels is not None
        assert voxels.shape == labels.shape == tuple(row["shape"])
        assert voxels.dtype == np.float16
        assert labels.max() == 1
        assert {name for name, _ in row["labels"]} == {"high_grade", "wide_ventricles"}
    for file in [*output.glob("*.parquet"), output / "manifest.json", output / "summary.json"]:
        if file.name != "quarantine.parquet":
            assert b"sub-0000" not in file.read_bytes(), file.name

    before = {s.file: s.sha256 for s in manifest.shards}
    gone = manifest.shards[0].file
    (output / gone).unlink()
    again = ingest(config)
    assert again["shards"] == {"written": 1, "kept": len(before) - 1}
    assert {s.file: s.sha256 for s in Manifest.read(output).shards} == before


def test_volumes_have_columns_of_attributes_only_where_they_were_asked_for(
    cohort: Path, tmp_path: Path
) -> None:
    table = pd.read_csv(cohort, dtype=str)
    table["path"] = [str(cohort.parent / path) for path in table["path"]]
    table["sex"], table["field_strength"] = "female", "1.5"
    table["centre"] = "north"
    table.head(9).to_csv(tmp_path / "t.csv", index=False)
    columns = VolumeColumns(site="centre", segmentation=None)
    config = settings(
        "volume-table", tmp_path / "t.csv", tmp_path / "out", spacing_mm=8.0, columns=columns
    )
    summary = ingest(replace(config, attributes=["site", "sex", "field_strength"]))
    manifest = Manifest.read(tmp_path / "out")
    assert manifest.attributes == ["site", "sex", "field_strength"]
    volumes = rows(tmp_path / "out")
    assert {(r["site"], r["sex"], r["field_strength"]) for r in volumes} == {("north", "F", 1.5)}
    assert not {"age", "model"} & volumes[0].keys()
    for split in summary["splits"].values():
        assert split["attributes"]["sex"] in ({"F": split["volumes"]}, {})
    config = replace(config, output=tmp_path / "bare")
    ingest(config)
    assert not {"sex", "field_strength"} & rows(tmp_path / "bare")[0].keys()
    assert Manifest.read(tmp_path / "bare").attributes == []


def test_modalities_that_are_not_wanted_are_counted_and_kept_out(
    cohort: Path, tmp_path: Path
) -> None:
    summary = ingest(
        settings("bids", cohort.parent, tmp_path, spacing_mm=8.0, modalities=["T1w", "T2w"])
    )
    assert {row["modality"] for row in rows(tmp_path)} == {"T1w", "T2w"}
    assert summary["quarantined"]["volume"]["other-modality"] == 16


def test_dicom_series_are_ingested_and_broken_ones_refused(tmp_path: Path) -> None:
    write_volumes(tmp_path / "in", 2, seed=0, size=24, as_dicom=True)
    (tmp_path / "in" / "notes").write_text("no DICOM")
    summary = ingest(settings("dicom-series", tmp_path / "in", tmp_path / "out", spacing_mm=8.0))
    assert summary["volumes"] == {"in": 9, "out": 6, "quarantined": 3}
    assert summary["quarantined"]["volume"] == {
        "missing-slices": 1, "not-dicom": 1, "too-few-slices": 1,
    }  # fmt: skip


def test_series_with_text_burned_in_are_refused_unless_they_are_kept(tmp_path: Path) -> None:
    write_volumes(tmp_path / "in", 1, seed=0, size=24, as_dicom=True, broken=False)
    series = sorted({path.parent for path in (tmp_path / "in").rglob("*.dcm")})
    for path in series[0].iterdir():
        ds = dcmread(path)
        ds.BurnedInAnnotation = "YES"
        ds.save_as(path)
    config = settings("dicom-series", tmp_path / "in", tmp_path / "out", spacing_mm=8.0)
    summary = ingest(config)
    assert summary["quarantined"]["volume"] == {"burned-in": 1}
    assert summary["notes"]["series_with_burned_in_text"] == 1
    summary = ingest(replace(config, burned_in="keep", overwrite=True))
    assert summary["volumes"] == {"in": len(series), "out": len(series), "quarantined": 0}
    assert summary["notes"]["series_with_burned_in_text"] == 1


def test_the_phantoms_table_gives_dicom_series_labels_to_probe(tmp_path: Path) -> None:
    table = write_volumes(tmp_path / "in", 2, seed=0, size=24, as_dicom=True, broken=False)
    summary = ingest(
        settings("dicom-series", tmp_path / "in", tmp_path / "out", spacing_mm=8.0, table=table)
    )
    assert summary["notes"]["table_rows_without_series"] == 0
    assert summary["notes"]["series_without_table_row"] == 0
    written, listed = pd.DataFrame(rows(tmp_path / "out")), pd.read_csv(table)
    assert len(written) == len(listed)
    assert sorted(written["modality"]) == sorted(listed["modality"])
    assert sorted(written["site"]) == sorted(listed["site"])
    labels = pd.DataFrame(list(map(dict, written["labels"])))
    assert set(labels) == {"high_grade", "wide_ventricles"}
    for name in labels:
        assert sorted(labels[name]) == sorted(listed[f"label_{name}"])


def test_a_label_map_above_255_is_left_out_and_counted_and_its_image_kept(tmp_path: Path) -> None:
    source = tmp_path / "in" / "t.csv"
    solid = (ball() > 0).astype(np.int16)
    for name, label in (("a", 2), ("b", 1035)):
        write_nifti(source.parent / f"{name}.nii.gz", ball(seed=label))
        write_nifti(source.parent / f"{name}_seg.nii.gz", solid * label)
    source.write_text("path,patient,segmentation,split\n"
                      "a.nii.gz,1,a_seg.nii.gz,train\nb.nii.gz,2,b_seg.nii.gz,train\n")  # fmt: skip
    summary = ingest(settings("volume-table", source, tmp_path / "out"))
    assert summary["volumes"] == {"in": 2, "out": 2, "quarantined": 0}
    assert summary["splits"]["train"]["with_segmentation"] == 1
    assert summary["splits"]["train"]["segmentations_left_out"] == 1
    assert sorted(row["segmentation"] is None for row in rows(tmp_path / "out")) == [False, True]


def test_an_archive_without_a_single_usable_volume_is_an_error_that_says_why(
    tmp_path: Path,
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.nii.gz").write_bytes(b"")
    with pytest.raises(ValueError, match=r"not one volume .* reason 'not-a-volume-file'"):
        ingest(settings("nifti", tmp_path / "in", tmp_path / "out"))


@needs_shared
@pytest.mark.slow
def test_the_real_volumes_come_in_as_their_index_says(tmp_path: Path) -> None:
    source = SHARED / "mri" / "metadata.csv"
    index = pd.read_csv(source, dtype=str, keep_default_na=False)
    columns = VolumeColumns(volume="volume_id", patient="subject", split=None, site="source")
    summary = ingest(settings("volume-table", source, tmp_path, columns=columns, spacing_mm=4.0))
    refused = quarantine(tmp_path)
    usable = index[
        index["kind"].isin(["image", "original image"]) & ~index["use"].str.startswith("no")
    ]
    assert summary["volumes"]["out"] == len(usable) == 180
    assert set(refused) == set(index["path"]) - set(usable["path"])
    not_for_use = index[index["use"].str.startswith("no")]["path"]
    assert {refused[path] for path in not_for_use} == {"no-anatomy"}


@needs_shared
def test_the_real_series_come_in_or_are_refused_for_the_right_reason(tmp_path: Path) -> None:
    source = SHARED / "dicom_series"
    summary = ingest(settings("dicom-series", source, tmp_path, spacing_mm=4.0))
    index = pd.read_csv(source / "series.csv")
    regular = index[index["expect"] == "one regular volume"]
    assert summary["volumes"] == {"in": len(index), "out": len(regular), "quarantined": 5}
    by_series = {path.split("/")[0]: reason for path, reason in quarantine(tmp_path).items()}
    assert by_series == {
        "d2n_failing_gantrytilting_001": "gantry-tilt",
        "d2n_failing_notavolume_001": "repeated-positions",
        "d2n_failing_slicecount_001": "too-few-slices",
        "d2n_failing_sliceincrement_002": "missing-slices",
        "d2n_failing_sliceorientation_001": "mixed-orientations",
    }
    modalities = sorted(row["modality"] for row in rows(tmp_path))
    assert modalities == ["FLAIR", "MR", "MR", "MR", "T1c", "T1w", "T1w"]


def test_a_sample_of_what_names_say_is_shown_before_anything_is_written(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(9):
        write_nifti(tmp_path / "in" / f"p{number}" / "v1" / "T1.nii.gz", ball(seed=number))
    write_nifti(tmp_path / "in" / "p1" / "v1" / "aseg.nii.gz", ball())
    shown: list[str] = []
    real = job._write_shards
    monkeypatch.setattr(
        job, "_write_shards", lambda *a: shown.append(capfd.readouterr().out) or real(*a)
    )
    summary = ingest(settings("nifti", tmp_path / "in", tmp_path / "out"))
    assert "9 volumes of 9 patients, by the names of files, such as" in shown[0]
    assert "p0/v1/T1.nii.gz → patient p0, session v1, contrast T1w, label map -" in shown[0]
    assert shown[0].count("→") == 6
    assert summary["quarantined"]["volume"] == {"label-map": 1}


def test_what_was_mended_is_counted(tmp_path: Path) -> None:
    values = ball().astype(np.float32)
    values[values == 0] = np.nan
    write_nifti(tmp_path / "in" / "p1_T1.nii.gz", values)
    write_nifti(tmp_path / "in" / "p2_T1.nii", ball())
    (tmp_path / "in" / "p2_T1.nii").rename(tmp_path / "in" / "p2_T1.nii.gz")
    summary = ingest(settings("nifti", tmp_path / "in", tmp_path / "out"))
    mended = [split.get("mended", {}) for split in summary["splits"].values()]
    assert sorted(name for counts in mended for name in counts) == ["background", "compression"]


def test_an_orientation_that_is_none_is_named(tmp_path: Path) -> None:
    write_nifti(tmp_path / "in" / "p1_T1.nii.gz", ball())
    for axes in ("XYZ", "RRA", "RA", "RLS"):
        with pytest.raises(ValueError, match=r"volumes\.orientation must be three letters"):
            ingest(settings("nifti", tmp_path / "in", tmp_path / "out", orientation=axes))
