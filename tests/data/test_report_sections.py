import random
import tarfile
import xml.etree.ElementTree as ElementTree

import pytest
from dicom_files import SHARED, needs_shared
from hypothesis import given
from hypothesis import strategies as st

from ray_mae.data.archives.studies.mimic_cxr import findings_and_impression
from ray_mae.data.loading.tokenizer import decode_tokens, encode_reports, train_tokenizer
from ray_mae.data.privacy.deidentify import GAP
from ray_mae.data.privacy.report_sections import sections

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
        ("FINDINGS: A. IMPRESSION AND RECOMMENDATION:  Normal.", "A.", "Normal."),
        ("FINDINGS: A.\nIMPRESSION/RECOMMENDATIONS: Normal.", "A.", "Normal."),
        ("FINDINGS: A.\nImpression & Plan:\nNormal.", "A.", "Normal."),
        ("FINDINGS: A. IMPRESSION (PRELIMINARY): Normal.", "A.", "Normal."),
        ("FINDINGS (portable):\nA.\nIMP: Normal.", "A.", "Normal."),
        ("HISTORY: A.\nPA AND LATERAL VIEWS: B.\nIMPRESSION: C.", "B.", "C."),
        ("HISTORY: A.\nPA and lateral views: B.\nIMPRESSION: C.", "B.", "C."),
        ("HISTORY: A.\nLEFT MANDIBLE, TWO VIEWS:\nB.\nIMPRESSION: C.", "B.", "C."),
        ("CHEST, TWO VIEWS: 3:14 pm\nHISTORY: A.\nFINDINGS: B.", "B.", None),
        ("CHEST, TWO VIEWS: B.\nRIBS, ONE VIEW: C.", "B. RIBS, ONE VIEW: C.", None),
        (
            "FINDINGS: CHEST, ONE VIEW: A.\n\nABDOMEN, SUPINE VIEW: B.\nIMPRESSION: C.",
            "CHEST, ONE VIEW: A. ABDOMEN, SUPINE VIEW: B.",
            "C.",
        ),
        ("FINDINGS: LIMITED STUDY: A.", "LIMITED STUDY: A.", None),
        ("FINDINGS:\nVIEWS: PA. A.\nIMPRESSION: B.", "VIEWS: PA. A.", "B."),
        (
            "IMPRESSION: 1. PA AND LATERAL CHEST VIEWS: A. 2. RIGHT HAND, THREE VIEWS: B.",
            None,
            "1. PA AND LATERAL CHEST VIEWS: A. 2. RIGHT HAND, THREE VIEWS: B.",
        ),
        (
            "FINDINGS: A.\nRECOMMENDATION: z\nABDOMEN, ONE VIEW: B.",
            "A. ABDOMEN, ONE VIEW: B.",
            None,
        ),
        ("PHYSICAL EXAM: z\nFINDINGS: A.\nCOMPARISON STUDY: z\nDATE OF EXAM: z", "A.", None),
        ("FINDNGS: A.\nIMPRESSOIN: B.", "A.", "B."),
        ("FINDGINGS\nA.\nIMPRESSSION\nB.", "A.", "B."),
        ("INDCATION: z\nFIDNINGS; A.\nIMPRESION; B.", "A.", "B."),
        ("HISTROY: z FINDIGNS: A. CONCLUSON: B.", "A.", "B."),
        ("WETREAD: z\nFinidngs: A.\nFinal Impresson\uff1a B.", "A.", "B."),
        (
            "FINDINGS: Occlusion: A.\nContusion: B.\nCompression: C.\nDepression: D.",
            "Occlusion: A. Contusion: B. Compression: C. Depression: D.",
            None,
        ),
        ("BEFUND: A.\nBEURTEILUNG: B.", "A.", "B."),
        ("Klinische Angaben: z\nBefund:\nA.\nZusammenfassung:\nB.", "A.", "B."),
        ("INDICACIÓN: z\nHALLAZGOS: A.\nCONCLUSIÓN: B.", "A.", "B."),
        ("INDICATION : z\nRÉSULTATS : A.\nCONCLUSION : B.", "A.", "B."),
        ("Reperti: A.\nConclusioni: B.", "A.", "B."),
        ("ACHADOS: A.\nIMPRESSÃO: B.", "A.", "B."),
        (
            "Kein pathologischer Befund. Zum Vergleich keine Aufnahme.",
            "Kein pathologischer Befund. Zum Vergleich keine Aufnahme.",
            None,
        ),
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


