"""The figures of the report: each an SVG, as bytes, that needs nothing from outside.

Drawn on matplotlib's Figure objects: pyplot would take seconds to import and keep global state.
One small figure per panel, untitled, so that a page can name and arrange them for a wide screen,
a phone or paper.
A feature set has one colour and one marker everywhere, and can be told without the colour.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ray_mae.evaluate.metrics import Estimate
from ray_mae.evaluate.result import PIXELS, RANDOM, TRAINED, FeatureScore, LabelScore, ProbeResult

CURVES = {
    "loss": "Total loss",
    "reconstruction": "Reconstruction",
    "alignment": "Alignment",
    "caption": "Caption",
    "masked": "Masked voxels",
    "visible": "Visible voxels, weighted",
}
"""Losses drawn where the records hold them, in this order, and their titles."""

_LOOKS = {TRAINED: ("#0072b2", "o"), RANDOM: ("#d55e00", "s"), PIXELS: ("#6b7280", "^")}
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00")
"""Okabe and Ito's, which colour-blind people tell apart."""
_OTHERS = (("#009e73", "D"), ("#cc79a7", "v"), ("#8a6d00", "P"))  # Okabe and Ito's palette

GLYPHS = {"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼", "P": "✚"}
"""Of matplotlib's markers."""

_INK, _SOFT, _FAINT = "#1d2330", "#59606e", "#d5d9e0"
_STYLE: Any = {
    "font.size": 10,
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same page everywhere
    "text.color": _INK,
    "axes.edgecolor": "#8b92a0",
    "axes.labelcolor": _SOFT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
    "svg.hashsalt": "ray_mae",  # the same numbers give the same file
}


def look(name: str, names: list[str]) -> tuple[str, str]:
    """Colour and marker of one feature set among all `names`."""
    others = [n for n in names if n not in _LOOKS]
    return _LOOKS.get(name) or _OTHERS[others.index(name) % len(_OTHERS)]


@contextmanager
def drawing(width: float, height: float) -> Iterator[tuple[Axes, io.BytesIO]]:
    """Axes of width x height inches and the file they are in once the block is left."""
    out = io.BytesIO()
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure.subplots(), out
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})


def forest(result: ProbeResult, labels: list[str]) -> bytes:
    """AUROC with interval of each feature set: a row for the macro mean, then one per label."""
    points = {
        name: [score.macro["auroc"], *(score.labels[n].metrics["auroc"] for n in labels)]
        for name, score in result.features.items()
    }
    return intervals(points, ["Mean over labels", *labels], "AUROC and 95 % interval", chance=0.5)


