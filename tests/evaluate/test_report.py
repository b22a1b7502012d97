"""The report is complete, stands alone, and shows foreign text as text."""

import csv
import json
import re
from base64 import b64decode
from html.parser import HTMLParser
from pathlib import Path

import pytest
from conftest import make_cohort, make_config, probe

from ray_mae.evaluate.probe.report import write_report
from ray_mae.evaluate.probe.result import ProbeResult
from ray_mae.number_text import significant

PNG = b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)
CURVES = [
    {"step": step, "loss": 2 / step, "reconstruction": 1 / step, "alignment": 1e-4, "caption": 0.0}
    for step in range(20, 200, 20)
]


@pytest.fixture(scope="module")
def result() -> ProbeResult:
    return probe(*make_cohort(), make_config(train_studies=200))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, result: ProbeResult) -> dict[str, Path]:
    return _written(tmp_path_factory.mktemp("report"), result)


def _written(output: Path, result: ProbeResult, **more: object) -> dict[str, Path]:
    given = {
        "title": "A run",
        "settings": {"dataset": "hospital", "method": {"mask_ratio": 0.9}, "checkpoint": Path("c")},
        "curves": CURVES,
        "pictures": [("Study 1", PNG)],
        "captions": [
            {"study_id": "s1", "true": "No <edema>.", "generated": "Edema & more."},
            {"true": "A report without an identifier.", "generated": ""},
        ],
        "cautions": ["It may have seen them."],
    }
    return write_report(output, result, **{**given, **more})  # type: ignore[arg-type]


class _References(HTMLParser):
    """Whatever an element would load or lead to."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        names = ("src", "href", "srcset", "data", "action", "poster")
        self.found += [value or "" for key, value in attrs if key in names]


def test_the_page_loads_nothing_from_outside(written: dict[str, Path]) -> None:
    page = written["html"].read_text("utf-8")
    parsed = _References()
    parsed.feed(page)
    assert parsed.found
    assert all(reference.startswith("data:image/") for reference in parsed.found)
    assert not {"script", "link", "iframe"} & set(parsed.tags)
    assert not re.search(r"@import|url\(", page)
    for figure in re.findall(r"data:image/svg\+xml;base64,([^\"]+)", page):
        svg = b64decode(figure).decode()
        assert not re.search(r"(?:href|src)=\"(?!#)", svg)


def test_the_page_names_every_label_with_its_numbers_or_its_reason(
    written: dict[str, Path], result: ProbeResult
) -> None:
    page = written["html"].read_text("utf-8")
    for name, score in result.features.items():
        assert f"{score.macro['auroc'].value:.3f}" in page
        for label, one in score.labels.items():
            assert label in page
            for e in one.metrics.values():
                assert f"<b>{significant(e.value)}</b>" in page
                assert f"[{significant(e.low)}, {significant(e.high)}]" in page
        assert name in page
    for label, reason in result.left_out.items():
        assert f"{label}: {reason}." in page
    assert "It may have seen them." in page
    for note in result.notes:
        assert note in page
    assert "method.mask_ratio" in page


def test_text_of_the_archive_is_shown_and_not_interpreted(
    tmp_path: Path, result: ProbeResult
) -> None:
    page = _written(tmp_path, result, title="<script>x</script>")["html"].read_text("utf-8")
    assert "No &lt;edema&gt;." in page
    assert "Edema &amp; more." in page
    assert "A report without an identifier." in page
    assert "<script" not in page


def test_losses_that_were_off_get_no_curve(written: dict[str, Path]) -> None:
    page = written["html"].read_text("utf-8")
    assert 'alt="Alignment by step"' in page
    assert 'alt="Caption by step"' not in page


def test_what_is_not_given_has_no_section(tmp_path: Path, result: ProbeResult) -> None:
    paths = write_report(tmp_path, result, title="A run", settings={})
    page = paths["html"].read_text("utf-8")
    for heading in ("Pretraining", "Reconstructions", "Reports, true and generated"):
        assert f"<h2>{heading}</h2>" not in page


def test_generated_data_is_called_so(
    tmp_path: Path, written: dict[str, Path], result: ProbeResult
) -> None:
    phantoms = _written(tmp_path, result, settings={"data": {"dataset": "phantoms"}})
    assert "Generated data" in phantoms["html"].read_text("utf-8")
    assert "Generated data" not in written["html"].read_text("utf-8")


def test_the_csv_has_a_row_per_set_and_label_and_macro_rows(
    written: dict[str, Path], result: ProbeResult
) -> None:
    with written["csv"].open(encoding="utf-8") as file:
        rows = {(row["features"], row["label"]): row for row in csv.DictReader(file)}
    labels = [*result.labels, "macro"]
    assert set(rows) == {(name, label) for name in result.features for label in labels}
    edema = result.features["random"].labels["Edema"]
    assert float(rows["random", "Edema"]["ece_low"]) == edema.metrics["ece"].low
    assert float(rows["random", "Edema"]["C"]) == edema.C
    assert rows["trained", "macro"]["C"] == ""


def test_the_json_holds_result_settings_and_cautions(
    written: dict[str, Path], result: ProbeResult
) -> None:
    held = json.loads(written["json"].read_text("utf-8"))
    assert held["settings"]["method.mask_ratio"] == 0.9
    assert held["notes"] == result.notes
    assert held["cautions"] == ["It may have seen them."]
    assert held["differences"]["pixels"]["value"] == result.differences["pixels"].value


def test_the_same_numbers_give_the_same_page(
    tmp_path: Path, written: dict[str, Path], result: ProbeResult
) -> None:
    again = _written(tmp_path, result)
    assert again["html"].read_bytes() == written["html"].read_bytes()


def test_a_probe_says_that_one_seed_is_no_verdict(written: dict[str, Path]) -> None:
    page = written["html"].read_text("utf-8")
    assert "another seed of either may turn a difference round" in page
    assert "better:" not in page
    assert "worse:" not in page


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.71234, "0.712"), (0.000896, "0.000896"), (-2.5e-7, "-2.5e-07"), (0.0, "0.000"), (12.5, "12.500")],
)  # fmt: skip
def test_no_number_is_hidden_by_its_decimals(value: float, text: str) -> None:
    assert significant(value) == text
