"""Public archives, and what is kept of headers, through the whole job."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from archive_trees import write_csv
from dicom_files import write_dicom
from PIL import Image

from ray_mae import cli
from ray_mae.config import IngestConfig, InspectConfig
from ray_mae.data.decoding.stored_images import decode
from ray_mae.data.ingest.job import ingest
from ray_mae.data.schema import Manifest
from ray_mae.evaluate.card.command import inspect

pytestmark = pytest.mark.usefixtures("local_ray")


def ingested(name: str, source: Path, *settings: str) -> tuple[pd.DataFrame, dict]:
    """The studies of all shards, by dataset row, and the summary."""
    output = source.parent / "shards"
    cli.run(
        ["ingest", "--archive", name, "--source", str(source), "--output", str(output),
         "--dataset", name, "--insecure_pseudonyms", "true", "--image_size", "32", *settings]
    )  # fmt: skip
    shards = Manifest.read(output).shards
    rows = pd.concat([pq.read_table(output / shard.file).to_pandas() for shard in shards])
    return rows, json.loads((output / "summary.json").read_text())


def test_mimic_cxr_goes_from_a_dicom_tree_into_shards(tmp_path: Path) -> None:
    root = tmp_path / "mimic"
    metadata, splits = [], []
    for number in range(6):
        patient = f"1000000{number}"
        for view in ("PA", "LATERAL"):
            image = f"{number}-{view}"
            folder = root / f"files/p10/p{patient}/s5{number}"
            write_dicom(folder / f"{image}.dcm", ViewPosition=None)
            metadata.append(
                {"dicom_id": image, "subject_id": patient, "study_id": f"5{number}",
                 "ViewPosition": view, "ViewCodeSequence_CodeMeaning": ""}
            )  # fmt: skip
            split = ("train", "validate", "test")[number % 3]
            splits.append({"dicom_id": image, "study_id": f"5{number}", "split": split})
        (root / f"files/p10/p{patient}/s5{number}.txt").write_text(
            "                                 FINAL REPORT\n CHEST RADIOGRAPH\n\n COMPARISON:  ___\n\n"
            f" Clear lungs {number}.\n\n IMPRESSION:  Normal.\n"
        )
    (root / "files/p10/p10000000/s50/0-PA.dcm").write_bytes(b"damaged")
    write_csv(root / "mimic-cxr-2.0.0-metadata.csv.gz", metadata)
    write_csv(root / "mimic-cxr-2.0.0-split.csv.gz", splits)
    write_csv(
        root / "mimic-cxr-2.0.0-chexpert.csv.gz",
        [{"subject_id": f"1000000{n}", "study_id": f"5{n}", "Edema": "-1.0"} for n in range(6)],
    )
    rows, summary = ingested("mimic-cxr", root)
    assert summary["images"] == {"in": 12, "out": 11, "quarantined": 1}
    assert summary["studies"] == {"in": 6, "out": 6, "quarantined": 0}
    assert [summary["splits"][s]["studies"] for s in ("train", "val", "test")] == [2, 2, 2]
    assert sorted(rows["findings"]) == [f"Clear lungs {number}." for number in range(6)]
    assert set(rows["impression"]) == {"Normal."}
    assert {labels[5] for labels in rows["labels"]} == {-1}
    assert sorted(len(views) for views in rows["views"]) == [1, 2, 2, 2, 2, 2]
    assert {view["view"] for views in rows["views"] for view in views} == {"frontal", "lateral"}


def test_padchest_goes_from_16_bit_png_files_into_shards(tmp_path: Path) -> None:
    root = tmp_path / "padchest"
    (root / "0").mkdir(parents=True)
    rows = []
    for number in range(8):
        ramp = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 7 + number
        Image.fromarray(ramp).save(root / "0" / f"{number}.png")
        rows.append(
            {"ImageID": f"{number}.png", "StudyID": f"study{number // 2}",
             "PatientID": f"patient{number // 2}", "Projection": "PA" if number % 2 else "L",
             "Report": " sin hallazg . ", "Labels": "['normal']" if number < 6 else "['exclude']"}
        )  # fmt: skip
    write_csv(root / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv", rows)
    studies, summary = ingested("padchest", root)
    assert summary["images"] == {"in": 8, "out": 6, "quarantined": 2}
    assert summary["quarantined"]["image"] == {"excluded": 2}
    assert set(studies["findings"]) == {"sin hallazg ."}
    image = decode(studies.iloc[0]["views"][0]["image"])
    assert image.shape == (32, 32)
    # The ramp ends at 28,672 of 65,535: it was brought to 8 bits over its own range.
    assert image.min() < 5
    assert image.max() > 250
    for file in (tmp_path / "shards").glob("*-0*.parquet"):
        assert b"patient1" not in file.read_bytes()


def test_a_dicom_archive_brings_attributes_into_rows_manifest_summary_and_card(
    tmp_path: Path,
) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    for i, sex in enumerate(("F", "M", "x")):
        tags = {"PatientSex": sex, "PatientAge": "093Y", "InstitutionName": "St. Elsewhere",
                "Manufacturer": "ACME", "ManufacturerModelName": "Ray 3", "PatientID": f"p{i}",
                "StudyInstanceUID": f"1.2.{i}", "SOPInstanceUID": f"1.3.{i}"}  # fmt: skip
        write_dicom(source / f"{i}.dcm", **tags)
    pd.DataFrame({"study": ["1.2.1"], "age": ["41"], "Edema": [1]}).to_csv(
        source / "reports.csv", index=False
    )
    config = IngestConfig(
        archive="dicom", source=source, output=out, insecure_pseudonyms=True, image_size=32,
        validation_share=0, test_share=0, attributes=["age", "sex", "manufacturer"],
    )  # fmt: skip
    summary = ingest(config)
    rows = pq.read_table(out / "train-00000.parquet").to_pylist()
    assert sorted((r["sex"] or "", r["age"], r["manufacturer"]) for r in rows) == [
        ("", 90, "ACME"), ("F", 90, "ACME"), ("M", 41, "ACME")
    ]  # fmt: skip
    assert not {"site", "model"} & rows[0].keys()
    assert Manifest.read(out).attributes == ["age", "sex", "manufacturer"]
    assert summary["splits"]["train"]["attributes"]["age"] == {"90+": 2, "40-49": 1}
    assert summary["notes"]["attribute_cells_not_understood"] == {"sex": {"x": 1}}
    assert {frozenset(r["labels"]) for r in rows} == {frozenset({1, -2}), frozenset({-3})}
    card = inspect(InspectConfig(shards=out))
    assert card["attributes"]["sex"]["unknown"]["train"] == 1
    assert card["studies_without_any_label"]["train"] == 2
    assert "Cells not understood as sex: “x” 1" in (out / "card.html").read_text()
    written = b"".join(file.read_bytes() for file in out.rglob("*") if file.is_file())
    assert b"Elsewhere" not in written
    assert b"Ray 3" not in written
