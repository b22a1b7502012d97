"""Who is a patient, by the names of folders and files."""

import re

import pytest

from ray_mae.data.archives.volumes.patient_names import people_of


def patients(*paths: str) -> list[str]:
    return people_of(paths).patients


ADNI = [
    f"{person}/MPRAGE/{day}/{image}/ADNI_{person}_MR_MPRAGE_br_raw_2006_S1_{image}.nii"
    for person, day, image in [
        ("011_S_0021", "2006-04-18_08_20_30.0", "I118671"),
        ("011_S_0021", "2007-05-02_08_16_44.0", "I218672"),
        ("002_S_0413", "2006-05-19_16_17_47.0", "I118695"),
    ]
]
OASIS = [
    f"{person}_MR_{day}/{scan}/NIFTI/{{}}"
    for person, day, scan in [
        ("OAS30001", "d0129", "anat3"),
        ("OAS30001", "d0757", "anat2"),
        ("OAS30002", "d0371", "anat3"),
    ]
]


@pytest.mark.parametrize("around", ["", "ADNI/", "data/study7/ADNI/", "ADNI/train/"])
def test_a_folder_around_all_files_is_no_patient(around: str) -> None:
    assert patients(*(around + path for path in ADNI)) == ["011_S_0021"] * 2 + ["002_S_0413"]
    assert people_of(ADNI).sessions == ["2006-04-18", "2007-05-02", "2006-05-19"]


@pytest.mark.parametrize("around", ["PPMI", "MyStudy", "ds000030", "study_2019"])
@pytest.mark.parametrize("names", [["3102", "3103"], ["P001", "P002"], ["sub-10159", "sub-10160"]])
def test_patients_are_told_within_a_study(around: str, names: list[str]) -> None:
    assert patients(*(f"{around}/{name}/anat/T1.nii" for name in names)) == names


@pytest.mark.parametrize("file", ["T1.nii.gz", "mprage.nii", "img.nii"])
def test_a_patients_folder_may_hold_the_name_of_a_modality(file: str) -> None:
    assert patients(*(path.format(file) for path in OASIS)) == ["OAS30001"] * 2 + ["OAS30002"]
    assert patients("CT_Patient12/s/a.nii", "CT_Patient13/s/a.nii") == ["Patient12", "Patient13"]
    assert patients("P001_T1/anat2/a.nii", "P001_T2/anat3/a.nii", "P002_T1/anat2/a.nii") == [
        "P001", "P001", "P002",
    ]  # fmt: skip


def test_the_subject_of_bids_counts_before_every_folder() -> None:
    paths = [OASIS[0].format("sub-OAS30001_ses-d0129_T1w.nii"),
             OASIS[1].format("sub-OAS30001_ses-d0757_T1w.nii"), OASIS[1].format("T2.nii"),
             OASIS[2].format("sub-OAS30002_ses-d0371_T1w.nii")]  # fmt: skip
    assert patients(*paths) == ["sub-OAS30001"] * 3 + ["sub-OAS30002"]


@pytest.mark.parametrize(
    "visit",
    ["v1", "V02", "m06", "M12", "week04", "wk4", "y2", "year1", "d0129", "day3", "t0", "fu1", "fup2",
     "followup", "bl", "preop", "postop", "scan2", "rescan", "retest", "rep2", "ses-1", "2006-04-18",
     "20060418", "timepoint-2", "visit_3", "screening", "6mo", "12m", "24wk", "2y", "18months"],
)  # fmt: skip
@pytest.mark.parametrize("form", ["p7_{}_T1.nii", "p7_{}/T1.nii", "p7/{}/T1.nii", "p7-{}.nii"])
def test_visits_of_one_person_are_one_patient(visit: str, form: str) -> None:
    if "-" in visit and form == "p7-{}.nii":
        form = "p7_{}.nii"
    assert set(patients("p7_T1.nii", form.format(visit), "p8_T1.nii")) == {"p7", "p8"}


def test_folders_of_visits_are_sessions_of_the_person_above_them() -> None:
    for person in ("p7", "anna"):
        people = people_of(
            [f"{person}/{visit}/T1.nii" for visit in ("v1", "m06")] + ["p8/v1/T1.nii"]
        )
        assert people.patients == [person, person, "p8"]
        assert people.sessions == ["v1", "m06", "v1"]


def test_a_word_that_names_a_visit_may_begin_a_name() -> None:
    assert patients("V01_T1.nii", "M02_T1.nii", "d0129.nii") == ["V01", "M02", "d0129"]
    assert patients("study_m01_T1.nii", "study_m02_T1.nii") == ["study_m01", "study_m02"]
    assert patients("Brats18_2013_2_1_t1.nii", "Brats18_2013_3_1_t1.nii") == [
        "Brats18_2013_2_1", "Brats18_2013_3_1",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("one", "two", "both"),
    [("p{}_a", "p{}_b", "p{}"), ("UPENN-GBM-0000{}_11", "UPENN-GBM-0000{}_21", "UPENN-GBM-0000{}"),
     ("p{}v1", "p{}v2", "p{}"), ("p{}_1", "p{}_2", "p{}")],
)  # fmt: skip
def test_endings_that_may_be_visits_are_refused_with_a_pattern_for_each_reading(
    one: str, two: str, both: str
) -> None:
    names = [name.format(n) for n in (1, 2) for name in (one, two)]
    with pytest.raises(ValueError, match="two patients, or two visits of one") as refused:
        patients(*(f"{name}_T1.nii" for name in names))
    each, together = re.findall(r"'(\(\?P<patient>.*?)' for", str(refused.value))
    found = [(re.search(each, name), re.search(together, name)) for name in names]
    assert [a["patient"] for a, _ in found if a] == names
    assert [b["patient"] for _, b in found if b] == [both.format(n) for n in (1, 1, 2, 2)]


