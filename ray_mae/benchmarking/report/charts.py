"""Charts of the page: each a small SVG with one look for each encoder, told without colour as well."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from ray_mae.benchmarking.report.words import VIEWS, verdict
from ray_mae.benchmarking.statistics import metrics
from ray_mae.benchmarking.statistics.contrasts import NOT_TOLD, Contrast
from ray_mae.benchmarking.statistics.curves import Curve
from ray_mae.benchmarking.statistics.subgroups import Gap
from ray_mae.benchmarking.statistics.uncertainty import Score
from ray_mae.benchmarking.statistics.views import Condition
from ray_mae.evaluate.metrics import Estimate
from ray_mae.evaluate.pages.charts import FAINT, INK, SOFT, figure

LOOKS = (
    ("#0072b2", "o"), ("#d55e00", "s"), ("#009e73", "D"), ("#cc79a7", "v"), ("#8a6d00", "P"),
    ("#2b8cbe", "^"), ("#7b3294", "X"), ("#a50026", "p"), ("#1b7837", "h"), ("#e69f00", "<"),
    ("#1d2330", ">"), ("#00868b", "*"),
)  # fmt: skip
"""Colour and marker of up to twelve encoders; more take them again with another line."""
GLYPHS = {
    "o": "●", "s": "■", "D": "◆", "v": "▼", "P": "✚", "^": "▲", "X": "✖", "p": "⬟", "h": "⬢",
    "<": "◀", ">": "▶", "*": "★",
}  # fmt: skip
LINES = ("-", "--", ":", "-.")
GREY = "#a2a8b4"
"""Of encoders that saw, or may have seen, something of the test."""

Looks = Mapping[str, tuple[str, str]]


def looks(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker by encoder, in the suite's order."""
    return {name: LOOKS[i % len(LOOKS)] for i, name in enumerate(names)}


def forest(
    scores: Mapping[str, Score], of: Looks, seen: set[str], label: str, chance: float | None
) -> bytes:
    """A row for each encoder, in the planned order; grey where its pretraining saw something of the test."""
    with figure(4.6, 0.75 + 0.27 * len(scores)) as (axes, out):
        for row, (name, score) in enumerate(scores.items()):
            colour, marker = of[name]
            _point(axes, score, row, GREY if name in seen else colour, marker)
        _rows(axes, [f"{name} *" if name in seen else name for name in scores])
        if chance is not None and axes.get_xlim()[0] < chance < axes.get_xlim()[1]:
            axes.axvline(chance, color=SOFT, linewidth=0.8, linestyle=(0, (3, 3)), zorder=0)
        axes.set_xlabel(label)
    return out.getvalue()


def differences(found: Sequence[tuple[str, Contrast]], of: Looks, label: str) -> bytes:
    """Paired differences to another encoder, in the planned order; hollow where not told apart."""
    with figure(5.2, 0.8 + 0.34 * len(found)) as (axes, out):
        for row, (_, c) in enumerate(found):
            colour, marker = of[c.a]
            hollow = verdict(c).startswith(NOT_TOLD)
            _point(axes, Score(c.difference, c.low, c.high, ""), row, colour, marker, hollow=hollow)
        axes.axvline(0, color=SOFT, linewidth=0.9, zorder=0)
        _rows(axes, [name for name, _ in found])
        axes.set_xlabel(label)
    return out.getvalue()


