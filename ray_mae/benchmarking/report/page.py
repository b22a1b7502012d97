"""The page of a benchmark: one file, nothing is loaded from anywhere."""

from pathlib import Path

from ray_mae.benchmarking.report import charts, exposure, folds, protocol, sections, trust
from ray_mae.benchmarking.report.cells import Section
from ray_mae.benchmarking.report.findings import Findings
from ray_mae.benchmarking.report.outlines import outlines
from ray_mae.benchmarking.report.words import cell_name, place_name, sentence
from ray_mae.benchmarking.statistics.contrasts import headline
from ray_mae.evaluate.pages.page import environment

_TEMPLATES = Path(__file__).parent / "templates"


def page(found: Findings, cautions: list[str]) -> str:
    """Returns the HTML.

    Args:
        found: what is shown.
        cautions: sentences that a reader must know before the numbers.
    """
    results = found.results
    suite = results.suite
    parts = parts_of(found)
    tests = list(dict.fromkeys(p.dataset for p in results.places))
    archives = [d.archive or name for name, d in suite.datasets.items()]
    verdicts = [
        {
            "sentence": sentence(c),
            "where": f"{place_name(c.place)}; {cell_name(c.cell)}",
            "class": c.verdict if c.verdict in ("better", "worse") else "",
        }
        for c in headline(found.contrasts, results)
    ]
    return (
        environment(_TEMPLATES)
        .get_template("benchmark.html.j2")
        .render(
            title=results.config.title,
            lead=f"{len(suite.encoders)} encoders; tasks: {len(suite.tasks)}; data sets tested on: "
            f"{len(tests)}; "
            f"fits: {len(results.fits):,}. Intervals are of 95 %.",
            generated=any("phantom" in archive.lower() for archive in archives),
            cautions=cautions,
            verdicts=verdicts,
            looks=charts.looks(list(suite.encoders)),
            glyphs=charts.GLYPHS,
            sections=parts,
        )
    )


def parts_of(found: Findings) -> list[Section]:
    """The sections, in their order."""
    return [
        sections.scores(found),
        folds.small_sets(found),
        sections.comparisons(found),
        sections.label_curves(found),
        sections.view_choices(found),
        sections.per_label(found),
        outlines(found),
        trust.calibration(found),
        sections.over_tasks(found),
        sections.costs(found),
        trust.subgroups(found),
        *trust.stored(found),
        exposure.exposure(found),
        protocol.variance(found),
        protocol.budget(found),
        protocol.flow(found),
        protocol.failures(found),
        protocol.protocol(found),
    ]