IDENTITIES = """RE: John Miller, born 12.3.1960
John Miller|12/03/1960
JOHN MILLER|MRN 77
Miller, John DOB 12/03/1960
Dear Dr. Brown,
MRN 12345678
MRN#: 12345
Accession #: 99
Patient ID#: 77
SSN: 123-45-6789
Hospital No.: 123
Patient Name John Miller
Pt: Miller
Pt Name: Miller
Name of patient: Miller
Name:|Miller
DOB 12/03/1960
Email: miller@clinic.org
Fax: 555-1234
Mobile: 0761 270123
Address: 7 Elderberry Road
Location: 3 East, Mercy Hospital
Dr. Jane Brown, Radiologist
Jane Brown MD PhD
J. Brown, D.O.
JANE BROWN, DO 1/2/2020
Finalized by Jane Brown.
Author: Brown
Interpreted by: Jane Brown MD PhD on 1/2/2020 at 5 pm. Report finalised.
Electronically signed by Jane Brown on 1/2/2020
Nombre: García López
NHC: 47110
Fecha de nacimiento: 3/4/1960
Médico: Dra. García
Geb.: 3.4.1960
Prof. Dr. med. Anna Schmidt, Chefärztin"""


@pytest.mark.parametrize("who", [line.replace("|", "\n") for line in IDENTITIES.splitlines()])
def test_who_when_and_where_go_wherever_they_stand(who: str) -> None:
    assert sections(f"{who}\nClear lungs.") == ("Clear lungs.", None)
    assert sections(f"Clear lungs.\n{who}") == ("Clear lungs.", None)
    report = f"FINDINGS: Clear lungs.\n{who}\nIMPRESSION: Normal.\n{who}"
    assert sections(report) == ("Clear lungs.", "Normal.")
    assert sections(f"FINDINGS:\n{who}\nClear lungs.") == ("Clear lungs.", None)
    assert sections(f"IMPRESSION:\nAortic Dissection\n{who}") == (None, "Aortic Dissection")
    flat = f"{' '.join(who.split())} FINDINGS: Clear lungs. IMPRESSION: Normal."
    assert sections(flat) == ("Clear lungs.", "Normal.")


