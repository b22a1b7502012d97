"""The charts of a search's report: each an SVG, as bytes, that needs nothing from outside.

A trial that went to its end is a filled dot in the colour of its AUROC; one that was stopped early is
hollow and grey: it stands at the AUROC it had then, which is not that of a whole run.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from ray_mae.evaluate.pages.charts import COLOURS, figure
from ray_mae.search.results import TrialResult
from ray_mae.search.space import Parameter, category, describe_value, short_name
from ray_mae.search.statistics import SeedStatistics

_STOPPED, _GRID, _BEST = "#9aa1ad", "#d5d9e0", "#d55e00"
_MAP = mpl.colormaps["viridis"]


def learning_curves(trials: Sequence[TrialResult], best: int | None) -> bytes:
    """Draws AUROC by share of the steps: a line per trial, the best one marked."""
    with figure(6.4, 3.2) as (axes, out):
        for trial in trials:
            if not trial.probes:
                continue
            x, y = zip(*[(p[0], p[1]) for p in trial.probes], strict=True)
            is_best = trial.number == best
            colour = _BEST if is_best else COLOURS[0] if trial.whole else _STOPPED
            axes.plot(
                x,
                y,
                color=colour,
                linewidth=2.2 if is_best else 1.1,
                alpha=1 if is_best else 0.7,
                zorder=5 if is_best else 3,
                marker="o" if len(x) == 1 else None,
                markersize=3,
            )
            if not trial.whole:
                axes.plot(x[-1], y[-1], "x", color=_STOPPED, markersize=6, zorder=4)
        axes.set_xlim(0, 102)
        axes.set(xlabel="Share of the steps, %", ylabel="Macro AUROC, validation")
        _soften(axes)
    return out.getvalue()


def importance(shares: Mapping[str, float]) -> bytes:
    """Draws the share of the variance of AUROC that each setting explains, largest first."""
    names = sorted(shares, key=lambda n: shares[n])
    with figure(5.2, 0.7 + 0.34 * len(names)) as (axes, out):
        axes.barh(range(len(names)), [shares[n] for n in names], color=COLOURS[0], height=0.6)
        for i, name in enumerate(names):
            axes.text(shares[name] + 0.01, i, f"{shares[name]:.0%}", va="center", fontsize=9.5)
        axes.set_yticks(range(len(names)), names)
        axes.set_xlim(0, 1.08 * max([*shares.values(), 0.1]))
        axes.xaxis.set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.spines[["left", "bottom"]].set_visible(False)
    return out.getvalue()


def slice_of(parameter: Parameter, trials: Sequence[TrialResult]) -> bytes:
    """Draws AUROC by the values of one setting."""
    with figure(3.6, 2.4) as (axes, out):
        scale = _Scale(parameter)
        shown = [t for t in trials if parameter.name in t.values and t.auroc is not None]
        for i, trial in enumerate(shown):
            x = scale(trial.values[parameter.name])
            if scale.names:
                x += 0.24 * ((i % 5) / 2 - 1)  # equal values side by side
            _dot(axes, x, trial)
        scale.dress(axes)
        axes.set_ylabel("AUROC")
        axes.margins(y=0.12)
        _soften(axes)
    return out.getvalue()


def parallel(parameters: Sequence[Parameter], trials: Sequence[TrialResult]) -> bytes:
    """Draws parallel coordinates: a line per trial through its settings to its AUROC."""
    shown = sorted(
        (t for t in trials if t.auroc is not None), key=lambda t: (t.whole, t.auroc or 0)
    )
    scales = [_Scale(p) for p in parameters]
    whole = [t.auroc for t in shown if t.whole and t.auroc is not None] or [0.5, 0.5]
    norm = Normalize(min(whole), max(whole) or 1)
    values = [t.auroc for t in shown if t.auroc is not None] or [0.5]
    low, high = min(values), max(values)
    with figure(1.6 * (len(parameters) + 1), 3.8) as (axes, out):
        for trial in shown:
            xs, ys = [], []
            for i, (parameter, scale) in enumerate(zip(parameters, scales, strict=True)):
                if parameter.name in trial.values:
                    xs.append(i)
                    ys.append(scale.share(trial.values[parameter.name]))
            xs.append(len(parameters))
            ys.append((trial.auroc - low) / max(high - low, 1e-9) if trial.auroc else 0)
            colour = _MAP(norm(trial.auroc or 0)) if trial.whole else _STOPPED
            axes.plot(
                xs,
                ys,
                color=colour,
                alpha=0.9 if trial.whole else 0.6,
                linewidth=1.6 if trial.whole else 0.9,
                zorder=4 if trial.whole else 2,
            )
        for i, (parameter, scale) in enumerate(zip(parameters, scales, strict=True)):
            axes.axvline(i, color="#8b92a0", linewidth=0.8, zorder=1)
            for y, text in scale.marks():
                _mark(axes, i, y, text)
            axes.text(i, 1.09, short_name(parameter.name), ha="center", va="bottom", fontsize=9)
        axes.axvline(len(parameters), color="#8b92a0", linewidth=0.8, zorder=1)
        for y, value in ((0.0, low), (1.0, high)):
            _mark(axes, len(parameters), y, f"{value:.3f}")
        axes.text(len(parameters), 1.09, "AUROC", ha="center", va="bottom", fontsize=9)
        axes.set_xlim(-0.5, len(parameters) + 0.5)
        axes.set_ylim(-0.06, 1.16)
        axes.axis("off")
    return out.getvalue()


def landscape(rows: Parameter, columns: Parameter, settings: Sequence[SeedStatistics]) -> bytes:
    """Draws a heat map of AUROC over two gridded settings, the mean over whatever else differs."""
    table = np.full((len(rows.values), len(columns.values)), np.nan)
    width = table.copy()
    for r, row in enumerate(rows.values):
        for c, column in enumerate(columns.values):
            cell = [
                t.auroc
                for s in settings
                if s.values.get(rows.name) == row and s.values.get(columns.name) == column
                for t in s.trials
            ]
            if cell:
                table[r, c] = np.mean([v for v in cell if v is not None])
                width[r, c] = np.ptp([v for v in cell if v is not None])
    with figure(1.6 + 1.0 * len(columns.values), 1.0 + 0.7 * len(rows.values)) as (axes, out):
        norm = Normalize(np.nanmin(table), max(np.nanmax(table), np.nanmin(table) + 1e-9))
        axes.imshow(table, cmap=_MAP, norm=norm, aspect="auto")
        for (r, c), value in np.ndenumerate(table):
            if np.isnan(value):
                continue
            ink = "white" if norm(value) < 0.6 else "#1d2330"
            text = f"{value:.3f}" + (f"\n± {width[r, c] / 2:.3f}" if width[r, c] else "")
            axes.text(c, r, text, ha="center", va="center", color=ink, fontsize=9.5)
        axes.set_xticks(range(len(columns.values)), [describe_value(v) for v in columns.values])
        axes.set_yticks(range(len(rows.values)), [describe_value(v) for v in rows.values])
        axes.set(xlabel=columns.name, ylabel=rows.name)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    return out.getvalue()


def by_labels(series: Mapping[str, Sequence[tuple[int, Any]]]) -> bytes:
    """Draws AUROC and interval by the number of labelled samples, a line per setting."""
    with figure(6.4, 3.4) as (axes, out):
        for k, (name, points) in enumerate(series.items()):
            colour = COLOURS[k % len(COLOURS)]
            shift = 1 + 0.03 * (k - (len(series) - 1) / 2)
            x = [n * shift for n, _ in points]
            y = np.array([e.value for _, e in points])
            ends = np.array([[e.value - e.low, e.high - e.value] for _, e in points]).T
            axes.errorbar(
                x,
                y,
                np.maximum(ends, 0),
                color=colour,
                marker="o",
                markersize=4,
                linewidth=1.4,
                label=name,
            )
        axes.set_xscale("log")
        counts = sorted({n for points in series.values() for n, _ in points})
        axes.set_xticks(counts, [f"{n:,}" for n in counts])
        axes.minorticks_off()
        axes.set(xlabel="Labelled training samples", ylabel="Macro AUROC, validation")
        axes.legend(frameon=False, fontsize=9, loc="upper left")
        _soften(axes)
    return out.getvalue()


def pareto_front(trials: Sequence[TrialResult], best: Sequence[TrialResult]) -> bytes:
    """Draws AUROC against hours of training; a line through those that no other beats in both."""
    with figure(5.2, 3.2) as (axes, out):
        for trial in trials:
            if trial.hours and trial.auroc is not None:
                _dot(axes, trial.hours, trial)
        line = sorted((t.hours, t.auroc) for t in best if t.hours and t.auroc is not None)
        if line:
            axes.step(*zip(*line, strict=True), where="post", color=_BEST, linewidth=1.4, zorder=2)
        axes.set(xlabel="Hours of training, to its end", ylabel="Macro AUROC, validation")
        _soften(axes)
    return out.getvalue()


class _Scale:
    """Where values of a setting stand on an axis: numbers as they are or by logarithm, others by name."""

    def __init__(self, parameter: Parameter) -> None:
        self._parameter = parameter
        self.names = (
            [category(v) for v in parameter.values] if parameter.kind in ("choice", "grid") else []
        )
        self._log = parameter.kind.startswith("log")

    def __call__(self, value: Any) -> float:
        return float(self.names.index(category(value)) if self.names else value)

    def share(self, value: Any) -> float:
        """In [0, 1] between the ends."""
        if self.names:
            return self.names.index(category(value)) / max(len(self.names) - 1, 1)
        low, high = self._parameter.values
        if self._log:
            low, high, value = np.log([low, high, value])
        return float((value - low) / (high - low))

    def marks(self) -> list[tuple[float, str]]:
        """Shares and texts to write at an axis."""
        return [(self.share(v), describe_value(v)) for v in self._parameter.values]

    def dress(self, axes: Axes) -> None:
        """Sets ticks and scale of the horizontal axis."""
        if self.names:
            axes.set_xticks(
                range(len(self.names)), [describe_value(v) for v in self._parameter.values]
            )
            axes.set_xlim(-0.5, len(self.names) - 0.5)
        elif self._log:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(numticks=5))
            axes.xaxis.set_minor_formatter(NullFormatter())
        elif self._parameter.kind == "int":
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def _dot(axes: Axes, x: float, trial: TrialResult) -> None:
    face = COLOURS[0] if trial.whole else "none"
    edge = COLOURS[0] if trial.whole else _STOPPED
    axes.plot(
        x, trial.auroc or 0, "o", markersize=5, markerfacecolor=face, markeredgecolor=edge, zorder=3
    )


def _mark(axes: Axes, x: float, y: float, text: str) -> None:
    box = {"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.8}
    axes.text(x, y, text, ha="center", va="center", fontsize=8, bbox=box, zorder=6)


def _soften(axes: Axes) -> None:
    axes.grid(axis="y", color=_GRID, linewidth=0.6)
    axes.set_axisbelow(True)
