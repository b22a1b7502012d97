"""What fine-tuning and segmentation leave: NAME.json, NAME.csv, summary.json and report.html."""

import csv
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ray_mae.config.base import flatten
from ray_mae.evaluate.calibration import CALIBRATION, TEMPERED
from ray_mae.evaluate.cohort import SplitCount
from ray_mae.evaluate.pages import charts
from ray_mae.evaluate.pages.page import environment, generated, plain, png, svg
from ray_mae.evaluate.supervised.comparison import MACRO, Comparison
from ray_mae.evaluate.supervised.fit import Fit
from ray_mae.evaluate.supervised.runs import MODELS, Run, write_json
from ray_mae.files import replacing, write_whole
from ray_mae.summary import write_summary

REPORT = "report.html"


@dataclass(frozen=True, kw_only=True)
class ComparisonReport:
    """What a comparison of runs gave, and how."""

    command: str
    """finetune or segment: also the name of the files."""
    title: str
    lead: str
    chance: float | None
    """Of the main metric, to be marked in the figure."""
    comparison: Comparison
    runs: list[tuple[Run, Fit]]
    samples_per_batch: int
    noun: str
    """studies or volumes"""
    protocol: Mapping[str, str]
    """How the numbers come about."""
    limits: Sequence[str]
    """What they do not show."""
    cautions: Sequence[str]
    """What a reader must know before the numbers."""
    settings: dict[str, Any]
    counts: dict[str, SplitCount]
    """By split, of labels; empty without any."""
    policy: dict[str, str]
    """What label states count as, by setting."""
    samples: dict[str, int]
    """By split."""
    left_out: dict[str, str]
    """Labels, classes or samples without a number, and why."""
    pictures: Sequence[tuple[str, bytes]]
    """Title and PNG."""


def write_comparison(output: Path, report: ComparisonReport, began: float) -> dict[str, Any]:
    """Writes NAME.json, NAME.csv, report.html and summary.json.

    Args:
        output: folder of the command.
        report: what is written.
        began: when the command did, by `time.time`.

    Returns:
        The summary.
    """
    output.mkdir(parents=True, exist_ok=True)
    comparison = report.comparison
    budget = _budget(report)
    write_json(
        output / f"{report.command}.json",
        plain(
            {
                "title": report.title,
                "settings": flatten(report.settings),
                "starts": comparison.initialisations,
                "differences": comparison.differences,
                "evidence": comparison.evidence,
                "runs": [
                    {"start": run.initialisation, "seed": run.seed, **asdict(fit)}
                    for run, fit in report.runs
                ],
                "budget": budget,
                "counts": report.counts,
                "samples": report.samples,
                "left_out": report.left_out,
                "protocol": dict(report.protocol),
            }
        ),
    )
    _write_csv(output / f"{report.command}.csv", comparison)
    write_whole(output / REPORT, _page(report))
    macro = {name: rows[MACRO] for name, rows in comparison.initialisations.items()}
    summary = {
        "command": f"evaluate {report.command}",
        "checkpoint": str(report.settings["checkpoint"]),
        report.noun: report.samples,
        "rows": [row for row in comparison.rows if row != MACRO],
        **report.policy,
        "left_out": report.left_out,
        **(
            {"too_few_to_tell": [n for n, e in comparison.evidence.items() if e.interval == "none"]}
            if comparison.evidence
            else {}
        ),
        "cautions": list(report.cautions),
        "budget": budget,
        **{
            f"macro_{metric}": {name: means[metric].describe() for name, means in macro.items()}
            for metric in comparison.metrics
        },
        "spread_over_seeds": {name: means[comparison.main].spread for name, means in macro.items()},
        "difference": {
            metric: difference.describe()
            for metric, difference in comparison.differences.get(MACRO, {}).items()
        },
        **({"verdict": verdict} if (verdict := comparison.verdict()) else {}),
        "kept_step": {run.name: fit.step for run, fit in report.runs},
        "seconds": round(time.time() - began, 1),
        "models": str(output / MODELS),
        "report": str(output / REPORT),
    }
    write_summary(output, plain(summary))
    return summary


def _budget(report: ComparisonReport) -> dict[str, dict[str, int]]:
    """What each initialisation had, the same for all its runs."""
    budget = {}
    for run, fit in report.runs:
        budget[run.initialisation] = {
            "steps": fit.steps,
            "samples": fit.batches * report.samples_per_batch,
            "validations": len(fit.history),
        }
    same = {tuple(values.values()) for values in budget.values()}
    assert len(same) == 1, "initialisations had the same budget"
    return budget


def _write_csv(path: Path, comparison: Comparison) -> None:
    """One row per initialisation, label or class, and seed, and one for the mean over seeds."""
    records = comparison.table()
    with replacing(path) as whole, whole.open("w", newline="", encoding="utf-8") as file:
        rows = csv.DictWriter(file, list(records[0]))
        rows.writeheader()
        rows.writerows(records)


def _page(report: ComparisonReport) -> str:
    comparison, main = report.comparison, report.comparison.main
    names = list(comparison.initialisations)
    looks = {name: charts.look(name, names) for name in names}
    points = {
        name: [comparison.initialisations[name][row][main] for row in comparison.rows]
        for name in names
    }
    rows = ["Mean", *comparison.rows[1:]]
    label = f"{comparison.metrics[main]} and 95 % interval"
    histories = [(run.initialisation, fit.step, fit.history) for run, fit in report.runs]
    settings = flatten(report.settings)
    extra = CALIBRATION | TEMPERED
    return (
        environment()
        .get_template("comparison.html.j2")
        .render(
            report=report,
            comparison=comparison,
            first=[m for m in comparison.metrics if m not in extra],
            calibration=[m for m in comparison.metrics if m in extra],
            generated=generated(settings),
            macro=MACRO,
            initialisations=names,
            rows=list(zip(comparison.rows, rows, strict=True)),
            colours={name: colour for name, (colour, _) in looks.items()},
            markers={name: charts.GLYPHS[marker] for name, (_, marker) in looks.items()},
            forest=svg(charts.intervals(points, rows, label, report.chance)),
            curves=[
                (title, svg(charts.histories(histories, names, key)))
                for key, title in (
                    ("validation_score", f"Validation {comparison.metrics[main]}"),
                    ("loss", "Training loss"),
                    ("validation_loss", "Validation loss"),
                )
            ],
            pictures=[(title, png(image)) for title, image in report.pictures],
            settings=settings,
        )
    )
