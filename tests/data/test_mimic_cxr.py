import os
import shutil
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import pytest
from archive_trees import listed, problems, states, touch, write_csv

from ray_mae.data.archives.studies.mimic_cxr import findings_and_impression
from ray_mae.data.labels import NEGATIVE, POSITIVE, UNCERTAIN
from ray_mae.data.privacy.report_sections import sections

# Made in the form of the corpus, with its blanks, wraps and blackened words; none is a real report.
FULL = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___ year old woman with cough.  Evaluate for pneumonia.

 TECHNIQUE:  Chest PA and lateral

 COMPARISON:  ___

 FINDINGS:

 The lungs are clear.  Heart size is
 normal.

 There is no effusion.

 IMPRESSION:

 No acute process.

 NOTIFICATION:  Discussed with Dr. ___ at 5 pm.

 Later paragraph.
"""
UNLABELLED = """                                 FINAL REPORT
 PORTABLE CHEST RADIOGRAPH

 HISTORY:  Line placement.

 COMPARISON:
 ___.

 The line ends in the right atrium.

 No pneumothorax.

 IMPRESSION:  Line in place.
"""
WET = """ WET READ: ___ ___ ___ 8:54 AM
  Pneumonia is suspected.
 ______________________________________________________________________________
                                 FINAL REPORT
 AP CHEST, 8:33 A.M., ___

 HISTORY:  Fever.

 IMPRESSION:  AP chest compared to ___:

 Lungs are clear.
"""
EXAM = """                                 FINAL REPORT
 INDICATION:  Fall.  Evaluate.

 SINGLE FRONTAL VIEW OF THE CHEST, 5:29 P.M.:  The lungs are
 clear.
