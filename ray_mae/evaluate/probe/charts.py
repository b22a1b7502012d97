"""The charts of a probe: ROC curves and reliability, each an SVG as bytes."""

import numpy as np

from ray_mae.evaluate.pages.charts import FAINT, figure, intervals, look
from ray_mae.evaluate.probe.result import FeatureScore, LabelScore, ProbeResult


def roc(result: ProbeResult, label: str) -> bytes:
    """ROC curves of one label, each feature set with its AUROC."""
    names = list(result.features)
    with figure(2.5, 2.5) as (axes, out):
        axes.set_position((0.11, 0.1, 0.86, 0.87))  # alike in all panels, and found at once
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1)
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
    with figure(3.0, 3.0) as (axes, out):
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1)
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


def forest(result: ProbeResult, labels: list[str]) -> bytes:
    """AUROC with interval of each feature set: a row for the macro mean, then one per label."""
    points = {
        name: [score.macro["auroc"], *(score.labels[n].metrics["auroc"] for n in labels)]
        for name, score in result.features.items()
    }
    return intervals(points, ["Mean over labels", *labels], "AUROC and 95 % interval", chance=0.5)
