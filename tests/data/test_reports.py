import random
import tarfile
import xml.etree.ElementTree as ElementTree

import pytest
from dicom_files import SHARED, needs_shared
from hypothesis import given
from hypothesis import strategies as st

from ray_mae.data.reports import sections
from ray_mae.data.text import decode_tokens, encode_reports, train_tokenizer

SENTENCES = st.lists(
    st.sampled_from(
        ["The lungs are clear.", "No pleural effusion.", "Heart size is normal", "Stable chest."]
    ),
    max_size=3,
).map(" ".join)


@pytest.mark.parametrize(
    ("report", "findings", "impression"),
    [
        ("FINDINGS: Clear lungs. IMPRESSION: Normal.", "Clear lungs.", "Normal."),
        ("Findings:\n  Clear\n  lungs.\n\nConclusion:\nNormal.", "Clear lungs.", "Normal."),
        ("INDICATION: cough FINDINGS: Clear. IMPRESSION: Ok.", "Clear.", "Ok."),
        ("IMPRESSION\n1. Normal.\n2. Ok.", None, "1. Normal. 2. Ok."),
        ("FINDINGS AND IMPRESSION: Clear.", "Clear.", None),
        ("Clear lungs, normal heart.", "Clear lungs, normal heart.", None),
        (
            "FINDINGS: There were no prior findings: stable.",
            "There were no prior findings: stable.",
            None,
        ),
        ("FINDINGS:\n\nIMPRESSION: ___\n", None, None),
        ("TECHNIQUE: two views\nCOMPARISON: none", None, None),
        ("Lungs are clear. View: PA. No effusion.", "Lungs are clear.", None),
        (
            "FINDINGS: Seen by the team, MD aware. Clear.",
            "Seen by the team, MD aware. Clear.",
            None,
        ),
        ("FINDINGS: A.\nADDENDUM: z\nIMPRESSION: B.\nIMPRESSION: C.", "A.", "B. C."),
        ("", None, None),
        (None, None, None),
    ],
)
def test_findings_and_impression_are_found(
    report: str | None, findings: str | None, impression: str | None
) -> None:
    assert sections(report) == (findings, impression)


@pytest.mark.parametrize(
    "report",
    [
        "John Miller, 12.3.1960\nMRN 1234\nFINDINGS: Clear.\nDictated by: Dr Brown",
        "Patient name: John Miller\nMRN: 1234\nDOB: 12.3.1960\nClear.",
        "FINAL REPORT\nName: Miller\nFINDINGS:\nReferring physician: Brown\nClear.",
        "FINDINGS: Clear. Radiologist: Brown",
        "FINDINGS: Clear.\nElectronically signed by Brown on 12.3.1960",
        "FINDINGS: Clear.\nAttending physician: Jane Brown MD",
        "Patient Name - John Miller\nFINDINGS: Clear.",
        "FINDINGS: Clear.\nJohn A. Miller, MD 03/04/2020",
        "FINDINGS: Clear.\n  Jane Brown, M.D.",
    ],
)
def test_names_numbers_and_dates_around_the_sections_are_left_out(report: str) -> None:
    assert sections(report) == ("Clear.", None)


@given(SENTENCES, SENTENCES, st.sampled_from(["\n", "\n\n", " "]), st.booleans())
def test_what_was_written_under_a_header_comes_back(
    findings: str, impression: str, between: str, upper: bool
) -> None:
    header = str.upper if upper or between == " " else str.title
    report = between.join(
        [f"{header('comparison')}: none.", f"{header('findings')}: {findings}",
         f"{header('impression')}: {impression}"]
    )  # fmt: skip
    assert sections(report) == (findings or None, impression or None)


@given(st.text(alphabet=st.sampled_from("aZ9 .:\n\t-*_é"), max_size=80))
def test_no_text_is_invented(report: str) -> None:
    rest = iter(report.split())
    for text in sections(report):
        for word in (text or "").split():
            assert any(word in written for written in rest)


@needs_shared
def test_the_real_indiana_reports_come_out_as_their_own_fields_say() -> None:
    right = total = 0
    with tarfile.open(SHARED / "cxr_iu_nd" / "NLMCXR_reports.tgz") as archive:
        for member in archive:
            if not member.name.endswith(".xml"):
                continue
            root = ElementTree.parse(archive.extractfile(member)).getroot()  # type: ignore[arg-type]
            fields = {a.get("Label"): a.text or "" for a in root.iter("AbstractText")}
            report = "\n".join(f"{name}: {text}" for name, text in fields.items())
            total += 1
            right += sections(report) == tuple(
                " ".join(fields.get(name, "").split()) or None
                for name in ("FINDINGS", "IMPRESSION")
            )
    # One report holds a second, older report within its impression.
    assert (right, total) == (3954, 3955)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("piece", ["\n", " ", "- ", "A. ", "Patient ", ", MD", "* \n"])
def test_a_report_of_nothing_but_repetition_takes_no_time(piece: str) -> None:
    sections(piece * 50_000)


def test_the_same_texts_give_the_same_tokenizer() -> None:
    draw = random.Random(0)
    syllables = [a + b for a in "bcdfghklmnprstvw" for b in "aeiou"]
    words = ["".join(draw.choices(syllables, k=3)) for _ in range(300)]  # many equal frequencies
    texts = [" ".join(draw.choices(words, k=20)) for _ in range(300)]
    documents = {train_tokenizer(texts, 400) for _ in range(4)}
    assert len(documents) == 1
    text = texts[0]
    ids, has_report = encode_reports(documents.pop(), [text], 128)
    assert has_report.all()
    assert decode_tokens(train_tokenizer(texts, 400), ids[0].tolist()) == text
