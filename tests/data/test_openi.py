import os
import tarfile
import tracemalloc
from pathlib import Path

import pytest
from archive_trees import listed, problems, states, touch, write_csv

from ray_mae.data.archives.studies.openi import openi_states
from ray_mae.data.labels import POSITIVE, UNCERTAIN
from ray_mae.data.privacy.report_sections import sections

XML = """<?xml version="1.0" encoding="utf-8"?>
<eCitation><uId id="CXR{number}"/><MedlineCitation><Article><Abstract>
<AbstractText Label="COMPARISON">None.</AbstractText>
<AbstractText Label="INDICATION">Positive test of Mrs Ypsilanti</AbstractText>
<AbstractText Label="FINDINGS">{findings}</AbstractText>
<AbstractText Label="IMPRESSION">{impression}</AbstractText>
</Abstract></Article></MedlineCitation>
<MeSH>{terms}</MeSH>{images}</eCitation>"""


def report(folder: Path, number: int, images: list[str], terms: list[str], findings: str = "",
           impression: str = "") -> None:  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{number}.xml").write_text(
        XML.format(
            number=number,
            findings=findings,
            impression=impression,
            terms="".join(f"<major>{term}</major>" for term in terms),
            images="".join(f'<parentImage id="{name}"/>' for name in images),
        )
    )


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    reports = tmp_path / "ecgen-radiology"
    report(
        reports, 1, ["CXR1_1_IM-0001-3001", "CXR1_1_IM-0001-4001"], ["normal"], "Clear.", "Normal."
    )
    report(reports, 2, ["CXR2_IM-0652-1001", "CXR2_IM-0652-2001"],
           ["Opacity/lung/base/left", "Lung/hypoinflation"], impression="Opacity.")  # fmt: skip
    report(reports, 3, [], ["normal"], "Clear.")
    (reports / "4.xml").write_text("<eCitation>")
    touch(tmp_path, "png/CXR1_1_IM-0001-3001.png", "png/1_IM-0001-4001.dcm.png",
          "png/CXR2_IM-0652-1001.png", "png/CXR9_IM-0001-1001.png")  # fmt: skip
    return tmp_path


def test_reports_find_their_images_under_each_of_the_published_names(tree: Path) -> None:
    archive = listed("openi", tree)
    assert [(r.study, r.path) for r in archive.records] == [
        ("CXR1", "png/CXR1_1_IM-0001-3001.png"),
        ("CXR1", "png/1_IM-0001-4001.dcm.png"),
        ("CXR2", "png/CXR2_IM-0652-1001.png"),
        ("CXR2", "CXR2_IM-0652-2001"),
    ]
    assert problems(archive) == {"CXR2_IM-0652-2001": "missing"}
    assert sections(archive.records[0].text) == ("Clear.", "Normal.")
    assert sections(archive.records[2].text) == (None, "Opacity.")
    assert "Ypsilanti" not in str(archive)
    assert states(archive.records[0].labels) == {"No Finding": POSITIVE}
    assert states(archive.records[2].labels) == {"Lung Opacity": POSITIVE}
    assert archive.notes == {
        "reports": 3,
        "reports_without_images": 1,
        "reports_not_understood": 1,
        "images_of_unknown_view": 4,
        "images_without_row": 1,
        "images_of_a_repeated_name": 0,
        "files_passed_over": {".xml": 4},
        "labels_not_mapped": {"lung": 1},
    }


def test_the_archive_of_reports_need_not_be_unpacked(tree: Path) -> None:
    unpacked = [(r.path, r.text, r.labels) for r in listed("openi", tree).records]
    with tarfile.open(tree / "NLMCXR_reports.tgz", "w:gz") as archive:
        archive.add(tree / "ecgen-radiology", "ecgen-radiology")
    assert [(r.path, r.text, r.labels) for r in listed("openi", tree).records] == unpacked
    assert listed("openi", tree / "png", reports=tree / "NLMCXR_reports.tgz").records[0].text


@pytest.mark.timeout(60)
def test_a_sparse_member_of_many_gigabytes_is_no_report(tree: Path) -> None:
    with tarfile.open(tree / "NLMCXR_reports.tgz", "w:gz", format=tarfile.PAX_FORMAT) as archive:
        archive.add(tree / "ecgen-radiology", "ecgen-radiology")
        sparse = tarfile.TarInfo("ecgen-radiology/9.xml")
        size = str(30 << 30)
        sparse.pax_headers = {"GNU.sparse.map": f"{size},0", "GNU.sparse.size": size}
        archive.addfile(sparse)
    with tarfile.open(tree / "NLMCXR_reports.tgz") as archive:
        assert archive.getmember("ecgen-radiology/9.xml").size == 30 << 30
    os.mkfifo(tree / "ecgen-radiology" / "pipe.xml")
    tracemalloc.start()
    by_tar = listed("openi", tree).notes["reports_not_understood"]
    by_folder = listed("openi", tree, reports=tree / "ecgen-radiology").notes
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert by_tar == by_folder["reports_not_understood"] == 2  # one is broken in any case
    assert most < 50 << 20


def test_views_come_from_a_table_where_there_is_one(tree: Path) -> None:
    tags = [
        {"imageid": "CXR1_IM-0001-3001", "View Position": "", "Patient Orientation": "['L', 'F']"},
        {"imageid": "CXR1_IM-0001-4001", "View Position": "LL", "Patient Orientation": ""},
        {"imageid": "CXR2_IM-0652-1001", "View Position": "", "Patient Orientation": "['"},
    ]
    write_csv(tree / "nlmcxr_dicom_metadata.csv.gz", tags)
    archive = listed("openi", tree)
    assert [r.view for r in archive.records] == ["frontal", "lateral", "unknown", "unknown"]
    write_csv(
        tree / "indiana_projections.csv",
        [{"uid": "2", "filename": "2_IM-0652-1001.dcm.png", "projection": "Lateral"}],
    )
    assert [r.view for r in listed("openi", tree).records][2] == "lateral"


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        (["Opacity/ribs/left"], {}),
        (["Nodule/lung/ribs"], {"Lung Lesion": POSITIVE}),
        (["Mass/mediastinum"], {"Enlarged Cardiomediastinum": POSITIVE}),
        (["Cardiac Shadow/enlarged/mild", "Cardiac Shadow/irregular"], {"Cardiomegaly": POSITIVE}),
        (["Costophrenic Angle/left/blunted"], {"Pleural Effusion": UNCERTAIN}),
        (["Thickening/pleura", "Thickening/bronchi"], {"Pleural Other": POSITIVE}),
        (["Fractures, Bone/ribs"], {"Fracture": POSITIVE}),
        (["No Indexing"], {}),
    ],
)
def test_index_terms_mean_what_the_table_says(terms: list[str], expected: dict[str, int]) -> None:
    assert states(openi_states(terms)) == expected


def test_reports_that_are_not_there_or_there_twice_are_named(tree: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none.tgz does not exist \(reports\)"):
        listed("openi", tree, reports=tree / "none.tgz")
    with pytest.raises(FileNotFoundError, match="holds no XML reports"):
        listed("openi", tree / "png")
    report(tree / "again", 1, [], [])
    with pytest.raises(ValueError, match="two reports are named CXR1"):
        listed("openi", tree)
