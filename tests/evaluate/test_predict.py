"""`predict`: new files are decoded and scored as `ingest` and `evaluate finetune` would, and none is lost."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import ray_mae
from ray_mae import cli
from ray_mae.config import IngestConfig, PredictConfig
from ray_mae.data.ingest.job import ingest
from ray_mae.data.privacy.pseudonyms import load_key, pseudonym
from ray_mae.data.schema import Manifest
from ray_mae.data.shard_set import ShardSet
from ray_mae.evaluate.finetune.classifier import Classifier
from ray_mae.evaluate.predict.command import predict
from ray_mae.inference.load import load_encoder
from tests.checkpoints import write_checkpoint
from tests.data.dicom_files import write_dicom
from tests.data.volume_files import ball, write_nifti

SIZE = 96
"""Short side of the images that the classifier of images was trained on."""
LABELS = ["Edema", "view"]  # a label may be called as a column

pytestmark = pytest.mark.usefixtures("local_ray")


def classifier(folder: Path, method: str, **values: object) -> Path:
    """One that was never trained, as `evaluate finetune` leaves it."""
    folder.mkdir(exist_ok=True)
    form = {"image_size": SIZE} if method == "mvmae" else {}
    Manifest("study", "generated", 1, [], form=form).write(folder)
    encoder, _ = load_encoder(write_checkpoint(folder / "checkpoint", folder, method, **values))
    torch.manual_seed(1)
    Classifier(encoder, LABELS).save(folder / "model", ShardSet.read(folder))
    return folder / "model"


@pytest.fixture(scope="module")
def of_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return classifier(tmp_path_factory.mktemp("images"), "mvmae")


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five films of three studies, one that is no image, and their table."""
    folder = tmp_path_factory.mktemp("films")
    rng = np.random.default_rng(0)
    rows = [["study", "patient", "path", "view"]]
    for i, (study, view) in enumerate(
        [("a", "PA"), ("a", "LL"), ("b", "PA"), ("c", "PA"), ("c", "")]
    ):
        values = rng.integers(0, 256, (300 + 10 * i, 280), dtype=np.uint8)
        Image.fromarray(values).save(folder / f"{i}.png")
        rows.append([study, f"patient {study}", f"{i}.png", view])
    (folder / "x.png").write_bytes(b"no image")
    rows.append(["d", "patient d", "x.png", "PA"])
    with (folder / "films.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder


def predictions(output: Path) -> dict[tuple[str, str | None, str], float]:
    """By study or volume, path and label; those of the CSV are the same."""
    rows = pq.read_table(output / "predictions.parquet").to_pylist()
    with (output / "predictions.csv").open(newline="") as file:
        written = list(csv.DictReader(file))
    assert [float(w["probability"]) for w in written] == pytest.approx(
        [row["probability"] for row in rows], abs=1e-6
    )
    name = next(iter(rows[0]))
    found = {(row[name], row["path"], row["label"]): row["probability"] for row in rows}
    assert len(found) == len(rows)
    return found


@pytest.mark.slow
def test_a_table_gives_what_its_shards_give_to_the_last_digit(
    of_images: Path, films: Path, tmp_path: Path
) -> None:
    table = films / "films.csv"
    summary = predict(PredictConfig(checkpoint=of_images, source=table, output=tmp_path / "table"))
    assert summary["studies"] == 3
    assert summary["quarantined"] == {
        "image": {"not-an-image": 1}, "report": {}, "study": {"no-usable-image": 1},
    }  # fmt: skip
    of_files = predictions(tmp_path / "table")
    assert {name for name, _, _ in of_files} == {"a", "b", "c"}
    assert {path for _, path, _ in of_files} == {None, *(f"{i}.png" for i in range(5))}

    ingest(
        IngestConfig(
            archive="table",
            source=table,
            output=tmp_path / "shards",
            image_size=SIZE,
            insecure_pseudonyms=True,
        )
    )
    predict(PredictConfig(checkpoint=of_images, source=tmp_path / "shards", output=tmp_path / "of"))
    of_shards = pq.read_table(tmp_path / "of" / "predictions.parquet").to_pylist()
    key = load_key(None, insecure=True, dataset="archive")
    whole = {(r["study"], r["label"]): r["probability"] for r in of_shards if not r["view"]}
    assert whole == {
        (pseudonym(key, "study", name), label): p
        for (name, path, label), p in of_files.items()
        if path is None
    }
    assert json.loads((tmp_path / "of/summary.json").read_text())["views"] == 5


def test_the_loaded_classifier_says_the_same_of_decoded_images(
    of_images: Path, films: Path, tmp_path: Path
) -> None:
    predict(PredictConfig(checkpoint=of_images, source=films / "films.csv", output=tmp_path))
    found = predictions(tmp_path)
    model = ray_mae.load_classifier(of_images)
    assert model.labels == LABELS
    images = [ray_mae.decode_image(films / f"{i}.png", **model.decoding) for i in range(2)]
    assert all(min(image.shape) == SIZE for image in images)
    each = model(images, ["frontal", "lateral"])
    assert each.shape == (2, 2)
    for i, label in enumerate(LABELS):
        assert found["a", "0.png", label] == pytest.approx(each[0, i], abs=1e-5)
        assert found["a", "1.png", label] == pytest.approx(each[1, i], abs=1e-5)
    np.testing.assert_allclose(model(images[0], ["frontal"]), each[0], atol=1e-6)
    logits = np.log(each / (1 - each)).mean(axis=0)  # late fusion
    np.testing.assert_allclose(
        model.study(images, ["frontal", "lateral"]), 1 / (1 + np.exp(-logits)), atol=1e-6
    )
    with pytest.raises(ValueError, match=r"views must be one of frontal"):
        model(images, ["PA", "LL"])
    with pytest.raises(ValueError, match=r"\[H, W\] of uint8 is wanted, got float64"):
        model([images[0] / 255])
    with pytest.raises(ValueError, match=r"x\.png is no usable image: not-an-image"):
        ray_mae.decode_image(films / "x.png")


@pytest.mark.slow
def test_dicom_files_are_views_of_their_studies_whoever_the_patient_is(
    of_images: Path, tmp_path: Path
) -> None:
    source = tmp_path / "in"
    write_dicom(source / "1", StudyInstanceUID="1.2.3", PatientID=None, ViewPosition="PA")
    write_dicom(source / "2", StudyInstanceUID="1.2.3", PatientID="other", ViewPosition="LL")
    write_dicom(source / "3", StudyInstanceUID="1.2.4", BurnedInAnnotation="YES")
    (source / "4").write_text("no DICOM file")
    cli.run(f"predict --checkpoint {of_images} --source {source} --output {tmp_path}".split())
    found = predictions(tmp_path)
    assert {(name, path) for name, path, _ in found} == {
        ("1.2.3", None), ("1.2.3", "1"), ("1.2.3", "2"), ("1.2.4", None), ("1.2.4", "3"),
    }  # fmt: skip
    assert pq.read_table(tmp_path / "quarantine.parquet")["path"].to_pylist() == ["4"]


@pytest.mark.slow
def test_a_folder_of_images_or_one_of_them_needs_no_table(
    of_images: Path, films: Path, tmp_path: Path
) -> None:
    predict(PredictConfig(checkpoint=of_images, source=films, output=tmp_path / "all"))
    found = predictions(tmp_path / "all")
    assert {name for name, _, _ in found} == {f"{i}.png" for i in range(5)}
    passed = json.loads((tmp_path / "all/summary.json").read_text())["files_passed_over"]
    assert passed == {".csv": 1}
    predict(PredictConfig(checkpoint=of_images, source=films / "0.png", output=tmp_path / "one"))
    one = predictions(tmp_path / "one")
    assert one == {key: found[key] for key in one}
    with pytest.raises(
        ValueError, match=r"not one study .* could be used, most often .*not-an-image"
    ):
        predict(
            PredictConfig(checkpoint=of_images, source=films / "x.png", output=tmp_path / "none")
        )


@pytest.mark.slow
def test_volumes_are_predicted_each_by_itself(tmp_path: Path) -> None:
    model = classifier(tmp_path / "m", "mdae")
    for name in ("a", "b"):
        write_nifti(tmp_path / "in" / f"{name}.nii.gz", ball(seed=ord(name)))
    (tmp_path / "in/c.nii.gz").write_bytes(b"no volume")
    summary = predict(PredictConfig(checkpoint=model, source=tmp_path / "in", output=tmp_path))
    assert summary["volumes"] == 2
    assert sum(summary["quarantined"]["volume"].values()) == 1
    found = predictions(tmp_path)
    assert {name for name, _, _ in found} == {"a.nii.gz", "b.nii.gz"}
    loaded = ray_mae.load_classifier(model)
    said = loaded(ray_mae.decode_volume(tmp_path / "in/a.nii.gz", **loaded.decoding))
    assert said[0] == pytest.approx(found["a.nii.gz", "a.nii.gz", "Edema"], abs=2e-3)


def test_shards_of_other_images_are_refused_or_told(of_images: Path, tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    Manifest("study", "other", 1, [], form={"image_size": SIZE // 8}).write(shards)
    with pytest.raises(ValueError, match=rf"short side of {SIZE} px, these with {SIZE // 8} px"):
        predict(PredictConfig(checkpoint=of_images, source=shards, output=tmp_path / "out"))


def test_what_is_no_classifier_or_no_source_is_named(of_images: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"give a folder below models/"):
        predict(PredictConfig(checkpoint=tmp_path, source=tmp_path, output=tmp_path))
    with pytest.raises(FileNotFoundError, match=r"nowhere does not exist \(source\)"):
        predict(PredictConfig(checkpoint=of_images, source=tmp_path / "nowhere", output=tmp_path))
    with pytest.raises(ValueError, match="take images"):
        predict(
            PredictConfig(checkpoint=of_images, source=tmp_path, output=tmp_path, format="nifti")
        )