def test_numbers_that_many_patients_share_are_no_visits() -> None:
    names = ["TCGA-02-0003", "TCGA-06-0004", "TCGA-02-0006", "IXI002-Guys-0828", "IXI012-HH-1211"]
    assert patients(*(f"{name}/T1.nii" for name in names)) == names


@pytest.mark.parametrize("group", ["AD", "CN", "HGG", "glioma", "controls", "siteA", "cohort2"])
def test_a_folder_of_a_group_is_no_patient(group: str) -> None:
    assert patients(f"{group}/p1.nii", f"{group}/p2.nii", "MCI/p3.nii") == ["p1", "p2", "p3"]


@pytest.mark.parametrize("paths", [["London/p1/T1.nii", "London/p2/T1.nii", "Paris/p3/T1.nii"],
                                   ["2019/p1/T1.nii", "2020/p1/T1.nii", "2020/p2/T1.nii"]])  # fmt: skip
def test_a_folder_that_may_be_a_group_or_a_person_is_refused_with_a_pattern_for_each(
    paths: list[str],
) -> None:
    with pytest.raises(ValueError, match=r"say which with volumes\.patient_pattern") as refused:
        patients(*paths)
    patterns = re.findall(r"'(\^.*?\))'", str(refused.value))
    for pattern, part in zip(patterns, (0, 1), strict=True):
        for path in paths:
            match = re.search(pattern, path)
            assert match
            assert match["patient"] == path.split("/")[part]


def test_a_folder_whose_name_the_file_repeats_is_the_patient_within_a_group() -> None:
    paths = ["London/p1/p1_T1.nii", "London/p2/p2_T1.nii", "Paris/p3/p3_T1.nii"]
    assert patients(*paths) == ["p1", "p2", "p3"]


def test_files_of_a_group_that_do_not_repeat_their_folder_are_of_its_patients() -> None:
    paths = ["London/p1/p1_T1.nii", "London/p1/T2.nii", "London/p2/T1.nii", "London/p3_T1.nii"]
    assert patients(*paths, "Paris/p9/p9_T1.nii") == ["p1", "p1", "p2", "p3", "p9"]


def test_one_name_in_two_spellings_is_one_patient() -> None:
    assert patients("T1/P_01.nii", "T2/p-01.nii", "T2/p_02.nii") == ["P_01", "P_01", "p_02"]


def test_a_person_without_a_number_stays_one_patient() -> None:
    assert patients("anna/T1.nii", "anna/T2.nii", "bob/T1.nii") == ["anna", "anna", "bob"]
    assert patients("anna/foo.nii", "anna/bar.nii", "bob/baz.nii") == ["anna", "anna", "bob"]


def test_series_folders_are_no_patients() -> None:
    assert patients(
        "t1_mprage_sag_p2_iso/p7.nii", "flair_sag_p3/p7.nii", "flair_sag_p3/p8.nii"
    ) == ["p7", "p7", "p8"]  # fmt: skip
    assert patients("0001/1-BRAIN-T1/a.nii", "0001/2-AX/a.nii", "0002/3-Ax T1/a.nii") == [
        "0001", "0001", "0002",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("names", "warned"),
    [(["p1", "p10", "p11"], False), (["p1", "p1b"], True), (["p2", "p2_x"], True),
     (["anna", "anna2"], True), (["anna", "annabel"], False)],
)  # fmt: skip
def test_a_name_that_begins_another_is_warned_of(names: list[str], warned: bool) -> None:
    people = people_of([f"{name}_T1.nii" for name in names])
    assert people.patients == names
    assert bool(people.warnings) == warned


@pytest.mark.parametrize(
    ("names", "warned"),
    [(["MRN7_ACC12", "MRN7_ACC31", "MRN8_ACC40"], True),
     (["1000012_20252_2_0", "1000012_20252_3_0", "1000025_20252_2_0"], True),
     (["OAS1_0001", "OAS1_0002", "OAS1_0003"], False), (["NYU_0051", "NYU_0052", "UCLA_0053"], False),
     ([f"{site}_S_{n:04d}" for site in ("011", "002") for n in range(4 * int(site), 4 * int(site) + 4)],
      False)],
)  # fmt: skip
def test_a_few_names_with_one_numbered_beginning_are_warned_of(
    names: list[str], warned: bool
) -> None:
    people = people_of([f"{name}_T1.nii" for name in names])
    assert people.patients == names
    assert bool(people.warnings) == warned


def test_a_numbered_folder_that_may_hold_patients_is_warned_of() -> None:
    people = people_of(["ds1/p1/p1_T1.nii", "ds1/p2/p2_T1.nii", "ds2/p3/p3_T1.nii"])
    assert people.patients == ["ds1", "ds1", "ds2"]
    assert "volumes.patient_pattern" in people.warnings[0]
    assert people_of([f"ADNI/{path}" for path in ADNI]).warnings == []
