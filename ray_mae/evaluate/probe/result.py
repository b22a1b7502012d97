"""Results of a probe: counts, scores and notes, as plain dataclasses that become JSON."""

from dataclasses import dataclass, field, replace
from typing import Any

from ray_mae.evaluate.cohort import SplitCount
from ray_mae.evaluate.metrics import Estimate, FloatArray, ReliabilityBin
from ray_mae.evaluate.pages.page import plain
from ray_mae.evaluate.scores import Evidence, LabelDifference

ONE_SEED = (
    "Of one checkpoint and one random encoder: the intervals cover the choice of test patients alone, and "
    "another seed of either may turn a difference round. Whether a pretraining is better or worse takes "
    "several seeds of it, or of evaluate finetune."
)
"""What the differences of a probe do not tell."""


@dataclass(frozen=True)
class LabelScore:
    """One label probed from one feature set; metrics and curves on test studies.

    Of several draws of the labelled patients metrics are the mean over them, and what has no mean is that of
    the first.
    """

    C: float
    """Inverse strength of the regularisation, as chosen; `strength` in JSON. NaN of a constant."""
    own_choice: bool
    """Whether the label chose it itself; else it is the best for the mean over all labels, for want of
    positive validation patients."""
    at_edge: str
    """smallest or largest where C is that of all there are to choose from and better than its neighbour, so
    that one beyond may be better still; else empty."""
    validation_auroc: float
    """At that C: the best of several, so optimistic; with cross-validation the mean over the folds."""
    temperature: float | None
    """What logits are divided by for the tempered metrics, by validation patients; None by folds."""
    constant: int
    """Draws in which the labelled are of one class, so that everybody is given their prevalence."""
    draws: list[float]
    """AUROC of each draw of the labelled patients."""
    metrics: dict[str, Estimate]
    false_positive_rate: list[float]
    """ROC curve, at most 200 points, for plotting."""
    true_positive_rate: list[float]
    reliability: list[ReliabilityBin]


@dataclass(frozen=True)
class FeatureScore:
    """One feature set."""

    dimensions: int
    labels: dict[str, LabelScore]
    macro: dict[str, Estimate]
    """Mean of each metric over the labels."""


@dataclass(frozen=True)
class ProbeResult:
    """All numbers of a probe."""

    features: dict[str, FeatureScore]
    """By name of the feature set; all were probed on the same labels."""
    differences: dict[str, Estimate]
    """Macro AUROC of `trained` minus that of each other set, paired by resample."""
    label_differences: dict[str, dict[str, LabelDifference]]
    """The same of each label's AUROC, by the other set and label."""
    counts: dict[str, SplitCount]
    """By split; of training with `train_studies` those of the first draw."""
    evidence: dict[str, Evidence]
    """By label, what the test patients can tell of it."""
    left_out: dict[str, str]
    """Labels without a number, and why."""
    protocol: dict[str, Any]
    """The settings behind the numbers."""
    notes: list[str]
    """What a reader should know: fits that did not converge, resamples skipped."""
    resampled: dict[str, FloatArray] = field(compare=False, repr=False)
    """[R] macro AUROC of each feature set in every resample of the test patients; not in the JSON."""

    @property
    def labels(self) -> list[str]:
        """The labels that were probed."""
        return list(next(iter(self.features.values())).labels)

    @property
    def constants(self) -> dict[str, list[str]]:
        """By feature set, labels that were constant in a draw; without sets that have none."""
        found = {
            name: [label for label, one in score.labels.items() if one.constant]
            for name, score in self.features.items()
        }
        return {name: labels for name, labels in found.items() if labels}

    @property
    def too_few(self) -> list[str]:
        """Labels of which the test patients cannot tell enough for an interval."""
        return [label for label, one in self.evidence.items() if one.interval == "none"]

    def edges(self) -> list[str]:
        """A sentence on each feature set whose C lies at the edge of its grid for some labels."""
        sentences = []
        for name, score in self.features.items():
            for edge in ("smallest", "largest"):
                labels = [label for label, one in score.labels.items() if one.at_edge == edge]
                if labels:
                    sentences.append(
                        f"{name} features: the {edge} C of strengths is the best of {', '.join(labels)}: one "
                        f"{'below' if edge == 'smallest' else 'above'} it may be better (strengths)."
                    )
        return sentences

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; NaN becomes None."""
        values = plain(replace(self, resampled={}))
        del values["resampled"]
        for name, score in values["features"].items():
            labels = score["labels"].items()
            values["features"][name]["labels"] = {
                label: {"strength": one.pop("C"), **one} for label, one in labels
            }
        return values
