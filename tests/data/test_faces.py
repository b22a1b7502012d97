"""Heads with a skull are told from brains alone, and faces are taken out by masks."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dicom_files import SHARED, needs_shared, write_dicom

from ray_mae.config import InspectConfig, VolumeSettings
from ray_mae.data.archives.records import VolumeRecord
from ray_mae.data.decoding.faces import find_head
from ray_mae.data.decoding.preprocessing import Preparation
from ray_mae.data.decoding.voxels import decode_valid, decode_voxels
from ray_mae.data.ingest.faces import check_faces, face_by_name, face_of, mask_of
from ray_mae.data.ingest.job import ingest
from ray_mae.data.schema import Manifest
from ray_mae.evaluate.card.command import inspect
from tests.data.volume_files import listed, settings, write_nifti
from tests.shards import record

MM = 4.0
SHAPE = (44, 52, 48)


def ellipsoid(*radii_mm: float) -> np.ndarray:
    axes = [(np.arange(n) - n / 2) * MM for n in SHAPE]
    at = np.stack(np.meshgrid(*axes, indexing="ij"))
    return ((at / np.array(radii_mm)[:, None, None, None]) ** 2).sum(0) < 1


HEAD, BONE, BRAIN = ellipsoid(80, 98, 90), ellipsoid(72, 90, 82), ellipsoid(62, 80, 72)


def scan(skull: bool = True, bone: float = 60, seed: int = 0) -> np.ndarray:
    """A head, or its brain alone in exact zeros; [44, 52, 48] at 4 mm in RAS."""
    rng = np.random.default_rng(seed)
    values = 100 * BRAIN * rng.normal(3, 0.2, SHAPE)
    if skull:
        values = np.where(HEAD & ~BONE, 320, np.where(BONE & ~BRAIN, bone, values))
        values += np.abs(rng.normal(0, 6, SHAPE))
    return values.astype(np.float32)


def find(values: np.ndarray) -> str:
    return find_head(values, np.full(3, MM))


def test_a_head_is_told_from_a_brain_alone_and_neither_is_guessed() -> None:
    assert find(scan()) == "head"
    assert find(scan(skull=False)) == "brain"
    assert find(-7 + scan(skull=False)) == "brain"  # z-scored ones have no air of 0
    assert find(scan(bone=320)) == "unknown"  # bone is not dark
    assert find(np.where(BRAIN, scan(), 5).astype(np.float32)) == "brain"
    part = scan()[10:30, 10:30, 10:30]
    assert find(part) == "unknown"  # too small, and no surface
    noise = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    assert find(noise) == "unknown"
    defaced = scan()
    defaced[:, 40:, :20] = 0
    assert find(defaced) == "head"  # nothing but a name or a mask says that it has no face


@needs_shared
def test_on_real_volumes_no_head_is_taken_for_a_brain() -> None:
    table = pd.read_csv(SHARED / "mri" / "metadata.csv")
    table = table[(table["kind"] == "image") & (table["use"] == "pretrain")]
    heads = table[table["skull"] == "with skull"].iloc[::3]
    brains = table[table["skull"] == "without skull"].iloc[::12]
    read = Preparation.of(VolumeSettings())._read
    found: dict[str, list[str]] = {}
    for row in pd.concat([heads, brains]).itertuples():
        volume, _ = read([SHARED / "mri" / str(row.path)])
        found.setdefault(str(row.skull), []).append(find_head(volume.values, volume.spacing))
    assert set(found["with skull"]) <= {"head", "unknown"}
    assert set(found["without skull"]) <= {"brain", "unknown"}
    assert found["with skull"].count("head") >= len(heads) - 1
    assert found["without skull"].count("brain") >= len(brains) - 1


@pytest.mark.parametrize(
    ("path", "archive", "expected"),
    [
        ("sub-1/anat/sub-1_desc-defaced_T1w.nii.gz", "bids", "defaced"),
        ("derivatives/pydeface/sub-1_T1w.nii.gz", "nifti", "defaced"),
        ("sub-1/anat/sub-1_T1w_anonymized.nii.gz", "nifti", "defaced"),
        ("sub-1/anat/sub-1_desc-brain_T1w.nii.gz", "nifti", "brain"),
        ("out/p1_t1_bet.nii.gz", "nifti", "brain"),
        ("skull-stripped/p1.nii.gz", "nifti", "brain"),
        ("BraTS-0001/BraTS-0001-t1c.nii.gz", "brats", "brain"),
        ("brain/p1_T1.nii.gz", "nifti", None),
        ("betty/p1_T1.nii.gz", "nifti", None),
        ("undefacedness/p1.nii.gz", "nifti", None),
    ],
)
def test_names_say_what_was_done_to_a_head(path: str, archive: str, expected: str | None) -> None:
    assert face_by_name(VolumeRecord((path,), path, "p", "T1w"), archive) == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [(["NO"] * 6, "defaced"), (["NO"] * 5 + ["YES"], "head"), (["NO"] * 5 + [None], None)],
)  # fmt: skip
@pytest.mark.usefixtures("local_ray")
def test_the_header_of_a_series_says_whether_somebody_can_be_recognised(
    tmp_path: Path, words: list[str | None], expected: str | None
) -> None:
    for number, word in enumerate(words):
        more = {} if word is None else {"RecognizableVisualFeatures": word}
        write_dicom(
            tmp_path / "series" / f"{number}.dcm", Modality="MR", SeriesInstanceUID="1.2",
            StudyInstanceUID="1.3", SOPInstanceUID=f"1.4.{number}", PatientID="p",
            ImagePositionPatient=[0, 0, 2 * number], ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
            PixelSpacing=[1, 1], **more,
        )  # fmt: skip
    (record,) = listed("dicom-series", tmp_path)
    assert record.problem is None
    assert face_by_name(record, "dicom-series") == expected


def test_a_name_is_not_believed_against_what_the_voxels_show() -> None:
    assert face_of("brain", "head") == "head"
    assert face_of("brain", "unknown") == "brain"
    assert face_of("defaced", "head") == face_of("defaced", "unknown") == "defaced"
    assert face_of("defaced", "brain") == "brain"
    assert face_of(None, "unknown") == "unknown"


def test_masks_are_found_by_the_pattern_and_settings_that_do_not_fit_are_refused() -> None:
    pattern = "/masks/{folder}/{name}_face.nii.gz"
    wanted = VolumeSettings(faces="mask", face_mask=pattern)
    one = VolumeRecord(("sub-1/anat/x.1.NII.GZ",), "x", "p", "T1w")
    series = VolumeRecord(("a/series7/1.dcm", "a/series7/2.dcm"), "x", "p", "T1w")
    assert mask_of(one, wanted) == "/masks/sub-1/anat/x.1_face.nii.gz"
    assert mask_of(series, wanted) == "/masks/a/series7_face.nii.gz"
    assert mask_of(one, VolumeSettings()) is None
    check_faces(wanted)
    for wrong in (None, "/masks/face.nii.gz", "{name}_{who}.nii.gz", "{name"):
        with pytest.raises(ValueError, match=r"faces brain wants volumes.face_mask"):
            check_faces(VolumeSettings(faces="brain", face_mask=wrong))
    with pytest.raises(ValueError, match="faces keep does not use them"):
        check_faces(VolumeSettings(face_mask=pattern))


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Four heads, each with masks of its face and its brain in a folder of their own; one has none."""
    face = np.zeros(SHAPE, np.uint8)
    face[:, 36:, :24] = 1
    for subject in range(5):
        name = f"sub-{subject}_T1w"
        folder = Path(f"sub-{subject}") / "anat"
        write_nifti(tmp_path / "archive" / folder / f"{name}.nii.gz", scan(seed=subject), MM)
        if subject < 4:
            write_nifti(tmp_path / "masks" / folder / f"{name}_face.nii.gz", face, MM)
            write_nifti(
                tmp_path / "masks" / folder / f"{name}_brain.nii.gz", BRAIN.astype(np.uint8), MM
            )
    return tmp_path / "archive"


