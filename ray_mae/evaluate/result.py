"""What a probe found: counts, scores and notes, as plain dataclasses that become JSON."""

from dataclasses import asdict, dataclass, is_dataclass
from typing import Any

import numpy as np

from ray_mae.evaluate.metrics import Estimate, ReliabilityBin

TRAINED, RANDOM, PIXELS = "trained", "random", "pixels"
"""Names of the feature sets: the checkpoint, the same encoder untrained, raw-pixel PCA."""


@dataclass(frozen=True)
class LabelCount:
    """Studies of one split by their target for one label."""

    positive: int
    negative: int
    ignored: int


@dataclass(frozen=True)
class SplitCount:
    """What one split holds, after the choice of training studies."""

    studies: int
    patients: int
    labels: dict[str, LabelCount]
    """All labels, also those left out."""


@dataclass(frozen=True)
class LabelScore:
    """One label probed from one feature set; all but the first two on test studies."""

    strength: float
    """The C chosen."""
    validation_auroc: float
    """At that C: the best of the strengths, so optimistic."""
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
    counts: dict[str, SplitCount]
    """By split."""
    left_out: dict[str, str]
    """Labels without a number, and why."""
    protocol: dict[str, Any]
    """The settings that made the numbers."""
    notes: list[str]
    """What a reader should know: fits that did not converge, resamples skipped."""

    @property
    def labels(self) -> list[str]:
        """The labels that were probed."""
        return list(next(iter(self.features.values())).labels)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; NaN becomes None."""
        return plain(self)


def plain(value: Any) -> Any:
    """Dataclasses and containers as plain values for JSON; what is not finite becomes None."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
