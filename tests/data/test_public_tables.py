"""The readers on the real tables in full size. Images are not here: what is missing is counted as there."""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from archive_trees import REAL_TABLES, label_states, listed, needs_real_tables, touch
from dicom_files import SHARED, needs_shared

from ray_mae.data.archives.records import Archive, ImageRecord
from ray_mae.data.ingest.grouping import GroupedStudies, StudyEntry, group_studies
from ray_mae.data.labels import NOT_LABELLED
from ray_mae.data.privacy.report_sections import sections


@dataclass
class Counted:
    """What an archive comes to as studies, were all its images here."""

    archive: Archive[ImageRecord]
    grouped: GroupedStudies
    studies: list[StudyEntry]

    @classmethod
    def of(cls, name: str, source: Path, **settings: Any) -> "Counted":
        archive = listed(name, source, **settings)
        there = [
            replace(r, problem=None) if r.problem and r.problem.reason == "missing" else r
            for r in archive.records
        ]
        grouped = group_studies(
            there, key=b"k" * 16, validation_share=0.1, test_share=0.1, max_views=16
        )
        return cls(archive, grouped, list(grouped.studies))

    def figures(self) -> dict[str, int]:
        """Of the studies. A pair has a frontal and a lateral view."""
        studies = self.studies
        reports = [sections(study.text) for study in studies]
        views = Counter(image.view for study in studies for image in study.images)
        return {
            "studies": len(studies),
            "patients": len({study.patient_id for study in studies}),
            "images": sum(len(study.images) for study in studies),
            **views,
            "pairs": sum({"frontal", "lateral"} <= {i.view for i in s.images} for s in studies),
            "findings": sum(report.findings is not None for report in reports),
            "impressions": sum(report.impression is not None for report in reports),
        }

    def splits(self) -> dict[str, int]:
        """Studies of each split."""
        return dict(Counter(study.split for study in self.studies))

    def labels(self) -> dict[str, list[int]]:
        """Studies by label: positive, negative, uncertain, not mentioned."""
        return label_states(study.labels for study in self.studies)

    def refused(self) -> dict[tuple[str, str], int]:
        return dict(Counter((r.kind, r.reason) for r in self.grouped.quarantine))


@pytest.mark.slow
@needs_real_tables
def test_chexpert_has_its_published_counts(tmp_path: Path) -> None:
    assert REAL_TABLES
    touch(tmp_path, "train/patient00001/study1/view1_frontal.jpg")
    (tmp_path / "train.csv.gz").symlink_to(REAL_TABLES / "chexpert_train.csv.gz")
    counted = Counted.of("chexpert", tmp_path)
    assert len(counted.archive.records) == 223_414
    assert counted.figures() == {
        "studies": 187_641, "patients": 64_540, "images": 223_414,
        "frontal": 191_010, "lateral": 32_387, "unknown": 17, "pairs": 31_413,
        "findings": 0, "impressions": 0,
    }  # fmt: skip
    assert counted.splits() == {"train": 168_245, "val": 19_396}  # valid.csv is not in the package
    assert counted.refused() == {}
    assert counted.labels() == {
        "No Finding": [16_627, 0, 0, 171_014],
        "Enlarged Cardiomediastinum": [9_020, 15_032, 10_148, 153_441],
        "Cardiomegaly": [23_002, 7_712, 6_597, 150_330],
        "Lung Opacity": [92_669, 4_949, 4_341, 85_682],
        "Lung Lesion": [6_856, 752, 1_071, 178_962],
        "Edema": [48_905, 15_667, 11_571, 111_498],
        "Consolidation": [12_730, 19_203, 23_976, 131_732],
        "Pneumonia": [4_576, 1_833, 15_658, 165_574],
        "Atelectasis": [29_333, 1_007, 29_377, 127_924],
        "Pneumothorax": [17_313, 47_006, 2_663, 120_659],
        "Pleural Effusion": [75_696, 24_832, 9_419, 77_694],
        "Pleural Other": [2_441, 206, 1_771, 183_223],
        "Fracture": [7_270, 1_949, 484, 177_938],
        "Support Devices": [105_831, 5_257, 898, 75_655],
    }
    by_image = label_states(record.labels for record in counted.archive.records)
    assert by_image["Edema"] == [52_246, 20_726, 12_984, 137_458]  # as in the published table
    assert by_image["Atelectasis"] == [33_376, 1_328, 33_739, 154_971]


