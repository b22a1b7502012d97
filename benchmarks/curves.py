"""Loss curves of disturbed runs beside that of the undisturbed one, as a picture."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from matplotlib.figure import Figure

from ray_mae.evaluate.pages.charts import COLOURS
from ray_mae.train.metrics.jsonl import read_jsonl
from ray_mae.train.run_folder import EVENTS, METRICS


def losses(run: Path) -> dict[int, float]:
    """By step."""
    return {r["step"]: r["loss"] for r in read_jsonl(run / METRICS)}


@dataclass
class Curve:
    """Of a run."""

    losses: dict[int, float]
    starts: list[int]
    """Steps after which it began or went on."""

    @classmethod
    def of(cls, run: Path) -> Self:
        """As its folder has it now."""
        ready = (e for e in read_jsonl(run / EVENTS) if e["event"] == "engine ready")
        return cls(losses(run), [e["first_step"] for e in ready])


def draw(undisturbed: Curve, runs: dict[str, Curve], file: Path) -> None:
    """A row for each run, by title: its losses over the undisturbed one's, and how far they differ.

    Dashed lines show where it began or went on.
    """
    figure = Figure(figsize=(10, 1.9 * len(runs)), layout="constrained")
    rows = figure.subplots(len(runs), 2, sharex=True, sharey="col", squeeze=False)
    theirs = undisturbed.losses
    for (left, right), (title, run) in zip(rows, runs.items(), strict=True):
        ours = run.losses
        left.plot([*theirs], [*theirs.values()], color="#d5d9e0", linewidth=5, label="undisturbed")
        left.plot([*ours], [*ours.values()], color=COLOURS[0], linewidth=1.2, label="this run")
        left.set_title(title, loc="left", fontsize=10)
        left.set_ylabel("loss")
        apart = [abs(loss / theirs[step] - 1) for step, loss in ours.items()]
        right.plot([*ours], apart, ".", color=COLOURS[1], markersize=3)
        right.set_yscale("symlog", linthresh=1e-8)
        right.set_ylim(0, 1)
        right.set_ylabel("relative difference")
        for step in run.starts:
            left.axvline(step, color="#59606e", linestyle="--", linewidth=0.8)
            right.axvline(step, color="#59606e", linestyle="--", linewidth=0.8)
    rows[0][0].legend(frameon=False, fontsize=8)
    for axes in rows[-1]:
        axes.set_xlabel("step")
    figure.savefig(file, dpi=110)