"""


@pytest.mark.parametrize(
    ("report", "findings", "impression"),
    [
        (
            FULL,
            "The lungs are clear. Heart size is normal. There is no effusion.",
            "No acute process.",
        ),
        (UNLABELLED, "The line ends in the right atrium. No pneumothorax.", "Line in place."),
        (WET, None, "AP chest compared to ___: Lungs are clear."),
        (EXAM, "The lungs are clear.", None),
        ("FINAL REPORT\n COMPARISON: ___.  The lungs are\n clear.", "The lungs are clear.", None),
        ("FINAL REPORT\n CHEST\n\n The lungs are clear.\n", "The lungs are clear.", None),
        (" FINDINGS AND IMPRESSION: Clear.", "Clear.", None),
        ("FINAL REPORT\n INDICATION: Cough.  Fever since Monday.", None, None),
        ("FINAL REPORT\n Portable chest radiograph\n\n IMPRESSION: Clear.", None, "Clear."),
        (
            "FINAL REPORT\n IMPRESSION:\n\n  Bibasilar opacities do not suggest pneumonia",
            None,
            "Bibasilar opacities do not suggest pneumonia",
        ),
        (" FINDINGS: A.\n IMPRESSION AND RECOMMENDATION:  Normal.", "A.", "Normal."),
        (" FINDINGS: A.\n IMPRESSION (PRELIMINARY):\n Normal.", "A.", "Normal."),
        (" FINDINGS: A.\n\n IMP: Normal.", "A.", "Normal."),
        ("", None, None),
    ],
    ids=(
        "full unlabelled wet-read exam behind-comparison bare joint reason-only title do-not and"
        " preliminary imp empty"
    ).split(),
)
def test_sections_follow_the_habits_of_the_corpus(
    report: str, findings: str | None, impression: str | None
) -> None:
    assert sections(findings_and_impression(report)) == (findings, impression)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("piece", ["\n", "_", "CHEST ", "CHEST 1:00 ", "A. ", " \n", "VIEW: "])
def test_a_report_of_nothing_but_repetition_takes_no_time(piece: str) -> None:
    findings_and_impression(piece * 20_000)


def rows() -> list[dict[str, Any]]:
    """Three patients: two views; a view by its code alone and one by nothing; one who is not there."""
    images = [
        ("d1", "10000032", "50414267", "PA", "postero-anterior"),
        ("d2", "10000032", "50414267", "LATERAL", "lateral"),
        ("d3", "10000764", "57375967", "", "antero-posterior"),
        ("d4", "10000764", "57375968", "", ""),
        ("d5", "19999987", "58621812", "AP AXIAL", ""),
    ]
    names = ("dicom_id", "subject_id", "study_id", "ViewPosition", "ViewCodeSequence_CodeMeaning")
    return [dict(zip(names, image, strict=True)) for image in images]


@pytest.fixture(params=[".jpg", ".dcm"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    for row in rows()[:4]:
        patient = f"p{row['subject_id']}"
        touch(
            tmp_path,
            f"files/{patient[:3]}/{patient}/s{row['study_id']}/{row['dicom_id']}{request.param}",
        )
    write_csv(tmp_path / "mimic-cxr-2.0.0-metadata.csv.gz", rows())
    splits = ["train", "train", "validate", "validate", "test"]
    write_csv(
        tmp_path / "mimic-cxr-2.0.0-split.csv.gz",
        [
            {"dicom_id": r["dicom_id"], "study_id": r["study_id"], "split": split}
            for r, split in zip(rows(), splits, strict=True)
        ],
    )
    for labeler, edema in (("chexpert", "-1.0"), ("negbio", "0.0")):
        write_csv(
            tmp_path / f"mimic-cxr-2.0.0-{labeler}.csv.gz",
            [
                {"study_id": "50414267", "Edema": edema, "Pneumonia": "1.0", "Fracture": ""},
                {"study_id": "59999999", "Edema": "1.0", "Pneumonia": "", "Fracture": ""},
            ],
        )
    (tmp_path / "files/p10/p10000032/s50414267.txt").write_text(FULL)
    return tmp_path


def test_a_tree_of_dicom_or_jpg_files_is_listed(tree: Path) -> None:
    archive = listed("mimic-cxr", tree)
    suffix = Path(archive.records[0].path).suffix
    assert [r.path for r in archive.records[:2]] == [
        f"files/p10/p10000032/s50414267/d1{suffix}",
        f"files/p10/p10000032/s50414267/d2{suffix}",
    ]
    assert all((tree / r.path).is_file() for r in archive.records if not r.problem)
    assert [(r.study, r.patient) for r in archive.records[1:3]] == [
        ("50414267", "10000032"),
        ("57375967", "10000764"),
    ]
    assert [r.view for r in archive.records] == [
        "frontal", "lateral", "frontal", "unknown", "unknown"
    ]  # fmt: skip
    assert [r.split for r in archive.records] == ["train", "train", "val", "val", "test"]
    assert states(archive.records[0].labels) == {"Edema": UNCERTAIN, "Pneumonia": POSITIVE}
    assert archive.records[0].labels is archive.records[1].labels
    assert archive.records[2].labels is None
    assert sections(archive.records[1].text).impression == "No acute process."
    assert problems(archive) == {"files/p19/p19999987/s58621812/d5": "missing"}
    assert archive.notes == {
        "images_without_split": 0,
        "studies_without_report": 3,
        "studies_without_labels": 3,
        "label_rows_without_study": 1,
        "labels_not_mapped": {},
        "label_cells_not_understood": 0,
        "label_cells_by_text": {},
    }


def test_the_other_labeler_can_be_chosen_and_its_table_must_be_there(tree: Path) -> None:
    archive = listed("mimic-cxr", tree, labeler="negbio")
    assert states(archive.records[0].labels) == {"Edema": NEGATIVE, "Pneumonia": POSITIVE}
    (tree / "mimic-cxr-2.0.0-negbio.csv.gz").unlink()
    with pytest.raises(FileNotFoundError, match="or choose the other labeler"):
        listed("mimic-cxr", tree, labeler="negbio")


def test_a_report_of_gigabytes_or_a_pipe_is_none(tree: Path) -> None:
    listed_before = listed("mimic-cxr", tree).notes["studies_without_report"]
    reports = sorted((tree / "files").rglob("s*.txt"))
    with ZipFile(tree / "mimic-cxr-reports.zip", "w", ZIP_DEFLATED) as archive:
        archive.write(reports[0], str(reports[0].relative_to(tree)))
        for report in reports[1:]:
            archive.writestr(str(report.relative_to(tree)), b"FINDINGS: " + bytes(4 << 20))
    notes = listed("mimic-cxr", tree).notes
    assert notes["studies_without_report"] == listed_before + len(reports) - 1
    (tree / "mimic-cxr-reports.zip").unlink()
    reports[0].unlink()
    os.mkfifo(reports[0])
    assert listed("mimic-cxr", tree).notes["studies_without_report"] == listed_before + 1


def test_reports_come_from_the_zip_beside_the_images_or_from_elsewhere(
    tree: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    text = tree / "files/p10/p10000032/s50414267.txt"
    with ZipFile(tree / "mimic-cxr-reports.zip", "w") as archive:
        archive.write(text, "files/p10/p10000032/s50414267.txt")
    elsewhere = tmp_path_factory.mktemp("reports")
    (elsewhere / "files/p10/p10000032").mkdir(parents=True)
    shutil.move(text, elsewhere / "files/p10/p10000032")
    (elsewhere / "empty").mkdir()
    for reports in (None, elsewhere, tree / "mimic-cxr-reports.zip"):
        archive = listed("mimic-cxr", tree, reports=reports)
        assert archive.records[0].text
        assert archive.notes["studies_without_report"] == 3
    with pytest.raises(FileNotFoundError, match="holds no report of a study"):
        listed("mimic-cxr", tree, reports=elsewhere / "empty")
    (tree / "mimic-cxr-reports.zip").write_bytes(b"no zip")
    with pytest.raises(ValueError, match="is no zip file"):
        listed("mimic-cxr", tree)


def test_the_dicom_release_alone_needs_the_split_or_the_word_that_there_is_none(
    tree: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    tables = tmp_path_factory.mktemp("tables")
    for table in tree.glob("*.csv.gz"):
        shutil.move(table, tables)
    with pytest.raises(
        FileNotFoundError, match=r"neither mimic-cxr-2.0.0-metadata.csv nor cxr-rec"
    ):
        listed("mimic-cxr", tree)
    keys = ("subject_id", "study_id", "dicom_id")
    write_csv(tree / "cxr-record-list.csv.gz", [{k: row[k] for k in keys} for row in rows()])
    with pytest.raises(FileNotFoundError, match="set official_split to false"):
        listed("mimic-cxr", tree)
    archive = listed("mimic-cxr", tree, official_split=False)
    assert {(r.view, r.split, r.labels) for r in archive.records} == {("unknown", None, None)}
    assert len(listed("mimic-cxr", tree, tables=tables).records) == 5


def test_a_folder_without_images_or_with_a_changed_table_is_refused(tree: Path) -> None:
    table = tree / "mimic-cxr-2.0.0-split.csv.gz"
    write_csv(table, [{"study_id": "50414267", "split": "holdout"}])
    with pytest.raises(ValueError, match="'holdout' is no split"):
        listed("mimic-cxr", tree)
    write_csv(table, [{"study": "50414267"}])
    with pytest.raises(ValueError, match=r"no column 'study_id', it has 'study'"):
        listed("mimic-cxr", tree)
    for image in [*tree.rglob("*.jpg"), *tree.rglob("*.dcm")]:
        image.unlink()
    with pytest.raises(FileNotFoundError, match="holds none of the 5 images"):
        listed("mimic-cxr", tree, official_split=False)
    with pytest.raises(FileNotFoundError, match="no folder files with p10"):
        listed("mimic-cxr", tree / "files" / "p10" / "p10000032", tables=tree, official_split=False)