def taken(archive: Path, output: Path, **volumes: Any) -> list[dict[str, Any]]:
    """The rows of an ingest; what else tells of faces is compared with them."""
    config = settings("bids", archive, output, **volumes)
    summary = ingest(config)
    manifest = Manifest.read(output)
    rows = [row for s in manifest.shards for row in pq.read_table(output / s.file).to_pylist()]
    counts = {face: sum(row["face"] == face for row in rows) for face in {r["face"] for r in rows}}
    assert manifest.faces == counts
    card = inspect(InspectConfig(shards=output, pictures=0, duplicates=False))
    assert {name: sum(splits.values()) for name, splits in card["faces"].items()} == counts
    page = (output / "card.html").read_text()
    assert ("<b>Faces?</b>" in page) == bool(counts.get("head")) == bool(summary["caution_faces"])
    return rows


@pytest.mark.usefixtures("local_ray")
def test_heads_are_counted_and_told_and_faces_taken_out(archive: Path, tmp_path: Path) -> None:
    whole = taken(archive, tmp_path / "keep")
    assert [row["face"] for row in whole] == ["head"] * 5
    bones = {}
    for rule, mask in (("mask", "face"), ("brain", "brain"), ("quickshear", "brain")):
        output = tmp_path / rule
        pattern = str(tmp_path / "masks" / "{folder}" / ("{name}_" + mask + ".nii.gz"))
        rows = taken(archive, output, faces=rule, face_mask=pattern)
        assert len(rows) == 4
        quarantine = pq.read_table(output / "quarantine.parquet").to_pylist()
        assert [row["reason"] for row in quarantine] == ["missing"]
        assert {row["face"] for row in rows} == {"brain" if rule == "brain" else "defaced"}
        for row in rows:
            voxels, valid = decode_voxels(row).astype(np.float32), decode_valid(row)
            if rule == "brain":
                assert valid is None
                bones[rule] = voxels.shape
                continue
            assert valid is not None
            gone = voxels[~valid]
            assert len(gone) > 300
            assert np.ptp(gone) == 0  # one value, and no trace of what was there
            front = np.flatnonzero((~valid).any((0, 2)))
            assert front.min() > voxels.shape[1] / 2
            assert valid.mean() > 0.6
    assert np.prod(bones["brain"]) < np.prod(whole[0]["shape"])