def intervals(
    points: Mapping[str, Sequence[Estimate]], rows: list[str], label: str, chance: float | None
) -> bytes:
    """Shares with intervals, of each name in each row; the first row is a mean over the others."""
    names = list(points)
    with drawing(4.8, 0.7 + 0.4 * len(rows)) as (axes, out):
        lowest = 1.0
        for k, name in enumerate(names):
            colour, marker = look(name, names)
            offset = 0.22 * (k - (len(names) - 1) / 2)
            for row, point in enumerate(points[name]):
                lowest = np.nanmin([lowest, point.low, point.value])
                _interval(axes, point, row + offset, colour, marker)
        axes.set_yticks(range(len(rows)), rows)
        axes.get_yticklabels()[0].set_fontweight("bold")
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.axhline(0.5, color="#8b92a0", linewidth=0.8)
        axes.set_xlim(max(0.0, np.floor(lowest * 20) / 20), 1.005)
        if chance is not None and axes.get_xlim()[0] < chance:
            axes.axvline(chance, color="#8b92a0", linewidth=0.8, linestyle=(0, (3, 3)), zorder=0)
        axes.grid(axis="x", color=_FAINT, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(axis="y", length=0, labelcolor=_INK)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(label)
    return out.getvalue()


def _interval(axes: Axes, point: Estimate, y: float, colour: str, marker: str) -> None:
    axes.plot([point.low, point.high], [y, y], color=colour, linewidth=1.4, solid_capstyle="butt")
    axes.plot(point.value, y, marker, color=colour, markersize=4.5)


def roc(result: ProbeResult, label: str) -> bytes:
    """ROC curves of one label, each feature set with its AUROC."""
    names = list(result.features)
    with drawing(2.5, 2.5) as (axes, out):
        axes.set_position((0.11, 0.1, 0.86, 0.87))  # alike in all panels, and found at once
        axes.plot([0, 1], [0, 1], color=_FAINT, linewidth=1)
        for k, name in enumerate(names):
            score = result.features[name].labels[label]
            colour, _ = look(name, names)
            axes.plot(
                score.false_positive_rate,
                score.true_positive_rate,
                color=colour,
                linewidth=1.5,
                zorder=9 - k,
            )
            text = f"{name} {score.metrics['auroc'].value:.2f}"
            y = 0.06 + 0.11 * (len(names) - 1 - k)
            axes.text(1, y, text, color=colour, ha="right", zorder=10, fontsize=9.5)
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
        axes.set_xticks([0, 0.5, 1], ["0", ".5", "1"])
        axes.set_yticks([0, 0.5, 1], ["0", ".5", "1"])
    return out.getvalue()


def reliability(result: ProbeResult, name: str) -> bytes:
    """Share positive against mean probability in the 15 bins, all labels of one set together.

    The area of a dot is the share of (study, label) pairs in its bin.
    """
    colour, _ = look(name, list(result.features))
    n, probability, positive = pooled_bins(result.features[name])
    with drawing(3.0, 3.0) as (axes, out):
        axes.plot([0, 1], [0, 1], color=_FAINT, linewidth=1)
        axes.scatter(
            probability,
            positive,
            s=3 + 400 * n / n.sum(),
            color=colour,
            alpha=0.85,
            linewidth=0,
            clip_on=False,
            zorder=3,
        )
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        axes.set(xlabel="Mean probability", ylabel="Share positive")
        axes.set_xticks([0, 0.5, 1], ["0", ".5", "1"])
        axes.set_yticks([0, 0.5, 1], ["0", ".5", "1"])
    return out.getvalue()


def pooled_bins(score: FeatureScore) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Number, mean probability and share positive [B] of the bins that any label fills."""
    labels: list[LabelScore] = list(score.labels.values())
    n = np.array([[b.studies for b in label.reliability] for label in labels])  # [L, 15]
    p = np.array([[b.probability for b in label.reliability] for label in labels])
    y = np.array([[b.positive for b in label.reliability] for label in labels])
    total = n.sum(axis=0)
    filled = total > 0
    mean_p = np.where(n > 0, n * np.nan_to_num(p), 0).sum(axis=0)[filled] / total[filled]
    mean_y = np.where(n > 0, n * np.nan_to_num(y), 0).sum(axis=0)[filled] / total[filled]
    return total[filled], mean_p, mean_y


def curves(records: Sequence[dict[str, Any]]) -> dict[str, bytes]:
    """One figure per loss that the records (lines of metrics.jsonl) hold and that is not all 0."""
    figures = {}
    for key, title in CURVES.items():
        points = [(r["step"], r[key]) for r in records if r.get(key) is not None and "step" in r]
        points = [(s, v) for s, v in points if np.isfinite(v)]
        if len(points) < 2 or not any(v for _, v in points):
            continue
        steps, values = zip(*points, strict=True)
        with drawing(3.6, 2.4) as (axes, out):
            axes.plot(steps, values, color=_LOOKS[TRAINED][0], linewidth=1.4)
            axes.plot(steps[-1], values[-1], "o", color=_LOOKS[TRAINED][0], markersize=4)
            axes.annotate(
                f"{values[-1]:.3g}",
                (steps[-1], values[-1]),
                xytext=(0, 7),
                textcoords="offset points",
                ha="right",
                fontsize=9.5,
            )
            axes.margins(y=0.15)
            axes.set_xlabel("Step")
            axes.grid(axis="y", color=_FAINT, linewidth=0.6)
            axes.ticklabel_format(axis="y", scilimits=(-2, 4))
        figures[title] = out.getvalue()
    return figures


def histories(
    runs: Sequence[tuple[str, int, list[dict[str, float]]]], names: list[str], key: str
) -> bytes:
    """One figure of trainings by step: a line each, in the colour of its name, what was kept marked.

    runs: name, step of the weights kept, history.
    """
    with drawing(3.6, 2.4) as (axes, out):
        for name, kept, history in runs:
            colour, marker = look(name, names)
            points = [(record["step"], record[key]) for record in history]
            axes.plot(*zip(*points, strict=True), color=colour, linewidth=1.1, alpha=0.8)
            axes.plot(kept, dict(points)[kept], marker, color=colour, markersize=4.5)
        axes.margins(y=0.1)
        axes.set_xlabel("Step")
        axes.grid(axis="y", color=_FAINT, linewidth=0.6)
    return out.getvalue()