@pytest.mark.parametrize(
    ("sentence", "kept"),
    [
        ("Clear compared to 12/03/1960.", "Clear compared to ___."),
        ("Clear compared to 12-Mar-1960.", "Clear compared to ___."),
        ("Since March 12, 1960 clear.", "Since ___ clear."),
        ("Stable since 1937-04-19T10:20.", "Stable since ___."),
        ("Estudio previo 3 de abril de 2011 normal.", "Estudio previo ___ normal."),
        ("respect estudi previ fech 09 12 13 . normal", "respect estudi previ fech ___ . normal"),
        ("Told Dr. Jane Brown at 5 pm.", "Told Dr. ___ at 5 pm."),
        ("TOLD DR. BROWN AT 5 PM.", "TOLD DR. ___ AT 5 PM."),
        ("Told Mrs. von Brown of it.", "Told Mrs. ___ of it."),
        ("We told Jane A. Brown, MD by phone (555) 123-4567.", "We told ___ by phone ___."),
        ("Clear lungs. Finalized by Jane Brown.", "Clear lungs. Finalized by ___."),
        ("Clear lungs. John Miller MRN 77", "Clear lungs."),
        ("See A4711081 of miller@clinic.org.", "See ___ of ___."),
        ("Fell in 7 Elderberry Road.", "Fell in ___."),
        ("Told Dr.\nBrown at 5 pm.", "Told Dr. ___ at 5 pm."),
        ("Told Dr.\n\nBrown at 5 pm.", "Told Dr. ___ at 5 pm."),
        ("Told Dr. Jane\nBrown at 5 pm.", "Told Dr. ___ at 5 pm."),
        ("TOLD DR BROWN AT 5 PM.", "TOLD DR ___ AT 5 PM."),
        ("TOLD MR BROWN AND MS GREEN.", "TOLD MR ___ AND MS ___."),
        ("Told dr. Brown and dr Green of it.", "Told dr. ___ and dr ___ of it."),
        ("discussed with dr. brown today", "discussed with dr. ___ today"),
        ("Seen by Drs. Brown and Green today.", "Seen by Drs. ___ today."),
        ("Seen by Drs. Brown, Green, and Black.", "Seen by Drs. ___."),
        ("Seen by Drs. Brown/Green.", "Seen by Drs. ___."),
        ("Told Mr. and Mrs. Brown of it.", "Told Mr. and Mrs. ___ of it."),
        ("Told Dr.\u00a0Brown of it.", "Told Dr. ___ of it."),
        ("Told D\u200br. Br\u00adow\u200bn of it.", "Told Dr. ___ of it."),
        ("Told Dr. Škvorecký and Dr. Łukasz Żak.", "Told Dr. ___ and Dr. ___."),
        ("Told Dr. Şahin and Dr. C\u030capek.", "Told Dr. ___ and Dr. ___."),
        ("Told Dr. \u0418ванов and Dr. 王.", "Told Dr. ___ and Dr. ___."),
        ("Told Dr. d'Angelo and Dr. O'Brien.", "Told Dr. ___ and Dr. ___."),
        ("Told Nurse Brown and nurse Green.", "Told Nurse ___ and nurse ___."),
        ("Told Nurse practitioner Jane Brown.", "Told Nurse practitioner ___."),
        ("Told Hr. Braun, then Hrn. Grün.", "Told Hr. ___, then Hrn. ___."),
        ("Clear, as resident Lee and RN Kelly saw.", "Clear, as resident ___ and RN ___ saw."),
        ("Clear, the Surgeon Brown agrees.", "Clear, the Surgeon ___ agrees."),
        ("Visto por Don José García hoy.", "Visto por Don ___ hoy."),
        ("Vu par le Docteur Dupont et Mme Lefèvre.", "Vu par le Docteur ___ et Mme ___."),
        ("Lungs of MRN4711 are clear.", "Lungs of ___ are clear."),
        ("Told pager 5512, Pager #5513, ext. 5514.", "Told ___, ___, ___."),
        ("Told x5512 of it.", "Told ___ of it."),
        ("See portal.hospital.org/report/4711 now.", "See ___ now."),
        ("See pacs.clinic.example.de or ftp://a/b now.", "See ___ or ___ now."),
        ("A 92-year-old with a 101 y/o wife.", "A ___-year-old with a ___ y/o wife."),
        ("A ninety-two year old, aged 95.", "A ___ year old, aged ___."),
        ("Eine 95-jährige Frau, 97 Jahre.", "Eine ___-jährige Frau, ___ Jahre."),
        ("Mujer de 97 años normal.", "Mujer de ___ años normal."),
        ("The lungs are\nBROWN, JANE  MRN 4711  Page 2 of 3\nclear.", "The lungs are clear."),
        ("The lungs are\nMERCY HOSPITAL\nBrown, Jane\nPage 2 of 3\nclear.", "The lungs are clear."),
    ],
)
def test_within_a_sentence_they_leave_a_gap(sentence: str, kept: str) -> None:
    assert sections(sentence) == (kept, None)
    assert sections(f"IMPRESSION:\n\n {sentence}") == (None, kept)


