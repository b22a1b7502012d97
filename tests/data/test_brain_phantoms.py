"""The generated cohort of volumes."""

import hashlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from volume_files import listed

from ray_mae.data.decoding.dicom_series import read_series
from ray_mae.data.decoding.geometry import Volume, to_ras
from ray_mae.data.decoding.nifti import Bounds
from ray_mae.data.phantoms.brain_anatomy import CONTRASTS, PRETRAINING, draw_head, show
from ray_mae.data.phantoms.brain_cohort import write_volumes


def files(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in folder.rglob("*") if p.is_file()
    }  # fmt: skip


def test_the_cohort_is_a_function_of_the_seed_and_grows_without_changing(tmp_path: Path) -> None:
    write_volumes(tmp_path / "a", 2, seed=1, size=24)
    write_volumes(tmp_path / "b", 3, seed=1, size=24)
    write_volumes(tmp_path / "c", 2, seed=2, size=24)
    a, b, c = (files(tmp_path / name) for name in "abc")
    image = "sub-00001/ses-1/anat/sub-00001_ses-1_T2w.nii.gz"
    assert a[image] == b[image] != c[image]
    assert {k for k in a if k.startswith("sub")} < {k for k in b if k.startswith("sub")}


def test_table_and_bids_say_the_same_and_a_contrast_is_kept_for_later(tmp_path: Path) -> None:
    table = write_volumes(tmp_path / "a", 4, seed=0, size=24, broken=False)
    rows = pd.read_csv(table)
    assert set(rows["modality"]) == set(CONTRASTS) > set(PRETRAINING)
    assert rows.groupby("patient")["label_high_grade"].nunique().max() == 1
    labels = ["high_grade", "wide_ventricles"]
    by_table = {r.paths: r for r in listed("volume-table", table)}
    by_bids = {r.paths: r for r in listed("bids", tmp_path / "a", labels=labels)}
    assert by_table.keys() == by_bids.keys()
    for paths, record in by_table.items():
        other = by_bids[paths]
        assert record.labels == other.labels
        assert (record.segmentation, record.site) == (other.segmentation, other.site)


def test_lesions_of_both_classes_have_the_same_intensities() -> None:
    heads = [draw_head(np.random.default_rng(seed), 24) for seed in range(8)]
    assert {head.rings for head in heads} == {True, False}
    for head in heads:
        texture = head.texture[head.lesions > 0]
        assert abs(texture.mean()) < 1e-4
        assert abs(texture.std() - 1) < 1e-2
        np.testing.assert_allclose(
            np.quantile(texture, [0.25, 0.5, 0.75]),
            np.sqrt(12) * np.array([-0.25, 0, 0.25]),
            atol=0.05,
        )


def test_the_classes_differ_in_texture_and_not_in_mean_or_spread() -> None:
    found: dict[bool, list[tuple[float, float, float]]] = {True: [], False: []}
    for seed in range(24):
        rng = np.random.default_rng(seed)
        head = draw_head(rng, 32)
        inside = head.lesions > 0
        image = show(head, "FLAIR", rng, 0.03)
        steps = np.diff(head.texture, axis=0)[inside[1:] & inside[:-1]]
        scale = np.median(image[head.tissue == 4])
        found[head.rings].append(
            (image[inside].mean() / scale, image[inside].std() / scale, np.abs(steps).mean())
        )
    assert min(map(len, found.values())) >= 5
    rings, clouds = (np.array(found[key]) for key in (True, False))
    spread = np.concatenate([rings, clouds]).std(0)
    assert abs(rings[:, 0].mean() - clouds[:, 0].mean()) < spread[0]
    assert abs(rings[:, 1].mean() - clouds[:, 1].mean()) < spread[1]
    assert rings[:, 2].min() > np.median(clouds[:, 2])


def test_dicom_series_hold_the_same_voxels_as_the_nifti_files(tmp_path: Path) -> None:
    write_volumes(tmp_path / "n", 2, seed=3, size=24)
    write_volumes(tmp_path / "d", 2, seed=3, size=24, as_dicom=True)
    image = nib.load(tmp_path / "n/sub-00000/ses-1/anat/sub-00000_ses-1_T1w.nii.gz")
    nifti = to_ras(Volume(np.asarray(image.dataobj), image.affine))
    folder = tmp_path / "d" / "sub-00000" / "T1w"
    series = to_ras(read_series(sorted(folder.iterdir()), Bounds(None, 10**7, 2, 20.0, 500.0)))
    np.testing.assert_array_equal(series.values, nifti.values)
    np.testing.assert_allclose(series.affine, nifti.affine, atol=1e-6)
