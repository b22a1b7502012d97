"""Charts that several pages share: each an SVG, as bytes, that needs nothing from outside.

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

from ray_mae.evaluate.baselines import PIXELS, RANDOM, TRAINED
from ray_mae.evaluate.metrics import Estimate

CURVES = {
    "loss": "Total loss",
    "reconstruction": "Reconstruction",
    "alignment": "Alignment",
    "caption": "Caption",
    "masked": "Masked voxels",
    "visible": "Visible voxels, weighted",
}
"""Losses drawn where the records hold them, in this order, and their titles."""

HELD_OUT = "held_out/"
"""What stands before the name of a loss where it is that of validation patients."""

_LOOKS = {TRAINED: ("#0072b2", "o"), RANDOM: ("#d55e00", "s"), PIXELS: ("#6b7280", "^")}

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00")
"""Okabe and Ito's, which colour-blind people tell apart."""

_OTHERS = (("#009e73", "D"), ("#cc79a7", "v"), ("#8a6d00", "P"))  # Okabe and Ito's palette

GLYPHS = {"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼", "P": "✚"}
"""Of matplotlib's markers."""

INK, SOFT, FAINT = "#1d2330", "#59606e", "#d5d9e0"
_STYLE: Any = {
    "font.size": 10,
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same page everywhere
    "text.color": INK,
    "axes.edgecolor": "#8b92a0",
    "axes.labelcolor": SOFT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "svg.hashsalt": "ray_mae",  # the same numbers give the same file
}


def look(name: str, names: list[str]) -> tuple[str, str]:
    """Colour and marker of one feature set among all `names`."""
    others = [n for n in names if n not in _LOOKS]
    return _LOOKS.get(name) or _OTHERS[others.index(name) % len(_OTHERS)]


@contextmanager
def figure(width: float, height: float) -> Iterator[tuple[Axes, io.BytesIO]]:
    """Axes, and the SVG file they are in once the block is left.

    Args:
        width: in inches.
        height: in inches.
    """
    out = io.BytesIO()
    with mpl.rc_context(_STYLE):
        drawing = Figure(figsize=(width, height), layout="constrained")
        yield drawing.subplots(), out
        drawing.savefig(out, format="svg", transparent=True, metadata={"Date": None})


def intervals(
    points: Mapping[str, Sequence[Estimate]], rows: list[str], label: str, chance: float | None
) -> bytes:
    """Shares with intervals, of each name in each row; the first row is a mean over the others."""
    names = list(points)
    with figure(4.8, 0.7 + 0.4 * len(rows)) as (axes, out):
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
        axes.grid(axis="x", color=FAINT, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(label)
    return out.getvalue()


def _interval(axes: Axes, point: Estimate, y: float, colour: str, marker: str) -> None:
    axes.plot([point.low, point.high], [y, y], color=colour, linewidth=1.4, solid_capstyle="butt")
    axes.plot(point.value, y, marker, color=colour, markersize=4.5)


def curves(records: Sequence[dict[str, Any]]) -> dict[str, bytes]:
    """One figure per loss that the records (lines of metrics.jsonl) hold and that is not all 0.

    Where losses of validation patients stand beside it, they are a second, dashed line.
    """
    figures = {}
    for key, title in CURVES.items():
        points, held_out = _points(records, key), _points(records, f"{HELD_OUT}{key}")
        if len(points) < 2 or not any(v for _, v in points):
            continue
        with figure(3.6, 2.4) as (axes, out):
            _line(axes, points, _LOOKS[TRAINED][0], "-", "", above=not held_out)
            if held_out:
                _line(axes, held_out, _LOOKS[RANDOM][0], "--", "validation patients")
                axes.legend(frameon=False, fontsize=8.5, loc="upper right")
            axes.margins(y=0.15)
            axes.set_xlabel("Step")
            axes.grid(axis="y", color=FAINT, linewidth=0.6)
            axes.ticklabel_format(axis="y", scilimits=(-2, 4))
        figures[title] = out.getvalue()
    return figures


def probes(records: Sequence[dict[str, Any]]) -> bytes:
    """Macro AUROC of the online probe and its interval by step; empty where fewer than two told one.

    records: lines of probes.jsonl; those of probes that failed are left out.
    """
    by_step = {r["step"]: r for r in records if "probe_auroc" in r}  # of a repeated step the last
    if len(by_step) < 2:
        return b""
    steps = sorted(by_step)
    auroc, low, high = (
        [by_step[step][f"probe_auroc{end}"] for step in steps] for end in ("", "_low", "_high")
    )
    with figure(3.6, 2.4) as (axes, out):
        axes.fill_between(steps, low, high, color=_LOOKS[TRAINED][0], alpha=0.15, linewidth=0)
        _line(axes, list(zip(steps, auroc, strict=True)), _LOOKS[TRAINED][0], "-", "")
        axes.margins(y=0.15)
        axes.set_xlabel("Step")
        axes.grid(axis="y", color=FAINT, linewidth=0.6)
    return out.getvalue()


def _points(records: Sequence[dict[str, Any]], key: str) -> list[tuple[int, float]]:
    """Steps and finite values of one metric."""
    points = [(r["step"], r[key]) for r in records if r.get(key) is not None and "step" in r]
    return [(s, v) for s, v in points if np.isfinite(v)]


def _line(
    axes: Axes,
    points: Sequence[tuple[int, float]],
    colour: str,
    style: str,
    label: str,
    *,
    above: bool = True,
) -> None:
    """A line with its last value written at its end."""
    steps, values = zip(*points, strict=True)
    axes.plot(steps, values, style, color=colour, linewidth=1.4, label=label or None)
    axes.plot(steps[-1], values[-1], "o", color=colour, markersize=4)
    axes.annotate(
        f"{values[-1]:.3g}",
        (steps[-1], values[-1]),
        xytext=(0, 7 if above else -14),
        textcoords="offset points",
        ha="right",
        fontsize=9.5,
        color=colour if label else INK,
    )


def histories(
    runs: Sequence[tuple[str, int, list[dict[str, float]]]], names: list[str], key: str
) -> bytes:
    """One figure of trainings by step: a line each, in the colour of its name, its best step marked.

    runs: name, step of the best weights, history.
    """
    with figure(3.6, 2.4) as (axes, out):
        for name, best, history in runs:
            colour, marker = look(name, names)
            points = [(record["step"], record[key]) for record in history]
            axes.plot(*zip(*points, strict=True), color=colour, linewidth=1.1, alpha=0.8)
            axes.plot(best, dict(points)[best], marker, color=colour, markersize=4.5)
        axes.margins(y=0.1)
        axes.set_xlabel("Step")
        axes.grid(axis="y", color=FAINT, linewidth=0.6)
    return out.getvalue()
