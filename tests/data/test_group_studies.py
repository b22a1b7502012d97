from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from ray_mae.data.archives.records import ImageRecord
from ray_mae.data.ingest.grouping import GroupedStudies, group_studies
from ray_mae.data.labels import CHEXPERT_LABELS, NEGATIVE, NOT_MENTIONED, POSITIVE, UNCERTAIN
from ray_mae.data.quarantine import QuarantineError


def grouped(records: list[ImageRecord], max_views: int = 4) -> GroupedStudies:
    return group_studies(
        records, key=b"k" * 16, validation_share=0.2, test_share=0.2, max_views=max_views
    )


def image(study: str, patient: str, path: str, **fields: object) -> ImageRecord:
    return ImageRecord(
        **{"path": path, "study": study, "patient": patient, "view": "frontal", **fields}
    )


RECORDS = st.lists(
    st.builds(
        image,
        study=st.sampled_from(["", "s1", "s2", "s3", "s4"]),
        patient=st.sampled_from(["", "p1", "p2"]),
        path=st.text(max_size=4),
        split=st.sampled_from([None, None, "train", "test"]),
        problem=st.sampled_from([None, None, None, QuarantineError("modality", "CT")]),
        text=st.sampled_from([None, "", "Clear.", "FINDINGS: Clear."]),
        labels=st.sampled_from([None, (POSITIVE,) * 14, (UNCERTAIN,) * 14]),
    ),
    max_size=20,
)


@given(RECORDS)
def test_every_image_and_every_study_is_kept_or_refused_once(records: list[ImageRecord]) -> None:
    result = grouped(records)
    kept = [i.path for s in result.studies for i in s.images]
    refused = [r.path for r in result.quarantine if r.kind == "image"]
    assert sorted(kept + refused) == sorted(r.path for r in records)  # type: ignore[type-var]
    studies, aside = list(result.studies), Counter(r.kind for r in result.quarantine)
    assert len(studies) + aside["study"] == result.listed
    assert sum(study.text is not None for study in studies) + aside["report"] == result.reports


@given(RECORDS, st.randoms())
def test_the_order_of_the_archive_does_not_matter(
    records: list[ImageRecord], random: object
) -> None:
    records = list({r.path: r for r in records}.values())
    shuffled = records.copy()
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert list(grouped(records).studies) == list(grouped(shuffled).studies)


@given(RECORDS)
def test_a_patient_is_in_one_split(records: list[ImageRecord]) -> None:
    splits: dict[str, set[str]] = {}
    for study in grouped(records).studies:
        splits.setdefault(study.patient_id, set()).add(study.split)
    assert all(len(split) == 1 for split in splits.values())


def reasons(result: GroupedStudies) -> set[tuple[str, str]]:
    return {(r.kind, r.reason) for r in result.quarantine}


def test_a_study_keeps_its_good_views_when_one_is_bad() -> None:
    result = grouped(
        [image("s", "p", "a"), image("s", "p", "b", problem=QuarantineError("constant"))]
    )
    assert [i.path for s in result.studies for i in s.images] == ["a"]
    assert reasons(result) == {("image", "constant")}


def test_a_study_under_two_patients_is_refused() -> None:
    result = grouped([image("s", "p", "a"), image("s", "q", "b")])
    assert reasons(result) == {("image", "patient-conflict"), ("study", "patient-conflict")}


def test_a_patient_in_two_splits_is_refused_with_all_studies() -> None:
    result = grouped(
        [image("s", "p", "a", split="train"), image("t", "p", "b", split="test"),
         image("u", "p", "c"), image("v", "q", "d", split="val")]
    )  # fmt: skip
    assert [s.split for s in result.studies] == ["val"]
    assert reasons(result) == {("image", "split-conflict"), ("study", "split-conflict")}


def test_a_split_given_for_one_study_holds_for_all_of_the_patient() -> None:
    studies = grouped([image("s", "p", "a", split="test"), image("t", "p", "b")]).studies
    assert [s.split for s in studies] == ["test", "test"]


def test_too_many_images_are_no_study() -> None:
    result = grouped([image("s", "p", str(i)) for i in range(5)])
    assert reasons(result) == {("image", "too-many-images"), ("study", "too-many-images")}


def test_the_strongest_statement_of_a_study_counts() -> None:
    states = [NOT_MENTIONED, NEGATIVE, UNCERTAIN, POSITIVE]
    one = (*states, *[NOT_MENTIONED] * 10)
    other = (NEGATIVE, UNCERTAIN, NEGATIVE, NOT_MENTIONED, *[NOT_MENTIONED] * 10)
    (study,) = grouped(
        [image("s", "p", "a", labels=one), image("s", "p", "b", labels=other)]
    ).studies
    assert study.labels[:5] == [NEGATIVE, UNCERTAIN, UNCERTAIN, POSITIVE, NOT_MENTIONED]
    assert len(study.labels) == len(CHEXPERT_LABELS)