def curve(found: Sequence[Curve], of: Looks, seen: set[str]) -> bytes:
    """By labelled studies, with bands; a cross where a goal is reached, names at the ends of the lines."""
    with figure(4.8, 3.3) as (axes, out):
        ends = []
        for k, c in enumerate(found):
            colour, marker = of[c.encoder]
            colour = GREY if c.encoder in seen else colour
            values = [s.value for s in c.scores]
            known = [s.known for s in c.scores]
            axes.fill_between(
                c.studies, [s.low for s in c.scores], [s.high for s in c.scores],
                where=known, color=colour, alpha=0.1, linewidth=0,
            )  # fmt: skip
            line = LINES[k // len(LOOKS) % len(LINES)]
            axes.plot(
                c.studies, values, line, marker=marker, color=colour, linewidth=1.3, markersize=4
            )
            reached = [n for n in c.needed if np.isfinite(n.value)]
            axes.plot(
                [n.value for n in reached], [n.goal for n in reached], "x", color=INK, markersize=6
            )
            ends.append((c.encoder, c.studies[-1], values[-1], colour))
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
        axes.xaxis.set_minor_locator(NullLocator())
        points = sorted({n for c in found for n in c.studies})
        axes.set_xticks(points if len(points) < 6 else points[:: (len(points) + 4) // 5])
        axes.margins(y=0.08)
        _labels_at_ends(axes, ends)
        axes.grid(axis="y", color=FAINT, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.set_xlabel(
            "Labelled studies" if found[0].head != "few_shot" else "Patients of each class"
        )
        axes.set_ylabel("Macro AUROC")
    return out.getvalue()


def _labels_at_ends(axes: Axes, ends: Sequence[tuple[str, float, float, str]]) -> None:
    """Names beside the ends of lines, moved apart so that none lies on another."""
    low, high = axes.get_ylim()
    step = (high - low) * 0.058
    by_height = sorted(ends, key=lambda end: end[2])
    heights = [value for _, _, value, _ in by_height]
    for i in range(1, len(heights)):
        heights[i] = max(heights[i], heights[i - 1] + step)
    over = heights[-1] - max(high - step / 2, by_height[-1][2])
    if over > 0:  # from above back down
        heights[-1] -= over
        for i in range(len(heights) - 2, -1, -1):
            heights[i] = min(heights[i], heights[i + 1] - step)
    axes.set_ylim(min(low, heights[0] - step / 2), high)
    for (name, x, value, colour), height in zip(by_height, heights, strict=True):
        axes.annotate(
            name, (x, value), xytext=(1.03, height), textcoords=axes.get_yaxis_transform(),
            va="center", fontsize=8.5, color=INK if colour == GREY else colour,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 2},
        )  # fmt: skip


def views(found: Sequence[Condition], of: Looks) -> bytes:
    """Choices of views of the same studies, an encoder's beside each other."""
    names = list(dict.fromkeys(c.views for c in found))
    encoders = list(dict.fromkeys(c.encoder for c in found))
    height = 0.12 * len(encoders) + 0.16
    with figure(4.8, 0.8 + height * len(names)) as (axes, out):
        for c in found:
            colour, marker = of[c.encoder]
            offset = (encoders.index(c.encoder) - (len(encoders) - 1) / 2) * 0.8 / len(encoders)
            _point(axes, c.score, names.index(c.views) + offset, colour, marker, size=3.8)
        _rows(axes, [VIEWS.get(n, n) for n in names])
        axes.set_xlabel("Macro AUROC, on the same studies")
    return out.getvalue()


def reliability(lines: Mapping[str, tuple[Sequence[float], Sequence[float]]], of: Looks) -> bytes:
    """Mean probability against the share that is positive, in bins of as many samples each."""
    with figure(2.6, 2.5) as (axes, out):
        most = max((max([*x, *y]) for x, y in lines.values()), default=1.0)
        most = min(1.0, most * 1.08)
        axes.plot([0, most], [0, most], color=SOFT, linewidth=0.8, linestyle=(0, (3, 3)))
        for name, (x, y) in lines.items():
            colour, marker = of[name]
            axes.plot(
                x, y, "-", marker=marker, color=colour, linewidth=0.9, markersize=3.2, alpha=0.9
            )
        axes.set_xlim(0, most)
        axes.set_ylim(0, most)
        axes.set_xlabel("Predicted", fontsize=9)
        axes.set_ylabel("Observed", fontsize=9)
    return out.getvalue()


def gaps(found: Sequence[Gap], of: Looks) -> bytes:
    """Gap between the best and the worst group, with a bar at the gap that chance alone makes."""
    with figure(4.4, 0.8 + 0.27 * len(found)) as (axes, out):
        for row, gap in enumerate(found):
            colour, marker = of[gap.encoder]
            spread = gap.spreads["auroc"]
            _point(axes, spread.gap, row, colour, marker)
            axes.plot([spread.chance] * 2, [row - 0.3, row + 0.3], color=INK, linewidth=1.6)
        _rows(axes, [gap.encoder for gap in found])
        axes.set_xlim(left=0)
        axes.set_xlabel("AUROC, best less worst group; | by chance")
    return out.getvalue()


def cost(points: Sequence[tuple[str, float, Score]], of: Looks, label: str) -> bytes:
    """Quality against what it took."""
    with figure(4.8, 3.2) as (axes, out):
        axes.set_xscale("log")
        for name, x, score in points:
            colour, marker = of[name]
            if score.known:
                axes.plot([x, x], [score.low, score.high], color=colour, linewidth=1.2)
            axes.plot(x, score.value, marker, color=colour, markersize=5.5)
            axes.annotate(
                name, (x, score.value), xytext=(6, 3), textcoords="offset points", fontsize=8.5,
                color=colour,
            )  # fmt: skip
        axes.margins(x=0.25, y=0.12)
        axes.grid(color=FAINT, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.set_xlabel(label)
        axes.set_ylabel("Mean macro AUROC")
    return out.getvalue()


def _point(
    axes: Axes,
    score: Score | Estimate,
    y: float,
    colour: str,
    marker: str,
    *,
    hollow: bool = False,
    size: float = 5,
) -> None:
    if score.known:
        axes.plot(
            [score.low, score.high], [y, y], color=colour, linewidth=1.4, solid_capstyle="butt"
        )
    face = "white" if hollow else colour
    axes.plot(score.value, y, marker, color=colour, markerfacecolor=face, markersize=size)


def _rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.45, -0.55)
    axes.locator_params(axis="x", nbins=6)
    axes.grid(axis="x", color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.spines["left"].set_visible(False)


def metric_label(metric: str) -> str:
    return f"{metrics.NAMES[metric]}{', mean over labels' if metric == 'auroc' else ''}"
