"""What fine-tuning and segmentation leave: NAME.json, NAME.csv, summary.json and report.html."""

import csv
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ray_mae.config.base import flatten
from ray_mae.evaluate.cohort import SplitCount
from ray_mae.evaluate.pages import charts
from ray_mae.evaluate.pages.page import environment, generated, plain, png, svg
from ray_mae.evaluate.supervised.comparison import MACRO, Comparison, in_words
from ray_mae.evaluate.supervised.fit import Fit
from ray_mae.evaluate.supervised.runs import MODELS, Run, write_json
from ray_mae.summary import write_summary

REPORT = "report.html"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Everything that a comparison of runs found and how."""

    command: str
    """finetune or segment: also the name of the files."""
    title: str
    lead: str
    main: str
    """The metric that the page and the summary begin with."""
    chance: float | None
    """Of the main metric, to be marked in the figure."""
    comparison: Comparison
    runs: list[tuple[Run, Fit]]
    samples_per_batch: int
    noun: str
    """studies or volumes"""
    protocol: Mapping[str, str]
    """How the numbers were made."""
    limits: Sequence[str]
    """What they do not show."""
    cautions: Sequence[str]
    """What a reader must know before the numbers."""
    settings: dict[str, Any]
    counts: dict[str, SplitCount] = field(default_factory=dict)
    """By split."""
    samples: dict[str, int] = field(default_factory=dict)
    """By split, where `counts` does not tell."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Labels, classes or samples without a number, and why."""
    pictures: Sequence[tuple[str, bytes]] = ()
    """Title and PNG."""

    @property
    def of_splits(self) -> dict[str, int]:
        """Samples of each split."""
        return self.samples or {name: count.studies for name, count in self.counts.items()}


def write_comparison(output: Path, finding: Finding, began: float) -> dict[str, Any]:
    """Write the four files; returns the summary. began: when the command did."""
    output.mkdir(parents=True, exist_ok=True)
    comparison = finding.comparison
    budget = _budget(finding)
    write_json(
        output / f"{finding.command}.json",
        plain(
            {
                "title": finding.title,
                "settings": flatten(finding.settings),
                "starts": comparison.starts,
                "differences": comparison.differences,
                "runs": [
                    {"start": run.start, "seed": run.seed, **asdict(fit)}
                    for run, fit in finding.runs
                ],
                "budget": budget,
                "counts": finding.counts,
                "samples": finding.of_splits,
                "left_out": finding.left_out,
                "protocol": dict(finding.protocol),
            }
        ),
    )
    _write_csv(output / f"{finding.command}.csv", comparison)
    (output / REPORT).write_text(_page(finding), "utf-8")
    macro = {start: rows[MACRO] for start, rows in comparison.starts.items()}
    summary = {
        "command": f"evaluate {finding.command}",
        "checkpoint": str(finding.settings["checkpoint"]),
        finding.noun: finding.of_splits,
        "rows": [row for row in comparison.rows if row != MACRO],
        "left_out": finding.left_out,
        "cautions": list(finding.cautions),
        "budget": budget,
        **{
            f"macro_{metric}": {start: in_words(found[metric]) for start, found in macro.items()}
            for metric in comparison.metrics
        },
        "spread_over_seeds": {start: found[finding.main].spread for start, found in macro.items()},
        "difference": {
            metric: in_words(found)
            for metric, found in comparison.differences.get(MACRO, {}).items()
        },
        "kept_step": {run.name: fit.step for run, fit in finding.runs},
        "seconds": round(time.time() - began, 1),
        "models": str(output / MODELS),
        "report": str(output / REPORT),
    }
    write_summary(output, plain(summary))
    return summary


def _budget(finding: Finding) -> dict[str, dict[str, int]]:
    """What each start was given, the same for all its runs."""
    found = {}
    for run, fit in finding.runs:
        found[run.start] = {
            "steps": fit.steps,
            "samples": fit.batches * finding.samples_per_batch,
            "validations": len(fit.history),
        }
    assert len({tuple(b.values()) for b in found.values()}) == 1, "starts had the same budget"
    return found


def _write_csv(path: Path, comparison: Comparison) -> None:
    """One row per start, label or class, and seed, and one for the mean over seeds."""
    records = comparison.table()
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.DictWriter(file, list(records[0]))
        rows.writeheader()
        rows.writerows(records)


def _page(finding: Finding) -> str:
    comparison = finding.comparison
    starts = list(comparison.starts)
    looks = {start: charts.look(start, starts) for start in starts}
    main = finding.main
    points = {
        start: [comparison.starts[start][row][main] for row in comparison.rows] for start in starts
    }
    rows = ["Mean", *comparison.rows[1:]]
    label = f"{comparison.metrics[main]} and 95 % interval"
    histories = [(run.start, fit.step, fit.history) for run, fit in finding.runs]
    settings = flatten(finding.settings)
    return (
        environment()
        .get_template("comparison.html.j2")
        .render(
            finding=finding,
            comparison=comparison,
            generated=generated(settings),
            macro=MACRO,
            starts=starts,
            rows=list(zip(comparison.rows, rows, strict=True)),
            colours={start: colour for start, (colour, _) in looks.items()},
            markers={start: charts.GLYPHS[marker] for start, (_, marker) in looks.items()},
            forest=svg(charts.intervals(points, rows, label, finding.chance)),
            curves=[
                (name, svg(charts.histories(histories, starts, key)))
                for key, name in (
                    ("validation_score", f"Validation {comparison.metrics[main]}"),
                    ("loss", "Training loss"),
                    ("validation_loss", "Validation loss"),
                )
            ],
            pictures=[(name, png(image)) for name, image in finding.pictures],
            settings=settings,
        )
    )
