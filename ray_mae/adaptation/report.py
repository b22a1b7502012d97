"""What an adaptation curve leaves: adapt.json, adapt.csv, summary.json and report.html."""

import csv
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.ticker import FuncFormatter, NullFormatter

from ray_mae.adaptation.curve import Point, table
from ray_mae.config.adapt import RANDOM
from ray_mae.config.base import flatten
from ray_mae.data.labels import policy_in_words
from ray_mae.evaluate.intervals import LEAST_RUNS
from ray_mae.evaluate.pages.charts import COLOURS, FAINT, GLYPHS, SOFT, figure
from ray_mae.evaluate.pages.page import environment, generated, plain, svg
from ray_mae.evaluate.probe.result import ProbeResult
from ray_mae.files import replacing, write_whole
from ray_mae.summary import write_summary

PAGE = "report.html"
_MARKERS = tuple(GLYPHS)


@dataclass(frozen=True, kw_only=True)
class CurveReport:
    """A curve, and how it was made."""

    title: str
    noun: str
    """studies or volumes"""
    reference: str
    """Name of the start that all are compared with as it came."""
    points: Sequence[Point]
    verdicts: Sequence[str]
    """A sentence for each start."""
    result: ProbeResult
    """Of all encoders."""
    exact: dict[str, int]
    """Samples that a pretraining had, by the encoder's name: patients are taken as a whole."""
    sees: str
    """What an encoder was shown of a sample."""
    cautions: Sequence[str]
    settings: dict[str, Any]


def write_curve(output: Path, report: CurveReport, began: float) -> dict[str, Any]:
    """Writes the files; returns the summary.

    Args:
        output: folder of the command.
        report: what is written.
        began: when the command did, by `time.time`.
    """
    settings = flatten(report.settings)
    content = {
        "title": report.title,
        "settings": settings,
        "points": report.points,
        "verdicts": report.verdicts,
        "trained_on": report.exact,
        "cautions": report.cautions,
        "probe": report.result.to_dict(),
    }
    write_whole(output / "adapt.json", json.dumps(plain(content), indent=1, default=str) + "\n")
    rows = table(report.points)
    with replacing(output / "adapt.csv") as file, file.open("w", newline="") as text:
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    write_whole(output / PAGE, _page(report, settings))
    return write_summary(
        output,
        {
            "command": "adapt",
            "verdicts": list(report.verdicts),
            "macro_auroc": {
                f"{p.start}, {_number(p.studies, report.noun)}": p.auroc.describe()
                for p in report.points
            },
            "gain_over_open": {
                f"{p.start}, {_number(p.studies, report.noun)}": p.gain.describe()
                for p in report.points
                if p.gain
            },
            "labels": report.result.labels,
            "left_out": report.result.left_out,
            "cautions": list(report.cautions),
            "seconds": round(time.time() - began, 1),
            "report": str(output / PAGE),
        },
    )


def _number(studies: int, noun: str) -> str:
    return f"{studies:,} {noun}" if studies else "as it came"


def _page(report: CurveReport, settings: dict[str, Any]) -> str:
    starts = list(dict.fromkeys(p.start for p in report.points))
    protocol = report.result.protocol
    return (
        environment(Path(__file__).parent / "templates")
        .get_template("adapt.html.j2")
        .render(
            report=report,
            generated=generated(settings),
            starts=starts,
            looks={s: (colour, GLYPHS[marker]) for s, (colour, marker) in _looks(starts).items()},
            curve=svg(draw(report.points, report.noun)),
            seeds=len(report.points[-1].seeds),
            least=LEAST_RUNS,
            random=RANDOM,
            policy=policy_in_words(protocol["uncertain"], protocol["unmentioned"]),
            counts=report.result.counts,
            settings=settings,
        )
    )


def _looks(starts: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each start."""
    return {
        start: (COLOURS[i % len(COLOURS)], _MARKERS[i % len(_MARKERS)])
        for i, start in enumerate(starts)
    }


def draw(points: Sequence[Point], noun: str) -> bytes:
    """AUROC by number of samples, a curve for each start, and a dashed line where it stood as it came.

    Args:
        points: of all starts.
        noun: plural of a sample.

    Returns:
        An SVG.
    """
    looks = _looks(list(dict.fromkeys(p.start for p in points)))
    with figure(6.2, 3.6) as (axes, out):
        for i, (start, (colour, marker)) in enumerate(looks.items()):
            beside = 1 + 0.02 * (i - (len(looks) - 1) / 2)  # so that bars do not hide each other
            of = [p for p in points if p.start == start]
            for p in (p for p in of if not p.studies):
                axes.axhline(p.auroc.value, color=colour, linewidth=1, linestyle=(0, (4, 3)))
            curve = [p for p in of if p.studies]
            x, y = [p.studies * beside for p in curve], [p.auroc.value for p in curve]
            axes.plot(x, y, marker + "-", color=colour, linewidth=1.4, markersize=5)
            for p in (p for p in curve if p.auroc.known):
                axes.plot(
                    [p.studies * beside] * 2,
                    [p.auroc.low, p.auroc.high],
                    color=colour,
                    linewidth=1.1,
                    alpha=0.6,
                )
        axes.set_xscale("log")
        sizes = sorted({p.studies for p in points if p.studies})
        axes.set_xticks(sizes)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel(f"{noun.capitalize()} of one's own that were pretrained on")
        axes.set_ylabel("Macro AUROC, test patients")
        axes.yaxis.label.set_color(SOFT)
        axes.margins(x=0.08, y=0.12)
        axes.grid(axis="y", color=FAINT, linewidth=0.6)
        axes.set_axisbelow(True)
    return out.getvalue()