@pytest.mark.slow
@needs_real_tables
def test_padchest_has_its_published_counts_less_what_it_marks_as_unfit(tmp_path: Path) -> None:
    touch(tmp_path, "one.png")
    counted = Counted.of("padchest", tmp_path, tables=REAL_TABLES)
    assert len(counted.archive.records) == 160_861
    assert len({record.patient for record in counted.archive.records}) == 67_625
    assert counted.grouped.listed == 109_931
    assert counted.refused() == {
        ("image", "excluded"): 1_312 + 1_839 + 11,  # exclude, suboptimal study, Projection EXCLUDE
        ("study", "no-usable-image"): 2_413,
        ("image", "patient-conflict"): 3,
        ("study", "patient-conflict"): 1,
        ("report", "no-usable-image"): 2_395,
        ("report", "patient-conflict"): 1,
    }
    assert counted.figures() == {
        "studies": 107_517, "patients": 66_616, "images": 157_696,
        "frontal": 108_175, "lateral": 48_898, "unknown": 623, "pairs": 47_322,
        "findings": 107_417, "impressions": 0,
    }  # fmt: skip
    assert counted.splits() == {"train": 86_016, "val": 10_867, "test": 10_634}
    unlabelled = sum(set(study.labels) == {NOT_LABELLED} for study in counted.studies)
    assert unlabelled == 590  # no image of theirs has labels: nothing was looked for
    assert counted.labels() == {
        "No Finding": [43_159, 0, 0, 63_768],
        "Enlarged Cardiomediastinum": [1_236, 0, 0, 105_691],
        "Cardiomegaly": [9_620, 0, 0, 97_307],
        "Lung Opacity": [16_571, 0, 0, 90_356],
        "Lung Lesion": [3_770, 0, 1_334, 101_823],
        "Edema": [3_660, 0, 241, 103_026],
        "Consolidation": [1_703, 0, 0, 105_224],
        "Pneumonia": [5_090, 0, 0, 101_837],
        "Atelectasis": [5_934, 0, 1_418, 99_575],
        "Pneumothorax": [355, 0, 0, 106_572],
        "Pleural Effusion": [6_811, 0, 3_480, 96_636],
        "Pleural Other": [3_839, 0, 0, 103_088],
        "Fracture": [3_122, 0, 966, 102_839],
        "Support Devices": [12_185, 0, 0, 94_742],
    }
    notes = counted.archive.notes
    assert notes["labels_not_known"] == {}
    assert notes["label_cells_by_text"] == {}
    assert notes["images_without_labels"] == 880
    assert notes["images_normal_with_a_finding"] == 195
    assert len(notes["labels_not_mapped"]) == 96
    assert notes["labels_not_mapped"]["copd signs"] == 23_280


@needs_real_tables
@pytest.mark.slow
def test_chestxray14_has_its_published_counts(tmp_path: Path) -> None:
    touch(tmp_path, "one.png")
    counted = Counted.of("chestxray14", tmp_path, tables=REAL_TABLES, official_split=False)
    assert counted.figures() == {
        "studies": 112_120, "patients": 30_805, "images": 112_120, "frontal": 112_120,
        "pairs": 0, "findings": 0, "impressions": 0,
    }  # fmt: skip
    assert Counter(record.position for record in counted.archive.records) == {
        "PA": 67_310,
        "AP": 44_810,
    }
    positive = {name: states[0] for name, states in counted.labels().items() if states[0]}
    assert positive == {
        "No Finding": 60_361, "Cardiomegaly": 2_776, "Lung Opacity": 19_894,
        "Lung Lesion": 11_207, "Edema": 2_303, "Consolidation": 4_667, "Pneumonia": 1_431,
        "Atelectasis": 11_559, "Pneumothorax": 5_302, "Pleural Effusion": 13_317,
        "Pleural Other": 3_385,
    }  # fmt: skip
    assert counted.archive.notes["labels_not_mapped"] == {
        "Emphysema": 2_516,
        "Fibrosis": 1_686,
        "Hernia": 227,
    }