@pytest.mark.usefixtures("local_ray")
def test_a_mask_that_is_empty_or_that_holds_everything_is_no_mask(
    archive: Path, tmp_path: Path
) -> None:
    for subject, value in ((0, 0), (1, 1)):
        path = tmp_path / "masks" / f"sub-{subject}" / "anat" / f"sub-{subject}_T1w_face.nii.gz"
        nib.save(nib.Nifti1Image(np.full(SHAPE, value, np.uint8), np.diag([MM, MM, MM, 1])), path)
    pattern = str(tmp_path / "masks" / "{folder}" / "{name}_face.nii.gz")
    rows = taken(archive, tmp_path / "out", faces="mask", face_mask=pattern)
    quarantine = pq.read_table(tmp_path / "out" / "quarantine.parquet").to_pylist()
    assert sorted(row["reason"] for row in quarantine) == ["missing", "wrong-mask", "wrong-mask"]
    assert [row["face"] for row in rows] == ["defaced", "defaced"]


@pytest.mark.usefixtures("local_ray")
def test_shards_of_an_earlier_version_do_not_say(archive: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    taken(archive, output)
    manifest = Manifest.read(output)
    for shard in manifest.shards:
        table = pq.read_table(output / shard.file).drop_columns(["face"])
        assert isinstance(table, pa.Table)
        pq.write_table(table, output / shard.file, row_group_size=4)
    record(output)
    replace(Manifest.read(output), faces=None).write(output)
    card = inspect(InspectConfig(shards=output, pictures=0))
    assert set(card["faces"]) == {"unknown"}