@pytest.mark.parametrize(
    "clinical",
    [
        "The lungs do not show consolidation\nor effusion. Heart normal.",
        "Bibasilar opacities do not suggest pneumonia",
        "LUNGS DO NOT SHOW EFFUSION",
        "Location: right atrium.",
        "Portable DR. Chest and MR chest are clear.",
        "Dr. XXXX was told, MD aware.",
        "The patient no longer has a tube; she is DNR/DNI.",
        "No historia de tumor.",
        "Read by the emergency physician as normal.",
        "History of MS. Lungs are clear.",
        "Findings were best\nreviewed on the lateral view.",
        "Swan Ganz catheter",
        "Osteopenia, Kyphosis",
        "Mild Cardiomegaly\nAortic Ectasia",
        "LUNGS CLEAR\nNO EFFUSION\nKYPHOSIS SEEN",
        "The tip of the\nPort-A-Cath\nis in the right atrium.",
        "Ribs 8/9/10 are broken, ratio of 16.2/24.7, nodule of 1.2 x 3.4 cm, HU 400-1000.",
        "Segment 2 may represent a scar of 2010.",
        "MR ANGIOGRAPHY AND DR SYSTEM, MS PLAQUES, HISTORY OF MS.",
        "An 89-year-old. Temperature 98.6, saturation 92%, a 92 mm mass, 95 cm, 92 days, HU 92.",
        "Lungs clear.no effusion, normal.in the end, e.g. 3.5 x 4.2 cm, ribs 8.9.10.",
        "Nodule, 3 x 4512 pixels, lines x 2.",
        "The doctor said so. The nurse was told. Page 1 of the films.",
    ],
)
def test_what_is_clinical_stays_word_for_word(clinical: str) -> None:
    kept = " ".join(clinical.split())
    assert sections(clinical) == (kept, None)
    assert sections(f"FINDINGS:\n{clinical}\nIMPRESSION: Normal.") == (kept, "Normal.")
    assert sections(f"Clear.\n{clinical}\nNo fever.") == (f"Clear. {kept} No fever.", None)


def test_a_report_in_one_line_keeps_its_sections() -> None:
    report = "Name: Miller Date: 2020-01-01 Findings: Clear lungs. Impression: Normal."
    assert sections(report) == ("Clear lungs.", "Normal.")
    assert sections("Date: 2020-01-01. Clear lungs.") == ("Clear lungs.", None)


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
        for word in (text or "").replace(GAP, " ").split():
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


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "piece",
    [
        "\n",
        " ",
        "- ",
        "A. ",
        "Patient ",
        ", MD",
        "* \n",
        "Dr. A ",
        "MRN 1 ",
        "Miller, ",
        "Jane-",
        "1/2/",
        "Name: A Findings: B ",
        "*",
        "\t",
        "-*",
        "Dr.",
        "Dr.\n",
        "Drs. A, ",
        "CHEST, ",
        "TWO VIEWS: ",
        "FINDNGS: ",
        "a.b/",
        "92 ",
        "x5512 ",
        "Page 1 ",
        "Brown, MD ",
    ],
)
def test_a_report_of_nothing_but_repetition_takes_no_time(piece: str) -> None:
    for before in ("", "Name", "Dr. Brown", "FINDINGS: "):
        report = before + piece * (20_000 // len(piece))
        sections(report)
        findings_and_impression(report)


def test_the_same_texts_give_the_same_tokenizer() -> None:
    draw = random.Random(0)
    syllables = [a + b for a in "bcdfghklmnprstvw" for b in "aeiou"]
    words = ["".join(draw.choices(syllables, k=3)) for _ in range(300)]  # many equal frequencies
    texts = [" ".join(draw.choices(words, k=20)) for _ in range(300)]
    reports = [(f"patient {number}", text) for number, text in enumerate(texts)]
    documents = {train_tokenizer(reports, 400) for _ in range(4)}
    assert len(documents) == 1
    text = texts[0]
    ids, has_report = encode_reports(documents.pop(), [text], 128)
    assert has_report.all()
    assert decode_tokens(train_tokenizer(reports, 400), ids[0].tolist()) == text