@needs_shared
def test_the_real_indiana_reports_have_their_published_counts(tmp_path: Path) -> None:
    touch(tmp_path, "CXR1_1_IM-0001-3001.png")
    folder = SHARED / "cxr_iu_nd"
    counted = Counted.of("openi", tmp_path, tables=folder, reports=folder / "NLMCXR_reports.tgz")
    notes = counted.archive.notes
    assert notes["reports"] == 3_955
    assert notes["reports_without_images"] == 104
    assert notes["reports_not_understood"] == 0
    # The tags of the DICOM files leave 2,586 images without a view, and one image is not among them.
    assert counted.figures() == {
        "studies": 3_851, "patients": 3_851, "images": 7_470,
        "frontal": 4_016, "lateral": 867, "unknown": 2_587, "pairs": 807,
        "findings": 3_337, "impressions": 3_820,
    }  # fmt: skip
    assert counted.refused() == {}
    positive_and_uncertain = {
        name: (states[0], states[2]) for name, states in counted.labels().items()
    }
    assert positive_and_uncertain == {
        "No Finding": (1_379, 0),
        "Enlarged Cardiomediastinum": (26, 0),
        "Cardiomegaly": (364, 0),
        "Lung Opacity": (706, 0),
        "Lung Lesion": (161, 0),
        "Edema": (93, 0),
        "Consolidation": (30, 0),
        "Pneumonia": (40, 0),
        "Atelectasis": (315, 9),
        "Pneumothorax": (26, 0),
        "Pleural Effusion": (151, 38),
        "Pleural Other": (54, 0),
        "Fracture": (83, 0),
        "Support Devices": (236, 0),
    }


def spoken_of(archive: Archive[ImageRecord]) -> dict[str, int]:
    """Images of which each attribute is known."""
    return dict(Counter(name for record in archive.records for name in record.attributes or {}))


@pytest.mark.slow
@needs_real_tables
def test_the_real_tables_say_sex_age_and_scanner_of_nearly_everybody(tmp_path: Path) -> None:
    assert REAL_TABLES
    touch(tmp_path, "train/patient00001/study1/view1_frontal.jpg", "one.png")
    (tmp_path / "train.csv.gz").symlink_to(REAL_TABLES / "chexpert_train.csv.gz")
    person = {"attributes": ["sex", "age"]}
    assert spoken_of(listed("chexpert", tmp_path, **person)) == {"sex": 223_413, "age": 223_411}
    nih = listed("chestxray14", tmp_path, tables=REAL_TABLES, official_split=False, **person)
    assert spoken_of(nih) == {"sex": 112_120, "age": 112_120}
    wanted = ["sex", "age", "manufacturer"]
    padchest = listed("padchest", tmp_path, tables=REAL_TABLES, attributes=wanted)
    assert spoken_of(padchest) == {"sex": 160_857, "age": 160_855, "manufacturer": 160_861}
    ages = [r.attributes["age"] for r in padchest.records if "age" in (r.attributes or {})]
    assert max(ages, default=0) == 90


@pytest.mark.slow
@needs_shared
def test_the_real_tags_of_indiana_say_an_age_of_every_image_but_one(tmp_path: Path) -> None:
    touch(tmp_path, "CXR1_1_IM-0001-3001.png")
    folder = SHARED / "cxr_iu_nd"
    reports = folder / "NLMCXR_reports.tgz"
    openi = listed("openi", tmp_path, tables=folder, reports=reports, attributes=["age"])
    assert spoken_of(openi) == {"age": 7_469}
    ages = [record.attributes["age"] for record in openi.records if record.attributes]
    assert (min(ages), max(ages)) == (17, 90)
